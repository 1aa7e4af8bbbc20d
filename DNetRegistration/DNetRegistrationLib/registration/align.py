"""Aligns two scans: prepares them, proposes poses, refines and verifies the best."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypedDict, overload

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone, cortical_bone
from ..bone.cube import CanonicalCube
from ..bone.greys import GreyFault, grey_fault
from ..bone.images import native_scan, pool_image
from ..bone.prepare import PreparedScan, prepare
from ..bone.threshold import BoneScale, BrightPiece, find_bone_scale, without_metal
from ..core.errors import ScanError, Setting
from ..core.threads import of_both, torch_threads
from ..geometry.transforms import require_rigid
from ..imaging.padding import with_data
from ..imaging.volume import Volume
from ..networks.weights import LoadedWeights
from .devices import choose_device, device_fault
from .examination import examine
from .holders import ScanPair
from .inputs import AlignmentInputs, checked_inputs
from .interior import refine_fully
from .layers import may_have_layer, peeled, without_layer
from .media import MediumChange, find_medium_change
from .motions import find_motions
from .moved_rest import find_moved_rest
from .proposal import Proposal, propose
from .refinement import Refined, distance, gauss_newton, resolutions
from .result import Alignment, AlignmentCancelled, Bone
from .search import FAST, FINE, cube_image, distinct_indices, search
from .similarity import overlap_scores
from .slips import slips
from .strain import Strain, find_strain
from .strain_cause import Cause
from .template import edge_template
from .verdict import Doubt, Verdict
from .verification import verify

if TYPE_CHECKING:
    import SimpleITK as sitk
    from typing_extensions import Unpack

STAGES = ("preprocess", "dnet", "search", "refine", "verify")
# Fewer edge voxels than this do not fix a pose.
LEAST_EDGES = 27
# At most this many poses of one hypothesis are verified, until one is accepted.
VERIFIED = 4
# A pose that correlates less than this over its overlap, roughly refined, does not come to be accepted. Right ones of
# cut scans correlate by 0.81 or more there.
HOPELESS = 0.7
# A strain is fitted from a rigid pose where one bone is larger by less (natural logarithm). The cortices of one bone in
# two scans differed in thickness by 3 to 4 % (standard deviation; 42 pairs), in views of a part of it too.
LEAST_LARGER = 0.08
# Of bones aligned one by one, more than this share of the bone in none of them is told.
UNEXPLAINED = 0.3


class _Options(TypedDict, total=False):
    """The options of `align` but `bone`, which says what it returns."""

    threshold: float | tuple[float | None, float | None] | None
    spacing: float | None
    fixed_mask: Volume | sitk.Image | np.ndarray | None
    moving_mask: Volume | sitk.Image | np.ndarray | None
    initial: np.ndarray | None
    device: str
    weights: str | os.PathLike | None
    hypotheses: Literal["auto", "dnet", "search"]
    refine: Literal["native", "working", "none"]
    threads: int | None
    progress: Callable[[float, str], None] | None
    cancelled: Callable[[], bool] | None
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None


@overload
def align(
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    *,
    bone: Literal["largest"] | None = None,
    **options: Unpack[_Options],
) -> Alignment: ...
@overload
def align(
    fixed: Volume | sitk.Image, moving: Volume | sitk.Image, *, bone: Literal["each"], **options: Unpack[_Options]
) -> list[Alignment]: ...
def align(
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    *,
    threshold: float | tuple[float | None, float | None] | None = None,
    spacing: float | None = None,
    fixed_mask: Volume | sitk.Image | np.ndarray | None = None,
    moving_mask: Volume | sitk.Image | np.ndarray | None = None,
    initial: np.ndarray | None = None,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
    hypotheses: Literal["auto", "dnet", "search"] = "auto",
    refine: Literal["native", "working", "none"] = "native",
    bone: Literal["largest", "each"] | None = None,
    threads: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None = None,
) -> Alignment | list[Alignment]:
    """Aligns two scans of one bone in any orientation; or of several bones, each of which moved on its own.

    Args:
        fixed, moving: `Volume` or SimpleITK images. They are not changed.
        threshold: bone is above, in the scans' units. None finds it; one number is for both scans; of a pair (fixed,
            moving) either may be None.
        spacing: working spacing in mm. None takes 0.08 mm or, for a larger bone, what lets it fill the canonical cube.
        fixed_mask, moving_mask: Volumes or SimpleITK images on any grid, or arrays of the scans' shapes. Bone is looked
            for only where they are above 0. `read_mask` reads files.
        initial: ``(4, 4)`` fixed to moving, LPS mm, tried first.
        device: "auto", "cpu", "cuda" (or "cuda:1", ...), "mps".
        weights: name of shipped weights, or a path; None is the shipped default.
        hypotheses: "dnet" (the network alone), "search" (the search alone), or "auto": the network, where its weights
            are installed, then the search if no proposal verifies.
        refine: "native", "working" (end at the working spacing) or "none" (the hypothesis as it is).
        bone: None aligns all bone in view as one. "largest" and "each" are for bones that moved on their own, as those
            of a knee: the scans are parted into them, and the largest or each one is aligned as if masks had marked it
            in both scans. A bone that is marked by masks of your own needs no `bone`.
        threads: of the CPU. None takes what torch is set to, but no more than the processors that this process may use.
            A forked process always uses one. Results with other numbers differ by rounding, up to 1e-6 mm.
        progress: called with a fraction, 0 to 1, and a message.
        cancelled: called often; when it returns true, `AlignmentCancelled` is raised.
        posed: called as soon as a pose is refined, before it is examined, with ``(4, 4)`` fixed to moving, LPS mm, and
            the cortical bone of the fixed and the moving scan. Nothing vouches for the pose yet, and what is examined
            may lead to another one. Called again where the work is done anew; not called where `bone` is given.

    Returns:
        Alignment: of the best pose. Where no pose verified, ``accepted`` is False. For "each", a list of them, the
        largest bone first; `Alignment.bone` says which one it is. It is None where no bone was found by itself, and the
        alignment is that of all bone.

    Raises:
        ScanError: something is wrong with a scan or its mask.
        OptionError: another argument has a value that cannot be used.
        FileError: the weights file cannot be read.
        AlignmentCancelled: see `cancelled`.
    """
    inputs = checked_inputs(
        fixed,
        moving,
        threshold=threshold,
        spacing=spacing,
        fixed_mask=fixed_mask,
        moving_mask=moving_mask,
        initial=initial,
        weights=weights,
        hypotheses=hypotheses,
        refine=refine,
        bone=bone,
    )
    watch, chosen = _Watch(progress, cancelled, posed), choose_device(device)
    watch.warnings.extend(slips(inputs.fixed, inputs.moving))
    run = _align if bone is None else _align_bones
    with torch_threads(threads):
        try:
            return run(inputs, chosen, watch)
        except (RuntimeError, TypeError) as error:
            why = device_fault(error)
            if chosen.type == "cpu" or why is None:
                raise
        # Outside the `except` block the traceback is gone, and with it the device memory that it holds.
        if chosen.type == "cuda":
            torch.cuda.empty_cache()
        watch.warnings.append(f"{chosen} {why}; the CPU did the work instead.")
        return run(inputs, torch.device("cpu"), watch)


@dataclass
class _Watch:
    """Progress, cancelling, time by stage and warnings."""

    progress: Callable[[float, str], None] | None
    cancelled: Callable[[], bool] | None
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    warnings: list[str] = field(default_factory=list)
    fraction: float = 0.0
    network_ran: bool = False
    network_spread: float = math.nan

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise AlignmentCancelled("the alignment was cancelled")

    def tell(self, fraction: float, message: str) -> None:
        """Reports progress. The fraction never falls, although a stage may be run again."""
        self.check()
        self.fraction = max(self.fraction, fraction)
        if self.progress is not None:
            self.progress(self.fraction, message)

    def part(self, start: float, end: float) -> _Watch:
        """A watch for a part of the work that takes the progress from `start` to `end`."""
        return _Watch(lambda fraction, message: self.tell(start + fraction * (end - start), message), self.cancelled)

    def within(self, start: float, end: float, message: str) -> Callable[[float], None]:
        """Returns a report for a step that takes the progress from `start` to `end`."""
        return lambda fraction: self.tell(start + fraction * (end - start), message)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


class _Pair(ScanPair):
    @property
    def has_outline(self) -> bool:
        return self.fixed.has_outline and self.moving.has_outline

    @property
    def has_metal(self) -> bool:
        return any(scan.native.scale.bright is not None for scan in (self.fixed, self.moving))

    def mirrored(self) -> _Pair:
        """The fixed scan, and the mirror image of the moving one."""
        return _Pair(self.fixed, self.moving.mirrored(), (self.bones[0], self.bones[1].mirrored()))


@dataclass(frozen=True)
class _Answer:
    """A refined pose, and the verdict on it.

    Attributes:
        hypothesis: what proposed it.
        refined, verdict: the pose and the verdict.
        pair: what it was refined and judged on.
        layer: a sentence about a layer that was left out of it, or an empty one.
    """

    hypothesis: str
    refined: Refined
    verdict: Verdict
    pair: ScanPair
    layer: str = ""


def _reported(value: float) -> float:
    """To nine digits: further ones tell nothing, and the same result twice is the same to the last byte."""
    return float(f"{value:.9g}")


def _align(inputs: AlignmentInputs, device: torch.device, watch: _Watch) -> Alignment:
    start = time.perf_counter()
    pair = _prepared(inputs, device, watch)
    answer = _best_answer(pair, inputs, watch)
    if watch.network_ran and answer.hypothesis == "search":
        watch.warnings.append("The network's proposals did not verify; the search over all rotations found this pose.")

    refined = answer.refined
    if inputs.refine == "native":
        with watch.stage("refine"):
            refined = _to_native(answer, watch)
    if watch.posed is not None:
        watch.posed(require_rigid(refined.pose.numpy()), pair.bones)
    with watch.stage("verify"):
        if refined is not answer.refined:
            answer = replace(answer, refined=refined, verdict=verify(answer.pair, refined))
        settled = answer.verdict.accepted or answer.verdict.undetermined
        mirrored = not settled and _mirrored(pair, inputs.network, watch)
        verdict = answer.verdict.because("mirrored") if mirrored else answer.verdict
        if not (mirrored or verdict.accepted):
            fault = _grey_fault(pair, inputs)
            verdict = verdict if fault is None else verdict.because(fault.kind, fault.sentence)
        watch.tell(0.9, "Looking for what speaks against it")
        verdict, kept = examine(verdict, answer.pair, answer.refined.pose, watch.check)
        # Where nothing fits, what one scan shows more of need not be a layer: its voxels may be too large.
        if answer.layer and verdict.accepted:
            verdict = replace(verdict, doubts=(*verdict.doubts, Doubt("layer", answer.layer)))
        # A holder that stood still has pulled at the pose.
        if kept is not answer.pair and inputs.refine != "none":
            report = watch.within(0.9, 1.0, "Refining again without what stood still")
            led = refine_fully(kept, answer.refined.pose, inputs.refine == "native", report)
            answer = replace(answer, refined=led)
        # Of bones that are aligned one by one, one may stand still.
        alone = inputs.bone is None and inputs.thresholds == (None, None)
        if verdict.accepted and alone and _stood_still(pair, inputs, answer, device, watch):
            verdict = replace(verdict, confidence=0.0).because("standstill")
        if not (verdict.accepted or mirrored) and verdict.doubts[0].kind != "strain":
            sentence = _strained(pair, inputs, answer.refined.pose, device, watch)
            verdict = verdict if sentence is None else verdict.because("strain", sentence)
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


def _align_bones(inputs: AlignmentInputs, device: torch.device, watch: _Watch) -> Alignment | list[Alignment]:
    """Parts the scans into bones that moved on their own, and aligns the largest one, or a list of each."""
    start = time.perf_counter()

    def scans(
        masks: Sequence[np.ndarray] | None, thresholds: tuple[float, float] | None, spacing: float | None
    ) -> tuple[PreparedScan, PreparedScan]:
        own = inputs if masks is None else _only(inputs, masks)
        own = replace(own, thresholds=thresholds or inputs.thresholds, spacing=spacing or inputs.spacing)
        return _scans(own, device, watch)

    def proposed(first: CanonicalCube, second: CanonicalCube) -> Tensor:
        watch.tell(0.1, "Looking for bones that moved on their own")
        poses = [torch.empty(0, 4, 4, dtype=torch.float64)]
        if inputs.initial is not None:
            poses.append(inputs.initial[None])
        if inputs.network is not None:
            poses.append(_proposal(inputs.network, first, second).poses)
        if inputs.hypotheses != "dnet":
            poses.append(search(first, second, FAST, lambda fraction: watch.check()))
        return torch.cat(poses)

    with watch.stage("search"):
        motions = find_motions(scans, proposed)
    parting, aligned = time.perf_counter() - start, []
    for number, motion in enumerate(motions):
        one = replace(_only(inputs, motion.masks), initial=motion.pose)
        part = watch.part(0.3 + 0.7 * number / len(motions), 0.3 + 0.7 * (number + 1) / len(motions))
        try:
            alignment = _align(one, device, part)
        except ScanError:
            # A piece that shows too little of its surface is none to align.
            continue
        if not (motion.sure or alignment.accepted):
            continue
        aligned.append((alignment, motion))
        if inputs.bone == "largest":
            break
    if not aligned:
        whole = _align(replace(inputs, bone=None), device, watch)
        return [whole] if inputs.bone == "each" else whole
    count = len(motions) if inputs.bone == "largest" else len(aligned)
    found = []
    for number, (alignment, motion) in enumerate(aligned, 1):
        alignment = replace(alignment, bone=Bone(number, count, motion.share, motion.center, motion.masks))
        if alignment.hypothesis == "initial":
            alignment = replace(alignment, hypothesis="dnet" if inputs.hypotheses == "dnet" else "search")
        found.append(alignment)
    rest = 1 - sum(motion.share for motion in (motions if inputs.bone == "largest" else [one for _, one in aligned]))
    if rest > UNEXPLAINED:
        watch.warnings.append(
            f"{100 * rest:.0f} % of the bone in the fixed scan belongs to no bone that was found: another one may have "
            "moved on its own there, or changed, or lie outside the moving scan."
        )
    # What all share counts once, also where several rounds of the search told it.
    found[0].warnings[:0] = dict.fromkeys(watch.warnings)
    for stage, seconds in (*watch.seconds.items(), ("total", parting)):
        found[0].seconds[stage] = found[0].seconds.get(stage, 0.0) + seconds
    return found if inputs.bone == "each" else found[0]


def _only(inputs: AlignmentInputs, masks: Sequence[np.ndarray]) -> AlignmentInputs:
    """The inputs with masks ``(z, y, x)`` within which bone is looked for, beside those that were given."""
    first, second = (place if mask is None else place & mask for place, mask in zip(masks, inputs.masks, strict=True))
    return replace(inputs, masks=(first, second))


def _prepared(inputs: AlignmentInputs, device: torch.device, watch: _Watch) -> _Pair:
    """Finds the bone in both scans, and prepares what search, refinement and verification look at."""
    fixed, moving = _scans(inputs, device, watch)
    with watch.stage("verify"):
        watch.tell(0.15, "Outlining the cortices")
        volumes = inputs.fixed, inputs.moving
        masks = _looked_at(fixed), _looked_at(moving)
        thresholds = fixed.native.scale.threshold, moving.native.scale.threshold
        bones = of_both(cortical_bone, volumes, thresholds, (fixed.cube.spacing,) * 2, masks)
        watch.check()
        # The depth is computed on first use and kept: here cancelling is checked before and after.
        of_both(lambda bone: bone.depth, bones)
    return _Pair(fixed, moving, bones)


def _scans(inputs: AlignmentInputs, device: torch.device, watch: _Watch) -> tuple[PreparedScan, PreparedScan]:
    """Finds the bone in both scans, and prepares what search and refinement look at."""
    watch.tell(0.0, "Looking for bone")
    with watch.stage("preprocess"):
        volumes = inputs.fixed, inputs.moving
        masks = with_data(volumes[0], inputs.masks[0]), with_data(volumes[1], inputs.masks[1])
        scales = of_both(_bone_scale, volumes, inputs.thresholds, masks, ("fixed", "moving"))
        watch.warnings += [_brightness(v, s.bright) for v, s in zip(volumes, scales, strict=True) if s.bright]
        masks = of_both(without_metal, volumes, scales, masks)
        watch.check()
        first, second = of_both(native_scan, volumes, scales, masks, (device,) * 2)
        fixed, moving = prepare(first, second, spacing=inputs.spacing, check=watch.check)
        of_both(_check_edges, (fixed, moving), volumes)
    return fixed, moving


def _bone_scale(volume: Volume, threshold: float | None, mask: np.ndarray | None, role: str) -> BoneScale:
    """What `find_bone_scale` finds. Where it finds none because of the scan's grey values, the error says so."""
    try:
        return find_bone_scale(volume, threshold, mask, role)
    except ScanError as error:
        if threshold is not None:
            raise
        raise _likely_cause(error, volume, None, mask) from error


