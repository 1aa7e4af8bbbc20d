"""Cubic B-splines through the voxels of an image `(z, y, x)`, as torch tensors.

They pass through the voxels as trilinear interpolation does, but blur and distort what lies between them far less
(Thevenaz, Blu & Unser, IEEE Trans. Med. Imaging 19:739, 2000).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def spline_coefficients(image: Tensor) -> Tensor:
    """The coefficients ``(z, y, x)`` float32 of the cubic B-spline through a finite image, mirrored at its border.

    They cost a product with a square matrix along each axis, so that images of up to some 200 voxels an axis are quick.
    """
    z, y, x = (_inverse(size).to(image.device) for size in image.shape)
    image = y @ (image.float() @ x.T)
    return (z @ image.flatten(1)).view(image.shape)


def sample_spline(coefficients: Tensor, index: Tensor) -> Tensor:
    """The spline's values ``(n,)`` at continuous indices ``(n, 3)`` (x, y, z), clamped to the grid.

    The 64 neighbours of a point are read as eight linear interpolations, two along each axis (Sigg & Hadwiger, GPU Gems
    2, ch. 20, 2005).
    """
    size = index.new_tensor(coefficients.shape[::-1])
    index = index.clamp(min=0).minimum(size - 1)
    low = index.floor().minimum((size - 2).clamp(min=0))
    t = index - low
    # The weights of the neighbours at low - 1, low, low + 1, low + 2, added in pairs.
    first, last = (1 - t) ** 3 / 6, t**3 / 6
    second = 2 / 3 - t * t * (1 - t / 2)
    before = first + second
    after = 1 - before
    # Where in each pair its linear interpolation is read, from -1 to 1 as torch counts the grid.
    at = torch.stack((low - first / before, low + 1 + last / after))
    at = (_mirrored(at, size) + 0.5) * (2 / size) - 1
    corners = torch.tensor([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)], device=index.device)
    points = torch.stack([at[corners[:, axis], :, axis] for axis in range(3)], -1)
    weights = torch.stack((before, after))
    weight = torch.stack([weights[corners[:, axis], :, axis] for axis in range(3)]).prod(0)
    values = F.grid_sample(coefficients[None, None], points[None, None], padding_mode="border", align_corners=False)[
        0, 0, 0
    ]
    return (weight * values).sum(0)


def spline_derivatives(coefficients: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """The spline's first and second derivatives, each ``(n, 3)``, per voxel along x, y, z.

    Args:
        coefficients: ``(z, y, x)``.
        at: ``(n,)`` voxels, counted in memory order. They must not lie on the border.
    """
    _, height, width = coefficients.shape
    smooth, slope = torch.tensor((1 / 6, 2 / 3, 1 / 6)), torch.tensor((-0.5, 0.0, 0.5))
    curve, shifts = torch.tensor((1.0, -2.0, 1.0)), torch.arange(-1, 2)
    offsets = (shifts[:, None, None] * height + shifts[:, None]) * width + shifts
    around = coefficients.reshape(-1)[at[:, None] + offsets.view(-1).to(at.device)]
    stencils = [
        torch.einsum("i,j,k->ijk", *(along if axis == other else smooth for other in (2, 1, 0))).reshape(-1)
        for along in (slope, curve)
        for axis in (0, 1, 2)
    ]
    found = around @ torch.stack(stencils, -1).to(around)
    return found[:, :3], found[:, 3:]


def _mirrored(at: Tensor, size: Tensor) -> Tensor:
    """Positions beyond the outermost voxels of a grid, mirrored at them."""
    at = at.abs()
    return torch.where(at > size - 1, (2 * (size - 1) - at).clamp(min=0), at)


@lru_cache(maxsize=16)
def _inverse(size: int) -> Tensor:
    """The ``(size, size)`` matrix from a line of values to its coefficients."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        matrix[row, row] += 2 / 3
        for side in (-1, 1):
            other = abs(row + side)
            matrix[row, other if other < size else max(0, 2 * (size - 1) - other)] += 1 / 6
    return torch.linalg.inv(matrix).float()
