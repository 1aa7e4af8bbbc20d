"""The evidence on which the judgement of a pose rests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .similarity import Similarity

# Cortices of right poses overlap with a Dice of 0.63 or more, also where the thresholds were badly chosen. Where a pose
# makes the overlap no better than it was by `DICE_GAIN`, what lay still in both scans may have been aligned (metal, a
# holder), so that more is asked for. Scans that lie on each other from the start reach it.
LEAST_DICE, DICE_GAIN, LEAST_DICE_WITHOUT_GAIN = 0.5, 0.02, 0.75


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on, measured at the working spacing.

    Attributes:
        similarity: agreement over the overlap.
        disagreement: between the two directions of refinement, as a share of the working spacing.
        spacing: voxel size in mm at which refinement ended.
        determination: fall of the correlation when the bone is moved by two working voxels in the direction that
            changes it least. It is 0 for a ball, which can be turned, and for a straight shaft, which can be shifted.
        dice_before, dice: overlap of the cortices as the scans lie in the world, and in the pose.
    """

    similarity: Similarity
    disagreement: float
    spacing: float
    determination: float = 1.0
    dice_before: float = 0.0
    dice: float = 1.0

    @property
    def least_dice(self) -> float:
        """The Dice that the cortices need in the pose."""
        return LEAST_DICE if self.dice > self.dice_before + DICE_GAIN else LEAST_DICE_WITHOUT_GAIN

    def features(self) -> np.ndarray:
        """``(6,)`` numbers for a logistic and a log-linear model."""
        s = self.similarity
        return np.array(
            (
                1.0,
                np.arctanh(np.clip(s.correlation, -0.99, 0.999)),
                np.arctanh(np.clip(s.edge_correlation, -0.99, 0.999)),
                np.arctanh(np.clip(s.trabecular_correlation, -0.99, 0.999)),
                np.log(np.clip(s.share, 0.02, 1.0)),
                np.log(np.clip(self.disagreement, 1e-3, 10.0)),
            )
        )
