"""One pair, from files to files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..bone.scan_file import ScanFile, members
from ..core.errors import OptionError, ScanError, Setting
from ..core.progress import ProgressFunction, no_progress, part
from ..core.threads import thread_limit
from ..imaging.copies import voxel_mark
from ..outputs.paths import OutputPaths, check_grid, check_outputs
from .measuring import Measuring, PairOfScans

if TYPE_CHECKING:
    import numpy as np

    from ..cartilage.result import CartilageMeasurement
    from ..registration.result import Alignment


@dataclass(frozen=True, eq=False)
class AlignedFiles:
    """What came of two scan files.

    Attributes:
        alignments: the alignment; or one of each bone, the largest first.
        outputs: the files that were written, for each alignment.
        cartilage: what was measured, or None: nobody asked, the alignment was not accepted, or it could not be.
        bone_points: ``(n, 3)`` of bone in the fixed scan, of the bone that the first alignment is of; LPS mm.
        marks: of the voxels of the fixed and the moving scan; see `imaging.copies.voxel_mark`.
        unmeasured: why it could not be measured, where `lenient` let that pass; else None.
    """

    alignments: list[Alignment]
    outputs: list[OutputPaths]
    cartilage: CartilageMeasurement | None
    bone_points: np.ndarray
    marks: tuple[str, str]
    unmeasured: ScanError | None = None


def align_files(
    fixed: ScanFile,
    moving: ScanFile,
    outputs: OutputPaths,
    *,
    contrast: str = "moving",
    anyway: bool = False,
    region: str | None = None,
    region_segment: str | None = None,
    medial: tuple[float, ...] | None = None,
    initial: str | None = None,
    weights: str | None = None,
    bone: Literal["largest", "each"] | None = None,
    check: bool = False,
    lenient: bool = False,
    progress: ProgressFunction = no_progress,
    **options: Any,
) -> AlignedFiles:
    """Reads two scans, aligns them, and writes the outputs.

    Args:
        fixed, moving: the scans.
        outputs: the files to write.
        contrast, anyway, region, region_segment, medial: how cartilage is measured, see `Measuring`. Where an alignment
            is not accepted, the outputs of cartilage are left out unless `anyway` is true.
        initial: file of a transform to start from.
        weights: the name of weights that ship, or a file; None for the default.
        bone: "largest" or "each" where bones moved on their own; of "each" the outputs are numbered.
        check: also turn the moving scan, align again and compare; see `registration.check.check_alignment`.
        lenient: where scans can be aligned but their cartilage cannot be measured, write the other outputs.
        progress: called with a fraction and a message.
        options: further ones of `registration.align.align`.

    Raises:
        DNetError: an input or an output cannot be used; nothing is written then.
    """
    from ..geometry.transform_files import read_transform
    from ..outputs.write import write_outputs
    from ..registration.result import MOST_BONES

    measuring = Measuring(contrast, anyway, region, region_segment, medial)
    if bone == "each" and outputs.of_cartilage:
        raise OptionError("cartilage is measured on one bone", "align the largest", Setting("bone", value="largest"))
    several = [outputs.numbered(number + 1) for number in range(MOST_BONES)] if bone == "each" else [outputs]
    scans = read_pair(fixed, moving, several, measuring, (initial, weights), progress)
    start = None if initial is None else read_transform(initial)
    # Imported last, since it loads torch: what is wrong with a file is told at once.
    from ..registration.align import align

    thresholds = fixed.threshold, moving.threshold
    about = {
        **options,
        "threshold": None if thresholds == (None, None) else thresholds,
        "fixed_mask": scans.masks[0],
        "moving_mask": scans.masks[1],
        "initial": start,
        "weights": weights,
    }
    pair = scans.fixed, scans.moving
    with thread_limit(options.get("threads")):
        found: Any = align(*pair, bone=bone, progress=part(progress, 0.1, 0.25 if check else 0.8), **about)
        if check:
            from ..registration.check import check_alignment

            found = check_alignment(found, *pair, progress=part(progress, 0.25, 0.8), **about)
        cartilage = unmeasured = None
        asked = bool(outputs.of_cartilage)
        if asked:
            try:
                cartilage = measuring.measure(found, scans, part(progress, 0.8, 0.9))
            except ScanError as error:
                if not lenient:
                    raise
                unmeasured = error
            if cartilage is None:
                outputs = outputs.without_cartilage()
                several = [outputs]
        write_outputs(
            found,
            *pair,
            outputs,
            contrast=contrast,
            masks=scans.masks,
            measurement=cartilage,
            progress=part(progress, 0.9 if asked else 0.8, 1.0),
        )
    alignments = found if bone == "each" else [found]
    first = alignments[0]
    where = scans.masks[0] if first.bone is None or first.bone.masks is None else first.bone.masks[0]
    points = scans.fixed.points_above(first.fixed_threshold, where)
    marks = voxel_mark(scans.fixed.voxels), voxel_mark(scans.moving.voxels)
    return AlignedFiles(alignments, several[: len(alignments)], cartilage, points, marks, unmeasured)


def read_pair(
    fixed: ScanFile,
    moving: ScanFile,
    outputs: Iterable[OutputPaths],
    measuring: Measuring,
    others: Iterable[str | None],
    progress: ProgressFunction,
) -> PairOfScans:
    """Checks that the outputs can be written, then reads scans and masks.

    Args:
        fixed, moving: the scans.
        outputs: the files to write; one for each bone.
        measuring: how cartilage is measured.
        others: further files that are read, which no output may replace.
        progress: called with a fraction of the whole work, up to 0.1, and a message.

    Raises:
        DNetError: an input or an output cannot be used.
    """
    given = (*fixed.paths, *moving.paths, *measuring.paths, *others)
    inputs = [path for one in given if one is not None for path in members(one)]
    every = list(outputs)
    for paths in every:
        check_outputs(paths, contrast=measuring.contrast, inputs=inputs)
    progress(0.0, "reading the fixed scan")
    fixed_scan = fixed.read("fixed")
    check_grid(every[0], fixed_scan)
    progress(0.05, "reading the moving scan")
    moving_scan = moving.read("moving")
    masks = fixed.read_mask("fixed", fixed_scan), moving.read_mask("moving", moving_scan)
    return PairOfScans(fixed_scan, moving_scan, masks, measuring.read_region(fixed_scan, moving_scan))
