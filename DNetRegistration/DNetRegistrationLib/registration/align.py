"""The whole way: two scans in, a verified rigid transform out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone, cortical_bone, dice
from ..bone.images import PreparedScan, native_scan, pool_image, prepare
from ..bone.threshold import find_bone_scale
from ..core.errors import ScanError
from ..geometry.transforms import require_rigid
from ..imaging.volume import Volume, check_pair_spacing, check_volume
from ..networks.weights import DEFAULT_WEIGHTS, LoadedWeights, available_weights, load_weights, weights_stamp
from .proposal import propose
from .refinement import Refined, distance, edge_template, gauss_newton, resolutions
from .refinement import refine as refine_pose
from .result import Alignment, AlignmentCancelled
from .search import FAST, FINE, THOROUGH, cube_image, distinct_indices, search
from .similarity import overlap_correlation
from .verification import DETERMINED, Verdict, verify

HYPOTHESES, REFINEMENTS = ("auto", "dnet", "search"), ("native", "working", "none")
STAGES = ("preprocess", "dnet", "search", "refine", "verify")
# Fewer edge voxels than this do not fix a pose.
LEAST_EDGES = 27
# Poses of one hypothesis that are verified at most, until one is accepted.
VERIFIED = 4


def align(
    fixed,
    moving,
    *,
    threshold: float | tuple[float | None, float | None] | None = None,
    spacing: float | None = None,
    fixed_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    initial: np.ndarray | None = None,
    device: str = "auto",
    weights: str | None = None,
    hypotheses: str = "auto",
    refine: str = "native",
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Alignment:
    """Aligns two scans of one bone, turned any way.

    Args:
        fixed, moving: `Volume` or SimpleITK images. They are not changed.
        threshold: where bone begins, in the scans' units: None to find it, one number for both, or a pair (fixed,
            moving), either of which may be None.
        spacing: working spacing in mm; None takes 0.08 mm or, for a larger bone, what lets it fill the canonical cube.
        fixed_mask, moving_mask: arrays, Volumes or SimpleITK images on the scans' grids; bone is looked for only where
            they are above 0.
        initial: ``(4, 4)`` fixed to moving, LPS mm, tried first.
        device: "auto", "cpu", "cuda" (or "cuda:1", ...), "mps".
        weights: name of shipped weights, or a path; None is the shipped default.
        hypotheses: "dnet" (the network alone), "search" (the search alone), or "auto": the network, where weights are
            to be had, then the search when its proposals do not verify.
        refine: "native", "working" (end at the working spacing) or "none" (the hypothesis as it is).
        progress: called with a fraction, 0 to 1, and a message.
        cancelled: called often; when it returns true, `AlignmentCancelled` is raised.

    Returns:
        Alignment: also where nothing verified; then the best pose that was found, with ``accepted`` False.

    Raises:
        ScanError: (a ValueError) something is wrong with a scan or an option; the message names it and the remedy.
        AlignmentCancelled: see `cancelled`.
    """
    _check_choice("hypotheses", hypotheses, HYPOTHESES)
    _check_choice("refine", refine, REFINEMENTS)
    spacing = _number(spacing, "the working spacing")
    if spacing is not None and not (np.isfinite(spacing) and spacing > 0):
        raise ScanError(f"the working spacing must be above 0 mm, not {spacing}; leave it out to have it chosen")
    fixed, moving = _volume(fixed, "fixed scan"), _volume(moving, "moving scan")
    check_pair_spacing(fixed, moving)
    watch = _Watch(progress, cancelled)
    request = _Request(
        fixed=fixed,
        moving=moving,
        masks=(_mask(fixed_mask, fixed), _mask(moving_mask, moving)),
        thresholds=_thresholds(threshold),
        spacing=spacing,
        initial=None if initial is None else _initial(initial),
        network=_network(hypotheses, weights),
        searches=hypotheses != "dnet",
        automatic=hypotheses == "auto",
        refine=refine,
    )
    chosen = _device(device)
    try:
        return _align(request, chosen, watch)
    except (RuntimeError, TypeError) as error:
        why = _device_fault(error)
        if chosen.type == "cpu" or why is None:
            raise
    # Only here is the traceback gone, and with it what it holds of the device's memory.
    if chosen.type == "cuda":
        torch.cuda.empty_cache()
    watch.warnings.append(f"{chosen} {why}; the CPU did the work instead.")
    return _align(request, torch.device("cpu"), watch)


@dataclass(frozen=True)
class _Request:
    fixed: Volume
    moving: Volume
    masks: tuple[np.ndarray | None, np.ndarray | None]
    thresholds: tuple[float | None, float | None]
    spacing: float | None
    initial: Tensor | None
    network: LoadedWeights | None
    searches: bool
    automatic: bool
    refine: str


@dataclass
class _Watch:
    """Progress, cancelling, time by stage and warnings."""

    progress: Callable[[float, str], None] | None
    cancelled: Callable[[], bool] | None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    warnings: list[str] = field(default_factory=list)
    fraction: float = 0.0
    network_ran: bool = False

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise AlignmentCancelled("the alignment was cancelled")

    def tell(self, fraction: float, message: str) -> None:
        """Reports progress, which never goes back: a stage may have to be gone through again."""
        self.check()
        self.fraction = max(self.fraction, fraction)
        if self.progress is not None:
            self.progress(self.fraction, message)

    def within(self, start: float, end: float, message: str) -> Callable[[float], None]:
        """A report for a step that takes the progress from `start` to `end`."""
        return lambda fraction: self.tell(start + fraction * (end - start), message)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


@dataclass(frozen=True)
class _Pair:
    """Two scans to align, with their cortical bone."""

    fixed: PreparedScan
    moving: PreparedScan
    bones: tuple[CorticalBone, CorticalBone]

    def verify(self, refined: Refined) -> Verdict:
        return verify(self.fixed, self.moving, refined, self.bones)


@dataclass(frozen=True)
class _Answer:
    hypothesis: str
    refined: Refined
    verdict: Verdict


def _align(request: _Request, device: torch.device, watch: _Watch) -> Alignment:
    start = time.perf_counter()
    watch.tell(0.0, "Looking for bone")
    with watch.stage("preprocess"):
        volumes = request.fixed, request.moving
        scales = _of_both(find_bone_scale, volumes, request.thresholds, request.masks)
        watch.check()
        natives = [
            native_scan(volume, scale, mask, device)
            for volume, scale, mask in zip(volumes, scales, request.masks, strict=True)
        ]
        fixed, moving = prepare(*natives, spacing=request.spacing, check=watch.check)
        for scan, volume in zip((fixed, moving), volumes, strict=True):
            _check_edges(scan, volume)
    with watch.stage("verify"):
        watch.tell(0.15, "Outlining the cortices")
        thresholds = [scale.threshold for scale in scales]
        bones = _of_both(cortical_bone, volumes, thresholds, [fixed.cube.spacing] * 2, request.masks)
        watch.check()
        # Computed on first use and kept: here, cancelling is looked for before and after.
        _of_both(lambda bone: bone.depth, bones)
    pair = _Pair(fixed, moving, bones)
    answer = _best_answer(pair, request, watch)
    if watch.network_ran and answer.hypothesis == "search":
        watch.warnings.append("The network's proposals did not verify; the search over all rotations found this pose.")

    if request.refine == "native":
        with watch.stage("refine"):
            answer = _to_native(pair, answer, watch)
    with watch.stage("verify"):
        mirrored = not answer.verdict.accepted and _mirrored(pair, watch)
        watch.tell(0.95, "Comparing the cortices")
        matrix = require_rigid(answer.refined.pose.numpy())
        dice_before, dice_after = dice(*bones, np.eye(4)), dice(*bones, matrix)
    verdict = answer.verdict
    center = fixed.place.center
    watch.tell(1.0, "Done")
    watch.seconds["total"] = time.perf_counter() - start
    return Alignment(
        matrix=matrix,
        accepted=verdict.accepted,
        confidence=verdict.confidence,
        expected_error_um=1000 * verdict.expected_error,
        dice_before=dice_before,
        dice=dice_after,
        hypothesis=answer.hypothesis,
        seconds=watch.seconds,
        translation_mm=matrix[:3, :3] @ center + matrix[:3, 3] - center,
        verdict=_sentence(answer, mirrored),
        warnings=watch.warnings,
        device=str(device),
        network=request.network.network.name if watch.network_ran else None,
        weights_sha256=request.network.card["sha256"] if watch.network_ran else None,
        fixed_threshold=scales[0].threshold,
        moving_threshold=scales[1].threshold,
        working_spacing=fixed.cube.spacing,
        mirrored=mirrored,
    )


def _of_both(function: Callable, *arguments: Iterable) -> tuple:
    """What a function of NumPy and SciPy gives for the fixed and for the moving scan, each in a thread of its own."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(function, *arguments)
    return first, second