def _likely_cause(error: ScanError, volume: Volume, threshold: float | None, mask: np.ndarray | None) -> ScanError:
    """The error, or one about the grey values of the scan if these are at fault."""
    fault = grey_fault(volume, threshold, mask)
    if fault is None or fault.kind not in ("wrapped", "inverted"):
        return error
    return ScanError(f"{error.problem}: {fault.problem}", fault.remedy)


def _looked_at(scan: PreparedScan) -> np.ndarray | None:
    """The mask ``(z, y, x)`` of where a scan is looked at, or None."""
    return None if scan.native.mask is None else scan.native.mask.cpu().numpy()


def _brightness(volume: Volume, piece: BrightPiece) -> str:
    place = ", ".join(f"{c:.3g}" for c in piece.center)
    return (
        f"{volume.name}: {piece.volume:.2g} mm3 about ({place}) mm are about {piece.times:.0f} times as bright as "
        "dense bone: metal? It was left out."
    )


def _best_answer(pair: _Pair, inputs: AlignmentInputs, watch: _Watch) -> _Answer:
    """The first hypothesis that verifies, or the most likely one if none does."""
    best = None
    seen: list[Tensor] = []

    def same(one: Tensor, other: Tensor) -> bool:
        return distance(one, other, pair.fixed.place) < pair.fixed.cube.spacing / 2

    for hypothesis, poses, seen_by in _hypotheses(pair, inputs, watch):
        if len(poses) == 0:
            continue
        watch.tell(0.6, "Refining")
        with watch.stage("refine"):
            ranked = _ranked(seen_by, poses, inputs.refine, watch.check)
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


