"""Finds image files that were cut short.

ITK's readers of NRRD, MetaImage, PNG and DICOM refuse a file that was cut short. Those of NIfTI and BMP give no error:
they fill the rest with whatever lies in memory. Their files are checked here first, and those of TIFF in `tiff`.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

from .nifti import is_nifti, read_nifti_header


def is_truncated(path: str | os.PathLike) -> bool:
    """Tells whether a NIfTI or BMP file ends before its header says it should; False for other kinds of file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: its header makes no sense, or its compressed part is damaged.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if is_nifti(path):
            return _nifti_is_truncated(path)
        if name.endswith(".bmp"):
            return _bmp_is_truncated(path)
    except (struct.error, EOFError):  # the header itself or the compressed stream is cut
        return True
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError("its compressed part is damaged") from error
    return False


def _nifti_is_truncated(path: Path) -> bool:
    pair = path.suffix.lower() in (".hdr", ".img")
    data_path = path.with_suffix(".img") if pair else path
    compressed = path.suffix.lower() == ".gz"
    header = read_nifti_header(path)
    voxels = 1
    for size in header.sizes[1:]:
        voxels *= max(size, 1)
    expected = (0 if pair else header.offset) + voxels * header.bits // 8
    if not compressed:
        return data_path.stat().st_size < expected
    # The last four bytes of a gzip member are its length modulo 2^32, which spares unpacking a whole file.
    with open(path, "rb") as file:
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == expected % 2**32:
            return False
    # It is cut, or has several members, or something after the voxels: only unpacking it tells.
    length = 0
    with gzip.open(path, "rb") as file:
        while block := file.read(1 << 22):
            length += len(block)
    return length < expected


def _bmp_is_truncated(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(54)
    if header[:2] != b"BM":
        raise ValueError("not a BMP file")
    start, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", header, 10)
    if compression:  # of run lengths the size is not known beforehand
        return False
    row = (abs(width) * bits + 31) // 32 * 4
    return path.stat().st_size < start + row * abs(height)
