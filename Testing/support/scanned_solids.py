"""Pairs of scans of a solid, in any orientation, on unequal oblique grids off the world's origin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from DNetRegistrationLib import Volume
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import PreparedScan, prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.geometry.transforms import affine_matrix
from DNetRegistrationLib.registration.refinement import refine
from DNetRegistrationLib.synthesis.pairs import random_rotation
from DNetRegistrationLib.synthesis.solids import Solid
from torch import Tensor


@dataclass(frozen=True)
class ScannedSolid:
    """Two scans, and the ``(4, 4)`` poses of the solid in each, LPS mm."""

    fixed: Volume
    moving: Volume
    poses: tuple[np.ndarray, np.ndarray]

    @property
    def matrix(self) -> np.ndarray:
        """The true one, fixed to moving points; a symmetry of the solid gives others that are as good."""
        return self.poses[1] @ np.linalg.inv(self.poses[0])


def scan_twice(
    solid: Solid, seed: int, noise: float = 80.0, size: int = 52, stretch: float = 1.0, cut: float = 0.0
) -> ScannedSolid:
    """Scans a solid twice.

    Args:
        solid: what is scanned, within 2 mm of its origin.
        seed: of the poses and the noise.
        noise: standard deviation of the grey values; the solid has 2500, and air -1000.
        size: voxels of 80 um an axis.
        stretch: voxel size of the fixed scan along z, as a multiple.
        cut: share of the moving scan that is cut off along x.
    """
    generator = np.random.default_rng([seed, 71])
    scans, poses = [], []
    for role, along_z, lost in (("fixed", stretch, 0), ("moving", 1.0, round(cut * size))):
        grid = affine_matrix(random_rotation(generator) @ np.diag((0.08, 0.08, 0.08 * along_z)), [0, 0, 0])
        grid[:3, 3] = generator.uniform(-20, 20, 3)
        shape = (round(size / along_z), size, size)
        index = np.indices(shape).transpose(1, 2, 3, 0)[..., ::-1]
        middle = grid[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + grid[:3, 3]
        pose = affine_matrix(random_rotation(generator), middle + generator.uniform(-0.2, 0.2, 3))
        depth = solid((index @ grid[:3, :3].T + grid[:3, 3] - pose[:3, 3]) @ pose[:3, :3])
        grey = -1000 + 3500 * np.clip(depth / 0.08 + 0.5, 0, 1) + generator.normal(0, noise, shape)
        grid[:3, 3] += lost * grid[:3, 0]
        scans.append(Volume(np.rint(grey[:, :, lost:]).astype(np.int16), grid, role))
        poses.append(pose)
    return ScannedSolid(*scans, (poses[0], poses[1]))


def at_the_truth(pair) -> tuple[PreparedScan, PreparedScan, Tensor]:
    """Both scans of a pair that has ``fixed``, ``moving`` and ``matrix``, prepared, and its true pose, refined."""
    scans = pair.fixed, pair.moving
    fixed, moving = prepare(*[native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in scans])
    return fixed, moving, refine(fixed, moving, torch.tensor(pair.matrix), native=False).pose
