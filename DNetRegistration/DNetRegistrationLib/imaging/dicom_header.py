"""Headers of DICOM files, read by pydicom: what SimpleITK does not tell, as of each frame of an enhanced file."""

from __future__ import annotations

import mmap
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from ..core.errors import ScanError
from ..core.quiet import quietly
from .truncation import ends_early

#: Bytes of a number that is not written as text, by value representation.
_NUMBERS = {"US": 2, "UL": 4}
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
#: Length of packed pixels, and bytes of the start of their element.
_UNDEFINED, _ELEMENT = 0xFFFFFFFF, 12
#: Value representations whose length takes four bytes, after two that are empty.
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
#: Whether the greatest value or the least one is to be shown brightest. The latter is PS3.3 C.7.6.3.1.2's MONOCHROME1.
PHOTOMETRIC, NEGATIVE = "PhotometricInterpretation", "MONOCHROME1"
#: Elements that are kept of a file, beside those in sequences.
_KEPT = (
    "ImageType", "AcquisitionDateTime", "AcquisitionTime", "SeriesDescription",
    "ContrastBolusAgent", "SliceThickness", "KVP", "EchoNumbers", "SpacingBetweenSlices", "ConvolutionKernel",
    "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "TemporalPositionIdentifier", "StackID", "TemporalPositionIndex",
    "FrameAcquisitionNumber", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsStored",
    "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "RescaleType", "PhotometricInterpretation",
    "GridFrameOffsetVector",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """A DICOM data set, or an item of a sequence. Its elements go by their keywords.

    Values are taken as they are written, since the digits of a position count. One that makes no sense counts as
    missing.

    Attributes:
        dataset: a `pydicom.Dataset`.
        pixels: whether pixel data follow.
    """

    dataset: Any
    pixels: bool = False

    def states(self, keyword: str) -> bool:
        """Whether there is such an element, were it blank."""
        return _tag(keyword) in self.dataset

    def text(self, keyword: str) -> str:
        """A text, or a whole number as text; "" where it is missing."""
        element = self.dataset.get_item(_tag(keyword))
        value = getattr(element, "value", None)
        if not isinstance(value, bytes):
            return ""
        size = _NUMBERS.get(_kind(element))
        if size is not None:
            order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
            return str(int.from_bytes(value[:size], order)) if len(value) >= size else ""
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        return " ".join(text.replace("\0", " ").split())

    def texts(self, keyword: str) -> list[str]:
        """The values of a text, which backslashes part."""
        text = self.text(keyword)
        return [part.strip() for part in text.split("\\")] if text else []

    def numbers(self, keyword: str, count: int) -> list[float] | None:
        """So many finite numbers, or None where there are others, fewer or more."""
        try:
            values = [float(part) for part in self.texts(keyword)]
        except ValueError:
            return None
        return values if len(values) == count and all(abs(v) < 1e30 for v in values) else None

    def number(self, keyword: str) -> float | None:
        """One finite number, or None."""
        values = self.numbers(keyword, 1)
        return None if values is None else values[0]

    def whole(self, keyword: str) -> int:
        """A whole number, or 0 where it is missing."""
        return int(self.number(keyword) or 0)

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence."""
        return _items(self.dataset[_tag(keyword)]) if self.states(keyword) else []

    def macros(self) -> list[Header]:
        """Of an item that describes a frame: its parts, such as the position; each is a sequence of one item."""
        return [items[0] for tag in self.dataset.keys() if (items := _items(self.dataset[tag]))]


@cache
def _tag(keyword: str) -> Any:
    from pydicom.tag import Tag

    return Tag(keyword)


def _kind(element: Any) -> str:
    """The value representation. Not all files state it."""
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(element.tag) if element.VR in (None, "UN") else element.VR


def _items(element: Any) -> list[Header]:
    return [Header(item) for item in element.value or ()] if element.VR == "SQ" else []


def is_dicom(path: Path) -> bool:
    """Tells whether a file starts as DICOM does. Old files have no mark, and start with the elements of group 8."""
    with open(path, "rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    group, element = struct.unpack("<HH", start[:4]) if len(start) >= 16 else (0, 0)
    if group not in (2, 8) or element > 0x70:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    length = struct.unpack_from("<H", start, 6)[0] if explicit else struct.unpack_from("<I", start, 4)[0]
    return length <= 256


def read_header(path: Path) -> Header:
    """Reads the elements of a DICOM file that come before its pixel data.

    Raises:
        OSError: the file cannot be opened.
        ScanError: it ends within its pixels.
        Exception: it is damaged. What that raises in pydicom is not described, and some of it only when a sequence is
            looked into.
    """
    from pydicom.filereader import read_partial

    pixels = []  # how long they are

    def at_pixels(tag: int, _kind: str | None, length: int) -> bool:
        pixels.extend([length] if tag in _PIXELS else [])
        return bool(pixels)

    # A length beyond the end of the file asks a mapped one for no memory.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        kept: list[Any] = [_tag(keyword) for keyword in _KEPT]
        header = Header(read_partial(cast(BinaryIO, whole), at_pixels, force=True, specific_tags=kept), bool(pixels))
        if pixels:
            syntax = getattr(getattr(header.dataset, "file_meta", None), "TransferSyntaxUID", None)
            implicit, little = getattr(syntax, "is_implicit_VR", True), getattr(syntax, "is_little_endian", True)
            at = whole.tell()
            if pixels[0] == _UNDEFINED:
                at = _end_of_fragments(whole, at)
            else:
                at += pixels[0] + (8 if implicit else _ELEMENT)
                # Some writers leave out the byte that makes a length even. Places in a deflated file are others.
                if at > len(whole) + 1 and not getattr(syntax, "is_deflated", False):
                    raise ends_early(path)
            _check_elements(whole, at, implicit, "<" if little else ">")
        return header


def _end_of_fragments(whole: mmap.mmap, at: int) -> int:
    """Where packed pixels that start at a place end. ITK asks for whatever memory the length of a piece claims.

    Raises:
        struct.error, ValueError: one ends beyond the file, or is no piece.
    """
    at += _ELEMENT
    while at < len(whole):  # some writers leave out the mark of the end
        group, element, length = struct.unpack_from("<HHI", whole, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            return at + 8
        at += 8 + length
        if (group, element) != (0xFFFE, 0xE000) or at > len(whole):
            raise ValueError("packed pixels are damaged")
    return at


def _check_elements(whole: mmap.mmap, at: int, implicit: bool, order: str) -> None:
    """Checks the lengths of what follows the pixels. ITK asks for whatever memory they claim: of garbage, gigabytes.

    What lies within sequences of unknown length is not looked at.

    Args:
        whole: the file.
        at: where the pixels end.
        implicit: the file states no value representations. Where another file does not, ITK takes it for one that does
            not.
        order: "<" or ">", of the bytes of numbers.

    Raises:
        ValueError: an element ends beyond the file.
    """
    while at + _ELEMENT <= len(whole):
        kind = whole[at + 4 : at + 6]
        if implicit or not (kind.isalpha() and kind.isupper()):
            length, start = struct.unpack_from(order + "I", whole, at + 4)[0], 8
        elif kind in _LONG:
            length, start = struct.unpack_from(order + "I", whole, at + 8)[0], _ELEMENT
        else:
            length, start = struct.unpack_from(order + "H", whole, at + 6)[0], 8
        if length == _UNDEFINED:
            return
        at += start + length
        if at > len(whole):
            raise ValueError("what follows the pixels is damaged")


def copy_without(path: Path, copy: Path, keywords: Sequence[str]) -> None:
    """Copies a DICOM file without some elements. Its stored values go for those of MONOCHROME2.

    Raises:
        OSError: the file cannot be read, or the copy not be written.
        ScanError: it is damaged.
    """
    import pydicom

    try:
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            for tag in [_tag(keyword) for keyword in keywords if _tag(keyword) in dataset]:
                del dataset[tag]
            if Header(dataset).text(PHOTOMETRIC) == NEGATIVE:
                dataset.PhotometricInterpretation = "MONOCHROME2"
            dataset.save_as(copy)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise damaged(path) from error


def damaged(path: Path) -> ScanError:
    """The error that pydicom cannot read a file."""
    return ScanError(f"{path}: cannot be read (its DICOM header is damaged)", "export the series again")