def _answered(pair: ScanPair, seen_by: ScanPair, pose: Tensor, hypothesis: str, refine: str, watch: _Watch) -> _Answer:
    """A pose refined as what proposed it sees the pair, and judged.

    If it is not accepted, it is refined and judged without a layer that one scan shows on the bone.
    """
    with watch.stage("refine"):
        refined = _refined(seen_by, pose, refine, watch.check)
    with watch.stage("verify"):
        answer = _Answer(hypothesis, refined, verify(pair, refined), pair)
        found = None if answer.verdict.accepted else without_layer(pair, refined.pose)
    if found is None:
        return answer
    bare, layer = found
    with watch.stage("refine"):
        refined = _refined(bare, refined.pose, refine, watch.check)
    with watch.stage("verify"):
        without = _Answer(hypothesis, refined, verify(bare, refined), bare, layer)
    return max(answer, without, key=lambda one: one.verdict.confidence)


def _hypotheses(pair: _Pair, inputs: AlignmentInputs, watch: _Watch) -> Iterator[tuple[str, Tensor, ScanPair]]:
    """Yields sources of poses ``(h, 4, 4)`` by rising cost, and the pair to rank them on.

    Each is asked only if none before it verified.
    """
    if inputs.initial is not None:
        yield "initial", inputs.initial[None], pair
    if inputs.network is not None:
        with watch.stage("dnet"):
            watch.tell(0.2, "Asking the network")
            watch.network_ran = True
            proposal = _proposal(inputs.network, pair.fixed.cube, pair.moving.cube)
            watch.network_spread = proposal.spread
        yield "dnet", proposal.poses, pair
    if inputs.hypotheses == "dnet":
        return
    if inputs.network is None and inputs.hypotheses == "auto":
        watch.warnings.append("No trained network is installed: the search over all rotations proposed the pose.")
    plans = ((FAST, ""),) if pair.has_outline else ((FAST, ""), (FINE, " more thoroughly"))
    for plan, how in plans:
        with watch.stage("search"):
            report = watch.within(0.25, 0.6, f"Searching all rotations{how}")
            poses = search(pair.fixed.cube, pair.moving.cube, plan, report)
        yield "search", poses, pair
    if pair.has_outline and may_have_layer(pair.bones):
        with watch.stage("search"):
            inner = peeled(pair)
            report = watch.within(0.25, 0.6, "Searching all rotations inside the bone")
            poses = search(inner.fixed.cube, inner.moving.cube, FAST, report)
        yield "search", poses, inner


