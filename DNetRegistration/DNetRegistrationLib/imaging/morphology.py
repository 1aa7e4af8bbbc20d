"""Dilation of masks `(z, y, x)`, bool. Needs no torch.

Erosion is the dilation of what is outside.
"""

from __future__ import annotations

import numpy as np

# Balls of more lines of voxels than this are left to a distance transform.
MOST_LINES = 300


def grown(mask: np.ndarray, times: int) -> np.ndarray:
    """The mask with, so many times, all voxels that share a face with it."""
    for _ in range(times):
        wider = mask.copy()
        for axis in range(3):
            low, high = _shifted(axis, 1)
            wider[high] |= mask[low]
            wider[low] |= mask[high]
        mask = wider
    return mask


def near(mask: np.ndarray, step: np.ndarray, radius: float) -> np.ndarray:
    """All voxels within `radius` mm of the mask.

    Args:
        mask: ``(z, y, x)`` bool.
        step: voxel size along z, y, x in mm.
        radius: of the ball, in mm; a voxel at exactly this distance is in.
    """
    # A margin, so that rounding does not decide.
    radius = 1.001 * radius
    reach = (radius / step).astype(int)
    if np.prod(2 * reach[:2] + 1) > MOST_LINES:
        return _distance(mask, step) <= radius
    lines, result = [mask], np.zeros_like(mask)
    for shift in range(1, reach[2] + 1):
        wider = lines[-1].copy()
        low, high = _shifted(2, shift)
        wider[high] |= mask[low]
        wider[low] |= mask[high]
        lines.append(wider)
    for z in range(-reach[0], reach[0] + 1):
        for y in range(-reach[1], reach[1] + 1):
            left = radius**2 - (z * step[0]) ** 2 - (y * step[1]) ** 2
            if left >= 0:
                to = (_part(z), _part(y))
                result[to] |= lines[int(left**0.5 / step[2])][_part(-z), _part(-y)]
    return result


def _part(shift: int) -> slice:
    """Where along an axis voxels arrive that go `shift` voxels up it."""
    return slice(shift, None) if shift >= 0 else slice(None, shift)


def _shifted(axis: int, shift: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The parts of an array that are `shift` voxels apart along an axis."""
    before = (slice(None),) * axis
    return (*before, slice(None, -shift)), (*before, slice(shift, None))


def _distance(mask: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Distance in mm of every voxel to the nearest voxel of `mask`; infinite where there is none."""
    import SimpleITK as sitk

    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(s) for s in step[::-1]])
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayFromImage(distance), 0)
