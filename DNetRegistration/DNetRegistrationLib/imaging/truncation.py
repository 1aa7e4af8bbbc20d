"""Finds image files that were cut short.

ITK's readers of NRRD, MetaImage, PNG and DICOM refuse a file that was cut short. Those of BMP and JPEG give no error:
they fill the rest with whatever lies in memory. Their files are checked here first.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from ..core.errors import ScanError

_ZLIB_OR_GZIP = 47
_END_OF_JPEG = b"\xff\xd9"
_BLOCK = 1 << 22

_COPY_AGAIN = "copy or export it again"


def ends_early(path: object) -> ScanError:
    """The error that a file was cut short."""
    return ScanError(f"{path}: the file ends early (a broken copy or download)", _COPY_AGAIN)


def damaged_packing(path: object) -> ScanError:
    """The error that compressed voxels do not unpack, or not to what their checksum says."""
    return ScanError(f"{path}: its compressed part is damaged", _COPY_AGAIN)


def is_truncated(path: str | os.PathLike) -> bool:
    """Tells whether a BMP or JPEG file ends before it should; False for other kinds of file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: its header makes no sense.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".jpg", ".jpeg"):
            return not path.read_bytes().rstrip(b"\0").endswith(_END_OF_JPEG)
        return path.suffix.lower() == ".bmp" and _bmp_is_truncated(path)
    except struct.error:  # the header itself is cut
        return True


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


def gzip_seems_whole(file: Path, length: int, rest: int = 0) -> bool:
    """Tells whether the last bytes of a gzip file say that it unpacks to `length` bytes, and up to `rest` more.

    Its last member states its length there, modulo 2^32. What a broken copy ends with is no such number. A file of
    several members may fail although it is whole: ask `unpacked_length` then.

    Raises:
        OSError: the file cannot be opened.
    """
    with open(file, "rb") as opened:
        opened.seek(0, os.SEEK_END)
        if opened.tell() < 18:  # header and trailer
            return False
        opened.seek(-4, os.SEEK_END)
        stated = int.from_bytes(opened.read(4), "little")
    return (stated - length) % 2**32 <= rest


def _bmp_is_truncated(path: Path) -> bool:
    with open(path, "rb") as file:
        header = file.read(54)
    if header[:2] != b"BM":
        raise ValueError("not a BMP file")
    start, _, width, height, _, bits, compression, packed = struct.unpack_from("<IIiiHHII", header, 10)
    row = (abs(width) * bits + 31) // 32 * 4
    return path.stat().st_size < start + (packed if compression else row * abs(height))