def _best_answer(pair: _Pair, request: _Request, watch: _Watch) -> _Answer:
    """The first hypothesis that verifies, or the most likely one of all when none does."""
    best = None
    for hypothesis, poses in _hypotheses(pair.fixed, pair.moving, request, watch):
        if len(poses) == 0:
            continue
        watch.tell(0.6, "Refining")
        with watch.stage("refine"):
            ranked = _ranked(pair.fixed, pair.moving, poses, request.refine, watch.check)
        # What agrees most in a small overlap may be wrong and the next one right: verification tells.
        for pose in ranked:
            with watch.stage("refine"):
                refined = _refined(pair.fixed, pair.moving, pose, request.refine, watch.check)
            with watch.stage("verify"):
                answer = _Answer(hypothesis, refined, pair.verify(refined))
            if best is None or answer.verdict.confidence > best.verdict.confidence:
                best = answer
            if best.verdict.accepted:
                return best
    if best is None:
        raise ScanError('the network proposed no pose for these scans; use hypotheses="search" or "auto"')
    return best


def _hypotheses(
    fixed: PreparedScan, moving: PreparedScan, request: _Request, watch: _Watch
) -> Iterator[tuple[str, Tensor]]:
    """Sources of poses ``(h, 4, 4)`` in the order of their cost, each asked only when the one before did not verify."""
    if request.initial is not None:
        yield "initial", request.initial[None]
    if request.network is not None:
        with watch.stage("dnet"):
            watch.tell(0.2, "Asking the network")
            network = request.network.network.to(fixed.cube.image.device)
            proposed = propose(network, fixed.cube, moving.cube)
            watch.network_ran = True
        yield "dnet", torch.stack(proposed) if proposed else torch.empty(0, 4, 4)
    if not request.searches:
        return
    if request.network is None and request.automatic:
        watch.warnings.append("No trained network is installed: the search over all rotations proposed the pose.")
    outline = fixed.has_outline and moving.has_outline
    for number, plan in enumerate((FAST, THOROUGH) if outline else (FAST, FINE)):
        message = "Searching all rotations" if number == 0 else "Searching all rotations more thoroughly"
        with watch.stage("search"):
            poses, _ = search(fixed.cube, moving.cube, plan, watch.within(0.25, 0.6, message))
        yield "search", poses


