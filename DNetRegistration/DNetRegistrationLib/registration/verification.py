"""Verification: the probability that a pose is right and its expected error, calibrated on known pairs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from .evidence import Evidence, find_evidence
from .holders import ScanPair
from .refinement import Refined
from .verdict import ACCEPT, REASONS, Doubt, Verdict

# A pose is determined if refinement takes back at least this share of a motion by a working voxel: 0.9 and more for
# bones, slender ones among them. What can be turned or shifted reaches it only by chance, and then it has rivals.
DETERMINED = 0.7
# A smaller share of the bone in common, of that scan in which it is more, is not enough to tell.
LEAST_SHARE = 0.3
# Confidence is capped: the calibration set, some hundred known pairs, is too small to resolve more.
MOST_LOGIT = 6.9
CALIBRATION = Path(__file__).with_name("calibration.json")


def verify(pair: ScanPair, refined: Refined) -> Verdict:
    """Judges a refined pose; if it is not accepted, without what lies still in both scans, such as a holder."""
    verdict = _judged(pair, refined)
    found = None if verdict.accepted else pair.without_still(refined.pose)
    return verdict if found is None else max(verdict, _judged(found[0], refined), key=lambda one: one.confidence)


def _judged(pair: ScanPair, refined: Refined) -> Verdict:
    evidence = find_evidence(pair.fixed, pair.moving, refined, pair.bones, pair.dice_before)
    return judged(evidence, pair.fixed.cube.spacing)


def judged(evidence: Evidence, working: float) -> Verdict:
    """The verdict on some evidence, at a working spacing in mm."""
    confidence, error = judge(evidence, working)
    return Verdict(confidence, error, evidence, () if confidence >= ACCEPT else (_reason(evidence),))


def _reason(evidence: Evidence) -> Doubt:
    """The likeliest reason why a pose with this evidence is not accepted."""
    similarity = evidence.similarity
    if evidence.determination < DETERMINED and similarity.correlation > 0.8:
        kind = "undetermined"
    elif evidence.dice < evidence.least_dice and similarity.correlation > 0.8:
        kind = "cortices"
    elif similarity.larger_share < LEAST_SHARE:
        kind = "little in common"
    else:
        kind = "no agreement"
    return Doubt(kind, REASONS[kind])


def judge(evidence: Evidence, working: float) -> tuple[float, float]:
    """Confidence and expected error in mm of some evidence, at a working spacing in mm.

    The expected error of an accepted pose is that of a right pose. The confidence says how likely it is right.
    """
    model = calibration()
    features = evidence.features(working)
    confidence = float(1 / (1 + np.exp(-np.clip(features @ model["confidence"], -MOST_LOGIT, MOST_LOGIT))))
    confidence *= float(np.clip(evidence.determination / DETERMINED, 0, 1)) ** 2
    # Slivers of two strangers may agree, and the known pairs hold too few of them to learn it.
    confidence *= float(np.clip(evidence.similarity.larger_share / LEAST_SHARE, 0, 1)) ** 2
    confidence *= float(np.clip(evidence.dice / evidence.least_dice, 0, 1)) ** 2
    right = float(np.exp(evidence.error_features(working) @ model["log_error"]) * working)
    if confidence >= ACCEPT:
        return confidence, right
    # A wrong pose is off by about the size of the bone, whatever its agreement.
    return confidence, confidence * right + (1 - confidence) * model["wrong_error_voxels"] * working


@cache
def calibration() -> dict:
    """The fitted weights, with how and on what they were fitted."""
    model = json.loads(CALIBRATION.read_text())
    return {**model, "confidence": np.array(model["confidence"]), "log_error": np.array(model["log_error"])}
