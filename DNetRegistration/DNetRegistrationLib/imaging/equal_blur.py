"""What interpolation blurs in one scan, done to the other: their difference would show an edge else. Needs no torch.

On a grid half way between both scans they would be blurred alike, but the difference would lie on neither scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import integrate, ndimage

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
        weights: along x, y, z; see `interpolation_blur`.
    """
    depth, margin = len(scan.voxels), len(weights[2]) // 2
    for first in range(0, depth, _SLICES):
        low, high = max(first - margin, 0), min(first + _SLICES + margin, depth)
        slab = scan.voxels[low:high].astype(np.float32)
        unknown = ~np.isfinite(slab)
        if unknown.any():
            slab = filled(slab, unknown)
        slab = ndimage.correlate1d(slab, weights[2], 0, mode="mirror")
        # Its own slices, without the margins.
        slab = slab[first - low :][: min(_SLICES, depth - first)]
        for axis, kernel in ((1, weights[1]), (2, weights[0])):
            slab = ndimage.correlate1d(slab, kernel, axis, mode="mirror")
        slab[unknown[first - low :][: len(slab)]] = np.nan
        yield from slab
