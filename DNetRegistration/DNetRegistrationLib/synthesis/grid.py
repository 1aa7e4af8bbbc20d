"""Where a scan has its voxels: in the world, and in the animal's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Waves, single


@dataclass(frozen=True)
class Grid:
    """Where a scan has its voxels.

    Attributes:
        size: voxels along x, y, z.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm.
    """

    size: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def centered(cls, size, spacing, direction=None, center=(0.0, 0.0, 0.0)) -> Grid:
        """Makes a grid about a point of the world.

        Args:
            size: voxels along x, y, z, or one number.
            spacing: mm along x, y, z, or one number.
            direction: ``(3, 3)``, columns are the directions of the index axes.
            center: ``(3,)`` world position of the middle of the grid, mm.
        """
        size = tuple(int(n) for n in np.broadcast_to(size, 3))
        affine = np.eye(4)
        direction = np.eye(3) if direction is None else np.asarray(direction, float)
        affine[:3, :3] = direction * np.broadcast_to(spacing, 3)
        affine[:3, 3] = np.asarray(center, float) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
        return cls(size, affine)

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def center(self) -> np.ndarray:
        """``(3,)`` world position of the middle of the grid in mm."""
        return self.affine[:3, :3] @ ((np.array(self.size) - 1) / 2) + self.affine[:3, 3]


class Lattice:
    """The voxels of a grid, padded on all sides, as points of the animal's frame.

    Indices are those of the grid: the padding has negative ones, and ones beyond the size.

    Attributes:
        affine: ``(4, 4)`` float64, index (x, y, z) to the animal's frame, mm.
        padding: voxels on each side.
        size: ``(3,)`` voxels along x, y, z, padding included.
        spacing: ``(3,)`` voxel size in mm.
    """

    def __init__(self, grid: Grid, pose: np.ndarray, padding: int) -> None:
        # In float64: the pose is exact, and points are near the frame's origin.
        self.affine = np.linalg.inv(pose) @ grid.affine
        self.padding = padding
        self.size = np.array(grid.size) + 2 * padding
        self.spacing = grid.spacing

    def axis(self, axis: int, indices: np.ndarray) -> np.ndarray:
        """``(n, 3)`` float64, what indices along one axis add to a point."""
        return indices[:, None] * self.affine[:3, axis]

    def along(self, axis: int) -> np.ndarray:
        """`axis` for all voxels along it, padding included."""
        return self.axis(axis, np.arange(-self.padding, self.size[axis] - self.padding))

    def field(self, waves: Waves, low: int, high: int) -> np.ndarray:
        """A random field on slices low to high.

        On a grid, a wave is a product of waves along its axes, so that the sum is one matrix product.
        """
        count = len(waves.phases)
        phase = waves.phases + self.affine[:3, 3] @ waves.vectors
        x, y = (np.exp(1j * (self.along(axis) @ waves.vectors)) for axis in (0, 1))
        z = np.exp(1j * (self.axis(2, np.arange(low, high)) @ waves.vectors + phase))
        plane = (z[:, None] * y * np.sqrt(2 / count)).reshape(-1, count)
        plane = single(np.concatenate((plane.real, -plane.imag), 1))
        line = single(np.concatenate((x.real, x.imag), 1).T)
        return (plane @ line).reshape(high - low, int(self.size[1]), int(self.size[0]))
