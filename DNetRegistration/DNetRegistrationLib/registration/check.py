"""Checks an alignment without any truth: the moving scan is turned and aligned again, and the answers are compared.

The noise and the anatomy stay the same, and so does what they do to the answer. What is measured is what the grid, the
start and interpolation do to it: a lower bound of the error, and a sign of an answer that stands on little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from ..core.errors import OptionError, ScanError
from ..core.progress import ProgressFunction, no_progress, part
from ..geometry.transforms import matrix_of, mean_point_error
from ..imaging.masks import mask_on
from ..imaging.turning import TurnedScan, turn_grid, turn_obliquely
from ..imaging.volume import Volume, as_scan
from .align import align
from .result import Alignment, Check, Repeat, alignments
from .verdict import NOT_ACCEPTED

if TYPE_CHECKING:
    import SimpleITK as sitk

A = TypeVar("A", Alignment, list[Alignment])

# From one index axis to the next: a third of a full turn about the diagonal of the grid.
_THIRD = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
# The tilt of an oblique turn. It moves nearly all voxels off the grid, and the larger it is, the more voxels it takes
# to hold the scan: 1.7 times as many.
_TILT = Rotation.from_rotvec(np.deg2rad(10) * np.ones(3) / np.sqrt(3)).as_matrix()

#: Ways to turn a scan, by their names.
TURNS: dict[str, Callable[[Volume, np.ndarray | None], TurnedScan]] = {
    "120 degrees about the grid's diagonal": lambda volume, mask: turn_grid(volume, _THIRD, mask),
    "180 degrees about x": lambda volume, mask: turn_grid(volume, np.diag((1, -1, -1)), mask),
    "obliquely, resampled": lambda volume, mask: turn_obliquely(volume, _TILT @ _THIRD.T, mask),
}


def check_alignment(
    alignment: A,
    fixed: Volume | sitk.Image,
    moving: Volume | sitk.Image,
    *,
    fixed_mask: Volume | sitk.Image | np.ndarray | None = None,
    moving_mask: Volume | sitk.Image | np.ndarray | None = None,
    initial: np.ndarray | None = None,
    progress: ProgressFunction = no_progress,
    **options: Any,
) -> A:
    """Aligns again with the moving scan turned, by two turns of its grid and an oblique one, and compares the answers.

    It takes about as long as four alignments, since the oblique turn needs more voxels.

    Args:
        alignment: an `Alignment` of these scans; or a list, of each bone.
        fixed, moving: as `align` took them.
        fixed_mask, moving_mask, initial: likewise. Of a bone that moved on its own, the masks that its alignment holds
            are taken instead.
        progress: called with a fraction and a message.
        options: further ones of `align` but `bone`, with the values that it had.

    Returns:
        Alignment: the same, with `check`; or a list of them. Where the answers differ by more than the expected error,
        a warning and the doubt "check" say so. It is not accepted any more where one that is accepted too differs by
        more than a working voxel: of two such answers one is wrong.

    Raises:
        OptionError: the alignment is another thing, or of one bone of several and does not hold its masks; or an
            option cannot be used.
        ScanError: something is wrong with a scan or its mask.
    """
    fixed, moving = as_scan(fixed, "fixed scan"), as_scan(moving, "moving scan")
    given = (fixed_mask, fixed, "fixed"), (moving_mask, moving, "moving")
    masks = tuple(None if mask is None else mask_on(mask, scan, role) for mask, scan, role in given)
    every = alignments(alignment)
    checked: Any = []
    for number, one in enumerate(every):
        own = masks if one.bone is None else one.bone.masks
        if own is None:
            raise OptionError("the alignment of one bone of several does not hold its masks", "align again")
        report = part(progress, number / len(every), (number + 1) / len(every))
        began = time.perf_counter()
        check = Check(tuple(_repeated(one, fixed, moving, own, initial, report, options)))
        took = time.perf_counter() - began
        seconds = {**one.seconds, "check": took, "total": one.seconds.get("total", 0.0) + took}
        checked.append(with_check(replace(one, seconds=seconds), check))
    return checked[0] if isinstance(alignment, Alignment) else checked


def _repeated(
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    masks: Sequence[np.ndarray | None],
    initial: np.ndarray | None,
    progress: ProgressFunction,
    options: dict[str, Any],
) -> Iterator[Repeat]:
    points = fixed.points_above(alignment.fixed_threshold, masks[0])
    for number, (name, turn) in enumerate(TURNS.items()):
        tell = part(progress, number / len(TURNS), (number + 1) / len(TURNS))
        tell(0.0, f"Turning the moving scan, {number + 1} of {len(TURNS)}")
        turned = turn(moving, masks[1])
        start = None if initial is None else turned.matrix @ matrix_of(initial, "the initial transform")
        about: dict[str, Any] = {"fixed_mask": masks[0], "moving_mask": turned.mask, "initial": start, "progress": tell}
        try:
            again = align(fixed, turned.scan, **about, **options)
        except ScanError:  # the turned scan cannot be aligned although the scan can
            yield Repeat(name, np.inf, False)
            continue
        answer = np.linalg.inv(turned.matrix) @ again.matrix
        yield Repeat(name, 1000 * mean_point_error(answer, alignment.matrix, points), again.accepted)


def with_check(alignment: Alignment, check: Check) -> Alignment:
    """The alignment with a check, and with what it says of the answer."""
    checked = replace(alignment, check=check)
    if not alignment.accepted or check.error_um <= alignment.expected_error_um:
        return checked
    doubts = ["check", *alignment.doubts]
    rival = max((one.error_um for one in check.repeats if one.accepted), default=0.0)
    if rival > 1000 * alignment.working_spacing:
        reason = (
            f"turned and aligned again, the moving scan comes to lie {rival:.1f} um from this answer, "
            "and is accepted there too. One of the two is wrong. Mask what is not this bone, and look for symmetry or "
            "for little of the bone in common."
        )
        verdict = f"{NOT_ACCEPTED}: {reason}"
        return replace(checked, accepted=False, confidence=0.0, verdict=verdict, reason=reason, doubts=doubts)
    warning = (
        f"Turned and aligned again, the moving scan comes to lie up to {check.error_um:.1f} um from this answer, "
        "which is more than the expected error. Trust it no further than that, and look at the picture."
    )
    if not np.isfinite(check.error_um):
        warning = "Turned, the moving scan could not be aligned again. Look at the picture."
    return replace(checked, doubts=doubts, warnings=[*alignment.warnings, warning])
