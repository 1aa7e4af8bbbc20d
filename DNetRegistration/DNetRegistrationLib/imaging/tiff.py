"""Reads TIFF files of grey values with tifffile: hyperstacks, and the voxel size that ImageJ and OME write.

tifffile decodes; it passes over much of what damage does to a file, so that directories and sizes are checked here.
ITK is not asked: it reads tiles of 16 bits and half precision as other values, and pages of several sizes end the
process.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ..core.errors import DNetError, ScanError, one_line
from ..core.packages import needed
from ..core.quiet import quietly
from .itk_reader import FoundImage, blank, colours_are_equal, too_many_values
from .series import Series, choose
from .tiff_writer import stated_grid
from .truncation import damaged_packing, ends_early
from .units import millimetres

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
#: What nothing of a scan is lost in, and what shrinks it by less than the factor below.
_COMPRESSIONS = (_NONE, _LZW, *_DEFLATE, _PACKBITS)
_MOST_SHRUNK = 1400
_PALETTE = 3


def read_tiff(path: Path, series: str | int | None, role: str | None, header_only: bool = False) -> FoundImage:
    """Reads a TIFF file of several pages.

    Args:
        path: the file.
        series: which channel or time point, where there are several: its number or its name.
        role: "fixed" or "moving" where the scan is one of a pair.
        header_only: give `blank` voxels.

    Raises:
        OSError: the file cannot be opened.
        PackageError: tifffile, or the decoder of its compression, is missing.
        ScanError: it is damaged, holds no grey values, or pages that do not go together.
    """
    with _opened(path) as file:
        pages = _pages(path, file)
        scans = _channels(file, _contiguous_pages(path, file, pages) or len(pages))
        members = list(choose(path, scans, series, role).members)
        if len(members) == 1:
            remedy = "give a 3D scan, or the folder of all its slices"
            raise ScanError(f"{path}: is a single 2D image ({_size(pages[0])})", remedy)
        spacing, lacks = _voxel_size(file)
        affine = np.diag((*spacing, 1.0))
        size = pages[0].imagewidth, pages[0].imagelength, len(members)
        stated = stated_grid((file.imagej_metadata or {}).get("Info"), size, spacing)
        placed, affine = stated is not None, affine if stated is None else stated
        if len(pages) == 1:
            if header_only:
                shape = (len(members), pages[0].imagelength, pages[0].imagewidth)
                return FoundImage(blank(shape, _voxel_type(path, pages[0])), affine, lacks, placed=placed)
            return FoundImage(_read_contiguous(path, file, pages[0], members), affine, lacks, placed=placed)
        chosen = [pages[index] for index in members]
        for page in chosen:
            if _size(page) != _size(chosen[0]):
                problem = f"{path}: its pages are of several sizes ({_size(chosen[0])} and {_size(page)} pixels)"
                raise ScanError(problem, "save the scan without previews")
            _require_whole(path, file, page)
        shape = (len(chosen), chosen[0].imagelength, chosen[0].imagewidth)
        kind = np.result_type(*(_voxel_type(path, page) for page in chosen))
        if header_only:
            return FoundImage(blank(shape, kind), affine, lacks, placed=placed)
        voxels = np.empty(shape, kind)
        for index, page in enumerate(chosen):
            voxels[index] = _decoded(path, page)
    return FoundImage(voxels, affine, lacks, placed=placed)


def read_tiff_slice(path: Path) -> np.ndarray:
    """The voxels ``(y, x)`` of a slice, the one page of its size in a TIFF file.

    Raises:
        OSError: the file cannot be opened.
        PackageError: tifffile, or the decoder of its compression, is missing.
        ScanError: it is damaged, holds no grey values, or several slices.
    """
    with _opened(path) as file:
        first, *others = _pages(path, file)
        if any(_size(page) == _size(first) for page in others):
            raise ScanError(f"{path}: holds several slices", "give the file itself, or one file for each slice")
        _require_whole(path, file, first)
        return _decoded(path, first).astype(_voxel_type(path, first), copy=False)


def stated_pixel(path: Path) -> tuple[float, float]:
    """The size of a pixel of the first page in mm along x and y, 0 where it is not stated.

    Raises:
        OSError: the file cannot be opened.
        ScanError: it is damaged.
    """
    with _opened(path) as file:
        _pages(path, file)
        return _pixel(file)


@contextmanager
def _opened(path: Path) -> Iterator[TiffFile]:
    tifffile = needed("tifffile", f"{path}: TIFF")
    try:
        with quietly(), tifffile.TiffFile(path) as file:
            yield file
    except (DNetError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever the damage leads to
        raise ScanError(f"{path}: cannot be read ({one_line(error)})", "copy or export the scan again") from error


def _pages(path: Path, file: TiffFile) -> list[TiffPage]:
    """The pages of a file, without smaller copies of pages. tifffile takes a broken chain of pages for its end."""
    pages: list[Any] = []
    seen: set[int] = set()
    for page in file.pages:
        if page.offset in seen:
            raise ScanError(f"{path}: cannot be read (its pages run in a circle)", "copy or export it again")
        seen.add(page.offset)
        pages.append(page)
    file.filehandle.seek(file.pages.next_page_offset or 0)
    link = struct.unpack(file.tiff.offsetformat, file.filehandle.read(file.tiff.offsetsize))[0]
    if not pages or link:
        raise ends_early(path)
    return [page for page in pages if not page.is_reduced] or pages


def _size(page: TiffPage) -> str:
    return f"{page.imagewidth} x {page.imagelength}"


# --- voxels -----------------------------------------------------------------------------------------------------------


def _voxel_type(path: Path, page: TiffPage) -> np.dtype:
    """The type that a page is read as: single precision for half, 8 bits for one bit and palettes."""
    kind = page.dtype
    if kind is None or page.imagedepth != 1 or kind.kind not in "buif":
        what = "complex numbers" if kind is not None and kind.kind == "c" else f"values of {page.bitspersample} bits"
        raise ScanError(f"{path}: holds {what}", "export it with one grey value a voxel, of 8, 16 or 32 bits")
    return np.dtype({np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}.get(kind, kind))


def _require_whole(path: Path, file: TiffFile, page: TiffPage) -> None:
    """Checks what a page claims against the file, before memory is asked for.

    Raises:
        ScanError: the page ends beyond the file, lacks pieces, or is compressed in an unknown way.
    """
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", page.compression)
        problem = f"{path}: is compressed in a way that is not read ({name})"
        raise ScanError(problem, "save it without compression, or with LZW or Deflate")
    kind, length = _voxel_type(path, page), file.filehandle.size
    if page.nbytes == 0:
        whole = False
    elif page.is_contiguous:
        whole = page.dataoffsets[0] + page.nbytes <= length
    else:
        offsets, counts = np.asarray(page.dataoffsets, float), np.asarray(page.databytecounts, float)
        pieces = math.prod(page.chunked)
        whole = 0 < pieces <= min(len(offsets), len(counts)) and min(offsets.min(), counts.min()) > 0
        whole = whole and (offsets + counts[: len(offsets)]).max() <= length
        bits = pieces * math.prod(page.chunks) * (page.bitspersample or 8 * kind.itemsize)
        whole = whole and bits / 8 <= counts.sum() * _MOST_SHRUNK
    if not whole:
        raise ends_early(path)


def _decoded(path: Path, page: TiffPage) -> np.ndarray:
    """The grey values ``(y, x)`` of a page."""
    try:
        values = page.asarray(maxworkers=1)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        if "imagecodecs" in str(error):
            needed("imagecodecs", f"{path}: compressed TIFF")
        raise damaged_packing(path) from error
    if page.photometric == _PALETTE:
        colours = page.colormap
        if colours is None or not (colours == colours[0]).all():
            raise too_many_values(path, 3)
        values = (colours[0] >> 8).astype(np.uint8)[values]
    if "S" in page.axes:
        values = np.moveaxis(values, page.axes.index("S"), -1)
        if not colours_are_equal(values):
            raise too_many_values(path, page.samplesperpixel)
        values = values[..., 0]
    return values


def _contiguous_pages(path: Path, file: TiffFile, pages: list[TiffPage]) -> int:
    """How many pages follow each other where only the first has a directory, as ImageJ writes files above 4 GB; else 0.

    Raises:
        ScanError: they end beyond the file.
    """
    count = _count((file.imagej_metadata or {}).get("images"))
    first = pages[0]
    if len(pages) > 1 or count == 1 or not first.is_contiguous or first.samplesperpixel != 1:
        return 0
    if first.dataoffsets[0] + first.nbytes * count > file.filehandle.size:
        raise ends_early(path)
    return count


def _read_contiguous(path: Path, file: TiffFile, first: TiffPage, members: list[int]) -> np.ndarray:
    """Some of the pages that follow the first one without directories of their own."""
    size = first.imagelength, first.imagewidth
    voxels = np.empty((len(members), *size), _voxel_type(path, first))
    kind = np.dtype(first.dtype).newbyteorder(file.byteorder)
    for index, member in enumerate(members):
        file.filehandle.seek(first.dataoffsets[0] + member * first.nbytes)
        voxels[index] = file.filehandle.read_array(kind, math.prod(size)).reshape(size)
    return voxels


# --- what ImageJ and OME say ------------------------------------------------------------------------------------------


def _ome(file: TiffFile) -> dict[str, str]:
    """The attributes of the pixels of an OME file that holds one image."""
    try:
        root = ElementTree.fromstring(file.ome_metadata or "<none/>")
    except ElementTree.ParseError:
        return {}
    found = [element.attrib for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"]
    return found[0] if len(found) == 1 else {}


def _channels(file: TiffFile, number: int) -> list[Series]:
    """The scans of a hyperstack of so many pages: one for each channel and time point; members are numbers of pages."""
    image_j, ome = file.imagej_metadata or {}, _ome(file)
    if ome:
        order = ome.get("DimensionOrder", "XYZCT")[2:]
        counts = {axis: _count(ome.get(f"Size{axis}")) for axis in "ZCT"}
    else:
        order = "CZT"
        counts = {a: _count(image_j.get(n)) for a, n in (("C", "channels"), ("Z", "slices"), ("T", "frames"))}
    several = [axis for axis in "CT" if counts[axis] > 1]
    fits = counts["Z"] * counts["C"] * counts["T"] == number and sorted(order) == ["C", "T", "Z"]
    size = _size(file.pages.first)
    # Slices that are called channels or time points are a stack where nothing else varies.
    if not fits or not several or (counts["Z"] == 1 and len(several) == 1):
        return [Series(str(number), "", f"{size} x {number}", range(number))]
    # The last axis varies slowest.
    grid = np.arange(number).reshape([counts[axis] for axis in order[::-1]])
    axes = {axis: 2 - order.index(axis) for axis in "ZCT"}
    grid = grid.transpose(axes["C"], axes["T"], axes["Z"])
    listed = []
    for channel in range(counts["C"]):
        for time in range(counts["T"]):
            words = ((f"channel {channel + 1}", "C"), (f"time point {time + 1}", "T"))
            name = ", ".join(word for word, axis in words if axis in several)
            listed.append(Series(name, "of a hyperstack", f"{size} x {counts['Z']}", grid[channel, time].tolist()))
    return listed


def _count(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and 0 < int(text) < 10**9 else 1


def _voxel_size(file: TiffFile) -> tuple[tuple[float, float, float], str]:
    """The voxel size in mm, 1 where it is not stated, and what is not stated of it."""
    x, y = _pixel(file)
    z = _length((file.imagej_metadata or {}).get("spacing")) * (_unit(file) or 0)
    if ome := _ome(file):
        x, y, z = (
            _length(ome.get(f"PhysicalSize{axis}")) * (millimetres(ome.get(f"PhysicalSize{axis}Unit", "um")) or 0)
            for axis in "XYZ"
        )
    if x > 0 and y > 0 and z > 0:
        return (x, y, z), ""
    hint = f" (in the slices: {x:.6g} x {y:.6g} mm, but not between them)" if x > 0 and y > 0 else ""
    return (x or 1.0, y or 1.0, z or 1.0), f"the file does not store the voxel size{hint}"


def _pixel(file: TiffFile) -> tuple[float, float]:
    first, unit = file.pages.first, _unit(file)
    if unit is None or 282 not in first.tags or 283 not in first.tags:
        return 0.0, 0.0
    x, y = first.resolution
    return (unit / x, unit / y) if 0 < x < math.inf and 0 < y < math.inf else (0.0, 0.0)


def _unit(file: TiffFile) -> float | None:
    """The unit of a page's resolution in mm. ImageJ's is a word in the description."""
    word = (file.imagej_metadata or {}).get("unit")
    return {2: 25.4, 3: 10.0}.get(file.pages.first.resolutionunit) if word is None else millimetres(str(word))


def _length(value: object) -> float:
    try:
        length = float(str(value))
    except ValueError:
        return 0.0
    return length if 0 < length < 1e9 else 0.0
