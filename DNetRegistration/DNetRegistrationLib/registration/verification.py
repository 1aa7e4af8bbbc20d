"""Is it the same bone, and does it lie right? A probability and an expected error, calibrated on known pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.images import BoneImage, PreparedScan
from .refinement import Refined, edge_template, motion, motion_jacobian
from .similarity import Similarity, overlap_correlation, similarity

# Accepted at this confidence and above. A littermate's bone can look like the same one, moved: of 356 impostors two
# reached 0.57, of 998 right poses four stayed below 0.7.
ACCEPT = 0.7
# A pose is determined when its correlation falls by at least this much; real tibiae fall by several times as much.
DETERMINED = 0.03
# Less than this share of the bone in common is not enough to tell.
LEAST_SHARE = 0.2
# Some hundred known pairs cannot tell 0.999 from certainty.
MOST_LOGIT = 6.9
CALIBRATION = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on, measured at the working spacing.

    Attributes:
        similarity: agreement over the overlap.
        disagreement: between the two directions of refinement, as a share of the working spacing.
        spacing: voxel size in mm at which refinement ended.
        determination: by how much the correlation falls when the bone is moved by two working voxels the way that
            changes it least. A ball can be turned, a straight shaft shifted, and nothing falls.
    """

    similarity: Similarity
    disagreement: float
    spacing: float
    determination: float = 1.0

    def features(self) -> np.ndarray:
        """Numbers that a logistic and a log-linear model can weigh."""
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


@dataclass(frozen=True)
class Verdict:
    """`confidence` 0 to 1 that the error is below one working voxel, and the `expected_error` in mm."""

    confidence: float
    expected_error: float
    evidence: Evidence

    @property
    def accepted(self) -> bool:
        return self.confidence >= ACCEPT


def verify(
    fixed: PreparedScan, moving: PreparedScan, refined: Refined, bones: tuple[CorticalBone, CorticalBone]
) -> Verdict:
    """Judges a refined pose, given the cortical bone of both scans."""
    first, second = fixed.levels[-1], moving.levels[-1]
    working = fixed.cube.spacing
    evidence = Evidence(
        similarity(first, second, refined.pose, bones),
        refined.disagreement / working,
        refined.spacing,
        determination(first, second, refined.pose, 2 * working),
    )
    return Verdict(*judge(evidence, working), evidence)


def determination(fixed: BoneImage, moving: BoneImage, pose: Tensor, size: float) -> float:
    """By how much the correlation falls for the least felt of rigid motions of `size` mm, to both sides."""
    template = edge_template(fixed, 4000)
    jacobian = motion_jacobian(template)
    # Eigenvectors in ascending order: the first three motions are those that change the image least.
    weakest = torch.linalg.eigh((jacobian.T @ jacobian).cpu().double()).eigenvectors[:, :3].T
    steps = size * torch.cat((torch.zeros(1, 6), weakest, -weakest)).double()
    poses = pose @ motion(steps, template.center, template.radius)
    scores = overlap_correlation(fixed, moving, poses)
    return float(scores[0] - scores[1:].max())


def judge(evidence: Evidence, working: float) -> tuple[float, float]:
    """Confidence, and expected error in mm, of some evidence at a working spacing in mm.

    The expected error of an accepted pose is that of a right one; how likely it is right, the confidence says.
    """
    model = calibration()
    features = evidence.features()
    confidence = float(1 / (1 + np.exp(-np.clip(features @ model["confidence"], -MOST_LOGIT, MOST_LOGIT))))
    confidence *= float(np.clip(evidence.determination / DETERMINED, 0, 1)) ** 2
    # Slivers of two strangers may well agree, and there are too few of them among known pairs to learn it.
    confidence *= float(np.clip(evidence.similarity.share / LEAST_SHARE, 0, 1)) ** 2
    ended = np.log(evidence.spacing / working)
    right = float(np.exp(np.append(features, ended) @ model["log_error"]) * working)
    if confidence >= ACCEPT:
        return confidence, right
    # A wrong pose is off by about the size of the bone, whatever the agreement says of a right one.
    return confidence, confidence * right + (1 - confidence) * model["wrong_error_voxels"] * working


@cache
def calibration() -> dict:
    """The fitted weights, and how and on what they were fitted."""
    model = json.loads(CALIBRATION.read_text())
    return {**model, "confidence": np.array(model["confidence"]), "log_error": np.array(model["log_error"])}
