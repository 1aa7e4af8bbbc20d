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

_ZLIB_OR_GZIP = 47
_BLOCK = 1 << 22


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
    return unpacked_length(path, 0, expected + 1) < expected


def unpacked_length(file: Path, start: int, most: int) -> int:
    """How many bytes a file holds in packed form, zlib or gzip, from a place on; not counted far beyond `most`.

    Raises:
        OSError: the file cannot be opened.
        zlib.error: it is damaged. The checksum is tested, which ITK does not do for all kinds of file.
        EOFError: it ends early.
    """
    length = 0
    with open(file, "rb") as opened:
        opened.seek(start)
        stream, rest = zlib.decompressobj(_ZLIB_OR_GZIP), b""
        while length < most:
            packed = rest or opened.read(_BLOCK)
            block = stream.decompress(packed, _BLOCK)
            if not packed and not block and not stream.eof:
                raise EOFError("the compressed part ends early")
            length += len(block)
            rest = stream.unconsumed_tail
            if stream.eof:
                # What follows is a further member of gzip, or no part of the voxels.
                rest = stream.unused_data or opened.read(_BLOCK)
                if not rest.startswith(b"\x1f\x8b"):
                    break
                stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    return length


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
