"""Headers of DICOM files, in plain Python: what SimpleITK does not tell, as of each frame of an enhanced file."""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_ITEM, _ITEM_END, _SEQUENCE_END, _PIXELS = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x7FE00010
_FLOAT_PIXELS = (0x7FE00008, 0x7FE00009)
_UNDEFINED = 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_DEFLATED, _BIG_ENDIAN, _IMPLICIT = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"
#: Sequences of enhanced files. A file without value representations does not say which elements are sequences.
_SEQUENCES = {0x00089215, 0x00209111, 0x00209113, 0x00209116, 0x00289110, 0x00289145, 0x52009229, 0x52009230}
_DEEPEST = 16


@dataclass(frozen=True)
class Header:
    """Elements of a DICOM data set by tag, ``group << 16 | element``.

    Attributes:
        elements: bytes, or the items of a sequence.
        order: byte order, as `struct` writes it.
        pixels: whether pixel data follow.
    """

    elements: dict[int, bytes | list[Header]]
    order: str = "<"
    pixels: bool = False

    def text(self, tag: int) -> str:
        """A text, or "" where it is missing."""
        value = self.elements.get(tag, b"")
        if not isinstance(value, bytes):
            return ""
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        return " ".join(text.replace("\0", " ").split())

    def texts(self, tag: int) -> list[str]:
        """The values of a text, which backslashes part."""
        text = self.text(tag)
        return [part.strip() for part in text.split("\\")] if text else []

    def numbers(self, tag: int, count: int) -> list[float] | None:
        """So many finite numbers, or None where there are others, fewer or more."""
        try:
            values = [float(part) for part in self.texts(tag)]
        except ValueError:
            return None
        return values if len(values) == count and all(abs(v) < 1e30 for v in values) else None

    def number(self, tag: int) -> float | None:
        """One finite number, or None."""
        values = self.numbers(tag, 1)
        return None if values is None else values[0]

    def short(self, tag: int) -> int:
        """A 16-bit number, or 0 where it is missing."""
        value = self.elements.get(tag, b"")
        return struct.unpack_from(self.order + "H", value)[0] if isinstance(value, bytes) and len(value) >= 2 else 0

    def items(self, tag: int) -> list[Header]:
        """The items of a sequence."""
        value = self.elements.get(tag, [])
        return value if isinstance(value, list) else []


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
        ValueError: it is damaged, or is not DICOM.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        try:
            return _parse_file(whole)
        except (struct.error, zlib.error, RecursionError) as error:
            raise ValueError("its DICOM header is damaged") from error


def _parse_file(whole: mmap.mmap) -> Header:
    position = 132 if whole[128:132] == b"DICM" else 0
    # The preface is explicit and little-endian, whatever follows.
    preface, position = _Parser(whole, "<", explicit=True).elements(position, len(whole), only_group=2)
    syntax = Header(preface).text(0x00020010)
    if not syntax:
        explicit = whole[position + 4 : position + 6].isalpha()
    else:
        explicit = syntax != _IMPLICIT
    order = ">" if syntax == _BIG_ENDIAN else "<"
    content: bytes | mmap.mmap = whole
    if syntax == _DEFLATED:
        content, position = zlib.decompress(whole[position:], -15), 0
    parser = _Parser(content, order, explicit)
    found, _ = parser.elements(position, len(content))
    if not found:
        raise ValueError("its DICOM header is damaged")
    return Header(found, order, parser.pixels)


class _Parser:
    """Walks through the elements of a data set."""

    def __init__(self, content: bytes | mmap.mmap, order: str, explicit: bool) -> None:
        self._content, self._order, self._explicit = content, order, explicit
        self.pixels = False

    def elements(
        self, position: int, end: int, depth: int = 0, only_group: int | None = None
    ) -> tuple[dict[int, bytes | list[Header]], int]:
        """The elements from a position to the end, the end of the item, or the pixel data; and where they end."""
        if depth > _DEEPEST:
            raise ValueError("its DICOM header is damaged")
        found: dict[int, bytes | list[Header]] = {}
        while position + 8 <= end:
            group, element = struct.unpack_from(self._order + "HH", self._content, position)
            tag = group << 16 | element
            if only_group is not None and group != only_group:
                break
            if tag == _ITEM_END:
                return found, position + 8
            if tag == _SEQUENCE_END:
                break
            if depth == 0 and (tag == _PIXELS or tag in _FLOAT_PIXELS):
                self.pixels = True
                break
            kind = self._content[position + 4 : position + 6] if self._explicit else b""
            if not self._explicit:
                length, position = self._length(position + 4), position + 8
            elif kind in _LONG:
                length, position = self._length(position + 8), position + 12
            else:
                length, position = struct.unpack_from(self._order + "H", self._content, position + 6)[0], position + 8
            if length == _UNDEFINED or kind == b"SQ" or (tag in _SEQUENCES and kind in (b"", b"UN")):
                found[tag], position = self._items(position, length, end, depth, kind)
                continue
            if position + length > end:
                raise ValueError("its DICOM header ends early")
            found[tag] = self._content[position : position + length]
            position += length
        return found, position

    def _length(self, position: int) -> int:
        return struct.unpack_from(self._order + "I", self._content, position)[0]

    def _items(self, position: int, length: int, end: int, depth: int, kind: bytes) -> tuple[list[Header], int]:
        # A sequence of unknown kind has implicit items, also in an explicit file.
        parser = _Parser(self._content, "<", False) if kind == b"UN" else self
        stop = end if length == _UNDEFINED else position + length
        if stop > end:
            raise ValueError("its DICOM header ends early")
        items = []
        while position + 8 <= stop:
            group, element, size = struct.unpack_from(self._order + "HHI", self._content, position)
            position += 8
            if group << 16 | element != _ITEM:
                break
            last = stop if size == _UNDEFINED else position + size
            if last > stop:
                raise ValueError("its DICOM header ends early")
            found, after = parser.elements(position, last, depth + 1)
            items.append(Header(found, self._order))
            position = after if size == _UNDEFINED else last
        return items, position if length == _UNDEFINED else stop
