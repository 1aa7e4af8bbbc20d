"""Text headers of NRRD and MetaImage, which are checked before ITK sees the file.

No other library than ITK reads MetaImage, and none that Slicer brings reads NRRD, which its panel hands on. But ITK
passes over the unit, mirrors a scan for a negative spacing, takes damaged compression for data, and some damaged
headers end its process.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .truncation import damaged_packing, ends_early, gzip_seems_whole, unpacked_length
from .units import millimetres

CORRECT_SPACING = "correct the voxel size in the file's header"
_COPY_AGAIN = "copy or export it again"
_LONGEST = 1 << 20
#: Longest line of a field. NRRD's reader ends the process from about 1500 characters on.
_LONGEST_FIELD = 1000
#: Numbered files of slices: a name as C's printf takes it, the first and the last number, and the step.
_NUMBERED = re.compile(r"([^%]*)%(0?\d*)d([^%\s]*)\s+(-?\d+)\s+(-?\d+)\s+(-?0*[1-9]\d*)(?:\s+\d+)?")
_MOST_FILES = 100_000
#: Deflating shrinks nothing further than this.
_MOST_SHRUNK = 1040

#: Fields of MetaImage whose numbers its reader trusts.
_NUMBERS = (
    "elementspacing",
    "elementsize",
    "offset",
    "position",
    "origin",
    "transformmatrix",
    "rotation",
    "orientation",
)
_BYTES = {
    "char": 1, "uchar": 1, "short": 2, "ushort": 2, "int": 4, "uint": 4, "long": 4, "ulong": 4, "long_long": 8,
    "ulong_long": 8, "float": 4, "double": 8, "signed char": 1, "int8": 1, "int8_t": 1, "unsigned char": 1, "uint8": 1,
    "uint8_t": 1, "int16": 2, "int16_t": 2, "short int": 2, "unsigned short": 2, "uint16": 2, "uint16_t": 2, "int32": 4,
    "int32_t": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4, "long long": 8, "int64": 8, "int64_t": 8,
    "unsigned long long": 8, "uint64": 8, "uint64_t": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TextHeader:
    """The header of an NRRD or MetaImage file.

    Attributes:
        fields: by their names in lower case.
        end: where it ends in the file.
        longest: characters of its longest field.
    """

    fields: dict[str, str]
    end: int
    longest: int


def text_header(path: Path) -> TextHeader | None:
    """The header of an NRRD or MetaImage file; None for other files.

    Raises:
        OSError: the file cannot be opened.
    """
    nrrd = path.name.lower().endswith((".nrrd", ".nhdr"))
    if not nrrd and not path.name.lower().endswith((".mha", ".mhd")):
        return None
    fields: dict[str, str] = {}
    longest = 0
    with open(path, "rb") as file:
        while file.tell() < _LONGEST and (line := file.readline(_LONGEST)):
            text = line.decode("utf-8", "replace").strip()
            if nrrd and not text:
                break
            found = re.match(r"([^:=#]+):(?!=)(.*)" if nrrd else r"([^:=]+)[:=](.*)", text)
            if found:
                fields[found[1].strip().lower()] = found[2].strip()
                longest = max(longest, len(line))
            if not nrrd and "elementdatafile" in fields:
                break
        return TextHeader(fields, file.tell(), longest)


def check_text_header(path: Path, header_only: bool = False) -> None:
    """Checks what ITK takes for granted of an NRRD or MetaImage file: spacing, sizes, numbers, checksums.

    Args:
        path: the file.
        header_only: packed voxels are not unpacked to test their checksum, but where their length is in doubt.

    Raises:
        OSError: the file, or that of its voxels, cannot be opened.
        ScanError: something is wrong with it.
    """
    header = text_header(path)
    if header is None:
        return
    _require_positive_spacing(path, header.fields)
    if path.name.lower().endswith((".nrrd", ".nhdr")):
        if header.longest > _LONGEST_FIELD:
            raise ScanError(f"{path}: its header is damaged (a field of {header.longest} characters)", _COPY_AGAIN)
        _check_nrrd(path, header, header_only)
    else:
        _check_metaimage(path, header, header_only)


def _require_positive_spacing(path: Path, fields: dict[str, str]) -> None:
    for name in ("spacings", "elementspacing", "elementsize"):
        values = fields.get(name, "").split()
        # NRRD has "nan" where an axis is no length, as that of colours.
        bad = [v for v in values if not 0 < _number(v) < 1e30 and not (name == "spacings" and v.lower() == "nan")]
        if bad:
            raise ScanError(
                f"{path}: its spacing is zero or negative, or not finite ({' '.join(values)})", CORRECT_SPACING
            )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0  # the reader says what is wrong with it


def _check_nrrd(path: Path, header: TextHeader, header_only: bool) -> None:
    fields = header.fields
    data = fields.get("data file", fields.get("datafile"))
    skips = any(fields.get(name, "0") != "0" for name in ("line skip", "lineskip", "byte skip", "byteskip"))
    encoding = fields.get("encoding", "raw").lower()
    if skips or encoding not in ("raw", "gzip", "gz") or (data is not None and ("LIST" in data or "%" in data)):
        return
    claimed = _claimed(fields.get("sizes", ""), fields.get("type", ""))
    file = path if data is None else path.parent / data
    seems_whole = gzip_seems_whole if header_only else None
    _check_data(path, file, header.end if data is None else 0, claimed, encoding != "raw", seems_whole)


def _check_metaimage(path: Path, header: TextHeader, header_only: bool) -> None:
    fields = header.fields
    if not re.fullmatch(r"[1-9]|10", fields.get("ndims", "3")):
        raise ScanError(f"{path}: its header is damaged ({fields['ndims'][:20]} dimensions)", _COPY_AGAIN)
    for name in _NUMBERS:
        if not all(abs(_number(word)) < 1e30 for word in fields.get(name, "").split()):
            raise ScanError(f"{path}: its header is damaged ({name} is not finite)", _COPY_AGAIN)
    data = fields.get("elementdatafile", "")
    # ITK's process ends where numbers are missing.
    if "%" in data and not _NUMBERED.fullmatch(data):
        raise ScanError(f"{path}: its header is damaged (the name of its data file)", _COPY_AGAIN)
    if "%" in data or data == "LIST" or data.startswith("LIST ") or fields.get("headersize", "0") != "0":
        return
    if fields.get("binarydata", "True").lower() in ("false", "0"):
        return
    channels = fields.get("elementnumberofchannels", "1")
    kind = fields.get("elementtype", "").lower().removeprefix("met_").removesuffix("_array")
    claimed = _claimed(f"{fields.get('dimsize', '')} {channels}", kind)
    local = data.lower() == "local"
    packed = fields.get("compresseddata", "False").lower() in ("true", "1")
    start, stated = header.end if local else 0, fields.get("compresseddatasize", "")
    seems_whole = None
    if header_only and stated.isascii() and stated.isdigit():

        def seems_whole(file: Path, claimed: int) -> bool:
            return file.stat().st_size >= start + int(stated)

    _check_data(path, path if local else path.parent / data, start, claimed, packed, seems_whole)


def _claimed(sizes: str, kind: str) -> int | None:
    """How many bytes of voxels a header speaks of; None where it makes no sense, which the reader says."""
    words, size = sizes.split(), _BYTES.get(kind.strip().lower())
    if size is None or not words or not all(word.isascii() and word.isdigit() for word in words):
        return None
    return math.prod(int(word) for word in words) * size


def _check_data(
    path: Path,
    file: Path,
    start: int,
    claimed: int | None,
    packed: bool,
    seems_whole: Callable[[Path, int], bool] | None,
) -> None:
    """Checks that a file holds as many voxels as the header speaks of, and the checksum of packed ones.

    The latter is left out where `seems_whole`, which is quick, finds nothing wrong with the file and this many bytes.
    """
    if file.exists() and not file.is_file():
        raise ScanError(f"{path}: its voxels lie in what is no file", _COPY_AGAIN)
    if claimed is None or not file.exists():
        return
    there = file.stat().st_size - start
    if claimed > there * (_MOST_SHRUNK if packed else 1):
        raise ends_early(path)
    if not packed or (seems_whole is not None and seems_whole(file, claimed)):
        return
    try:
        length = unpacked_length(file, start, claimed + 1)
    except (zlib.error, EOFError) as error:
        raise damaged_packing(path) from error
    if length < claimed:
        raise ends_early(path)
    if length > claimed:
        raise ScanError(f"{path}: holds more voxels than its header says", _COPY_AGAIN)


def data_files(path: Path) -> Iterator[Path]:
    """The files of voxels that the header of an NRRD or MetaImage file names, whether they are there or not.

    Raises:
        OSError: the file cannot be opened.
    """
    header = text_header(path)
    if header is None:
        return
    fields = header.fields
    data = fields.get("data file", fields.get("datafile", fields.get("elementdatafile", "local")))
    numbered = _NUMBERED.fullmatch(data)
    if numbered:
        before, form, after = numbered.group(1, 2, 3)
        first, last, step = map(int, numbered.group(4, 5, 6))
        numbers = range(first, last + (1 if step > 0 else -1), step)
        names = [f"{before}{number:{form}d}{after}" for number in islice(numbers, _MOST_FILES)]
    elif data.split(maxsplit=1)[:1] == ["LIST"]:
        with open(path, "rb") as file:
            lines = [os.fsdecode(line).strip() for line in file.read(_LONGEST).splitlines()]
        start = next(n for n, line in enumerate(lines) if re.match(r"(?i)(data ?file|elementdatafile)\s*[:=]", line))
        names = [line for line in lines[start + 1 :] if line]
    else:
        names = [data] if data and data.lower() != "local" else []
    yield from (path.parent / name for name in names)


def states_anatomy(path: Path) -> bool:
    """Whether a file is an NRRD whose space is named by directions of the body. MetaImage states one unasked."""
    header = text_header(path)
    space = "" if header is None else header.fields.get("space", "").strip().lower()
    return (
        re.fullmatch(r"(right|left)-(anterior|posterior)-(superior|inferior)(-time)?|(ras|las|lps)t?", space)
        is not None
    )


def in_millimetres(path: Path, affine: np.ndarray) -> tuple[np.ndarray, str]:
    """The affine of an NRRD or MetaImage file in mm, where its header says that it is in another unit.

    Returns:
        tuple: the affine, and what is not known of the voxel size, "" where all is.
    """
    header = text_header(path)
    if header is None:
        return affine, ""
    fields = header.fields
    world = fields.get("space units", fields.get("distanceunits", ""))
    # A NRRD without a space has a unit for each axis.
    stated = world or ("" if "space" in fields or "space dimension" in fields else fields.get("units", ""))
    words = re.findall(r'"([^"]*)"', stated) or stated.split()
    words = [word for word in words if word.strip() not in ("", "?", "???", "none")][:3]
    if not words:
        return affine, ""
    scales = [millimetres(word) for word in words]
    known = [scale for scale in scales if scale is not None]
    if len(known) < len(scales):
        return affine, f"the unit of its voxel size is not known ({words[scales.index(None)]})"
    each = np.array(known if len(known) == 3 else known[:1] * 3)
    scaled = affine.copy()
    if world:
        scaled[:3] *= each[:, None]
    else:
        scaled[:3, :3] *= each
        scaled[:3, 3] *= each
    return scaled, ""
