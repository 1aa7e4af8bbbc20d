"""Reads ISQ and AIM, the files of Scanco's scanners: their headers by aimio-py, their unpacked voxels by NumPy.

aimio-py would hold the voxels three times, and a damaged size would end the process within it. All sizes are checked
against the file before memory is asked for.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ScanError, one_line
from ..core.packages import needed
from ..core.pip import pip_install
from .itk_reader import FoundImage, blank
from .text_headers import CORRECT_SPACING
from .truncation import ends_early

_COPY_AGAIN = "copy or export it again"
_BLOCK = 512  # bytes of an ISQ header, and of what its offset counts
_AIM_64_BIT = b"AIMDATA_V030   \0"
#: Kinds of AIM voxels that are not packed, by the number of their kind.
_AIM_KINDS: dict[int, np.dtype] = {0x10001: np.dtype("i1"), 0x20002: np.dtype("<i2")}
#: Where an AIM header says which kind it is, by its length, which differs between the versions.
_AIM_HEADERS = {224: 12, 140: 20, 96: 16, 92: 16}


def is_scanco(path: Path) -> bool:
    """Tells whether a file is ISQ or AIM by its name, which may end in the version that VMS gives it, as ``.ISQ;1``."""
    return _ending(path) in (".isq", ".aim")


def read_scanco(path: Path, header_only: bool = False) -> FoundImage:
    """Reads a scan. Grey values are Hounsfield units where the header has what they take, else density, else as stored.

    Args:
        path: the file.
        header_only: give `blank` voxels.

    Raises:
        OSError: the file cannot be opened.
        PackageError: aimio-py is missing.
        ScanError: it is damaged, ends early, or its voxels are packed.
    """
    isq = _ending(path) == ".isq"
    way_out = ", or open it in 3D Slicer, which reads ISQ, and save it as NRRD" if isq else ", or export DICOM"
    remedy = f"install it: {pip_install('aimio-py', extra='scanco')}{way_out}"
    aimio = needed("py_aimio", f"{path}: {'ISQ' if isq else 'AIM'} of a Scanco scanner", "aimio-py", remedy)
    try:
        return _read_isq(aimio, path, header_only) if isq else _read_aim(aimio, path, header_only)
    except (OSError, ScanError):
        raise
    except Exception as error:  # the package does not describe its errors
        raise ScanError(f"{path}: cannot be read ({one_line(error)})", _COPY_AGAIN) from error


def _ending(path: Path) -> str:
    return Path(re.sub(r";\d+$", "", path.name)).suffix.lower()


def _read_isq(aimio: Any, path: Path, header_only: bool) -> FoundImage:
    with open(path, "rb") as file:
        start = file.read(_BLOCK)
    if start[:16] != b"CTDATA-HEADER_V1" or len(start) < _BLOCK:
        raise _damaged(path)
    _require_end(path, _BLOCK * (1 + struct.unpack_from("<i", start, 508)[0]))
    header = aimio.isq_info(str(path))
    size = [int(n) for n in header["dimensions"]]
    voxels = _stored(path, size, int(header["data_offset"]), np.dtype("<i2"), header_only)
    # The slice distance that the header has beside the lengths is an estimate.
    spacing = np.array(header["dimensions_um"], float) / size / 1000
    equations = aimio.get_isq_hu_equation, aimio.get_isq_density_equation
    affine = _grid(path, spacing, header["origin"])
    return FoundImage(voxels if header_only else _scaled(voxels, equations, header), affine)


def _read_aim(aimio: Any, path: Path, header_only: bool) -> FoundImage:
    kind = _AIM_KINDS.get(_aim_kind(path))
    if kind is None:
        problem = f"{path}: holds packed or real voxels, as segmentations do"
        raise ScanError(problem, "give the grey values, as AIM of 16 bits, or export DICOM")
    header = aimio.aim_info(str(path))
    voxels = _stored(path, [int(n) for n in header["dimensions"]], int(header["byte_offset"]), kind, header_only)
    affine = _grid(path, np.array(header["spacing"]), header["origin"])
    equations = aimio.get_aim_hu_equation, aimio.get_aim_density_equation
    return FoundImage(voxels if header_only else _scaled(voxels, equations, header["processing_log"]), affine)


def _aim_kind(path: Path) -> int:
    """The kind of an AIM file's voxels, after a check that all of its blocks end within it."""
    with open(path, "rb") as file:
        start = file.read(_BLOCK)
    wide = start.startswith(_AIM_64_BIT)
    number, place = ("<q", len(_AIM_64_BIT)) if wide else ("<i", 0)
    step = struct.calcsize(number)
    # The file begins with the lengths of its blocks, that of this list first. The second is that of the header.
    own = struct.unpack_from(number, start, place)[0] if len(start) >= place + step else 0
    if own % step or not 4 * step <= own <= len(start) - place:
        raise _damaged(path)
    lengths = [struct.unpack_from(number, start, place + at)[0] for at in range(0, own, step)]
    kind_at = place + own + _AIM_HEADERS.get(lengths[1], _BLOCK)
    if min(lengths) < 0 or kind_at + 4 > len(start):
        raise _damaged(path)
    _require_end(path, place + sum(lengths))
    return struct.unpack_from("<i", start, kind_at)[0]


def _damaged(path: Path) -> ScanError:
    return ScanError(f"{path}: is no file of a Scanco scanner, or its header is damaged", _COPY_AGAIN)


def _require_end(path: Path, end: int) -> None:
    if end <= 0:
        raise _damaged(path)
    if end > path.stat().st_size:
        raise ends_early(path)


def _grid(path: Path, spacing: np.ndarray, origin: Sequence[float]) -> np.ndarray:
    if not (spacing > 0).all():
        sizes = ", ".join(f"{size:g}" for size in spacing)
        raise ScanError(f"{path}: its spacing is zero or negative: {sizes}", CORRECT_SPACING)
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = origin
    return affine


def _stored(path: Path, size: list[int], start: int, kind: np.dtype, header_only: bool) -> np.ndarray:
    """The voxels as they are stored, ``(z, y, x)``, from a place in the file on."""
    if min(size) < 1:
        raise _damaged(path)
    count = math.prod(size)
    _require_end(path, start + count * kind.itemsize)
    if header_only:  # what is scaled is of single precision
        return blank(size[::-1], np.float32)
    return np.fromfile(path, kind, count, offset=start).reshape(size[::-1])


def _scaled(voxels: np.ndarray, equations: tuple[Any, ...], header: Any) -> np.ndarray:
    for equation in equations:
        try:
            slope, intercept = equation(header)
        except (ValueError, ZeroDivisionError):
            continue
        if math.isfinite(slope) and math.isfinite(intercept) and slope > 0:
            scaled = voxels.astype(np.float32)
            scaled *= slope
            scaled += intercept
            return scaled
    return voxels
