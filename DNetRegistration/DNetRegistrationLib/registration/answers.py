"""Refines and verifies the poses that were proposed until one is accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..core.errors import ScanError, Setting
from ..core.threads import small_work
from .holders import ScanPair
from .hypotheses import hypotheses_of, ranked_poses
from .inputs import AlignmentInputs
from .interior import refine_fully
from .layers import without_layer
from .preparation import PreparedPair
from .refinement import Refined, distance, resolutions
from .verdict import Doubt, Verdict
from .verification import verify
from .watch import Watch

# A pose that correlates less than this over its overlap, roughly refined, does not come to be accepted. Right ones of
# cut scans correlate by 0.81 or more there.
HOPELESS = 0.7


@dataclass(frozen=True)
class Answer:
    """A refined pose, and the verdict on it.

    Attributes:
        hypothesis: what proposed it.
        refined, verdict: the pose and the verdict.
        pair: what it was refined and judged on.
        doubts: what limits it where a layer was left out of the pair.
    """

    hypothesis: str
    refined: Refined
    verdict: Verdict
    pair: ScanPair
    doubts: tuple[Doubt, ...] = ()


def best_answer(pair: PreparedPair, inputs: AlignmentInputs, watch: Watch) -> Answer:
    """The first hypothesis that verifies, or the most likely one if none does."""
    best = None
    seen: list[Tensor] = []

    def same(one: Tensor, other: Tensor) -> bool:
        return distance(one, other, pair.fixed.place) < pair.fixed.cube.spacing / 2

    for hypothesis, poses, seen_by in hypotheses_of(pair, inputs, watch):
        if len(poses) == 0:
            continue
        watch.tell(0.6, "Refining")
        with watch.stage("refine"):
            ranked = ranked_poses(seen_by, poses, inputs.refine, watch.check)
        # The pose that agrees most in a small overlap may be wrong and the next one right: verification tells.
        for pose, correlation in ranked:
            if best is not None and (correlation < HOPELESS or any(same(pose, other) for other in seen)):
                continue
            answer = _answered(pair, seen_by, pose, hypothesis, inputs.refine, watch)
            seen.append(answer.refined.pose)
            if best is None or answer.verdict.confidence > best.verdict.confidence:
                best = answer
            if best.verdict.accepted:
                return best
            # All further poses of what can be turned or shifted are as good as this one.
            if answer.verdict.undetermined:
                break
    if best is None:
        problem, remedy = "the network proposed no pose for these scans", "let the search propose poses too"
        raise ScanError(problem, remedy, Setting("hypotheses", value="auto"))
    return best


@small_work()
def _answered(pair: ScanPair, seen_by: ScanPair, pose: Tensor, hypothesis: str, refine: str, watch: Watch) -> Answer:
    """A pose refined as what proposed it sees the pair, and judged.

    If it is not accepted, it is refined and judged without a layer that one scan shows on the bone.
    """
    with watch.stage("refine"):
        refined = refined_near(seen_by, pose, refine, watch.check)
    with watch.stage("verify"):
        answer = Answer(hypothesis, refined, verify(pair, refined), pair)
        found = None if answer.verdict.accepted else without_layer(pair, refined.pose)
    if found is None:
        return answer
    bare, doubts = found
    with watch.stage("refine"):
        refined = refined_near(bare, refined.pose, refine, watch.check)
    with watch.stage("verify"):
        without = Answer(hypothesis, refined, verify(bare, refined), bare, doubts)
    return max(answer, without, key=lambda one: one.verdict.confidence)


def refined_near(pair: ScanPair, pose: Tensor, refine: str, check: Callable[[], None]) -> Refined:
    """A pose refined at the working spacing; with "none" the pose itself, judged by where refinement would lead."""
    led = refine_fully(pair, pose, False, lambda fraction: check())
    if refine == "none":
        return Refined(pose, led.disagreement + distance(pose, led.pose, pair.fixed.place), led.spacing)
    return led


def to_native(answer: Answer, watch: Watch) -> Refined:
    """The pose refined to native resolution, unless that leads away from the pose at the working spacing."""
    pair, pose = answer.pair, answer.refined.pose
    fixed, moving = pair.fixed, pair.moving
    if len(resolutions(fixed, moving)) == 1:
        return answer.refined
    report = watch.within(0.65, 0.9, "Refining to native resolution")
    refined = refine_fully(pair, pose, True, report)
    if distance(pose, refined.pose, fixed.place) > fixed.cube.spacing:
        if answer.verdict.accepted:
            watch.warnings.append(
                "Refinement to native resolution moved the bone by more than a working voxel and was left out; "
                "look for noise or artefacts in the scans."
            )
        return answer.refined
    return refined