def _ranked(fixed: PreparedScan, moving: PreparedScan, poses: Tensor, how: str, check: Callable[[], None]) -> Tensor:
    """The few distinct poses that agree best, best first, nearly refined; with "none" the best as it is."""
    first, second = fixed.levels[-1], moving.levels[-1]
    if how == "none":
        return poses[overlap_correlation(first, second, poses).argmax()][None]
    for factor in (2, 1):
        level = pool_image(second, factor)
        template = edge_template(pool_image(first, factor), 4000 * (3 - factor))
        tolerance = 0.02 * fixed.cube.spacing
        poses = gauss_newton(template, level, poses, 10, tolerance=tolerance, check=check).transforms
    scores = overlap_correlation(first, second, poses)
    return poses[distinct_indices(poses, scores, VERIFIED, fixed.place.center, shift=fixed.cube.spacing)]


def _refined(fixed: PreparedScan, moving: PreparedScan, pose: Tensor, how: str, check: Callable[[], None]) -> Refined:
    """A pose refined at the working spacing; with "none" as it is, judged by where refinement would lead."""
    led = refine_pose(fixed, moving, pose, native=False, check=lambda fraction: check())
    if how == "none":
        return Refined(pose, led.disagreement + distance(pose, led.pose, fixed.place), led.spacing)
    return led


