"""The canonical cube: where a scan's bone is, at which working spacing, and the cube sampled there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..core.constants import CUBE_SIZE, PAPER_SPACING
from ..imaging.tensors import sample_linear, sample_lines
from .images import BoneImage, pooled

# Bone that reaches further from its centroid than this share of half the cube's edge makes the working spacing grow. A
# mouse tibia of the paper, cut by its field of view of 5.12 mm, reaches to about one.
CUBE_REACH = 1.2
# Grids whose axes differ by less over a voxel lie along each other.
STRAIGHT = 1e-7


@dataclass(frozen=True)
class CanonicalCube:
    """The input of a network: 64^3 voxels along the world's axes, placed on the bone.

    Attributes:
        image: ``(64, 64, 64)`` float32 bone values, indexed (z, y, x).
        inside: ``(64, 64, 64)`` float32, the share of each voxel that lies in the scan's field of view.
        center: ``(3,)`` float64, world position of the cube's centre in mm.
        spacing: working spacing in mm.
    """

    image: Tensor
    inside: Tensor
    center: np.ndarray
    spacing: float

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)`` float64, index (x, y, z) to world LPS mm."""
        affine = np.diag((self.spacing, self.spacing, self.spacing, 1.0))
        affine[:3, 3] = self.center - self.spacing * (self.image.shape[0] - 1) / 2
        return affine

    @cached_property
    def as_image(self) -> BoneImage:
        """The cube as a bone image; one for all who ask, since edges and coarser images are kept with it."""
        return BoneImage(self.image, self.affine, self.inside)


@dataclass(frozen=True)
class BonePlace:
    """Where a scan's bone is.

    Attributes:
        center: ``(3,)`` world centroid in mm.
        radius: about the centroid, in mm, within which 95 % of the bone lie.
    """

    center: np.ndarray
    radius: float


def _averaged(image: BoneImage) -> BoneImage:
    """Averages an image to 128 voxels an axis or fewer: enough to place the bone, whatever the voxel size."""
    while max(image.shape) > 128:
        z, y, x = (2 if size > 64 else 1 for size in image.shape)
        image = pooled(image, (x, y, z))
    return image


def points_of_bone(image: BoneImage) -> tuple[np.ndarray, np.ndarray]:
    """World positions ``(n, 3)`` in mm of the voxels that hold bone, and their values ``(n,)``; float64."""
    index = image.values.nonzero()
    weight = image.values[tuple(index.T)].cpu().double().numpy()
    return index.flip(-1).cpu().double().numpy() @ image.affine[:3, :3].T + image.affine[:3, 3], weight


def place_of_bone(image: BoneImage) -> BonePlace:
    """Centroid and radius of the bone in an image, weighted by its values; the middle of the grid without bone."""
    image = _averaged(image)
    points, weight = points_of_bone(image)
    if len(points) == 0:
        middle = (np.array(image.values.shape[::-1]) - 1) / 2
        return BonePlace(image.affine[:3, :3] @ middle + image.affine[:3, 3], 0.0)
    center = np.average(points, axis=0, weights=weight)
    distance = np.linalg.norm(points - center, axis=1)
    order = np.argsort(distance, kind="stable")
    mass = np.cumsum(weight[order])
    return BonePlace(center, float(distance[order[np.searchsorted(mass, 0.95 * mass[-1])]]))


def working_spacing(fixed: BonePlace, moving: BonePlace) -> float:
    """The working spacing in mm of two scans: the paper's 0.08, or more where a larger bone (rat, human) needs it."""
    reach = max(fixed.radius, moving.radius) / (CUBE_REACH * CUBE_SIZE / 2)
    return max(PAPER_SPACING, reach)


def canonical_cube(levels: list[BoneImage], place: BonePlace, spacing: float) -> CanonicalCube:
    """Samples the cube of 64^3 voxels of `spacing` mm on the bone.

    It is interpolated linearly from the coarsest level whose voxels are no larger than the cube's. They are means
    already, so this does not alias.
    """
    fine = [level for level in levels if level.spacing.min() <= spacing * 1.001]
    level = max(fine, key=lambda level: level.spacing.min(), default=levels[0])
    cube = CanonicalCube(torch.empty(CUBE_SIZE, CUBE_SIZE, CUBE_SIZE), torch.empty(0), place.center, spacing)
    values, inside = sample_on_cube(level, np.linalg.inv(level.affine) @ cube.affine)
    return CanonicalCube(values, inside, place.center, spacing)


def sample_on_cube(image: BoneImage, to_index: np.ndarray) -> tuple[Tensor, Tensor]:
    """An image interpolated linearly on the grid of a cube.

    Args:
        image: what is sampled.
        to_index: ``(4, 4)`` float64, index (x, y, z) of the cube to that of the image.

    Returns:
        ``(64, 64, 64)`` bone values, and the share of each that lies in the image's field of view.
    """
    shape = (CUBE_SIZE,) * 3
    linear = to_index[:3, :3]
    if np.abs(linear - np.diag(linear.diagonal())).max() < STRAIGHT:
        return sample_lines(image.values, torch.from_numpy(to_index), shape, image.inside)
    # Shares of each index axis, summed over the grid.
    axis = torch.arange(CUBE_SIZE, dtype=torch.float64)[:, None]
    x, y, z = (axis * column for column in torch.from_numpy(linear.T.copy()))
    index = ((z + torch.from_numpy(to_index[:3, 3]))[:, None, None] + y[:, None] + x).view(-1, 3)
    values, inside = sample_linear(image.values, index.float().to(image.values.device), image.inside, finite=True)
    return values.view(shape), inside.view(shape)
