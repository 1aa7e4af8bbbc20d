"""A scan as if its object had been put into the scanner another way: turned exactly, or resampled obliquely.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ..geometry.transforms import affine_matrix
from .resample import resample, resample_mask
from .volume import Volume


@dataclass(frozen=True, eq=False)
class TurnedScan:
    """A scan that was turned about the middle of its grid.

    Attributes:
        scan: the turned scan.
        mask: ``(z, y, x)`` bool, turned with it, or None.
        matrix: ``(4, 4)`` float64, points of the scan as it was to where they are now, LPS mm, rigid.
    """

    scan: Volume
    mask: np.ndarray | None
    matrix: np.ndarray


def turn_grid(volume: Volume, turn: np.ndarray, mask: np.ndarray | None = None) -> TurnedScan:
    """Turns a scan by a rotation of its grid. No voxel's value changes, and the axes keep their directions.

    Args:
        volume: the scan, on any grid: also oblique, sheared, anisotropic or left-handed.
        turn: ``(3, 3)`` rotation that permutes the index axes (x, y, z) and reverses some; its determinant is +1.
        mask: ``(z, y, x)`` bool of the scan's shape.

    Raises:
        ValueError: `turn` is no such rotation.
    """
    turn = np.asarray(turn, np.float64)
    is_signed_permutation = (np.abs(turn).sum(0) == 1).all() and (np.abs(turn).sum(1) == 1).all()
    if turn.shape != (3, 3) or not is_signed_permutation or np.linalg.det(turn) < 0:
        raise ValueError("the turn is no rotation of the cube")
    sources = np.abs(turn).argmax(1)  # new axis i runs along the old axis sources[i]
    reversed_axes = tuple(2 - axis for axis in range(3) if turn[axis, sources[axis]] < 0)
    order = tuple(2 - sources[2 - axis] for axis in range(3))  # arrays are indexed (z, y, x)

    def turned(voxels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(voxels.transpose(order), reversed_axes))

    # Old to new indices: where an axis is reversed, the last voxel becomes the first.
    last = volume.size[sources] - 1
    to_new = affine_matrix(turn, np.where(turn.sum(1) < 0, last, 0))
    matrix = _about(volume, turn)
    voxels = turned(volume.voxels)
    affine = matrix @ volume.affine @ np.linalg.inv(to_new)
    scan = Volume(voxels, affine, volume.name, volume.spacing_given)
    return TurnedScan(scan, None if mask is None else turned(mask), matrix)


def turn_obliquely(volume: Volume, rotation: np.ndarray, mask: np.ndarray | None = None) -> TurnedScan:
    """Turns a scan by any rotation, and resamples it once on a grid of cubic voxels that holds all of it.

    A voxel of the new grid has the volume of one of the old grid. Outside of the old field of view the scan is NaN.

    Args:
        volume: the scan, on any grid.
        rotation: ``(3, 3)`` of its index axes.
        mask: ``(z, y, x)`` bool of the scan's shape.
    """
    matrix, axes = _about(volume, rotation), _axes(volume)
    spacing = abs(np.linalg.det(volume.affine[:3, :3])) ** (1 / 3)
    # The field of view reaches half a voxel beyond the outermost centres.
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in volume.size))))
    placed = (volume.to_world(corners) @ matrix[:3, :3].T + matrix[:3, 3]) @ axes
    low, high = placed.min(0), placed.max(0)
    size = np.maximum(1, np.ceil((high - low) / spacing - 1e-6)).astype(int)
    first = (low + high - (size - 1) * spacing) / 2
    affine = affine_matrix(spacing * axes, axes @ first)
    # `resample` looks at the grid alone, so that its voxels need no memory.
    grid = Volume(np.broadcast_to(np.float32(0), tuple(size[::-1])), affine)
    back = np.linalg.inv(matrix)
    scan = Volume(resample(volume, grid, back).voxels, affine, volume.name, volume.spacing_given)
    if mask is not None:
        mask = resample_mask(mask, volume.affine, affine, scan.voxels.shape, back)
    return TurnedScan(scan, mask, matrix)


def _axes(volume: Volume) -> np.ndarray:
    """``(3, 3)`` orthonormal directions nearest to the index axes: the polar factor, since a grid may be sheared."""
    u, _, vh = np.linalg.svd(volume.affine[:3, :3])
    return u @ vh


def _about(volume: Volume, rotation: np.ndarray) -> np.ndarray:
    """``(4, 4)`` of a rotation given along the index axes, about the middle of the grid, LPS mm."""
    axes = _axes(volume)
    linear = axes @ np.asarray(rotation, np.float64) @ axes.T
    return affine_matrix(linear, volume.center - linear @ volume.center)
