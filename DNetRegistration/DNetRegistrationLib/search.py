"""Full-range search: all of SO(3) and all translations, without training.

Every rotation of an even covering of SO(3) is tried on a coarse grid; for each, one correlation by FFT tries all
translations at once, so that nothing depends on centroids, which do not correspond when the fields of view cut the bone
differently. The best distinct poses are refined by Gauss-Newton, twice as fine each time, and compared by an
overlap-aware correlation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .preprocessing import BoneImage, CanonicalCube, pool_image
from .refinement import edge_template, gauss_newton
from .rigid import rigid, spiral_rotations
from .similarity import overlap_correlation


@dataclass(frozen=True)
class SearchPlan:
    """How hard to search.

    Attributes:
        rotations: number of rotations that cover SO(3).
        factor: canonical voxels in one coarse voxel.
        grid: edge of the periodic coarse grid of the correlation, in coarse voxels.
        candidates: poses refined at twice the working spacing.
        finalists: poses refined at the working spacing.
    """

    rotations: int = 2304
    factor: int = 4
    grid: int = 24
    candidates: int = 32
    finalists: int = 4


FAST = SearchPlan()


def search(
    fixed: CanonicalCube,
    moving: CanonicalCube,
    plan: SearchPlan = FAST,
    check: Callable[[float], None] = lambda fraction: None,
) -> tuple[Tensor, Tensor]:
    """The best distinct poses of two canonical cubes of one working spacing, best first.

    Returns:
        ``(h, 4, 4)`` float64 transforms, fixed to moving, LPS mm, and ``(h,)`` their overlap-aware correlations.
    """
    coarse = correlate_rotations(fixed, moving, plan, check)
    half_fixed, half_moving = pool_image(cube_image(fixed), 2), pool_image(cube_image(moving), 2)
    poses = refine_poses(half_fixed, half_moving, coarse, 2500, 8)
    check(0.9)
    poses = distinct(poses, overlap_correlation(half_fixed, half_moving, poses), plan.finalists, fixed.center)
    whole_fixed, whole_moving = cube_image(fixed), cube_image(moving)
    poses = refine_poses(whole_fixed, whole_moving, poses, 6000, 8)
    scores = overlap_correlation(whole_fixed, whole_moving, poses)
    order = scores.argsort(descending=True)
    return poses[order], scores[order]


def cube_image(cube: CanonicalCube) -> BoneImage:
    """The cube as an image among others."""
    return BoneImage(cube.image, cube.affine, cube.inside)


def refine_poses(fixed: BoneImage, moving: BoneImage, poses: Tensor, points: int, iterations: int) -> Tensor:
    """Gauss-Newton from each of ``(h, 4, 4)`` poses."""
    template = edge_template(fixed, points)
    return gauss_newton(template, moving, poses, iterations, tolerance=0.02 * float(fixed.spacing.min())).transforms


def distinct(poses: Tensor, scores: Tensor, count: int, center: np.ndarray, angle: float = 0.15, shift: float = 0.2) -> Tensor:
    """The `count` best poses, no two of them within `angle` (rad) and `shift` (mm at `center`) of each other."""
    points = poses @ torch.as_tensor(np.append(center, 1.0))
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        trace = torch.einsum("kij,ij->k", poses[kept, :3, :3], poses[i, :3, :3]) if kept else torch.empty(0)
        near = (trace > 1 + 2 * np.cos(angle)) & ((points[kept] - points[i]).norm(dim=-1) < shift) if kept else trace > 0
        if not near.any():
            kept.append(i)
            if len(kept) == count:
                break
    return poses[kept]


def band_pass(image: Tensor, inside: Tensor, sigma: float = 2.0) -> Tensor:
    """An image less its local mean inside the field of view, zero outside: where bone is denser than around it."""
    weight = gaussian(inside, sigma)
    return (image - gaussian(image * inside, sigma) / weight.clamp(min=1e-3)) * inside


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """``(z, y, x)`` smoothed by a Gaussian of `sigma` voxels, zero beyond the border."""
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = image[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = kernel.numel()
        padding = [0, 0, 0]
        padding[axis] = radius
        out = F.conv3d(out, kernel.view(shape), padding=padding)
    return out[0, 0]


def correlate_rotations(fixed: CanonicalCube, moving: CanonicalCube, plan: SearchPlan, check) -> Tensor:
    """``(candidates, 4, 4)`` poses of highest correlation over all rotations and translations of the coarse grid."""
    device = fixed.image.device
    grid = plan.grid
    size = fixed.image.shape[0] // plan.factor
    spacing = fixed.spacing * plan.factor
    small_fixed, small_moving = (_coarse(cube, plan.factor) for cube in (fixed, moving))

    padded = torch.zeros(grid, grid, grid, device=device)
    low = (grid - size) // 2
    padded[low : low + size, low : low + size, low : low + size] = small_fixed
    spectrum = torch.fft.rfftn(padded).conj()

    # Rotated copies of the moving cube about its centre: voxel x of a copy shows the moving cube at R x.
    rotations = spiral_rotations(plan.rotations)
    axis = (torch.arange(grid, device=device) - (grid - 1) / 2) / (size / 2)
    lattice = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], dim=-1).view(-1, 3)
    batch = 64
    peaks, where = [], []
    for start in range(0, plan.rotations, batch):
        check(0.8 * start / plan.rotations)
        chunk = rotations[start : start + batch].float().to(device)
        points = (lattice @ chunk.transpose(-1, -2)).view(-1, grid, grid, grid, 3)
        turned = F.grid_sample(small_moving[None, None].expand(len(chunk), -1, -1, -1, -1), points, align_corners=False)[:, 0]
        correlation = torch.fft.irfftn(torch.fft.rfftn(turned, dim=(1, 2, 3)) * spectrum, s=(grid,) * 3, dim=(1, 2, 3))
        best = correlation.flatten(1).max(-1)
        peaks.append(best.values)
        where.append(best.indices)
    peaks, where = torch.cat(peaks).cpu(), torch.cat(where).cpu()

    # A peak at shift s: fixed(x) matches the copy at x + s, that is the moving cube at R (x + s).
    shift = torch.stack((where % grid, where // grid % grid, where // grid**2), dim=-1).double()
    shift = torch.where(shift > grid / 2, shift - grid, shift) * spacing
    rotated_shift = (rotations @ shift[..., None])[..., 0]
    fixed_center, moving_center = torch.from_numpy(fixed.center), torch.from_numpy(moving.center)
    poses = rigid(rotations, moving_center + rotated_shift - rotations @ fixed_center)
    return distinct(poses, peaks, plan.candidates, fixed.center, angle=0.12, shift=0.5 * spacing)


def _coarse(cube: CanonicalCube, factor: int) -> Tensor:
    image = pool_image(cube_image(cube), factor)
    return band_pass(gaussian(image.values, 0.7), image.inside)
