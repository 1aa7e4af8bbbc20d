"""The cartilage of a pair that was aligned before, from files to files. Needs no torch.

A transform alone says nothing of whether it is right. The report of its alignment does, if it is of these scans, read
as they were then. So the pose is compared with that of the report, the voxels with those that it names, and the overlap
of the cortices with the one that it states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bone.scan_file import ScanFile
from ..core.constants import PAPER_SPACING
from ..core.errors import OptionError, ScanError, Setting
from ..core.progress import ProgressFunction, no_progress, part
from ..core.words import plain
from ..outputs.paths import OutputPaths
from .align_files import read_pair
from .measuring import Measuring, PairOfScans

if TYPE_CHECKING:
    from ..cartilage.result import CartilageMeasurement
    from ..registration.result import Alignment

# The cortices of the same scans, read the same way, overlap as the report says, but for a change of the program.
_DICE = 0.02
# A transform is that of a report where both put the bone to the same place to within this, mm: files round.
_SAME_PLACE = 1e-4
# No bone is aligned at working spacings beyond these, mm.
_SPACINGS = 1e-4, 10.0
# Voxel sizes agree to within this share.
_SAME_SIZE = 1e-4


@dataclass(frozen=True, eq=False)
class MeasuredFiles:
    """What came of two scan files.

    Attributes:
        alignment: as far as it is known; not accepted where nothing vouches for it.
        cartilage: what was measured, or None: the alignment is not accepted, and nobody wants it all the same.
        outputs: the files that were written.
    """

    alignment: Alignment
    cartilage: CartilageMeasurement | None
    outputs: OutputPaths


def measure_files(
    fixed: ScanFile,
    moving: ScanFile,
    outputs: OutputPaths,
    measuring: Measuring,
    *,
    transform: str | None = None,
    report: str | None = None,
    spacing: float | None = None,
    progress: ProgressFunction = no_progress,
) -> MeasuredFiles:
    """Reads two scans and their alignment, measures cartilage, and writes the outputs.

    Args:
        fixed, moving: the scans, as they were aligned.
        outputs: the files to write. Where nothing is measured, none is.
        measuring: how cartilage is measured.
        transform: file of the transform; None takes that of the report.
        report: the report of the alignment. Without it the alignment counts as not accepted.
        spacing: working spacing in mm; None takes that of the report, else that for a mouse.
        progress: called with a fraction and a message.

    Raises:
        DNetError: an input or an output cannot be used; nothing is written then.
    """
    from ..geometry.transform_files import read_transform
    from ..outputs.write import write_outputs

    if transform is None and report is None:
        problem = "nothing says how the scans lie"
        raise OptionError(problem, "give the transform and the report of their alignment", Setting("transform"))
    matrix = None if transform is None else read_transform(transform)
    told = None if report is None else _read_report(report)
    pair = read_pair(fixed, moving, [outputs], measuring, (transform, report), progress)
    progress(0.1, "looking whether the bones lie on each other")
    thresholds = fixed.threshold, moving.threshold
    alignment = _alignment(pair, matrix, told, thresholds, spacing)
    cartilage = measuring.measure(alignment, pair, part(progress, 0.3, 0.8))
    if cartilage is None:
        return MeasuredFiles(alignment, None, OutputPaths())
    write_outputs(
        alignment,
        pair.fixed,
        pair.moving,
        outputs,
        contrast=measuring.contrast,
        masks=pair.masks,
        measurement=cartilage,
        progress=part(progress, 0.8, 1.0),
    )
    return MeasuredFiles(alignment, cartilage, outputs)


def _read_report(path: str) -> tuple[Alignment, dict]:
    """The alignment of a report, and what it says of the scans.

    Raises:
        FileError: it cannot be read, or is none.
    """
    from ..geometry.transforms import require_rigid
    from ..outputs.report import no_report, read_report, read_scans

    found, scans = read_report(path), read_scans(path)
    if found.working_spacing < _SPACINGS[0] or found.working_spacing > _SPACINGS[1]:
        raise no_report(path)
    try:
        return replace(found, matrix=require_rigid(found.matrix)), scans
    except OptionError as error:
        raise no_report(path) from error


def _alignment(
    pair: PairOfScans,
    matrix: np.ndarray | None,
    told: tuple[Alignment, dict] | None,
    thresholds: tuple[float | None, float | None],
    spacing: float | None,
) -> Alignment:
    """The alignment as a report tells it, if it is of these scans; else one that is not accepted."""
    from ..bone.cortex import cortical_bone, dice
    from ..bone.threshold import find_bone_scale, without_metal
    from ..bone.tight_masks import reaching_past
    from ..imaging.packed import PackedMask
    from ..imaging.padding import with_data
    from ..outputs.summary import number
    from ..registration.result import Alignment
    from ..registration.verdict import NOT_ACCEPTED

    known, about = (None, {}) if told is None else told
    if matrix is None:
        assert known is not None  # One of the two was given.
        matrix = known.matrix
    if spacing is None:
        spacing = PAPER_SPACING if known is None or math.isnan(known.working_spacing) else known.working_spacing
    bones, found, masks = [], [], []
    # Scans in which the report's own threshold finds no bone.
    without: list[str] = []
    scans = zip(("fixed", "moving"), (pair.fixed, pair.moving), pair.masks, thresholds, strict=True)
    for role, scan, mask, threshold in scans:
        stated = math.nan if known is None else getattr(known, f"{role}_threshold")
        chosen = stated if threshold is None and math.isfinite(stated) else threshold
        # As `align` outlines the bone.
        wide = reaching_past(scan, mask, chosen, spacing)
        masks.append(None if wide is None else PackedMask.of(wide, scan))
        seen = with_data(scan, wide)
        try:
            scale = find_bone_scale(scan, chosen, seen, role)
        except ScanError:
            if chosen is None or chosen == threshold:
                raise
            without.append(
                f"the bone threshold of its report, {number(stated, '.4g')}, finds no bone in {scan.name}. Check that "
                "these are the scans, in the same order."
            )
            scale = find_bone_scale(scan, None, seen, role)
        found.append(scale.threshold)
        bones.append(cortical_bone(scan, scale.threshold, spacing, without_metal(scan, scale, seen)))
    overlap, center = dice(bones[0], bones[1], matrix), bones[0].center
    doubt: str | None = "whether this transform is right is not known, since the report of its alignment is not given."
    if known is not None:
        doubt = _doubt(pair, matrix, known, about, without, overlap, center)
    values: dict[str, Any] = dict(
        matrix=matrix,
        dice=overlap,
        fixed_threshold=found[0],
        moving_threshold=found[1],
        working_spacing=spacing,
        masks=tuple(masks),
        translation_mm=matrix[:3, :3] @ center + matrix[:3, 3] - center,
    )
    if doubt is None:
        assert known is not None
        return replace(known, **values)
    return Alignment(
        **values,
        accepted=False,
        verdict=f"{NOT_ACCEPTED}: {doubt}",
        reason=doubt,
        doubts=["unvouched"],
        confidence=math.nan,
        expected_error_um=math.nan,
        dice_before=dice(bones[0], bones[1], np.eye(4)),
        hypothesis="initial",
        device="cpu",
    )


def _doubt(
    pair: PairOfScans,
    matrix: np.ndarray,
    known: Alignment,
    about: dict,
    without: list[str],
    overlap: float,
    center: np.ndarray,
) -> str | None:
    """Why a report does not vouch for this pose of these scans; None where it does."""
    for role, scan in (("fixed", pair.fixed), ("moving", pair.moving)):
        size, voxel = about[role]
        if tuple(scan.size) != size or not np.allclose(scan.spacing, voxel, rtol=_SAME_SIZE, atol=0):
            return (
                f"its report is of a {role} scan of {_grid(size, voxel)}, and {scan.name} has "
                f"{_grid(scan.size, scan.spacing)}. Check that these are the scans, in the same order, and their voxel "
                "sizes."
            )
    if without:
        return without[0]
    from ..outputs.summary import number

    # Within a few mm about the bone.
    corners = center + 2 * np.array(np.meshgrid(*3 * [(-1.0, 1.0)])).reshape(3, 8).T
    moved = (matrix - known.matrix)[:3, :3] @ corners.T + (matrix - known.matrix)[:3, 3:]
    apart = float(np.linalg.norm(moved, axis=0).max())
    if apart > _SAME_PLACE:
        return (
            f"the transform puts the bone {plain(1000 * apart, 3)} um from where its report says. Check that they "
            "belong together."
        )
    # Nor may it be larger: where a threshold of other grey values makes bone of all that is seen, all of it overlaps.
    if not abs(overlap - known.dice) <= _DICE:
        return (
            f"the cortices overlap with a Dice of {overlap:.3f}, and its report says {number(known.dice, '.3f')}. "
            "Check that these are the scans, in the same order, with the masks, flips and thresholds that they were "
            "aligned with."
        )
    return None


def _grid(size: Iterable[float], spacing: Iterable[float]) -> str:
    voxels, edges = (" x ".join(f"{value:g}" for value in values) for values in (size, spacing))
    return f"{voxels} voxels of {edges} mm"
