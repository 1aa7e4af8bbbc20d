"""Scans and masks on other grids: averaged over blocks of voxels, interpolated, carried over by a transform.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..core.threads import usable_threads
from ..geometry.transforms import matrix_of, to_sitk
from .bspline import coefficients, evaluate
from .morphology import box_around
from .volume import Volume, as_volume

if TYPE_CHECKING:
    import SimpleITK as sitk

# `resample` averages a finer scan to at most this share of the target's voxel, so that its noise does not alias.
FINEST_SHARE = 0.75

#: Images of whole numbers with no more different values than this are taken for labels.
MOST_LABELS = 64


def averaged(volume: Volume, resolution: float, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Averages a scan over whole blocks of its voxels, to voxels of about `resolution` mm along its own axes.

    Args:
        volume: the scan.
        resolution: of the result, in mm; a scan is never refined.
        mask: ``(z, y, x)`` bool; outside of it is treated as outside the field of view.

    Returns:
        See `block_means`.
    """
    return block_means(volume, _block_sizes(volume, resolution), mask)


def _block_sizes(volume: Volume, resolution: float) -> np.ndarray:
    """``(3,)`` voxels along x, y, z of blocks with edges of about `resolution` mm."""
    factors = np.maximum(1, np.rint(resolution / volume.spacing)).astype(int)
    return np.minimum(factors, volume.size)


def _block_affine(volume: Volume, factors: np.ndarray) -> np.ndarray:
    """``(4, 4)``, index (x, y, z) of whole blocks of voxels to world, LPS mm."""
    grid = np.diag((*factors, 1.0))
    grid[:3, 3] = (factors - 1) / 2
    return volume.affine @ grid