def _proposal(network: LoadedWeights, fixed: CanonicalCube, moving: CanonicalCube) -> Proposal:
    return propose(network.network.to(fixed.image.device), fixed, moving)


def _ranked(pair: ScanPair, poses: Tensor, refine: str, check: Callable[[], None]) -> list[tuple[Tensor, float]]:
    """The few distinct poses that agree best, best first, roughly refined, each with its correlation over the overlap.

    With "none" it is the best one, unrefined.
    """
    first, second, spacing = pair.fixed.levels[-1], pair.moving.levels[-1], pair.fixed.cube.spacing
    if refine != "none":
        for factor in (2, 1):
            level = pool_image(second, factor)
            template = edge_template(pool_image(first, factor), 4000 * (3 - factor))
            poses = gauss_newton(template, level, poses, 10, tolerance=0.02 * spacing, check=check).transforms
    scores, correlations = overlap_scores(first, second, poses)
    count = 1 if refine == "none" else VERIFIED
    chosen = distinct_indices(poses, scores, count, pair.fixed.place.center, shift=spacing)
    return [(poses[i], float(correlations[i])) for i in chosen]


def _refined(pair: ScanPair, pose: Tensor, refine: str, check: Callable[[], None]) -> Refined:
    """A pose refined at the working spacing; with "none" the pose itself, judged by where refinement would lead."""
    led = refine_fully(pair, pose, False, lambda fraction: check())
    if refine == "none":
        return Refined(pose, led.disagreement + distance(pose, led.pose, pair.fixed.place), led.spacing)
    return led