def _to_native(pair: _Pair, answer: _Answer, watch: _Watch) -> _Answer:
    """The answer carried on to native resolution, unless that leads away from what the working spacing showed."""
    fixed, moving, pose = pair.fixed, pair.moving, answer.refined.pose
    if len(resolutions(fixed, moving)) == 1:
        return answer
    report = watch.within(0.65, 0.9, "Refining to native resolution")
    refined = refine_pose(fixed, moving, pose, native=True, check=report)
    if distance(pose, refined.pose, fixed.place) > fixed.cube.spacing:
        if answer.verdict.accepted:
            watch.warnings.append(
                "Refinement to native resolution moved the bone by more than a working voxel and was left out; "
                "look for noise or artefacts in the scans."
            )
        return answer
    return _Answer(answer.hypothesis, refined, pair.verify(refined))


def _mirrored(pair: _Pair, watch: _Watch) -> bool:
    """Whether the moving scan's mirror image fits where the scan itself does not."""
    image = pair.moving.mirrored()
    plan = FAST if pair.fixed.has_outline and pair.moving.has_outline else FINE
    poses, _ = search(pair.fixed.cube, image.cube, plan, watch.within(0.75, 0.9, "Trying the mirror image"))
    mirrored = _Pair(pair.fixed, image, (pair.bones[0], pair.bones[1].mirrored()))
    ranked = _ranked(pair.fixed, image, poses, "working", watch.check)
    refined = (_refined(pair.fixed, image, pose, "working", watch.check) for pose in ranked)
    return any(mirrored.verify(one).accepted for one in refined)


def _sentence(answer: _Answer, mirrored: bool) -> str:
    evidence, verdict = answer.verdict.evidence, answer.verdict
    if verdict.accepted:
        return f"Accepted: the bones lie on each other, to within about {1000 * verdict.expected_error:.1f} um."
    if mirrored:
        return (
            "Not accepted: one scan shows the mirror image of the other. Check for slices read in reverse order, "
            "or a left and a right leg."
        )
    if evidence.determination < DETERMINED and evidence.similarity.correlation > 0.8:
        return (
            "Not accepted: what both scans show looks the same after it is turned or shifted, so that no one pose is "
            "determined. Check that the fields of view hold more than a straight piece of shaft."
        )
    if evidence.similarity.share < 0.3:
        return (
            "Not accepted: the scans seem to show little of the same bone. Check that both fields of view hold the "
            "same part of it."
        )
    return (
        "Not accepted: no pose makes the two bones agree. Check that both scans are of the same bone, that the voxel "
        "spacings are right, and that the bone thresholds part bone from everything else."
    )


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ScanError(f"{option}={value!r} is not known; use one of {', '.join(choices)}")


def _volume(scan, role: str) -> Volume:
    if not isinstance(scan, Volume):
        if not hasattr(scan, "GetDirection"):
            raise ScanError(f"the {role} is a {type(scan).__name__}; give a Volume or a SimpleITK image")
        scan = Volume.from_sitk(scan, role)
    if scan.name == Volume.name:
        scan = replace(scan, name=role)
    return check_volume(scan)


