"""Reads DICOM: which scans a folder holds, and where the slices or frames of one lie by their own words.

Every slice states its position and its orientation. A gantry that is tilted, or a table that drifts, gives slices that
do not lie straight behind each other; the grid is sheared then. Distances between slices that a header states beside
that are not believed, since some are negative or those of another protocol.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .dicom_header import Header, is_dicom, read_header
from .itk_reader import FoundImage, read_file, read_files
from .series import Series, choose

#: Slices count as evenly spaced while they lie within this share of a step from where they should.
_UNEVEN = 0.02
#: Rounding of written positions is forgiven up to this share of a step. Beyond, a missing slice could hide in it.
_ROUNDING = 0.2

_EXPORT = "export the complete series again"

#: What tells two acquisitions in one series apart, in the order in which it is tried.
_APART = (
    ("acquisition", 0x00200012),
    ("acquisition", 0x00209156),
    ("time point", 0x00200100),
    ("time point", 0x00209128),
    ("stack", 0x00209056),
    ("acquired at", 0x0008002A),
    ("acquired at", 0x00080032),
    ("contrast agent", 0x00180010),
    ("echo", 0x00180086),
    ("kernel", 0x00181210),
    ("kVp", 0x00180060),
    ("kind", 0x00080008),
)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a slice lies: its first voxel, and the directions along its rows and its columns, ``(2, 3)``."""

    position: np.ndarray
    axes: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.axes[0], self.axes[1])

    @property
    def depth(self) -> float:
        return float(self.position @ self.normal)


@dataclass(frozen=True, eq=False)
class _Plane:
    """A slice or a frame, and what its header says of it."""

    file: Path
    frame: int
    header: Header
    parts: tuple[Header, ...]
    shape: tuple[int, int]
    place: _Place | None
    pixel: tuple[float, float] | None  # distance of rows, distance of columns
    decimals: int  # digits after the point with which its position is written
    slope: tuple[float, float]

    def text(self, tag: int) -> str:
        return next((text for part in self.parts if (text := part.text(tag))), "")


def read_dicom(path: Path, files: Iterable[Path], series: str | int | None, role: str | None) -> FoundImage:
    """Reads one scan of some DICOM files.

    Args:
        path: the file or folder that messages name.
        files: its DICOM files; other files among them are passed over.
        series: which scan, where there are several: its number, UID or description.
        role: "fixed" or "moving" where the scan is one of a pair.

    Raises:
        ScanError: there is no image, or the one chosen has gaps, or its slices do not lie on a regular grid.
    """
    listed = _list_series(files)
    if not listed:
        raise ScanError(f"{path}: the DICOM files hold no image", "give the folder of an image series")
    chosen = choose(path, listed, series, role)
    planes = _in_order(list(chosen.members))
    if len(planes) == 1:
        rows, columns = planes[0].shape
        remedy = "give a 3D scan, or the folder of all its slices"
        raise ScanError(f"{path}: is a single 2D image ({columns} x {rows})", remedy)
    affine, lacks = _grid(path, planes)
    return FoundImage(_voxels(path, planes), affine, lacks)


def _list_series(files: Iterable[Path]) -> list[Series]:
    series: dict[str, list[_Plane]] = defaultdict(list)
    for file in files:
        if not is_dicom(file):
            continue
        try:
            header = read_header(file)
            planes = _planes(file, header) if header.pixels else []
        except ValueError as error:
            raise ScanError(f"{file}: cannot be read ({error})", "export the series again") from error
        if planes:
            series[header.text(0x0020000E) or "series without UID"].extend(planes)
    listed = []
    for uid, planes in series.items():
        groups = _apart(planes)
        for label, group in groups.items():
            rows, columns = group[0].shape
            description = ", ".join(text for text in (group[0].text(0x0008103E), label) if text)
            name = uid if len(groups) == 1 else f"{uid}#{list(groups).index(label) + 1}"
            number = group[0].header.number(0x00200011)
            key = sys.maxsize if number is None else number, uid
            size = f"{columns} x {rows} x {len(group)}"
            listed.append((key, Series(name, description, size, group)))
    return [found for _, found in sorted(listed, key=lambda item: item[0])]


