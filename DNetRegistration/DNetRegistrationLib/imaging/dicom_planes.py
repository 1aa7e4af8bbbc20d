"""Planes of DICOM: the slices and frames of its files, each with what its header says of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from ..core.packages import needed
from ..core.quiet import quietly
from .dicom_header import NEGATIVE, PHOTOMETRIC, Header, damaged, is_dicom, read_header


@dataclass(frozen=True, eq=False)
class Place:
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
class Plane:
    """A slice or a frame, and what its header says of it.

    Attributes:
        file: that it lies in.
        frame: its number there, from 0.
        header: of the file.
        parts: where its elements are looked for, in this order: its own, those of all frames, the header.
        shape: rows, columns.
        place: None where the header does not say.
        pixel: distance of rows, distance of columns, in mm; None where the header does not say.
        decimals: digits after the point with which its position is written.
        slope: and intercept.
        applied: slope and intercept of the file's first frame.
    """

    file: Path
    frame: int
    header: Header
    parts: tuple[Header, ...]
    shape: tuple[int, int]
    place: Place | None
    pixel: tuple[float, float] | None
    decimals: int
    slope: tuple[float, float]
    applied: tuple[float, float]

    def text(self, keyword: str) -> str:
        return next((text for part in self.parts if (text := part.text(keyword))), "")

    @property
    def negative(self) -> bool:
        """Whether its least value is the brightest one.

        Values in units, as Hounsfield's, are those of the object, however they are to be shown.
        """
        unitless = self.slope == (1.0, 0.0) and self.text("RescaleType") in ("", "US")
        return unitless and self.header.text(PHOTOMETRIC) == NEGATIVE


def read_planes(path: Path, files: Iterable[Path]) -> list[Plane]:
    """The planes of DICOM files: one each, or the frames of each in their order.

    Args:
        path: the file or folder that messages name.
        files: others than DICOM, or without an image, are passed over.

    Raises:
        OSError: one cannot be opened.
        PackageError: pydicom is missing.
        ScanError: one is damaged.
    """
    needed("pydicom", f"{path}: DICOM")
    found = []
    # pydicom warns of each value that breaks a rule, as of a text that is too long.
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            try:
                header = read_header(file) if is_dicom(file) else None
                found += _planes(file, header) if header is not None and header.pixels else []
            except (OSError, MemoryError, ScanError):
                raise
            except Exception as error:
                raise damaged(file) from error
    return found


def _planes(file: Path, header: Header) -> list[Plane]:
    frames = max(header.whole("NumberOfFrames"), 1)
    if frames > file.stat().st_size:
        raise ScanError(f"{file}: cannot be read (its header speaks of {frames} frames)", "export the series again")
    shared = [part for group in header.items("SharedFunctionalGroupsSequence")[:1] for part in group.macros()]
    each = header.items("PerFrameFunctionalGroupsSequence")
    shape = header.whole("Rows"), header.whole("Columns")
    found: list[Plane] = []
    for frame in range(frames):
        own = each[frame].macros() if frame < len(each) else []
        parts = (*own, *shared, header)
        position = _first(parts, "ImagePositionPatient", 3)
        place = _place(position, _first(parts, "ImageOrientationPatient", 6))
        if frames > 1 and not each:  # the header's position is that of the first frame
            place = _further(header, place, frame)
        rows, columns = _first(parts, "PixelSpacing", 2) or (0.0, 0.0)
        (slope,) = _first(parts, "RescaleSlope", 1) or [1.0]
        (intercept,) = _first(parts, "RescaleIntercept", 1) or [0.0]
        pixel = (rows, columns) if min(rows, columns) > 0 else None
        decimals = 0 if position is None else _decimals(parts)
        applied = found[0].slope if found else (slope, intercept)
        found.append(Plane(file, frame, header, parts, shape, place, pixel, decimals, (slope, intercept), applied))
    return found


def _first(parts: Sequence[Header], keyword: str, count: int) -> list[float] | None:
    return next((values for part in parts if (values := part.numbers(keyword, count)) is not None), None)


def _decimals(parts: Sequence[Header]) -> int:
    """Digits after the point with which a position is written."""
    most = 0
    for text in next(texts for part in parts if (texts := part.texts("ImagePositionPatient"))):
        mantissa, _, exponent = text.lower().partition("e")
        most = max(most, len(mantissa.partition(".")[2]) - int(exponent or 0))
    return most


def _place(position: list[float] | None, axes: list[float] | None) -> Place | None:
    if position is None or axes is None:
        return None
    directions = np.array(axes).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.abs(lengths - 1) < 0.01).all() or abs(directions[0] @ directions[1]) > 0.01:
        return None
    # Exact ones stay as they are, to the last bit.
    return Place(np.array(position), np.where(np.abs(lengths - 1) < 1e-12, directions, directions / lengths))


def _further(header: Header, first: Place | None, frame: int) -> Place | None:
    """Where a frame lies in a file that states the place of its first frame, and how far the others are from it."""
    offsets = header.numbers("GridFrameOffsetVector", max(header.whole("NumberOfFrames"), 1))
    step = abs(header.number("SpacingBetweenSlices") or 0.0)
    if first is None or (offsets is None and not step):
        return None
    depth = step * frame if offsets is None else offsets[frame]
    return Place(first.position + first.normal * depth, first.axes)


def places_of(planes: list[Plane]) -> list[Place] | None:
    """Where planes lie, or None where one of them does not say."""
    found = [plane.place for plane in planes if plane.place is not None]
    return found if len(found) == len(planes) else None


def doubled(places: list[Place] | None) -> bool:
    """Tells whether two planes lie at one place."""
    if places is None or len(places) < 2:
        return False
    steps = np.diff(np.sort([place.depth for place in places]))
    apart = steps[steps > 1e-6]
    return len(apart) == 0 or bool(steps.min() < 0.1 * np.median(apart))
