"""Reads TIFF files of grey values: pages, tiles, hyperstacks, and the voxel size that ImageJ and OME write.

ITK reads what is not plain as other grey values without a word (tiles of 16 bits, half precision), or ends the process
(pages of several sizes). Uncompressed and deflated pages are decoded here; of deflated ones the checksum is verified.
Pages that are compressed otherwise are left to ITK, once it is sure that it reads them right.
"""

from __future__ import annotations

import mmap
import re
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .itk_reader import FoundImage, mixed_sizes, read_file
from .series import Series, choose
from .units import millimetres

_NONE, _DEFLATE = 1, (8, 32946)
_COPY_AGAIN = "copy or export it again"
_FORMS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_MOST_PAGES = 1_000_000


@dataclass(frozen=True, eq=False)
class Page:
    """One image of a TIFF file, as its directory describes it.

    Attributes:
        order: byte order, as `struct` writes it.
        size: ``(y, x)``.
        bits: a value.
        form: 1 unsigned, 2 signed, 3 floating point.
        samples: values a pixel.
        compression, photometric, predictor: as TIFF numbers them.
        tile: ``(y, x)`` of the pieces that the page is stored in; strips are pieces as wide as the page.
        offsets, counts: where the pieces lie, and how long they are.
        reduced: a smaller copy of another page.
        description: text of the page.
        resolution: pixels along x and y in a unit: 1 none, 2 inch, 3 cm.
    """

    order: str
    size: tuple[int, int]
    bits: int
    form: int
    samples: int
    compression: int
    photometric: int
    predictor: int
    tile: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray
    reduced: bool
    description: str
    resolution: tuple[float, float, int]

    @property
    def dtype(self) -> np.dtype | None:
        """The type of its values; None where NumPy has none."""
        name = {1: "u", 2: "i", 3: "f"}.get(self.form, "?") + str(self.bits // 8)
        known = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"}
        return np.dtype(self.order + name) if self.bits % 8 == 0 and name in known else None

    @property
    def kind(self) -> tuple:
        """What two pages must have in common to be read as one."""
        return self.bits, self.form, self.samples, self.photometric

    @property
    def plain(self) -> bool:
        """Whether the page can be decoded here."""
        packed = self.compression == _NONE or self.compression in _DEFLATE
        return packed and self.samples == 1 and self.photometric in (0, 1) and self.dtype is not None

    @property
    def itk_reads_it(self) -> bool:
        """Whether ITK reads its values as they are."""
        tiled = self.tile[1] != self.size[1]
        return not (tiled and self.bits != 8) and not (self.form == 3 and self.bits == 16)


def read_pages(path: Path) -> list[Page]:
    """Reads the directories of a TIFF file, without smaller copies of pages.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no TIFF file, or damaged, or ends early.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        try:
            pages = _walk(whole)
        except (struct.error, OverflowError) as error:
            raise ValueError("its directories are damaged, or the file ends early") from error
        length = len(whole)
    kept = [page for page in pages if not page.reduced] or pages
    kept = _one_directory(kept, length)
    for page in kept:
        if page.compression != _NONE and (page.offsets.astype(float) + page.counts > length).any():
            raise ValueError("the file ends early")
    return kept


def _walk(whole: mmap.mmap) -> list[Page]:
    order = {b"II": "<", b"MM": ">"}.get(whole[:2])
    if order is None:
        raise ValueError("not a TIFF file")
    big = struct.unpack_from(order + "H", whole, 2)[0] == 43
    pointer, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    place = struct.unpack_from(order + pointer, whole, 8 if big else 4)[0]
    pages: list[Page] = []
    seen: set[int] = set()
    while place:
        if place in seen or len(seen) > _MOST_PAGES:
            raise ValueError("its pages run in a circle")
        seen.add(place)
        number = struct.unpack_from(order + count, whole, place)[0]
        place += struct.calcsize(order + count)
        if place + number * entry > len(whole):
            raise ValueError("the file ends early")
        tags: dict[int, bytes | np.ndarray] = {}
        for index in range(number):
            tag, kind, length = struct.unpack_from(order + "HH" + pointer, whole, place + index * entry)
            form = _FORMS.get(kind)
            if form is None:
                continue
            at = place + index * entry + 4 + struct.calcsize(order + pointer)
            total = struct.calcsize(order + form) * length
            if total > struct.calcsize(order + pointer):
                at = struct.unpack_from(order + pointer, whole, at)[0]
            if at + total > len(whole):
                raise ValueError("the file ends early")
            if kind == 2:
                tags[tag] = whole[at : at + total]
            else:
                tags[tag] = np.frombuffer(whole[at : at + total], np.dtype(order + form[0]))
        pages.append(_page(order, tags))
        place = struct.unpack_from(order + pointer, whole, place + number * entry)[0]
    if not pages:
        raise ValueError("the file ends early")
    return pages


def _page(order: str, tags: dict) -> Page:
    def one(tag: int, otherwise: int) -> int:
        value = tags.get(tag)
        return int(value[0]) if isinstance(value, np.ndarray) and len(value) else otherwise

    def ratio(tag: int) -> float:
        value = tags.get(tag)
        if not isinstance(value, np.ndarray) or len(value) < 2 or not value[1]:
            return 0.0
        return float(value[0]) / float(value[1])

    size = one(257, 0), one(256, 0)
    tiled = 322 in tags
    tile = (one(323, 0), one(322, 0)) if tiled else (min(one(278, size[0]), size[0]), size[1])
    offsets = tags.get(324 if tiled else 273, np.zeros(0, np.uint64))
    counts = tags.get(325 if tiled else 279, np.zeros(0, np.uint64))
    if min(*size, *tile) < 1 or not len(offsets):
        raise ValueError("one of its pages holds no pixels")
    pieces = -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    if one(284, 1) == 1 and len(offsets) < pieces:
        raise ValueError("one of its pages holds too few pixels")
    if len(counts) < len(offsets):  # as of writers that leave it out
        counts = np.full(len(offsets), tile[0] * tile[1] * one(258, 1) // 8)
    text = tags.get(270, b"")
    description = text.split(b"\0")[0].decode("utf-8", "replace") if isinstance(text, bytes) else ""
    resolution = ratio(282), ratio(283), one(296, 2)
    return Page(
        order, size, one(258, 1), one(339, 1), one(277, 1), one(259, 1), one(262, 1), one(317, 1), tile,
        offsets, counts, bool(one(254, 0) & 1), description, resolution,
    )  # fmt: skip


def _one_directory(pages: list[Page], length: int) -> list[Page]:
    """The pages of a file of which only the first has a directory, as ImageJ writes those above 4 GB.

    Raises:
        ValueError: an uncompressed page ends beyond the file.
    """
    first = pages[0]
    count = _image_j(first.description).get("images", "1")
    amount = int(first.size[0]) * first.size[1] * max(first.bits // 8, 1) * first.samples
    if len(pages) == 1 and count.isdigit() and 1 < int(count) < _MOST_PAGES and first.compression == _NONE:
        start = int(first.offsets[0])
        begins = [np.array([start + k * amount], np.uint64) for k in range(int(count))]
        pages = [replace(first, tile=first.size, counts=np.array([amount]), offsets=begin) for begin in begins]
    for page in pages:
        if page.compression == _NONE and int(page.offsets.max()) + min(amount, int(page.counts.max())) > length:
            raise ValueError("the file ends early")
    return pages


# --- voxels -----------------------------------------------------------------------------------------------------------


def read_tiff(path: Path, series: str | int | None, role: str | None) -> FoundImage:
    """Reads a TIFF file of several pages.

    Args:
        path: the file.
        series: which channel or time point, where there are several: its number or its name.
        role: "fixed" or "moving" where the scan is one of a pair.

    Raises:
        OSError: the file cannot be opened.
        ScanError: it is damaged, holds no grey values, or pages that do not go together.
    """
    pages = tiff_pages(path)
    chosen = choose(path, _channels(pages), series, role)
    members = list(chosen.members)
    size = members[0].size
    for page in members:
        if page.size != size:
            sizes = " and ".join(f"{x} x {y}" for y, x in (size, page.size))
            problem = f"{path}: its pages are of several sizes ({sizes} pixels)"
            raise ScanError(problem, "save the scan without previews")
    if len(members) == 1:
        remedy = "give a 3D scan, or the folder of all its slices"
        raise ScanError(f"{path}: is a single 2D image ({size[1]} x {size[0]})", remedy)
    spacing, lacks = _voxel_size(members)
    return FoundImage(_decode_all(path, pages, members), np.diag((*spacing, 1.0)), lacks)


def tiff_pages(path: Path) -> list[Page]:
    """The pages of a TIFF file.

    Raises:
        OSError: the file cannot be opened.
        ScanError: it is no TIFF file, or damaged.
    """
    try:
        return read_pages(path)
    except ValueError as error:
        raise ScanError(f"{path}: cannot be read ({error})", "copy or export the scan again") from error


def _decode_all(path: Path, pages: list[Page], members: list[Page]) -> np.ndarray:
    if all(page.plain for page in members):
        voxels = np.empty((len(members), *members[0].size), common_type(members))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            for index, page in enumerate(members):
                _decode(path, whole, page, voxels[index])
        return voxels
    alike = len({page.kind for page in pages}) == 1 and len({page.size for page in pages}) == 1
    if not alike or not all(page.itk_reads_it for page in members):
        raise ScanError(f"{path}: its pages are compressed in a way that is not read", "save it without compression")
    voxels = read_file(path, path)
    return voxels[[pages.index(page) for page in members]] if len(members) < len(pages) else voxels


def read_tiff_slices(folder: Path, files: list[Path]) -> np.ndarray | None:
    """The voxels of slices in TIFF files of one page each, or None where ITK must read them.

    Raises:
        ScanError: one is damaged, or they have several sizes.
    """
    first_pages = [tiff_pages(file)[0] for file in files]
    for file, page in zip(files, first_pages, strict=True):
        if page.size != first_pages[0].size:
            raise mixed_sizes(folder, first_pages[0].size, page.size, file)
        if not page.plain and not page.itk_reads_it:
            raise ScanError(f"{file}: is compressed in a way that is not read", "save it without compression")
    if not all(page.plain for page in first_pages):
        return None
    voxels = np.empty((len(files), *first_pages[0].size), common_type(first_pages))
    for index, (file, page) in enumerate(zip(files, first_pages, strict=True)):
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            _decode(file, whole, page, voxels[index])
    return voxels


def common_type(pages: list[Page]) -> np.dtype:
    """The type that holds the values of all pages. Half precision is read as single."""
    kinds = {page.dtype for page in pages if page.dtype is not None}
    kind = np.result_type(*kinds).newbyteorder("=")
    return np.dtype(np.float32) if kind == np.float16 else kind


def _decode(path: Path, whole: mmap.mmap, page: Page, out: np.ndarray) -> None:
    dtype = page.dtype
    assert dtype is not None
    (height, width), (tall, wide) = page.size, page.tile
    amount = height * width * dtype.itemsize
    start = int(page.offsets[0])
    one_after_another = (np.diff(page.offsets.astype(np.int64)) == tall * width * dtype.itemsize).all()
    if page.compression == _NONE and wide == width and one_after_another:
        if start + amount > len(whole):
            raise ScanError(f"{path}: the file ends early (a broken copy or download)", _COPY_AGAIN)
        out[...] = np.frombuffer(whole, dtype, height * width, start).reshape(height, width)
        return
    across = -(-width // wide)
    for index, (offset, count) in enumerate(zip(page.offsets.tolist(), page.counts.tolist(), strict=False)):
        y, x = index // across * tall, index % across * wide
        if y >= height:
            break
        # A last strip may be shorter; a tile never is.
        rows = tall if wide != width else min(tall, height - y)
        expected = rows * wide * dtype.itemsize
        piece = whole[offset : offset + (expected if page.compression == _NONE else count)]
        if page.compression != _NONE:
            piece = _inflate(path, piece, tall * wide * dtype.itemsize)
        if len(piece) < expected:
            raise ScanError(f"{path}: the file ends early (a broken copy or download)", _COPY_AGAIN)
        values = _differences_summed(piece[:expected], page, rows, wide)
        part = out[y : y + rows, x : x + wide]
        part[...] = values[: part.shape[0], : part.shape[1]]


def _inflate(path: Path, piece: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(piece, most)
        # The checksum is tested at the end of the stream only.
        data += b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ScanError(f"{path}: its compressed part is damaged", _COPY_AGAIN) from error
    if not stream.eof:
        raise ScanError(f"{path}: its compressed part is damaged", _COPY_AGAIN)
    return data


def _differences_summed(piece: bytes, page: Page, rows: int, wide: int) -> np.ndarray:
    """The values of a piece. A predictor stores the difference of each value to the one before it."""
    dtype = page.dtype
    assert dtype is not None
    if page.predictor == 3:  # of floating point: bytes of all values, the most significant first, and their differences
        planes = np.cumsum(np.frombuffer(piece, np.uint8).reshape(rows, -1), axis=1, dtype=np.uint8)
        whole = planes.reshape(rows, dtype.itemsize, wide).transpose(0, 2, 1)
        return np.ascontiguousarray(whole).view(dtype.newbyteorder(">"))[..., 0]
    values = np.frombuffer(piece, dtype).reshape(rows, wide)
    if page.predictor == 2 and dtype.kind in "iu":
        native = dtype.newbyteorder("=")
        return np.cumsum(values, axis=1, dtype=native)
    return values


# --- what ImageJ and OME say ------------------------------------------------------------------------------------------


def _image_j(description: str) -> dict[str, str]:
    if not description.startswith("ImageJ="):
        return {}
    return dict(line.split("=", 1) for line in description.splitlines() if "=" in line)


def _ome(description: str) -> dict[str, str]:
    """The attributes of the pixels of an OME file that holds one image."""
    found = re.findall(r"<(?:\w+:)?Pixels\b([^>]*)>", description) if re.search(r"<(\w+:)?OME\b", description) else []
    return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', found[0])) if len(found) == 1 else {}


def _channels(pages: list[Page]) -> list[Series]:
    """The scans of a hyperstack: one for each channel and time point."""
    image_j, ome = _image_j(pages[0].description), _ome(pages[0].description)
    if ome:
        order = ome.get("DimensionOrder", "XYZCT")[2:]
        counts = {axis: _count(ome.get(f"Size{axis}")) for axis in "ZCT"}
    else:
        order = "CZT"
        counts = {a: _count(image_j.get(n)) for a, n in (("C", "channels"), ("Z", "slices"), ("T", "frames"))}
    several = [axis for axis in "CT" if counts[axis] > 1]
    fits = counts["Z"] * counts["C"] * counts["T"] == len(pages) and sorted(order) == ["C", "T", "Z"]
    y, x = pages[0].size
    # Slices that are called channels or time points are a stack where nothing else varies.
    if not fits or not several or (counts["Z"] == 1 and len(several) == 1):
        return [Series(str(len(pages)), "", f"{x} x {y} x {len(pages)}", pages)]
    # The last axis varies slowest.
    grid = np.arange(len(pages)).reshape([counts[axis] for axis in order[::-1]])
    axes = {axis: 2 - order.index(axis) for axis in "ZCT"}
    grid = grid.transpose(axes["C"], axes["T"], axes["Z"])
    listed = []
    for channel in range(counts["C"]):
        for time in range(counts["T"]):
            words = ((f"channel {channel + 1}", "C"), (f"time point {time + 1}", "T"))
            name = ", ".join(word for word, axis in words if axis in several)
            members = [pages[index] for index in grid[channel, time]]
            listed.append(Series(name, "of a hyperstack", f"{x} x {y} x {len(members)}", members))
    return listed


def _count(text: str | None) -> int:
    return int(text) if text and text.isdigit() and int(text) > 0 else 1


def _voxel_size(pages: list[Page]) -> tuple[tuple[float, float, float], str]:
    """The voxel size in mm, 1 where it is not stated, and what is not stated of it."""
    first = pages[0]
    x, y = stated_pixel(first)
    z = _length(_image_j(first.description).get("spacing")) * (_unit(first) or 0)
    if ome := _ome(first.description):
        x, y, z = (
            _length(ome.get(f"PhysicalSize{axis}")) * (millimetres(ome.get(f"PhysicalSize{axis}Unit", "um")) or 0)
            for axis in "XYZ"
        )
    if x > 0 and y > 0 and z > 0:
        return (x, y, z), ""
    hint = f" (in the slices: {x:.6g} x {y:.6g} mm, but not between them)" if x > 0 and y > 0 else ""
    return (x or 1.0, y or 1.0, z or 1.0), f"the file does not store the voxel size{hint}"


def stated_pixel(page: Page) -> tuple[float, float]:
    """The size of a pixel of a page in mm, 0 where it is not stated."""
    unit, (x, y, _) = _unit(page), page.resolution
    return (unit / x, unit / y) if unit and x > 0 and y > 0 else (0.0, 0.0)


def _unit(page: Page) -> float | None:
    """The unit of a page's resolution in mm. ImageJ's is a word in the description."""
    word = _image_j(page.description).get("unit")
    return {2: 25.4, 3: 10.0}.get(page.resolution[2]) if word is None else millimetres(word)


def _length(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e9 else 0.0