def _planes(file: Path, header: Header) -> list[_Plane]:
    frames = max(int(header.number(0x00280008) or 1), 1)
    if frames > file.stat().st_size:
        raise ValueError(f"its header speaks of {frames} frames")
    shared = [part for group in header.items(0x52009229)[:1] for part in _functional_groups(group)]
    each = header.items(0x52009230)
    shape = header.short(0x00280010), header.short(0x00280011)
    found = []
    for frame in range(frames):
        own = _functional_groups(each[frame]) if frame < len(each) else []
        parts = (*own, *shared, header)

        def numbers(tag: int, count: int, parts: tuple[Header, ...] = parts) -> list[float] | None:
            return next((value for part in parts if (value := part.numbers(tag, count)) is not None), None)

        place = _place(numbers(0x00200032, 3), numbers(0x00200037, 6))
        if frames > 1 and not each:  # the header's position is that of the first frame
            place = _further(header, place, frame)
        pixel = numbers(0x00280030, 2)
        written = [text for part in parts for text in part.texts(0x00200032)][:3]
        slope, intercept = numbers(0x00281053, 1) or [1.0], numbers(0x00281052, 1) or [0.0]
        found.append(
            _Plane(
                file,
                frame,
                header,
                parts,
                shape,
                place,
                (pixel[0], pixel[1]) if pixel and min(pixel) > 0 else None,
                max((_decimals(text) for text in written), default=0),
                (slope[0], intercept[0]),
            )
        )
    return found


def _functional_groups(item: Header) -> list[Header]:
    """The macros of a frame, such as its position: each is a sequence of one item."""
    return [group[0] for group in item.elements.values() if isinstance(group, list) and group]


def _place(position: list[float] | None, axes: list[float] | None) -> _Place | None:
    if position is None or axes is None:
        return None
    directions = np.array(axes).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.abs(lengths - 1) < 0.01).all() or abs(directions[0] @ directions[1]) > 0.01:
        return None
    # Exact ones stay as they are, to the last bit.
    return _Place(np.array(position), np.where(np.abs(lengths - 1) < 1e-12, directions, directions / lengths))


def _further(header: Header, first: _Place | None, frame: int) -> _Place | None:
    """Where a frame lies in a file that states the place of its first frame, and how far the others are from it."""
    offsets = header.numbers(0x3004000C, int(header.number(0x00280008) or 1))
    step = abs(header.number(0x00180088) or 0.0)
    if first is None or (offsets is None and not step):
        return None
    depth = step * frame if offsets is None else offsets[frame]
    return _Place(first.position + first.normal * depth, first.axes)


def _decimals(text: str) -> int:
    mantissa, _, exponent = text.lower().partition("e")
    return max(len(mantissa.partition(".")[2]) - int(exponent or 0), 0)


# --- several acquisitions in one series ------------------------------------------------------------------------------


def _apart(planes: list[_Plane]) -> dict[str, list[_Plane]]:
    """Parts the planes of one series into scans, by what each is called; one without a name where there is one only."""
    views: dict[tuple, list[_Plane]] = defaultdict(list)
    for plane in planes:
        turned = None if plane.place is None else tuple(np.round(plane.place.axes.ravel(), 2) + 0.0)
        views[plane.shape, turned].append(plane)
    found: dict[str, list[_Plane]] = {}
    for number, group in enumerate(views.values(), 1):
        view = f"view {number}" if len(views) > 1 else ""
        for label, part in _acquisitions(group).items():
            found[", ".join(text for text in (view, label) if text)] = part
    return found


def _acquisitions(planes: list[_Plane]) -> dict[str, list[_Plane]]:
    if not _doubled(_places(planes)):
        return {"": planes}
    for word, tag in _APART:
        groups: dict[str, list[_Plane]] = defaultdict(list)
        for plane in planes:
            groups[plane.text(tag)].append(plane)
        if len(groups) > 1 and all(len(group) > 1 and not _doubled(_places(group)) for group in groups.values()):
            return {f"{word} {value or 'none'}": groups[value] for value in sorted(groups, key=_by_number)}
    return {"": planes}


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text


