"""The way of one pair: prepared, answered, refined to native resolution, examined."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from ..core.errors import ScanError
from ..geometry.transforms import require_rigid
from .answers import Answer, best_answer, to_native
from .examination import examine, jump_of
from .inputs import AlignmentInputs
from .interior import refine_fully
from .media import MediumChange, find_medium_change
from .mirror import fits_mirrored
from .moved_rest import find_moved_rest
from .other_size import size_fault
from .pieces import surely_held
from .preparation import PreparedPair, grey_fault_of, prepared
from .refinement import distance
from .result import Alignment
from .slips import given_against_file
from .verdict import SEVERAL, VAGUE, one_of_several
from .verification import verify
from .watch import Watch


def align_pair(inputs: AlignmentInputs, device: torch.device, watch: Watch, parted: bool = False) -> Alignment:
    """Aligns one pair as one bone; `parted` says that bones that moved on their own were looked for, and none found."""
    start = time.perf_counter()
    pair = prepared(inputs, device, watch)
    answer = best_answer(pair, inputs, watch)
    if watch.network_ran and answer.hypothesis == "search":
        watch.warnings.append("The network's proposals did not verify; the search over all rotations found this pose.")

    refined = answer.refined
    if inputs.refine == "native":
        with watch.stage("refine"):
            refined = to_native(answer, watch)
    if watch.posed is not None:
        watch.posed(require_rigid(refined.pose.numpy()), pair.bones)
    with watch.stage("verify"):
        if refined is not answer.refined:
            answer = replace(answer, refined=refined, verdict=verify(answer.pair, refined))
        settled = answer.verdict.accepted or answer.verdict.undetermined
        mirrored = not settled and fits_mirrored(pair, answer.verdict, inputs.network, watch)
        verdict = answer.verdict.because("mirrored") if mirrored else answer.verdict
        if not (mirrored or verdict.accepted):
            fault = grey_fault_of(pair, inputs)
            verdict = verdict if fault is None else verdict.because(fault.kind, fault.sentence)
        watch.tell(0.9, "Looking for what speaks against it")
        verdict, kept = examine(verdict, answer.pair, answer.refined.pose, watch.check)
        # Where nothing fits, what one scan shows more of need not be a layer: its voxels may be too large.
        if verdict.accepted:
            verdict = replace(verdict, doubts=(*verdict.doubts, *answer.doubts))
        # A holder that stood still has pulled at the pose.
        if kept is not answer.pair and inputs.refine != "none":
            report = watch.within(0.9, 1.0, "Refining again without what stood still")
            led = refine_fully(kept, answer.refined.pose, inputs.refine == "native", report)
            answer = replace(answer, refined=led)
        # Of bones that are aligned one by one, one may stand still.
        alone = inputs.bone is None and inputs.thresholds == (None, None)
        if verdict.accepted and alone and _stood_still(pair, inputs, answer, device, watch):
            verdict = replace(verdict, confidence=0.0).because("standstill")
        vague = not (verdict.accepted or mirrored) and verdict.doubts[0].kind in VAGUE
        jump = jump_of(verdict, answer.pair, answer.refined.pose) if vague else None
        if jump is not None:
            verdict = verdict.because("slices", jump.sentence)
        elif not (verdict.accepted or mirrored) and verdict.doubts[0].kind != "strain":
            sentence = size_fault(pair, inputs, answer.refined.pose, device, watch)
            verdict = verdict if sentence is None else verdict.because("strain", sentence)
        given = given_against_file(inputs.fixed, inputs.moving)
        if not verdict.accepted and given is not None and verdict.doubts[0].kind in VAGUE:
            # What was found of a size speaks for it.
            found = f" {verdict.doubts[0].sentence}" if verdict.doubts[0].kind == "strain" else ""
            verdict = verdict.because("voxel size", given + found)
        if inputs.bone is None and not (parted or verdict.accepted) and verdict.doubts[0].kind in SEVERAL:
            held = surely_held(answer.pair.fixed, answer.pair.moving, answer.refined.pose, watch.check)
            verdict = verdict if held is None else verdict.because("several bones", one_of_several(held))
    matrix, center = require_rigid(answer.refined.pose.numpy()), pair.fixed.place.center
    # Only the threshold that the program finds lies half way up, from which the bone's contrast is known.
    medium = _medium_change(pair, matrix) if verdict.accepted and inputs.thresholds[0] is None else None
    network = inputs.network if watch.network_ran else None
    watch.tell(1.0, "Done")
    watch.seconds["total"] = time.perf_counter() - start
    return Alignment(
        matrix=matrix,
        accepted=verdict.accepted,
        confidence=_reported(verdict.confidence),
        expected_error_um=_reported(1000 * verdict.expected_error),
        dice_before=verdict.evidence.dice_before,
        dice=verdict.evidence.dice,
        hypothesis=answer.hypothesis,
        seconds=watch.seconds,
        translation_mm=matrix[:3, :3] @ center + matrix[:3, 3] - center,
        verdict=verdict.sentence,
        reason=verdict.reason,
        doubts=[*(doubt.kind for doubt in verdict.doubts), *(["metal"] if pair.has_metal else [])],
        warnings=watch.warnings,
        surroundings="" if medium is None else medium.sentence,
        device=str(device),
        network=None if network is None else network.network.name,
        weights_sha256=None if network is None else network.card["sha256"],
        network_spread_um=1000 * watch.network_spread,
        fixed_threshold=pair.fixed.native.scale.threshold,
        moving_threshold=pair.moving.native.scale.threshold,
        working_spacing=pair.fixed.cube.spacing,
        mirrored=mirrored,
    )


def _reported(value: float) -> float:
    """To nine digits: further ones tell nothing, and the same result twice is the same to the last byte."""
    return float(f"{value:.9g}")


def _stood_still(
    pair: PreparedPair, inputs: AlignmentInputs, answer: Answer, device: torch.device, watch: Watch
) -> bool:
    """Whether a pose is that of something in the scanner, and a bone that is less bright moved."""
    rest = find_moved_rest(pair.fixed, pair.moving, (inputs.fixed, inputs.moving), answer.refined.pose)
    if rest is None:
        return False
    masks, thresholds = (rest[0].mask, rest[1].mask), (rest[0].threshold, rest[1].threshold)
    beside = replace(inputs, masks=masks, thresholds=thresholds, initial=None, refine="working")
    if inputs.network is not None:  # to be sure that nothing there is a bone would take the search too long
        beside = replace(beside, hypotheses="dnet")
    try:
        found = align_pair(beside, device, watch.part(0.9, 1.0))
    except ScanError:
        return False
    moved = distance(torch.from_numpy(found.matrix), answer.refined.pose, pair.fixed.place)
    return found.accepted and moved > pair.fixed.cube.spacing


def _medium_change(pair: PreparedPair, matrix: np.ndarray) -> MediumChange | None:
    scale = pair.fixed.native.scale
    # The threshold that was found lies half way between bone and what is around it.
    height = 2 * (scale.maximum - scale.threshold)
    return find_medium_change(*pair.bones, matrix, height, pair.fixed.cube.spacing)
