"""Headers of NIfTI files, in plain Python: ITK reads a sheared or rounded sform as something else, or not at all."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..geometry.transforms import affine_matrix

#: mm for a unit of NIfTI; 0 is unknown, and read as mm.
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI file says.

    Attributes:
        sizes: number of dimensions, and the lengths along them.
        bits: a voxel.
        offset: where the voxels start.
        affine: ``(4, 4)`` index (x, y, z) to world LPS mm, from the sform, or from the qform where there is no sform;
            None where there is neither.
    """

    sizes: tuple[int, ...]
    bits: int
    offset: int
    affine: np.ndarray | None


def is_nifti(path: Path) -> bool:
    """Tells whether a file is NIfTI by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz", ".hdr", ".img"))


def read_nifti_header(path: Path) -> NiftiHeader:
    """Reads the header of a NIfTI file of version 1, of either byte order, packed or not.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no NIfTI header.
        struct.error, EOFError: it ends early.
    """
    if path.suffix.lower() == ".img":
        path = path.with_suffix(".hdr")
    with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as file:
        header = file.read(348)
    order = next((order for order in "<>" if struct.unpack_from(order + "i", header)[0] in (348, 540)), None)
    if order is None:
        raise ValueError("not a NIfTI file")
    if struct.unpack_from(order + "i", header)[0] == 540:
        raise ValueError("it is NIfTI-2, of which only version 1 is read")

    def values(form: str, place: int) -> tuple:
        return struct.unpack_from(order + form, header, place)

    sizes, codes, pixdim = values("8h", 40), values("2h", 252), values("8f", 76)
    if not 1 <= sizes[0] <= 7:
        raise ValueError("its NIfTI header gives no dimensions")
    if header[344:348] not in (b"n+1\0", b"ni1\0"):  # Analyze, its ancestor, has neither form
        codes = 0, 0
    affine = None
    if codes[1] > 0:
        affine = np.vstack((np.reshape(values("12f", 280), (3, 4)), (0, 0, 0, 1)))
    elif codes[0] > 0:
        affine = _from_quaternion(values("6f", 256), pixdim)
    spacing = pixdim[1 : min(sizes[0], 3) + 1]
    if codes[1] <= 0 and not all(0 < size < np.inf for size in spacing):
        raise ValueError(f"its spacing is zero or negative: {', '.join(f'{size:g}' for size in spacing)}")
    if affine is not None:
        affine[:3] *= _UNITS.get(values("B", 123)[0] & 7, 1.0)
        affine[:2] *= -1  # NIfTI's world is RAS
    return NiftiHeader(sizes[: sizes[0] + 1], values("h", 72)[0], int(values("f", 108)[0]), affine)


def _from_quaternion(quaternion: Sequence[float], pixdim: Sequence[float]) -> np.ndarray:
    b, c, d, *shift = quaternion
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    # The sign of the first pixdim says whether the third axis is mirrored.
    return affine_matrix(rotation * np.array(pixdim[1:4]) * (1, 1, -1 if pixdim[0] < 0 else 1), np.array(shift))