def _places(planes: list[_Plane]) -> list[_Place] | None:
    """Where planes lie, or None where one of them does not say."""
    found = [plane.place for plane in planes if plane.place is not None]
    return found if len(found) == len(planes) else None


def _doubled(places: list[_Place] | None) -> bool:
    """Tells whether two planes lie at one place."""
    if places is None or len(places) < 2:
        return False
    steps = np.diff(np.sort([place.depth for place in places]))
    apart = steps[steps > 1e-6]
    return len(apart) == 0 or bool(steps.min() < 0.1 * np.median(apart))


# --- geometry ---------------------------------------------------------------------------------------------------------


def _in_order(planes: list[_Plane]) -> list[_Plane]:
    """Orders planes along their normal; by their numbers where they have no places, or too coarsely rounded ones."""
    places = _places(planes)
    numbers = np.array([_numbered(plane) for plane in planes])
    if places is None:
        return planes if np.isnan(numbers).any() else [planes[index] for index in np.argsort(numbers, kind="stable")]
    depths = np.array([place.depth for place in places])
    keys = numbers * np.sign((numbers - numbers.mean()) @ depths) if _counted(planes) else depths
    return [planes[index] for index in np.argsort(keys, kind="stable")]


def _counted(planes: list[_Plane]) -> bool:
    """Tells whether numbers order planes whose positions are rounded too coarsely to do so.

    The numbers must have no gap, and the stated distance of slices must fit to their extent, so that none is missing.
    """
    places, header = _places(planes), planes[0].header
    stated = abs(header.number(0x00180088) or header.number(0x00180050) or 0.0)
    numbers = np.sort([_numbered(plane) for plane in planes])
    digit = _half_digit(planes)
    gapless = np.array_equal(numbers, numbers[0] + np.arange(len(planes)))
    if places is None or not gapless or not stated or digit <= _ROUNDING * stated:
        return False
    extent = np.ptp([place.depth for place in places])
    return bool(abs(extent - stated * (len(planes) - 1)) < 2 * digit - 1e-9)


def _numbered(plane: _Plane) -> float:
    number = plane.header.number(0x00200013)
    return float("nan") if number is None else number


def _half_digit(planes: list[_Plane]) -> float:
    return float(0.5 * 10.0 ** -max(plane.decimals for plane in planes))


def _grid(path: Path, planes: list[_Plane]) -> tuple[np.ndarray, str]:
    """The index-to-world affine of planes in order, and what they do not say of it."""
    affine = np.eye(4)
    pixel = planes[0].pixel
    for plane in planes:
        if plane.pixel != pixel:
            raise ScanError(f"{path}: mixes slices of different pixel sizes (first at {plane.file.name})", _EXPORT)
    if pixel is None:
        return affine, "its DICOM header does not state the voxel size"
    places = _places(planes)
    if places is None:
        header = planes[0].header
        step = abs(header.number(0x00180088) or header.number(0x00180050) or 0.0)
        affine[:3, :3] = np.diag((pixel[1], pixel[0], step or 1.0))
        stated = f"pixels of {pixel[1]:g} x {pixel[0]:g} mm"
        return affine, f"its DICOM header does not state where the slices lie (in the slices: {stated})"
    affine[:3, 0] = places[0].axes[0] * pixel[1]
    affine[:3, 1] = places[0].axes[1] * pixel[0]
    affine[:3, 2] = _step(path, planes, places)
    affine[:3, 3] = places[0].position
    return affine, ""


