"""Verification: the probability that a pose is right and its expected error, calibrated on known pairs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from .refinement import Refined, motion, motion_jacobian
from .similarity import Similarity, overlap_correlation, similarity
from .template import edge_template

# Accepted at this confidence and above. A littermate's bone can look like the same one, moved: of 356 impostors two
# reached 0.57, of 998 right poses four stayed below 0.7.
ACCEPT = 0.7
# A pose is determined if the correlation falls by at least this much about it. Of real tibiae it falls several times
# as much.
DETERMINED = 0.03
# A smaller share of the bone in common is not enough to tell.
LEAST_SHARE = 0.2
# Confidence is capped: the calibration set, some hundred known pairs, is too small to resolve more.
MOST_LOGIT = 6.9
CALIBRATION = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True)
class Evidence:
    """What a decision rests on, measured at the working spacing.

    Attributes:
        similarity: agreement over the overlap.
        disagreement: between the two directions of refinement, as a share of the working spacing.
        spacing: voxel size in mm at which refinement ended.
        determination: fall of the correlation when the bone is moved by two working voxels in the direction that
            changes it least. It is 0 for a ball, which can be turned, and for a straight shaft, which can be shifted.
    """

    similarity: Similarity
    disagreement: float
    spacing: float
    determination: float = 1.0

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


@dataclass(frozen=True)
class Verdict:
    """The judgement of a pose.

    Attributes:
        confidence: 0 to 1, that the target registration error is below one working voxel.
        expected_error: estimate of that error, in mm.
        evidence: what the two rest on.
    """

    confidence: float
    expected_error: float
    evidence: Evidence

    @property
    def accepted(self) -> bool:
        return self.confidence >= ACCEPT

    def sentence(self, mirrored: bool = False) -> str:
        """Says whether to trust the pose and, if not, what to check.

        Args:
            mirrored: the mirror image of the moving scan fits.
        """
        if self.accepted:
            return f"Accepted: the bones lie on each other, to within about {1000 * self.expected_error:.1f} um."
        similarity = self.evidence.similarity
        if mirrored:
            reason = (
                "one scan shows the mirror image of the other. Check for slices read in reverse order, or a left and a "
                "right leg."
            )
        elif self.evidence.determination < DETERMINED and similarity.correlation > 0.8:
            reason = (
                "what both scans show looks the same after it is turned or shifted, so that no one pose is determined. "
                "Check that the fields of view hold more than a straight piece of shaft."
            )
        elif similarity.share < 0.3:
            reason = (
                "the scans seem to show little of the same bone. Check that both fields of view hold the same part of "
                "it."
            )
        else:
            reason = (
                "no pose makes the two bones agree. Check that both scans are of the same bone, that the voxel "
                "spacings are right, and that the bone thresholds part bone from everything else."
            )
        return f"Not accepted: {reason}"


def verify(
    fixed: PreparedScan, moving: PreparedScan, refined: Refined, bones: tuple[CorticalBone, CorticalBone]
) -> Verdict:
    """Judges a refined pose, with the cortical bone of both scans."""
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
    """The fall of the correlation for that rigid motion of `size` mm, to either side, which changes it least."""
    template = edge_template(fixed, 4000)
    jacobian = motion_jacobian(template)
    # Eigenvectors come by ascending eigenvalue: the first three motions change the image least.
    weakest = torch.linalg.eigh((jacobian.T @ jacobian).cpu().double()).eigenvectors[:, :3].T
    steps = size * torch.cat((torch.zeros(1, 6), weakest, -weakest)).double()
    poses = pose @ motion(steps, template.center, template.radius)
    scores = overlap_correlation(fixed, moving, poses)
    return float(scores[0] - scores[1:].max())


def judge(evidence: Evidence, working: float) -> tuple[float, float]:
    """Confidence and expected error in mm of some evidence, at a working spacing in mm.

    The expected error of an accepted pose is that of a right pose. The confidence says how likely it is right.
    """
    model = calibration()
    features = evidence.features()
    confidence = float(1 / (1 + np.exp(-np.clip(features @ model["confidence"], -MOST_LOGIT, MOST_LOGIT))))
    confidence *= float(np.clip(evidence.determination / DETERMINED, 0, 1)) ** 2
    # Slivers of two strangers may agree, and the known pairs hold too few of them to learn it.
    confidence *= float(np.clip(evidence.similarity.share / LEAST_SHARE, 0, 1)) ** 2
    ended = np.log(evidence.spacing / working)
    right = float(np.exp(np.append(features, ended) @ model["log_error"]) * working)
    if confidence >= ACCEPT:
        return confidence, right
    # A wrong pose is off by about the size of the bone, whatever its agreement.
    return confidence, confidence * right + (1 - confidence) * model["wrong_error_voxels"] * working


@cache
def calibration() -> dict:
    """The fitted weights, with how and on what they were fitted."""
    model = json.loads(CALIBRATION.read_text())
    return {**model, "confidence": np.array(model["confidence"]), "log_error": np.array(model["log_error"])}