def block_means(volume: Volume, factors: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Averages a scan over blocks of ``(3,)`` whole `factors` of voxels along x, y, z.

    Incomplete blocks at the far borders are left off. A block that lies partly outside the field of view (NaN, or
    outside `mask`) is outside.

    Returns:
        ``(z, y, x)`` float32 means, NaN outside the field of view, and their ``(4, 4)`` affine, index (x, y, z) to
        world LPS mm.
    """
    fx, fy, fz = (int(f) for f in factors)
    nx, ny, nz = (int(n) for n in volume.size // factors)
    out = np.empty((nz, ny, nx), np.float32)
    for z in range(nz):
        rows = slice(z * fz, (z + 1) * fz), slice(0, ny * fy), slice(0, nx * fx)
        slab = volume.voxels[rows]
        if mask is not None:
            slab = np.where(mask[rows], slab, np.float32(np.nan))
        slab = np.add.reduce(slab, 0, dtype=np.float32 if fz * fy * fx > 1 else None)
        slab = np.add.reduce(slab.reshape(ny, fy, nx * fx), 1)
        out[z] = sum(slab[:, x::fx] for x in range(fx))
    out /= fx * fy * fz
    out[~np.isfinite(out)] = np.nan
    return out, _block_affine(volume, np.asarray(factors))


def resample(moving: Volume | sitk.Image, fixed: Volume | sitk.Image, matrix: Any) -> Volume:
    """Resamples the moving scan on the fixed scan's grid, by cubic B-spline interpolation.

    On signals made of waves of 3 to 12 voxels the rms error is 0.8 % of the signal's, against 11.5 % with linear
    interpolation. Lanczos-windowed sinc (0.3 %, but worse than the spline above 4 voxels) takes sixty times as long.
    A moving scan with finer voxels is first averaged over whole blocks, to no more than the fixed scan's voxel.

    Args:
        moving, fixed: the scans, Volumes or SimpleITK images.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm; or an `Alignment`, or a SimpleITK transform.

    Returns:
        Volume: float32 on the fixed scan's grid, NaN outside the moving scan's field of view. That reaches half a
        voxel beyond the outermost voxel centres.

    Raises:
        ScanError: a scan is another thing.
        OptionError: the transform cannot be used.
    """
    moving, fixed = as_volume(moving, "moving scan"), as_volume(fixed, "fixed scan")
    matrix, voxels, affine = matrix_of(matrix), moving.voxels, sampled_affine(moving, fixed)
    if affine is not moving.affine:
        voxels, _ = averaged(moving, FINEST_SHARE * fixed.spacing.min())
    outside = None
    if np.issubdtype(voxels.dtype, np.floating) and not np.isfinite(voxels).all():
        outside = ~np.isfinite(voxels)
        voxels = filled(voxels, outside)
    spline = coefficients(voxels)
    to_index = np.linalg.solve(affine, matrix @ fixed.affine)
    out: np.ndarray = np.empty(fixed.voxels.shape, np.float32)
    evaluate(spline, to_index, out, usable_threads())
    for z, plane in enumerate(out):
        plane[~_in_view(to_index, z, plane.shape, spline.shape)] = np.nan
        if outside is not None:
            # Arrays are indexed (z, y, x): the axes of the map are reversed. SciPy wants as many axes out as in.
            linear, shift = to_index[:3, :3][::-1, ::-1], to_index[:3, 3][::-1] + to_index[2::-1, 2] * z
            share = ndimage.affine_transform(outside, linear, shift, (1, *plane.shape), np.float32, 1, "nearest")[0]
            plane[share >= 1e-6] = np.nan
    return Volume(out, fixed.affine, moving.name)


def _in_view(to_index: np.ndarray, z: int, plane: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Where a slice of a grid is at most half a voxel off the voxels of another one, ``plane`` bool."""
    y, x = np.arange(plane[0]), np.arange(plane[1])
    first, last = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    for (step, along, up, shift), size in zip(to_index[:3], shape[::-1], strict=True):
        # Along a row an index rises or falls evenly.
        low, high = ((end - (along * y + up * z + shift)) for end in (-0.5, size - 0.5))
        if step == 0:
            first[(low > 0) | (high < 0)] = np.inf
        else:
            ends = np.sort((low / step, high / step), 0)
            first, last = np.maximum(first, ends[0]), np.minimum(last, ends[1])
    return (x >= first[:, None]) & (x <= last[:, None])


def sampled_affine(moving: Volume, fixed: Volume) -> np.ndarray:
    """``(4, 4)``, index (x, y, z) to world of the voxels between which `resample` interpolates: averaged, or own."""
    factors = _block_sizes(moving, FINEST_SHARE * fixed.spacing.min())
    return _block_affine(moving, factors) if factors.max() > 1 else moving.affine


def filled(voxels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Replaces NaN by the mean of what is near, or of all: an edge at the border of the field of view would ring."""
    inside = (~outside).astype(np.float32)
    total = np.where(outside, 0, voxels).astype(np.float32)
    mean = total.sum(dtype=np.float64) / max(inside.sum(dtype=np.float64), 1)
    # A little of the overall mean stands in where nothing is near.
    near = (ndimage.uniform_filter(total, 5) + 1e-6 * mean) / (ndimage.uniform_filter(inside, 5) + 1e-6)
    return np.where(outside, near, total)


def cast_like(resampled: Volume, scan: Volume) -> Volume:
    """Casts a resampled scan to the dtype of `scan`, rounded and clipped; outside is the lowest value of `scan`."""
    dtype = scan.voxels.dtype
    lowest = np.nanmin(scan.voxels)
    out: np.ndarray = np.empty(resampled.voxels.shape, dtype)
    for z, values in enumerate(resampled.voxels):
        values = np.where(np.isfinite(values), values, lowest)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            # Clipped in float64, where the limits of 32-bit integers are exact.
            values = np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max)
        out[z] = values
    return Volume(out, resampled.affine, resampled.name)


def resample_mask(
    mask: np.ndarray,
    own: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    matrix: np.ndarray,
    whole_voxels: bool = False,
) -> np.ndarray:
    """Resamples a mask on another grid: true where, interpolated linearly, at least half of it arrives.

    Args:
        mask: ``(z, y, x)`` bool.
        own: ``(4, 4)``, the mask's index (x, y, z) to its world, LPS mm.
        affine, shape: the other grid, index (x, y, z) to its world, and (z, y, x).
        matrix: ``(4, 4)``, points of the other grid's world to points of the mask's world.
        whole_voxels: take the value of the voxel that a point lies in instead.

    Returns:
        ``shape`` bool, false outside the mask's grid, which reaches half a voxel beyond the outermost voxel centres.
    """
    import SimpleITK as sitk

    # Index coordinates are exact for any axes, and lose no digits to a far origin.
    to_own = np.linalg.solve(own, np.asarray(matrix, np.float64) @ affine)
    carried = np.zeros(shape, bool)
    # Nothing arrives where the box about the mask does not.
    box = box_around(mask, (1, 1, 1))
    if box is None:
        return carried
    there = _box_carried(box, np.linalg.inv(to_own), shape)
    resampler = sitk.ResampleImageFilter()
    resampler.SetNumberOfWorkUnits(usable_threads())
    resampler.SetTransform(to_sitk(to_own))
    resampler.SetOutputOrigin([float(part.start) for part in there[::-1]])
    resampler.SetSize([part.stop - part.start for part in there[::-1]])
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if whole_voxels else sitk.sitkLinear)
    image = sitk.GetImageFromArray(mask[box].astype(np.uint8) * np.uint8(255))
    image.SetOrigin([float(part.start) for part in box[::-1]])
    found = resampler.Execute(image)
    carried[there] = sitk.GetArrayViewFromImage(found) > 127
    return carried


def _box_carried(box: tuple[slice, ...], matrix: np.ndarray, shape: Sequence[int]) -> tuple[slice, ...]:
    """The box of whole voxels of a grid of a `shape` (z, y, x) about where another grid's box lies.

    Args:
        box: of whole voxels, along z, y, x; they reach half a voxel beyond their centres.
        matrix: ``(4, 4)`` index (x, y, z) of that grid to that of this one.
    """
    ends = [(part.start - 0.5, part.stop - 0.5) for part in box[::-1]]
    corners = np.stack(np.meshgrid(*ends), -1).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    last = np.array(shape[::-1]) - 1
    lowest, highest = (np.clip(end, 0, last) for end in (np.floor(corners.min(0)), np.ceil(corners.max(0))))
    whole = (end[::-1].astype(int).tolist() for end in (lowest, highest))
    return tuple(slice(low, high + 1) for low, high in zip(*whole, strict=True))


def resample_labels(
    labels: np.ndarray, own: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int], matrix: np.ndarray
) -> np.ndarray:
    """Resamples labels on another grid by nearest neighbour: of the voxel that a point lies in.

    Args:
        labels: ``(z, y, x)`` or ``(z, y, x, components)``.
        own: ``(4, 4)``, the labels' index (x, y, z) to their world, LPS mm.
        affine, shape: the other grid, index (x, y, z) to its world, and (z, y, x).
        matrix: ``(4, 4)``, points of the other grid's world to points of the labels' world.

    Returns:
        ``shape``, with the components, of the labels' dtype. It is 0 outside the labels' grid, which reaches half a
        voxel beyond the outermost voxel centres.
    """
    to_own = np.linalg.solve(own, np.asarray(matrix, np.float64) @ affine)
    out = np.zeros((*shape, *labels.shape[3:]), labels.dtype)
    y, x = np.ogrid[: shape[1], : shape[2]]
    for z in range(shape[0]):
        # A point on the border of two voxels counts to the later one.
        index = [np.floor(row[0] * x + row[1] * y + row[2] * z + row[3] + 0.5) for row in to_own[2::-1]]
        seen = np.logical_and.reduce(
            [(0 <= one) & (one < count) for one, count in zip(index, labels.shape[:3], strict=True)]
        )
        out[z][seen] = labels[tuple(one[seen].astype(np.intp) for one in index)]
    return out


def are_labels(voxels: np.ndarray) -> bool:
    """Tells whether voxels look like labels: whole numbers, of at most `MOST_LABELS` different values.

    Scans of 8 bits and more have more.
    """
    if voxels.dtype.kind not in "buif":
        return False
    found: set[float] = set()
    for plane in voxels:
        values = np.unique(plane)
        if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            return False
        found.update(values.tolist())
        if len(found) > MOST_LABELS:
            return False
    return True


def interpolate(voxels: np.ndarray, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interpolates an image linearly at world positions.

    Args:
        voxels: ``(z, y, x)``, NaN outside the field of view.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
        points: ``(..., 3)`` in mm.

    Returns:
        ``(...)`` float32, NaN off the grid.
    """
    index = (points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    coordinates = np.moveaxis(index[..., ::-1], -1, 0)
    return ndimage.map_coordinates(voxels, coordinates, output=np.float32, order=1, cval=np.nan)