def _to_native(answer: _Answer, watch: _Watch) -> Refined:
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


def _mirrored(pair: _Pair, network: LoadedWeights | None, watch: _Watch) -> bool:
    """Whether the moving scan's mirror image fits where the scan itself does not.

    The network is asked for its pose, or else the search: asking both would take longer than finding a right pose.
    """
    mirrored, report = pair.mirrored(), watch.within(0.75, 0.9, "Trying the mirror image")
    if network is not None:
        poses = _proposal(network, mirrored.fixed.cube, mirrored.moving.cube).poses
    else:
        poses = search(mirrored.fixed.cube, mirrored.moving.cube, FAST, report)
    if len(poses) == 0:
        return False
    return any(
        verify(mirrored, _refined(mirrored, pose, "working", watch.check)).accepted
        for pose, correlation in _ranked(mirrored, poses, "working", watch.check)
        if correlation >= HOPELESS
    )


def _stood_still(pair: _Pair, inputs: AlignmentInputs, answer: _Answer, device: torch.device, watch: _Watch) -> bool:
    """Whether a pose is that of something in the scanner, and a bone that is less bright moved."""
    rest = find_moved_rest(pair.fixed, pair.moving, (inputs.fixed, inputs.moving), answer.refined.pose)
    if rest is None:
        return False
    masks, thresholds = (rest[0].mask, rest[1].mask), (rest[0].threshold, rest[1].threshold)
    beside = replace(inputs, masks=masks, thresholds=thresholds, initial=None, refine="working")
    if inputs.network is not None:  # to be sure that nothing there is a bone would take the search too long
        beside = replace(beside, hypotheses="dnet")
    try:
        found = _align(beside, device, watch.part(0.9, 1.0))
    except ScanError:
        return False
    moved = distance(torch.from_numpy(found.matrix), answer.refined.pose, pair.fixed.place)
    return found.accepted and moved > pair.fixed.cube.spacing


