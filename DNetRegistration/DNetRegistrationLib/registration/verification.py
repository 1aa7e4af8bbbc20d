"""Verification: the probability that a pose is right and its expected error, calibrated on known pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special
from torch import Tensor

from ..core.threads import small_work
from .endosteum import Misfit, endosteal_misfit
from .evidence import Evidence, alike_greys, find_evidence
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
# The inner surfaces of the cortices are asked where the confidence lies between these, and above them too of what is
# held as loosely as a piece of shaft, which has little else that tells it.
ASKED, LOOSE = (0.3, 0.98), 8.0
# The odds change by how likely the misfit is of one bone against how likely of two relatives. Of one bone its square is
# 0 within an error of so many of its deviations and this much more: of 176 right pairs six lay above by one such error
# or more, one of them by more than two, whose scans differ in blur by 1.25 voxels. Relatives' inner surfaces are any of
# these numbers of voxels apart: of 33 pieces of shaft of two littermates 0.036 and more.
NOISE, LEFT, APART = 1.5, 1e-4, np.geomspace(0.02, 0.1, 64)
# It speaks for a pose by no more than this, since the pose may still have slid along the shaft.
MOST_FOR = 1.9
# What it speaks against stays as likely as this share of what all else says, and so is told of.
MISTAKEN = 0.05
# By so many voxels edges are displaced alike over much of a bone, by agent, blur, what changed and the grids. In voxels
# of 80 um, the true errors of 57 pieces of shaft, 21 slender bones and 24 plain pairs, which are held very differently,
# were 0.42, 0.35 and 0.28 um times their looseness (medians), of six bones in voxels of 40 um 0.07.
PULL = 0.005
# The expected error is about half of what most errors stay below. Of 54 noisy pieces of shaft half slid by 2.1 times
# what noise lets them slide, and nine in ten by less than 4.7 times, since inside and edges hold the same noise; by
# edges alone 1.2 and 2.7 times.
SLIDE, SLIDE_BY_EDGES = 2.0, 1.4
CALIBRATION = Path(__file__).with_name("calibration.json")


@small_work()
def verify(pair: ScanPair, refined: Refined) -> Verdict:
    """Judges a refined pose; if it is not accepted, without what lies still in both scans, such as a holder."""
    verdict = _judged(pair, refined)
    found = None if verdict.accepted else pair.without_still(refined.pose)
    return verdict if found is None else max(verdict, _judged(found[0], refined), key=lambda one: one.confidence)


def _judged(pair: ScanPair, refined: Refined) -> Verdict:
    evidence = find_evidence(pair.fixed, pair.moving, refined, pair.bones, pair.dice_before)
    verdict = judged(evidence, pair.fixed.cube.spacing)
    most = 1.0 if evidence.held.looseness >= LOOSE else ASKED[1]
    misfit = inner_misfit(pair, refined.pose, evidence) if ASKED[0] <= verdict.confidence < most else None
    return verdict if misfit is None else judged(replace(evidence, misfit=misfit), pair.fixed.cube.spacing)


def inner_misfit(pair: ScanPair, pose: Tensor, evidence: Evidence) -> Misfit | None:
    """The misfit of the inner surfaces; None where it is not seen, or where rays of metal move them."""
    scans = pair.fixed, pair.moving
    if any(scan.native.scale.bright is not None for scan in scans):
        return None
    return endosteal_misfit(alike_greys(scans, pair.bones, evidence.blurs), pair.bones, pose)


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
    elif evidence.misfit is not None and log_odds(evidence.misfit) < 0:
        kind = "shape"
    else:
        kind = "no agreement"
    return Doubt(kind, REASONS[kind])


def log_odds(misfit: Misfit) -> float:
    """What the inner surfaces add to the logarithm of the odds: the likelihood ratio of one bone and two relatives."""
    error = float(np.hypot(NOISE * misfit.deviation, LEFT))
    likely = [-(((misfit.square - square) / error) ** 2) / 2 for square in (0.0, APART**2)]
    odds = float(likely[0] - special.logsumexp(likely[1]) + np.log(len(APART)))
    return min(odds, MOST_FOR)  # in this order NaN stays NaN, which accepts nothing


def judge(evidence: Evidence, working: float) -> tuple[float, float]:
    """Confidence and expected error in mm of some evidence, at a working spacing in mm.

    The expected error of an accepted pose is that of a right pose. The confidence says how likely it is right.
    """
    model = calibration()
    features = evidence.features(working)
    logit = float(np.clip(features @ model["confidence"], -MOST_LOGIT, MOST_LOGIT))
    confidence = float(1 / (1 + np.exp(-logit)))
    if evidence.misfit is not None:
        logit += log_odds(evidence.misfit)
        confidence = max(float(1 / (1 + np.exp(-logit))), MISTAKEN * confidence)
    confidence *= float(np.clip(evidence.determination / DETERMINED, 0, 1)) ** 2
    # Slivers of two strangers may agree, and the known pairs hold too few of them to learn it.
    confidence *= float(np.clip(evidence.similarity.larger_share / LEAST_SHARE, 0, 1)) ** 2
    confidence *= float(np.clip(evidence.dice / evidence.least_dice, 0, 1)) ** 2
    right = float(np.exp(evidence.error_features(working) @ model["log_error"]) * working)
    pulled = PULL * evidence.spacing * evidence.held.looseness
    by_edges = SLIDE_BY_EDGES * evidence.spacing / working * evidence.held.scatter
    slid = by_edges if evidence.scatter is None else SLIDE * evidence.scatter
    right = float(np.linalg.norm((right, pulled, slid)))
    if confidence >= ACCEPT:
        return confidence, right
    # A wrong pose is off by about the size of the bone, whatever its agreement.
    return confidence, confidence * right + (1 - confidence) * model["wrong_error_voxels"] * working


@cache
def calibration() -> dict:
    """The fitted weights, with how and on what they were fitted."""
    model = json.loads(CALIBRATION.read_text())
    return {**model, "confidence": np.array(model["confidence"]), "log_error": np.array(model["log_error"])}
