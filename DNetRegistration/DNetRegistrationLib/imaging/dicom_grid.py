"""The grid of DICOM planes: their order, the affine, and what is wrong where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .dicom_planes import Place, Plane, doubled, places_of

EXPORT_AGAIN = "export the complete series again"

#: Slices count as evenly spaced while they lie within this share of a step from where they should.
_UNEVEN = 0.02
#: Rounding of written positions is forgiven up to this share of a step. Beyond, a missing slice could hide in it.
_ROUNDING = 0.2


def in_order(planes: list[Plane]) -> list[Plane]:
    """Orders planes along their normal; by their numbers where they have no places, or too coarsely rounded ones."""
    places = places_of(planes)
    numbers = np.array([_numbered(plane) for plane in planes])
    if places is None:
        return planes if np.isnan(numbers).any() else [planes[index] for index in np.argsort(numbers, kind="stable")]
    depths = np.array([place.depth for place in places])
    keys = numbers * np.sign((numbers - numbers.mean()) @ depths) if _counted(planes) else depths
    return [planes[index] for index in np.argsort(keys, kind="stable")]


def _counted(planes: list[Plane]) -> bool:
    """Tells whether numbers order planes whose positions are rounded too coarsely to do so.

    The numbers must have no gap, and the stated distance of slices must fit to their extent, so that none is missing.
    """
    places, header = places_of(planes), planes[0].header
    stated = abs(header.number("SpacingBetweenSlices") or header.number("SliceThickness") or 0.0)
    numbers = np.sort([_numbered(plane) for plane in planes])
    digit = _half_digit(planes)
    gapless = np.array_equal(numbers, numbers[0] + np.arange(len(planes)))
    if places is None or not gapless or not stated or digit <= _ROUNDING * stated:
        return False
    extent = np.ptp([place.depth for place in places])
    return bool(abs(extent - stated * (len(planes) - 1)) < 2 * digit - 1e-9)


def _numbered(plane: Plane) -> float:
    number = plane.header.number("InstanceNumber")
    return float("nan") if number is None else number


def _half_digit(planes: list[Plane]) -> float:
    return float(0.5 * 10.0 ** -max(plane.decimals for plane in planes))


def grid_of(path: Path, planes: list[Plane]) -> tuple[np.ndarray, str]:
    """The index-to-world affine of planes in order, and what they do not say of it."""
    affine = np.eye(4)
    pixel = planes[0].pixel
    for plane in planes:
        if plane.pixel != pixel:
            raise ScanError(f"{path}: mixes slices of different pixel sizes (first at {plane.file.name})", EXPORT_AGAIN)
    if pixel is None:
        return affine, "its DICOM header does not state the voxel size"
    places = places_of(planes)
    if places is None:
        header = planes[0].header
        step = abs(header.number("SpacingBetweenSlices") or header.number("SliceThickness") or 0.0)
        affine[:3, :3] = np.diag((pixel[1], pixel[0], step or 1.0))
        stated = f"pixels of {pixel[1]:g} x {pixel[0]:g} mm"
        return affine, f"its DICOM header does not state where the slices lie (in the slices: {stated})"
    affine[:3, 0] = places[0].axes[0] * pixel[1]
    affine[:3, 1] = places[0].axes[1] * pixel[0]
    affine[:3, 2] = _step(path, planes, places)
    affine[:3, 3] = places[0].position
    return affine, ""


def _step(path: Path, planes: list[Plane], places: list[Place]) -> np.ndarray:
    """The vector from slice to slice, where all lie on one line and evenly."""
    positions = np.array([place.position for place in places])
    centred = np.arange(len(places)) - (len(places) - 1) / 2
    step = centred @ positions / (centred @ centred)
    length = float(np.linalg.norm(step))
    digit = _half_digit(planes)
    off = np.abs(positions - positions.mean(axis=0) - np.outer(centred, step)).max(axis=1)
    tolerance = _UNEVEN * length + (digit if _counted(planes) else min(digit, _ROUNDING * length))
    if length == 0 or (off > tolerance).any():
        raise ScanError(f"{path}: {_irregular(planes, places)}", EXPORT_AGAIN)
    # What rounding alone would give is no shear.
    normal = places[0].normal
    straight = normal * (step @ normal)
    reach = len(places) - 1
    if np.abs(step - straight).max() * reach <= 2 * digit + 1e-6 * length * reach:
        return straight
    return step


def _irregular(planes: list[Plane], places: list[Place]) -> str:
    """Says which slice is missing, doubled or beside the line."""
    steps = np.diff([place.depth for place in places])
    usual = float(np.median(steps))
    if doubled(places):
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