def _strained(pair: _Pair, inputs: AlignmentInputs, pose: Tensor, device: torch.device, watch: _Watch) -> str | None:
    """What is wrong with a voxel size, where scans that do not fit come to do so without their strain.

    No rigid pose shows that they are of one bone if one of them is some percent too large.
    """
    thresholds = pair.fixed.native.scale.threshold, pair.moving.native.scale.threshold
    beside = replace(inputs, thresholds=thresholds, initial=None)
    part = watch.part(0.9, 1.0)
    try:
        strain = find_strain(pair.fixed, pair.moving, pose, watch.check)
        if strain.sentence is not None and _fit_without(strain, beside, pose, device, part):
            return strain.sentence
        return _of_another_size(pair, beside, device, part)
    except ScanError:
        return None


def _fit_without(strain: Strain, inputs: AlignmentInputs, pose: Tensor, device: torch.device, watch: _Watch) -> bool:
    """Whether two scans fit near a pose once the moving one is without a strain."""
    undone = pose.numpy() @ np.linalg.inv(strain.matrix) @ inputs.moving.affine
    unstrained = _prepared(replace(inputs, moving=replace(inputs.moving, affine=undone)), device, watch)
    return verify(unstrained, _refined(unstrained, pose, "working", watch.check)).accepted


