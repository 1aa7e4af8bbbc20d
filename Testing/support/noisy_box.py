"""Images of a box, in two poses, with independent noise."""

from __future__ import annotations

import numpy as np
import torch
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.geometry.rigid import rotation_about, rotation_from_axis_angle
from DNetRegistrationLib.synthesis import solids

SPACING = 0.08


def image_of(pose, noise: float, seed: int, shape=(40, 44, 48)) -> BoneImage:
    """A box of unequal edges, blurred, seen on a grid off the origin, with independent noise."""
    affine = np.diag((SPACING, SPACING, SPACING, 1.0))
    affine[:3, 3] = (4.0, -7.0, 2.0)
    index = np.indices(shape).transpose(1, 2, 3, 0)[..., ::-1]
    points = index * SPACING + affine[:3, 3]
    # `pose` takes the box to where this image shows it; without it the box lies in the middle.
    local = (points - pose[:3, 3].numpy()) @ pose[:3, :3].numpy()
    middle = affine[:3, 3] + SPACING * (np.array(shape[::-1]) - 1) / 2
    filled = np.clip(solids.box(0.6, 0.8, 1.1)(local - middle) / 0.25 + 0.5, 0, 1)
    filled += np.random.default_rng([seed, 5]).normal(0, noise, shape)
    return BoneImage(torch.from_numpy(filled.astype(np.float32)), affine)


def turn() -> torch.Tensor:
    axis = torch.tensor((0.3, -0.5, 1.0), dtype=torch.float64)
    return rotation_about(
        rotation_from_axis_angle(axis, torch.tensor(0.2, dtype=torch.float64)), torch.tensor((5.8, -5.3, 3.5)).double()
    )
