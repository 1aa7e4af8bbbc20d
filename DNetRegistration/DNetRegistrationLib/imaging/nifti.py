"""Reads NIfTI with nibabel. ITK reads a sheared or rounded sform as something else, or not at all."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ScanError, one_line
from ..core.packages import needed
from .itk_reader import FoundImage, blank, require_scalar_3d
from .text_headers import CORRECT_SPACING
from .truncation import damaged_packing, ends_early, gzip_seems_whole, unpacked_length

#: mm for a unit of NIfTI; 0 is unknown, and read as mm.
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_DAMAGED = "its header is damaged"
_LONGEST_HEADER = 540
_LONGEST_REST = 1 << 20


def is_nifti(path: Path) -> bool:
    """Tells whether a file is NIfTI, or Analyze, by its name."""
    return path.name.lower().endswith((".nii", ".nii.gz", ".hdr", ".img"))


def read_nifti(path: Path, header_only: bool = False) -> FoundImage:
    """Reads NIfTI of version 1 or 2, in one file or in two, or Analyze, its ancestor.

    The grid is that of the sform as it stands, else that of the qform. Where the header has neither, axes and origin
    are those of the world.

    Args:
        path: the file.
        header_only: give `blank` voxels; of packed ones the length is tested, and no checksum.

    Raises:
        OSError: a file cannot be opened.
        PackageError: nibabel is missing.
        ScanError: it cannot be read, ends early, is damaged, or holds no one real number a voxel.
    """
    nibabel = needed("nibabel", f"{path}: NIfTI")
    try:
        header = _header(nibabel, path)
        affine = _affine(path, header)
        voxels = _voxels(nibabel, path, header, header_only)
    except EOFError as error:
        raise ends_early(path) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise damaged_packing(path) from error
    except ScanError:
        raise
    except (ValueError, KeyError, OverflowError, nibabel.spatialimages.HeaderDataError) as error:
        # Of a code that nibabel does not know, the error says no more than the number.
        told = _DAMAGED if isinstance(error, KeyError) else one_line(error)
        raise ScanError(f"{path}: cannot be read ({told})", "copy or export the scan again") from error
    # Code 0 says that nothing is known of the body.
    stated = any(int(header[code]) > 0 for code in ("sform_code", "qform_code") if code in header.keys())
    return FoundImage(voxels, affine, anatomical=stated)


def _header(nibabel: Any, path: Path) -> Any:
    suffix = path.suffix.lower()
    with (gzip.open if suffix == ".gz" else open)(path.with_suffix(".hdr") if suffix == ".img" else path, "rb") as file:
        start = file.read(_LONGEST_HEADER)
    # Without nibabel's own check, which mends in silence.
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header, nibabel.AnalyzeHeader):
        if kind.may_contain_header(start):
            return kind(start[: kind.template_dtype.itemsize], check=False)
    raise ValueError("not a NIfTI file")


def _affine(path: Path, header: Any) -> np.ndarray:
    """``(4, 4)`` index (x, y, z) to world LPS mm."""
    spacing = header["pixdim"][1 : min(int(header["dim"][0]), 3) + 1]
    stated, code = header.get_sform(coded=True) if "sform_code" in header else (None, 0)
    if not code and not ((spacing > 0) & np.isfinite(spacing)).all():
        sizes = ", ".join(f"{size:g}" for size in spacing)
        raise ScanError(f"{path}: its spacing is zero or negative: {sizes}", CORRECT_SPACING)
    if not code and "qform_code" in header:
        stated, code = header.get_qform(coded=True)
    affine = np.array(stated) if code else np.diag((*header["pixdim"][1:4].astype(float), 1.0))
    if code:
        affine[:2] *= -1  # NIfTI's world is RAS
    affine[:3] *= _UNITS.get(int(header["xyzt_units"]) & 7, 1.0) if "xyzt_units" in header else 1.0
    return affine


def _voxels(nibabel: Any, path: Path, header: Any, header_only: bool) -> np.ndarray:
    pair, packed = path.suffix.lower() in (".hdr", ".img"), path.suffix.lower() == ".gz"
    file = path.with_suffix(".img") if pair else path
    shape, kind, start = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    if min(shape, default=0) < 1 or start < (0 if pair else int(header["sizeof_hdr"])):
        raise ValueError(_DAMAGED)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    # Vectors lie along the fifth axis.
    channels = shape[4] if len(shape) == 5 and shape[3] == 1 else len(kind.names or "1")
    require_scalar_3d(path, shape[:3] if channels > 1 else shape, channels, kind.kind == "c")
    # Sizes and the checksum come first: nibabel asks for all the memory at once, and reads no further than it must.
    end = start + math.prod(shape) * kind.itemsize
    most = 2 * end + _LONGEST_REST
    if header_only and packed and gzip_seems_whole(file, end, _LONGEST_REST):
        length = end
    else:
        length = unpacked_length(file, 0, most) if packed else file.stat().st_size
    if length < end:
        raise EOFError
    # A damaged stream may give more than was packed; its checksum, at its end, would not be reached.
    if packed and length >= most:
        raise ScanError(f"{path}: holds more voxels than its header says", "copy or export it again")
    if header_only:
        return blank(shape[::-1], kind)
    stored = nibabel.arrayproxy.ArrayProxy(str(file), header, mmap=False)
    scaled = (stored.slope, stored.inter) != (1, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged slope makes infinities, which are no values
        voxels = np.asarray(stored, np.result_type(kind, np.float32)) if scaled else stored.get_unscaled()
    return voxels.reshape(shape, order="F").T.astype(voxels.dtype.newbyteorder("="), copy=False)
