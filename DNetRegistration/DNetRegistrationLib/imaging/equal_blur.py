"""What interpolation blurs in one scan, done to the other: their difference would show an edge else. Needs no torch.

On a grid half way between both scans they would be blurred alike, but the difference would lie on neither scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from scipy import integrate

from ..core.threads import usable_threads
from ..geometry.transforms import matrix_of
from .resample import filled, sampled_affine
from .volume import Volume

# Weights reach so many voxels, of the coarser scan. So many points of the grid tell where between voxels it samples.
_REACH, _POINTS = 5, 2000
# Frequencies at which the loss is computed, up to half a wave a voxel.
_FREQUENCIES = np.linspace(0, np.pi, 129)
# Slices that are blurred at a time: all of a scan would need as much memory again.
_SLICES = 32


def interpolation_blur(moving: Volume, fixed: Volume, matrix: Any) -> list[np.ndarray]:
    """Weights along x, y, z that blur the fixed scan as `resample` blurs the moving one, on average over the grid.

    A wave that a spline interpolates at a distance from the voxels comes out weaker. The share that is left depends on
    the wave and the distance (Unser, IEEE Signal Process Mag 16(6):22, 1999). It is averaged over the distances that
    occur.

    Args:
        moving, fixed: the scans.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm; or an `Alignment`, or a SimpleITK transform.

    Returns:
        Three arrays of an odd number of weights, symmetric, of sum 1.
    """
    affine = sampled_affine(moving, fixed)
    to_index = np.linalg.solve(affine, matrix_of(matrix) @ fixed.affine)
    points = np.random.default_rng(0).random((_POINTS, 3)) * fixed.size // 1
    distance = (points @ to_index[:3, :3].T + to_index[:3, 3]) % 1
    own = np.linalg.norm(affine[:3, :3], axis=0)
    # Squares of the cosines between the axes of both.
    shares = (own[:, None] * to_index[:3, :3] / fixed.spacing) ** 2
    shares /= shares.sum(0)
    weights = []
    for axis in range(3):
        coarser = own / fixed.spacing[axis]
        # Along an oblique axis as much is lost as along those of the other scan, on average over all directions.
        losses = [np.log(_left(one * _FREQUENCIES, part)) for one, part in zip(coarser, distance.T, strict=True)]
        left = np.exp(shares[:, axis] @ losses)
        reach = int(np.ceil(_REACH * max(1.0, coarser.max())))
        at = np.arange(-reach, reach + 1)
        # The inverse Fourier transform of an even function; a window ends it softly.
        kernel = integrate.trapezoid(left * np.cos(at[:, None] * _FREQUENCIES), _FREQUENCIES, axis=1)
        kernel *= np.cos(np.pi * at / (2 * reach + 2)) ** 2
        weights.append(kernel / kernel.sum())
    return weights


def _left(frequency: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The share of waves that interpolation leaves, on average over distances (0 to 1) from a voxel."""
    share = np.zeros(len(frequency))
    for voxel in (-1, 0, 1, 2):
        off = voxel - distance
        share += (_bspline(off)[:, None] * np.cos(off[:, None] * frequency)).mean(0)
    # The spline's coefficients make up for its own smoothness.
    return np.maximum(share / ((2 + np.cos(frequency)) / 3), 1e-3)


def _bspline(x: np.ndarray) -> np.ndarray:
    """The cubic B-spline."""
    far = np.abs(x)
    return np.where(far < 1, 2 / 3 - far**2 + far**3 / 2, np.clip(2 - far, 0, None) ** 3 / 6)


def blurred_slices(scan: Volume, weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The slices of a scan, blurred: ``(y, x)`` float32, NaN where the scan has no finite value.

    Args:
        scan: to blur.
        weights: along x, y, z, symmetric; see `interpolation_blur`.
    """
    depth, margin = len(scan.voxels), len(weights[2]) // 2
    with ThreadPoolExecutor(usable_threads()) as pool:
        for first in range(0, depth, _SLICES):
            low, high = max(first - margin, 0), min(first + _SLICES + margin, depth)
            slab = scan.voxels[low:high].astype(np.float32)
            unknown = ~np.isfinite(slab)
            if unknown.any():
                slab = filled(slab, unknown)
            # Its own slices, without the margins.
            own = range(first - low, min(first + _SLICES, depth) - low)
            for z, plane in zip(own, pool.map(partial(_blurred_slice, slab, weights), own), strict=True):
                plane[unknown[z]] = np.nan
                yield plane


def _blurred_slice(slab: np.ndarray, weights: Sequence[np.ndarray], z: int) -> np.ndarray:
    """One slice of a slab, blurred along all axes: ``(y, x)``. A slice stays in the processor's cache."""
    plane = _weighted(slab, weights[2], 0, z, 1)[0]
    return _weighted(_weighted(plane, weights[1], 0), weights[0], 1)


def _weighted(
    values: np.ndarray, weights: np.ndarray, axis: int, first: int = 0, count: int | None = None
) -> np.ndarray:
    """Correlates with symmetric weights along an axis, mirrored at the outermost voxels, from `first` on.

    SciPy's takes twice as long.
    """
    half, size = len(weights) // 2, values.shape[axis]
    count = size if count is None else count
    # Where the weights reach, mirrored as often as it takes.
    at = np.abs(np.arange(first - half, first + count + half))
    period = max(2 * size - 2, 1)
    at = np.minimum(at % period, period - at % period) if size > 1 else 0 * at
    reached = values.take(at, axis)

    def shifted(by: int) -> np.ndarray:
        return reached[by : by + count] if axis == 0 else reached[:, by : by + count]

    total = np.float32(weights[half]) * shifted(half)
    for k in range(half):
        both = shifted(k) + shifted(2 * half - k)
        both *= np.float32(weights[k])
        total += both
    return total
