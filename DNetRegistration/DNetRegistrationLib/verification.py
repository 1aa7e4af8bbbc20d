"""Is it the same bone, and does it lie right? A probability and an expected error, calibrated on known pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .preprocessing import PreparedScan
from .refinement import Refined
from .similarity import Similarity, similarity

# Accepted at this confidence and above.
ACCEPT = 0.5
CALIBRATION = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on, measured at the working spacing.

    Attributes:
        similarity: agreement over the overlap.
        disagreement: between the two directions of refinement, as a share of the working spacing.
        spacing: voxel size in mm at which refinement ended.
    """

    similarity: Similarity
    disagreement: float
    spacing: float

    def features(self) -> np.ndarray:
        """Numbers that a logistic and a log-linear model can weigh."""
        s = self.similarity
        return np.array(
            (
                1.0,
                np.arctanh(np.clip(s.correlation, -0.99, 0.999)),
                np.arctanh(np.clip(s.edge_correlation, -0.99, 0.999)),
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


def verify(fixed: PreparedScan, moving: PreparedScan, refined: Refined) -> Verdict:
    """Judges a refined pose."""
    first, second = fixed.levels[-1], moving.levels[-1]
    working = fixed.cube.spacing
    evidence = Evidence(similarity(first, second, refined.pose), refined.disagreement / working, refined.spacing)
    return Verdict(*judge(evidence, working), evidence)


def judge(evidence: Evidence, working: float) -> tuple[float, float]:
    """Confidence, and expected error in mm, of some evidence at a working spacing in mm."""
    model = calibration()
    features = evidence.features()
    confidence = float(1 / (1 + np.exp(-np.clip(features @ model["confidence"], -30, 30))))
    ended = np.log(evidence.spacing / working)
    right = float(np.exp(np.append(features, ended) @ model["log_error"]) * working)
    # A wrong pose is off by about the size of the bone, whatever the agreement says of a right one.
    return confidence, confidence * right + (1 - confidence) * model["wrong_error_voxels"] * working


@cache
def calibration() -> dict:
    """The fitted weights, and how and on what they were fitted."""
    model = json.loads(CALIBRATION.read_text())
    return {**model, "confidence": np.array(model["confidence"]), "log_error": np.array(model["log_error"])}