def _of_another_size(pair: _Pair, inputs: AlignmentInputs, device: torch.device, watch: _Watch) -> str | None:
    """Says how much larger the moving scan is, where that is too much for a strain to be fitted at any rigid pose.

    The cortices tell its size roughly, also of a part of the bone.
    """
    scale = pair.bones[1].thickness / pair.bones[0].thickness
    if not abs(math.log(scale)) >= LEAST_LARGER:
        return None
    shrunk = np.diag((1 / scale, 1 / scale, 1 / scale, 1.0)) @ inputs.moving.affine
    inputs = replace(inputs, moving=replace(inputs.moving, affine=shrunk))
    pair = _prepared(inputs, device, watch)
    _, poses, _ = next(_hypotheses(pair, inputs, watch))
    if len(poses) == 0:
        return None
    pose, _ = _ranked(pair, poses, "working", watch.check)[0]
    refined = _refined(pair, pose, "working", watch.check)
    left = find_strain(pair.fixed, pair.moving, refined.pose, watch.check)
    if left.significant and left.cause.kind != "size":
        return None
    fits = verify(pair, refined).accepted
    del pair  # of large scans no more are held at once than where a strain alone is undone
    if not (fits or _fit_without(left, inputs, refined.pose, device, watch)):
        return None
    return Cause("size", amount=scale * (1 + float(np.trace(left.tensor)) / 3) - 1).sentence(left.largest)


def _medium_change(pair: _Pair, matrix: np.ndarray) -> MediumChange | None:
    scale = pair.fixed.native.scale
    # The threshold that was found lies half way between bone and what is around it.
    height = 2 * (scale.maximum - scale.threshold)
    return find_medium_change(*pair.bones, matrix, height, pair.fixed.cube.spacing)


def _grey_fault(pair: _Pair, inputs: AlignmentInputs) -> GreyFault | None:
    """What is wrong with the grey values of a scan, of the fixed one first."""
    for role, volume, scan in (("fixed", inputs.fixed, pair.fixed), ("moving", inputs.moving, pair.moving)):
        fault = grey_fault(volume, scan.native.scale.threshold, _looked_at(scan), f"the {role} scan")
        if fault is not None:
            return fault
    return None


def _check_edges(scan: PreparedScan, volume: Volume) -> None:
    """Checks that the images that search and refinement start with show enough edges of bone."""
    for image in (scan.levels[-1], pool_image(cube_image(scan.cube), 2)):
        if len(edge_template(image, LEAST_EDGES).values) < LEAST_EDGES:
            spacing = f"the working spacing of {scan.cube.spacing:g} mm"
            error = ScanError(
                f"{volume.name}: shows too little of the surface of a bone at {spacing}",
                "check the bone threshold, the mask and the voxel spacing, or give another working spacing",
                Setting("working_spacing"),
            )
            raise _likely_cause(error, volume, scan.native.scale.threshold, _looked_at(scan))
