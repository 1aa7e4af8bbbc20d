"""Slips that the scans themselves show: one given twice, micrometres as millimetres, a voxel size unlike its file's."""

from __future__ import annotations

import numpy as np

from ..imaging.copies import voxel_mark
from ..imaging.volume import Volume, overruled_spacing, times, too_large
from .verdict import Doubt


def slips(fixed: Volume, moving: Volume) -> list[Doubt]:
    """What looks like a slip, for the warnings and the doubts of an alignment."""
    told = []
    for role, scan in (("fixed", fixed), ("moving", moving)):
        if too_large(scan):
            sentence = (
                f"The voxels of the {role} scan are {times(scan)} mm, too large for a scan of a bone: are these "
                "micrometres? 10 um are 0.01 mm."
            )
            told.append(Doubt("voxel size", sentence))
        if (stated := overruled_spacing(scan)) is not None:
            sentence = f"{_disagreement(role, scan, stated)}. All lengths are by the former."
            told.append(Doubt("voxel size", sentence))
    if _same_voxels(fixed.voxels, moving.voxels):
        sentence = (
            "Both scans hold the same voxels: one scan was given twice, or a copy of it. The alignment says nothing "
            "about two scans of one bone then."
        )
        told.append(Doubt("copy", sentence))
    return told


def given_against_file(fixed: Volume, moving: Volume) -> str | None:
    """Why two scans may not fit: a voxel size was given of which a file states another one. None where none was."""
    told = [
        _disagreement(role, scan, stated)
        for role, scan in (("fixed", fixed), ("moving", moving))
        if (stated := overruled_spacing(scan)) is not None
    ]
    if not told:
        return None
    return (
        f"{'. '.join(told)}, and the bones do not fit. Find out which is true; leave out what was given if it is not."
    )


def _disagreement(role: str, scan: Volume, stated: str) -> str:
    return f"The voxels of the {role} scan were given as {times(scan)} mm; its file states {stated} mm"


def _same_voxels(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two scans ``(z, y, x)`` hold the same values; of whole numbers also in another order, if turned."""
    if first.shape == second.shape and all(
        np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")
        for one, other in zip(first, second, strict=True)
    ):
        return True
    if sorted(first.shape) != sorted(second.shape) or "f" in (first.dtype.kind, second.dtype.kind):
        return False
    # Only copies are gone through as a whole.
    return voxel_mark(first) == voxel_mark(second) and all(
        _moment(first, power) == _moment(second, power) for power in (1, 2, 3)
    )


def _moment(voxels: np.ndarray, power: int) -> int:
    """The sum of powers of whole numbers modulo 2^64, which is the same in any order."""
    return sum(int((plane.astype(np.int64) ** power).sum()) for plane in voxels) % 2**64