def _mask(mask, volume: Volume) -> np.ndarray | None:
    if mask is None:
        return None
    if hasattr(mask, "GetDirection"):
        mask = Volume.from_sitk(mask)
    if isinstance(mask, Volume):
        if not np.allclose(mask.affine, volume.affine, rtol=0, atol=1e-3 * volume.spacing.min()):
            raise ScanError(f"{volume.name}: its mask lies on another grid; give a mask on the scan's own grid")
        mask = mask.voxels
    mask = np.asarray(mask)
    if mask.shape != volume.voxels.shape:
        raise ScanError(
            f"{volume.name}: its mask has {mask.shape} voxels (z, y, x) and the scan {volume.voxels.shape}; "
            "give a mask on the scan's own grid"
        )
    mask = mask > 0
    if not mask.any():
        raise ScanError(f"{volume.name}: its mask is empty; mark the region of the bone, or leave the mask out")
    return mask


def _check_edges(scan: PreparedScan, volume: Volume) -> None:
    """Sees that there are edges of bone to align by, in what the search and the refinement start with."""
    for image in (scan.levels[-1], pool_image(cube_image(scan.cube), 2)):
        if len(edge_template(image, LEAST_EDGES).values) < LEAST_EDGES:
            raise ScanError(
                f"{volume.name}: shows too little of the surface of a bone at the working spacing of "
                f"{scan.cube.spacing:g} mm; check the bone threshold, the mask and the voxel spacing, "
                "or give another working spacing"
            )


def _thresholds(threshold) -> tuple[float | None, float | None]:
    pair = tuple(threshold) if isinstance(threshold, list | tuple | np.ndarray) else (threshold, threshold)
    if len(pair) != 2:
        raise ScanError(f"threshold={threshold!r}: give one number, or a pair for the fixed and the moving scan")
    return tuple(_number(value, "the bone threshold") for value in pair)


def _number(value, what: str) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise ScanError(f"{what} must be a number, not {value!r}") from error


def _initial(initial) -> Tensor:
    try:
        matrix = np.asarray(initial, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScanError("the initial transform holds something other than numbers; give a 4x4 matrix") from error
    return torch.from_numpy(require_rigid(matrix, "the initial transform"))


def _network(hypotheses: str, weights: str | None) -> LoadedWeights | None:
    if hypotheses == "search":
        return None
    if weights is not None and not isinstance(weights, str | os.PathLike):
        raise ScanError(f"weights={weights!r}: give the name of shipped weights or the path of a weights file")
    if weights is None and hypotheses == "auto" and DEFAULT_WEIGHTS not in available_weights():
        return None
    chosen = weights or DEFAULT_WEIGHTS
    return _loaded(chosen, weights_stamp(chosen))


@lru_cache(maxsize=2)
def _loaded(weights: str | os.PathLike, stamp: tuple) -> LoadedWeights:
    """The network, which takes longer to load than to ask; anew when the file has another `stamp`."""
    return load_weights(weights)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and _works(torch.device("cuda")) else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise NotImplementedError(device.type)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ScanError(f'the device {name!r} is not to be had here; use "cpu" or "auto"') from error
    return device


def _works(device: torch.device) -> bool:
    """Whether the device computes; torch also counts cards that this build of it has no kernels for."""
    try:
        return float(torch.zeros(1, device=device) + 1) == 1
    except RuntimeError:
        return False


def _device_fault(error: Exception) -> str | None:
    """Why a device, not the input, is at fault; None where it is not known to be."""
    # torch.OutOfMemoryError exists from torch 2.5 on; Apple's devices raise a plain RuntimeError.
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "ALLOC_FAILED" in text:
        return "ran out of memory"
    if "no kernel image" in text:
        return "is not supported by this build of torch"
    # What Apple's devices cannot do (float64, some integers) they refuse by the name of MPS, as either kind of error.
    if isinstance(error, NotImplementedError) or "MPS" in str(error):
        return "lacks an operation in this version of torch"
    return None
