"""Soft blobs seen on grids of every kind, for tests of templates and of refinement."""

from __future__ import annotations

import numpy as np
import torch
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.synthesis.pairs import random_rotation

TURNS = [random_rotation(np.random.default_rng(seed)) for seed in range(4)]
# Direction, spacing, size and middle of the fixed and the moving grid.
GRIDS = {
    "plain": ((np.eye(3), (0.1, 0.1, 0.1), (48, 48, 48), (0, 0, 0)),) * 2,
    "oblique, unequal": (
        (TURNS[0], (0.1, 0.1, 0.1), (46, 48, 50), (5, -3, 2)),
        (TURNS[1], (0.08, 0.08, 0.08), (64, 60, 62), (-7, 1, 0)),
    ),
    "left-handed, far": (
        (TURNS[2] @ np.diag((1.0, -1, 1)), (0.1, 0.1, 0.1), (48, 48, 48), (8000, -900, 3000)),
        (np.diag((-1.0, 1, 1)), (0.1, 0.1, 0.1), (48, 50, 48), (-2000, 10, 9000)),
    ),
    "anisotropic": (
        (TURNS[3], (0.07, 0.1, 0.14), (68, 48, 36), (1, 2, 3)),
        (TURNS[0], (0.12, 0.08, 0.1), (42, 60, 48), (30, 20, 10)),
    ),
}
BLOBS = np.random.default_rng(5).uniform(-1.2, 1.2, (14, 3))


def phantom(points: np.ndarray) -> np.ndarray:
    """Soft blobs about the origin: smooth, and without any symmetry."""
    distance = np.linalg.norm(points[:, None] - BLOBS, axis=-1)
    return (1 / (1 + np.exp((distance - np.linspace(0.35, 0.6, 14)) / 0.08))).max(1)


def grid_points(grid, pose) -> tuple[np.ndarray, np.ndarray]:
    """The affine of a grid, and its voxel centres ``(n, 3)`` in the frame that `pose` takes to the world."""
    direction, spacing, size, middle = grid
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(spacing)
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    index = np.stack(np.unravel_index(np.arange(np.prod(size)), size[::-1])[::-1], -1)
    # In index coordinates, so that a far origin loses no digits.
    to_frame = np.linalg.inv(pose) @ affine
    return affine, index @ to_frame[:3, :3].T + to_frame[:3, 3]


def scanned(grid, pose) -> BoneImage:
    """The phantom, moved by `pose` (its frame to the world), at the voxel centres of a grid."""
    affine, points = grid_points(grid, pose)
    return BoneImage(torch.tensor(phantom(points).reshape(grid[2][::-1]), dtype=torch.float32), affine)


def pose_at(turn, point) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, point
    return pose


def two_scans(name):
    first, second = GRIDS[name]
    poses = pose_at(TURNS[1], first[3]), pose_at(TURNS[2], np.array(second[3]) + np.array((0.1, -0.05, 0.2)))
    return scanned(first, poses[0]), scanned(second, poses[1]), torch.tensor(poses[1] @ np.linalg.inv(poses[0]))
