"""What is no data in a scan: padding with one grey value. Needs no torch."""

from __future__ import annotations

import numpy as np

from .volume import Volume

# Corners of the grid are looked at in cubes of so many voxels an axis.
_CORNER = 3
# Padding with the same value ends at so many corners at least: those of one face.
_LEAST_CORNERS = 4
# Behind padding lies a plane of which at most this share has its value; behind the air of a scan without noise, more.
_MOST_ALIKE = 0.5


def content(volume: Volume) -> tuple[slice, ...]:
    """The box ``(z, y, x)`` of a scan without the planes of one grey value that were added around it."""
    box = [slice(0, n) for n in volume.voxels.shape]
    for axis, size in enumerate(volume.voxels.shape):
        planes = np.moveaxis(volume.voxels[tuple(box)], axis, 0)
        before, after = _alike(planes), _alike(planes[::-1])
        if before + after < size:
            box[axis] = slice(before, size - after)
    inner = volume.voxels[tuple(box)]
    for axis, size in enumerate(volume.voxels.shape):
        planes, whole = np.moveaxis(inner, axis, 0), np.moveaxis(volume.voxels, axis, 0)
        start, stop = box[axis].start, box[axis].stop
        before = np.mean(planes[0] == whole[0, 0, 0]) > _MOST_ALIKE
        after = np.mean(planes[-1] == whole[-1, -1, -1]) > _MOST_ALIKE
        box[axis] = slice(0 if before else start, size if after else stop)
    return tuple(box)


def _alike(planes: np.ndarray) -> int:
    """The number of planes, from the first on, that are filled with one grey value."""
    value, count = planes[0, 0, 0], 0
    while count < len(planes) and planes[count, 0, -1] == value and (planes[count] == value).all():
        count += 1
    return count


def bright_fill(volume: Volume) -> np.number | None:
    """The grey value that fills the corners of a scan and is brighter than most of it, as where numbers wrapped round.

    Returns:
        None where there is none.
    """
    voxels = volume.voxels
    ends = (slice(None, _CORNER), slice(-_CORNER, None))
    corners = [voxels[z, y, x] for z in ends for y in ends for x in ends]
    values = [corner.flat[0] for corner in corners if (corner == corner.flat[0]).all()]
    if not values:
        return None
    value = max(set(values), key=values.count)
    if values.count(value) < _LEAST_CORNERS:
        return None
    sample = voxels[tuple(slice(None, None, max(1, n // 64)) for n in voxels.shape)]
    others = sample[np.isfinite(sample) & (sample != value)]
    return value if others.size and np.percentile(others, 75) < value else None


def with_data(volume: Volume, mask: np.ndarray | None) -> np.ndarray | None:
    """The mask ``(z, y, x)`` without what `bright_fill` finds; None where all of the scan holds data."""
    value = bright_fill(volume)
    if value is None:
        return mask
    data = volume.voxels != value
    return data if mask is None else mask & data
