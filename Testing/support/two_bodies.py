"""Two bodies of soft blobs side by side, of which one moves on its own."""

from __future__ import annotations

import numpy as np
import torch
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import PreparedScan, prepare
from DNetRegistrationLib.bone.threshold import BoneScale
from DNetRegistrationLib.imaging.volume import Volume
from edge_phantom import TURNS, grid_points, phantom, pose_at

AWAY = np.array((3.3, 0.0, 0.0))
# Direction, spacing, size and middle of a grid that holds both bodies.
OBLIQUE = TURNS[0], (0.1, 0.1, 0.1), (60, 60, 60), (50, -30, 7)
ANISOTROPIC = TURNS[3] @ np.diag((1.0, -1, 1)), (0.08, 0.1, 0.12), (74, 60, 50), (-8, 3, 400)


def two_bodies(grid, first, second) -> Volume:
    """Two bodies of blobs, alike but for a turn, each placed by a pose of its own."""
    values = []
    for pose in (first, second):
        affine, points = grid_points(grid, pose)
        near = np.linalg.norm(points, axis=1) < 3
        values.append(np.zeros(len(points)))
        values[-1][near] = phantom(points[near])
    return Volume(np.max(values, 0).reshape(grid[2][::-1]).astype(np.float32), affine)


def prepared(fixed: Volume, moving: Volume, masks=(None, None)) -> tuple[PreparedScan, PreparedScan]:
    scale, device = BoneScale(0.4, 1.0), torch.device("cpu")
    scans = zip((fixed, moving), masks or (None, None), strict=True)
    first, second = (native_scan(volume, scale, mask, device) for volume, mask in scans)
    return prepare(first, second, spacing=0.1)


def pair_of_bodies(fixed_grid, moving_grid, between):
    """Two bodies side by side, of which the second also moves by `between`; and the pose of the first."""
    fixed_place = pose_at(TURNS[1], fixed_grid[3]) @ pose_at(np.eye(3), -AWAY / 2)
    moving_place = pose_at(TURNS[2], moving_grid[3]) @ pose_at(np.eye(3), -AWAY / 2)
    beside = pose_at(TURNS[3], AWAY)
    fixed = two_bodies(fixed_grid, fixed_place, fixed_place @ beside)
    moving = two_bodies(moving_grid, moving_place, moving_place @ beside @ between)
    return fixed, moving, moving_place @ np.linalg.inv(fixed_place)


GRIDS = {"oblique": (OBLIQUE, OBLIQUE), "mirrored, anisotropic, unequal": (OBLIQUE, ANISOTROPIC)}
