"""Writes NRRD files slice by slice.

Large results are never copied, as SimpleITK's writer would, and Slicer's own fields can be given.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

TYPES = {
    "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32",
    "int64": "int64", "uint64": "uint64", "float32": "float", "float64": "double",
}  # fmt: skip


def write_nrrd(
    path: str | Path,
    slices: np.ndarray | Iterable[np.ndarray],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    affine: np.ndarray,
    keys: Mapping[str, str] | None = None,
    compress: bool = False,
) -> None:
    """Writes an image.

    Args:
        path: the file.
        slices: one array ``(y, x)``, or ``(y, x, components)``, for each z, such as a whole array ``(z, y, x)``.
        shape: ``(z, y, x)`` or ``(z, y, x, components)``.
        dtype: of the file.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
        keys: further key/value pairs for the header.
        compress: grey values hardly shrink, and take ten times as long.

    Raises:
        OSError: it could not be written.
    """
    dtype = np.dtype(dtype)
    components = len(shape) == 4
    vectors = [_vector(column) for column in affine[:3, :3].T]
    header = [
        "NRRD0004",
        f"type: {TYPES[dtype.name]}",
        f"dimension: {len(shape)}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in (*shape[3:], *shape[2::-1])),
        "space directions: " + " ".join(["none"] * components + vectors),
        "kinds: " + " ".join(["list"] * components + ["domain"] * 3),
        "endian: little",
        f"encoding: {'gzip' if compress else 'raw'}",
        f"space origin: {_vector(affine[:3, 3])}",
        *(f"{key}:={value}" for key, value in (keys or {}).items()),
    ]
    with open(path, "wb") as file:
        file.write(("\n".join(header) + "\n\n").encode())
        # The gzip header has no name and no time, so that the same result gives the same file.
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) if compress else nullcontext(file) as body:
            for plane in slices:
                body.write(np.ascontiguousarray(plane, dtype=dtype.newbyteorder("<")).data)


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(repr(float(v)) for v in values) + ")"