def _step(path: Path, planes: list[_Plane], places: list[_Place]) -> np.ndarray:
    """The vector from slice to slice, where all lie on one line and evenly."""
    positions = np.array([place.position for place in places])
    centred = np.arange(len(places)) - (len(places) - 1) / 2
    step = centred @ positions / (centred @ centred)
    length = float(np.linalg.norm(step))
    digit = _half_digit(planes)
    off = np.abs(positions - positions.mean(axis=0) - np.outer(centred, step)).max(axis=1)
    tolerance = _UNEVEN * length + (digit if _counted(planes) else min(digit, _ROUNDING * length))
    if length == 0 or (off > tolerance).any():
        raise ScanError(f"{path}: {_irregular(planes, places)}", _EXPORT)
    # What rounding alone would give is no shear.
    normal = places[0].normal
    straight = normal * (step @ normal)
    reach = len(places) - 1
    if np.abs(step - straight).max() * reach <= 2 * digit + 1e-6 * length * reach:
        return straight
    return step


def _irregular(planes: list[_Plane], places: list[_Place]) -> str:
    """Says which slice is missing, doubled or beside the line."""
    steps = np.diff([place.depth for place in places])
    usual = float(np.median(steps))
    if _doubled(places):
        at = int(np.argmin(steps))
        return (
            f"the slices are not evenly spaced: two lie at {_words(places[at].position)} "
            f"({planes[at].file.name} and {planes[at + 1].file.name}), as if two scans were mixed"
        )
    lost = np.round(steps / usual).astype(int) - 1
    if lost.any():
        at = int(np.flatnonzero(lost)[0])
        first, next_one = places[at].position, places[at + 1].position
        place = _words(first + (next_one - first) / (lost[at] + 1))
        count = "one is missing" if lost.sum() == 1 else f"{lost.sum()} are missing, the first"
        return f"the slices are not evenly spaced: {count} at {place}, after {planes[at].file.name}"
    at = int(np.argmax(np.abs(steps - usual)))
    return (
        f"the slices are not evenly spaced, or not on one line: {steps.min():.4g} to {steps.max():.4g} mm from one to "
        f"the next (about {_words(places[at].position)}, {planes[at].file.name})"
    )


def _words(position: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in position) + ") mm"


# --- voxels -----------------------------------------------------------------------------------------------------------


def _voxels(path: Path, planes: list[_Plane]) -> np.ndarray:
    files = list(dict.fromkeys(plane.file for plane in planes))
    if len(files) == len(planes):
        kinds = {(plane.slope, *_stored(plane.header)) for plane in planes}
        return read_files(files, path, alike=len(kinds) == 1)
    whole = {file: read_file(file, file) for file in files}
    for file, voxels in whole.items():
        if len(voxels) <= max(plane.frame for plane in planes if plane.file == file):
            raise ScanError(f"{file}: holds fewer frames than its header says", _EXPORT)
    slopes = {plane.slope for plane in planes}
    if len(slopes) == 1 and len(files) == 1:
        voxels = whole[files[0]]
        frames = [plane.frame for plane in planes]
        count = len(voxels)
        if frames == list(range(count)):
            return voxels
        start, step = frames[0], frames[1] - frames[0]
        if frames == list(range(start, start + step * len(frames), step)):  # a part, or all in reverse: no copy
            return voxels[start::step][: len(frames)]
        return voxels[frames]
    kind = np.float32 if len(slopes) > 1 else np.result_type(*[v.dtype for v in whole.values()])
    stacked = np.empty((len(planes), *planes[0].shape), kind)
    # ITK applies the slope of the first frame to all.
    applied = {plane.file: _first_slope(plane) for plane in planes}
    for index, plane in enumerate(planes):
        values = whole[plane.file][plane.frame]
        slope, intercept = applied[plane.file]
        if (slope, intercept) != plane.slope:
            values = (values.astype(np.float64) - intercept) / slope * plane.slope[0] + plane.slope[1]
        stacked[index] = values
    return stacked


def _stored(header: Header) -> tuple[int, int, int]:
    """Bits, sign and samples of the stored values."""
    return header.short(0x00280101), header.short(0x00280103), header.short(0x00280002)


def _first_slope(plane: _Plane) -> tuple[float, float]:
    return _planes(plane.file, plane.header)[0].slope
