"""Grey values of both scans along the normals of the bone's surface. Needs no torch.

Each scan is interpolated once, at the same points: were the one turned onto the grid of the other, only one of them
would be blurred, and their difference would show an edge where there is none.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.special import ndtr

from ..core.threads import in_threads
from ..imaging.bspline import coefficients
from ..imaging.volume import Volume

# Voxels beyond the outermost point: the spline's own reach, and what smoothing needs.
_MARGIN = 8
# As many points are interpolated at a time.
_AT_ONCE = 1 << 16


class Sampler:
    """A scan about some points, ready to be interpolated by cubic B-splines.

    Args:
        scan: in its own world.
        matrix: ``(4, 4)``, the points' world to the scan's.
        points: ``(n, 3)`` of the points' world, between which, and at most `reach` mm off, it will be asked.
        reach: mm.
        smooth: standard deviation in voxels of a Gaussian that takes away noise first.
    """

    def __init__(self, scan: Volume, matrix: np.ndarray, points: np.ndarray, reach: float, smooth: float = 0.0) -> None:
        to_index = np.linalg.solve(scan.affine, matrix)
        index = points @ to_index[:3, :3].T + to_index[:3, 3]
        margin = reach * np.linalg.norm(to_index[:3, :3], axis=1) + _MARGIN
        low = np.maximum(np.floor(index.min(0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(index.max(0) + margin) + 1, scan.size).astype(int)
        high = np.maximum(high, low + 1)
        part = scan.voxels[low[2] : high[2], low[1] : high[1], low[0] : high[0]].astype(np.float32)
        self._linear, self._shift = to_index[:3, :3], to_index[:3, 3] - low
        self._outside = None
        if scan.voxels.dtype.kind == "f" and not (known := np.isfinite(part)).all():
            self._outside = ~known
            part[~known] = part[known].mean() if known.any() else 0
        if smooth:
            ndimage.gaussian_filter(part, smooth, output=part)
        self._coefficients = coefficients(part, overwrite=True)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """``(...)`` float32 values at ``(..., 3)`` points, NaN outside the field of view."""
        pieces = np.array_split(points.reshape(-1, 3), max(1, points.size // 3 // _AT_ONCE))
        return np.concatenate(in_threads(self._values, pieces)).reshape(points.shape[:-1])

    def _values(self, points: np.ndarray) -> np.ndarray:
        index = points @ self._linear.T + self._shift
        coordinates = np.moveaxis(index[..., ::-1], -1, 0)
        size = np.array(self._coefficients.shape[::-1])
        values = ndimage.map_coordinates(self._coefficients, coordinates, np.float32, 3, "mirror", prefilter=False)
        seen = ((index >= -0.5) & (index <= size - 0.5)).all(-1)
        if self._outside is not None:
            share = ndimage.map_coordinates(self._outside.astype(np.float32), coordinates, order=1, mode="nearest")
            seen &= share < 1e-6
        values[~seen] = np.nan
        return values


def along(points: np.ndarray, normals: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """``(n, k, 3)`` points at ``(k,)`` heights (mm) above the ``(n, 3)`` points, along their normals."""
    return points[:, None] + heights[None, :, None] * normals[:, None]


def half_height(profiles: np.ndarray, heights: np.ndarray, reach: float, plate: float, beyond: float) -> np.ndarray:
    """Where profiles out of bone fall to half their height.

    Args:
        profiles: ``(n, k)`` grey values of the scan without agent.
        heights: ``(k,)`` mm, evenly spaced, rising out of the bone; 0 is near the surface.
        reach: how far from 0 to look, mm.
        plate: the bone's level is the highest value from so far below 0 on, mm.
        beyond: the level of what lies on it is the mean of what is from this to twice this above 0, mm.

    Returns:
        ``(n,)`` mm; NaN where the profile does not cross that height within `reach`.
    """
    inner = (heights <= 0) & (heights >= -plate)
    outer = (heights >= beyond) & (heights <= 2 * beyond)
    level = (profiles[:, inner].max(1) + profiles[:, outer].mean(1)) / 2
    above = profiles > level[:, None]
    cut = above[:, :-1] & ~above[:, 1:] & (np.abs(heights[:-1] + heights[1:]) / 2 <= reach)
    # Of several crossings the one nearest to the surface found on the coarse grid.
    order = np.where(cut, -np.abs(heights[:-1]), -np.inf)
    at = order.argmax(1)
    rows = np.arange(len(profiles))
    high, low = profiles[rows, at], profiles[rows, at + 1]
    found = cut[rows, at]
    part = np.where(found, (high - level) / np.where(found, high - low, 1), np.nan)
    return heights[at] + part * (heights[1] - heights[0])


def edge_blur(profiles: np.ndarray, heights: np.ndarray, step: float) -> float:
    """Standard deviation in mm of the point spread across the bone's edge, from the mean profile over it.

    Args:
        profiles: ``(n, k)`` grey values of the scan without agent, the edge at height 0.
        heights: ``(k,)`` mm.
        step: a voxel, mm; the blur is looked for between a quarter and two of them.
    """
    inner = (heights <= -step) & (heights >= -3 * step)
    outer = (heights >= step) & (heights <= 3 * step)
    high, low = profiles[:, inner].mean(1), profiles[:, outer].mean(1)
    contrast = high - low
    usable = np.isfinite(contrast) & (contrast > 0.5 * np.nanmedian(contrast))
    if not usable.any():
        return step / 2
    mean = np.median((profiles[usable] - low[usable, None]) / contrast[usable, None], 0)
    near = (heights >= -2 * step) & (heights <= 1.5 * step)
    blurs = np.arange(0.25, 2.0, 0.01) * step
    left = []
    for blur in blurs:
        # Free levels, and a slope below the edge, where bone is not even.
        basis = np.stack((ndtr(-heights / blur), ndtr(heights / blur), np.minimum(heights, 0)), 1)[near]
        left.append(np.linalg.lstsq(basis, mean[near], rcond=None)[1].sum())
    return float(blurs[int(np.argmin(left))])
