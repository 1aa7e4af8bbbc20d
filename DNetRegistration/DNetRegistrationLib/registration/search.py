"""Full-range search: all of SO(3) and all translations, without training.

Every rotation of an even covering of SO(3) is tried on a coarse grid. For each, one correlation by FFT tries all
translations at once: centroids do not correspond when the fields of view cut the bone differently. The best distinct
poses are refined by Gauss-Newton, at half the voxel size each time, and compared by an overlap-aware correlation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bone.cube import CanonicalCube
from ..bone.images import pool_image
from ..geometry.rigid import rigid, spiral_rotations
from .refinement import gauss_newton
from .similarity import band_passed, overlap_correlation
from .template import edge_template


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

    rotations: int
    factor: int
    grid: int
    candidates: int
    finalists: int


# For bones with an outline. It found 184 of 185 pairs of cut scans; the last one is not found with four times as many
# rotations either.
FAST = SearchPlan(rotations=1152, factor=4, grid=24, candidates=64, finalists=6)
# For pieces without an outline, such as a cube of trabecular bone: a grid twice as fine, since only trabeculae tell one
# pose from another.
FINE = SearchPlan(rotations=4608, factor=2, grid=48, candidates=96, finalists=6)

# Turned copies of the coarse cube are looked up in one that is so many times as fine.
FINER = 3
# Rotations at a time: a CPU's cache holds so many copies of the cube.
BATCH = 16
# The share of the images' energy in the overlap counts as at least this much, so that small overlaps cannot win.
LEAST_SHARED = 0.25


def search(
    fixed: CanonicalCube,
    moving: CanonicalCube,
    plan: SearchPlan = FAST,
    check: Callable[[float], None] = lambda fraction: None,
) -> Tensor:
    """Finds the best distinct poses of two canonical cubes of one working spacing, best first.

    Args:
        fixed, moving: the cubes.
        plan: how hard to search.
        check: called with the fraction done; an exception from it ends the work.

    Returns:
        ``(h, 4, 4)`` float64 transforms, fixed to moving, LPS mm.
    """
    rotations = spiral_rotations(plan.rotations)
    poses = correlate_rotations(fixed, moving, rotations, plan, lambda fraction: check(0.8 * fraction))
    fixed_image, moving_image = fixed.as_image, moving.as_image
    for factor, points, done in ((2, 2500, 0.8), (1, 6000, 0.9)):
        level_fixed, level_moving = pool_image(fixed_image, factor), pool_image(moving_image, factor)
        template = edge_template(level_fixed, points)
        tolerance = 0.02 * fixed.spacing * factor
        poses = gauss_newton(
            template, level_moving, poses, 8, tolerance=tolerance, check=partial(check, done)
        ).transforms
        scores = overlap_correlation(level_fixed, level_moving, poses)
        poses = poses[distinct_indices(poses, scores, plan.finalists, fixed.center, shift=2.5 * fixed.spacing)]
    return poses


def distinct_indices(
    poses: Tensor, scores: Tensor, count: int, center: np.ndarray, *, shift: float, angle: float = 0.15
) -> list[int]:
    """Indices of the `count` best poses, best first, no two within `angle` (rad) and `shift` (mm at `center`)."""
    points = poses @ torch.as_tensor(np.append(center, 1.0))
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        trace = (poses[kept, :3, :3] * poses[i, :3, :3]).sum((1, 2))
        near = (trace > 1 + 2 * np.cos(angle)) & ((points[kept] - points[i]).norm(dim=-1) < shift)
        if not near.any():
            kept.append(i)
            if len(kept) == count:
                break
    return kept


def correlate_rotations(
    fixed: CanonicalCube,
    moving: CanonicalCube,
    rotations: Tensor,
    plan: SearchPlan,
    check: Callable[[float], None] = lambda fraction: None,
    peaks: int = 1,
) -> Tensor:
    """``(candidates, 4, 4)`` poses of highest correlation over given rotations and all translations of the coarse grid.

    The score of a pose is the covariance of the band-passed images where they overlap, divided by the geometric mean of
    two norms. The norm of the whole images favours a large overlap. The norm within the overlap does not punish what a
    field of view cuts away; it is smooth, and computed on a grid half as fine.

    Args:
        fixed, moving: the cubes.
        rotations: ``(n, 3, 3)`` float64, fixed to moving.
        plan: its factor, grid and number of candidates.
        check: called with the fraction done; an exception from it ends the work.
        peaks: translations taken at each rotation, the highest maxima in neighbourhoods of 3^3 voxels.
    """
    device, grid, factor = fixed.image.device, plan.grid, plan.factor
    size, spacing = fixed.image.shape[0] // factor, fixed.spacing * factor
    small_fixed, small_moving = (pool_image(cube.as_image, factor) for cube in (fixed, moving))
    target, source = band_passed(small_fixed).values, band_passed(small_moving).values
    low = (grid - size) // 2
    fixed_inside, moving_inside = small_fixed.inside, small_moving.inside
    assert fixed_inside is not None and moving_inside is not None  # those of the cubes
    target, seen = (F.pad(x, (low, grid - size - low) * 3) for x in (target, fixed_inside))
    energy = (target.square().sum() * source.square().sum()).sqrt()
    spectrum = torch.fft.rfftn(target).conj()
    squared_spectrum, seen_spectrum = (torch.fft.rfftn(_halved(x)).conj() for x in (target.square(), seen))

    def correlate(images: Tensor, with_spectrum: Tensor) -> Tensor:
        transformed = torch.fft.rfftn(images, dim=(1, 2, 3)) * with_spectrum
        return torch.fft.irfftn(transformed, s=images.shape[1:], dim=(1, 2, 3))

    # Rotated copies of the moving cube about its centre: voxel x of a copy shows the moving cube at R x.
    fine_source, fine_inside = (_finer(image) for image in (source, moving_inside))
    axis, half_axis = (FINER * _axis(grid // k, k, device) for k in (1, 2))
    # Small results among large temporary tensors would keep the holes that these leave from being used again.
    scores = torch.empty(len(rotations), peaks, device=device)
    where = torch.empty(len(rotations), peaks, dtype=torch.long, device=device)
    for start in range(0, len(rotations), BATCH):
        check(start / len(rotations))
        chunk = rotations[start : start + BATCH].float().to(device)
        turned = _turned(fine_source, axis, chunk)
        turned_seen = _turned(fine_inside, half_axis, chunk)
        covariance = correlate(turned, spectrum)
        shared_fixed = correlate(turned_seen, squared_spectrum)
        shared_moving = correlate(_halved(turned.square()), seen_spectrum)
        # Sums over halved grids stand for eight times as many voxels.
        shared = (8 * (shared_fixed.clamp(min=0) * shared_moving.clamp(min=0)).sqrt() / energy).clamp(min=LEAST_SHARED)
        for dimension in (1, 2, 3):
            shared = shared.repeat_interleave(2, dimension)
        score = covariance / shared.sqrt()
        if peaks > 1:
            # The grid is periodic.
            around = F.max_pool3d(F.pad(score[:, None], (1,) * 6, mode="circular"), 3, 1)[:, 0]
            score = score.where(score == around, -torch.inf)
        rows = slice(start, start + len(chunk))
        scores[rows], where[rows] = score.flatten(1).topk(peaks)
    scores, where = scores.flatten().cpu(), where.flatten().cpu()
    shift = torch.stack((where % grid, where // grid % grid, where // grid**2), dim=-1).double()
    shift = torch.where(shift > grid / 2, shift - grid, shift) * spacing
    poses = _poses_at(rotations.repeat_interleave(peaks, 0), shift, fixed.center, moving.center)
    return poses[distinct_indices(poses, scores, plan.candidates, fixed.center, angle=0.12, shift=0.5 * spacing)]


def _poses_at(rotations: Tensor, shift: Tensor, fixed_center: np.ndarray, moving_center: np.ndarray) -> Tensor:
    """The poses ``(n, 4, 4)`` at which copies of the moving cube, turned and shifted (mm), match the fixed cube.

    At a shift s, fixed(x) matches the copy at x + s, that is, the moving cube at R (x + s), about the cubes' centres.
    """
    turned = rotations @ (shift - torch.from_numpy(fixed_center))[..., None]
    return rigid(rotations, torch.from_numpy(moving_center) + turned[..., 0])


def _halved(images: Tensor) -> Tensor:
    batch, size = images.shape[:-3], images.shape[-3:]
    return F.avg_pool3d(images.view(-1, *size), 2).view(*batch, *(n // 2 for n in size))


def _axis(grid: int, step: float, device: torch.device) -> Tensor:
    """``(grid,)`` positions along an axis about its middle, in coarse voxels."""
    return (torch.arange(grid, device=device) - (grid - 1) / 2) * step


def _finer(image: Tensor) -> Tensor:
    """A cubic image with a border of zeros, interpolated linearly to voxels `FINER` times as fine."""
    return F.interpolate(F.pad(image[None, None], (1,) * 6), scale_factor=FINER, mode="trilinear")[0, 0]


def _turned(finer: Tensor, axis: Tensor, rotations: Tensor) -> Tensor:
    """``(b, n, n, n)`` copies of a cubic image, each turned by the inverse of one of the ``(b, 3, 3)`` rotations.

    Each voxel is looked up in the finer image: interpolating it would take nine times as long.

    Args:
        finer: the image as `_finer` gives it.
        axis: ``(n,)`` positions of the copies' voxels about the middle, in voxels of the finer image.
        rotations: turn positions of a copy to those of the image.
    """
    edge = finer.shape[0]
    # Points are sums of the rotated axes: a matrix product for each would cost as much as all the rest.
    x, y, z = ((axis[:, None] * column[:, None]) for column in rotations.unbind(-1))
    at = torch.zeros((), device=axis.device)
    for k in (2, 1, 0):
        index = (x[:, None, None, :, k] + (edge - 1) / 2) + y[:, None, :, None, k] + z[:, :, None, None, k]
        at = index.round_().clamp_(0, edge - 1).add_(at, alpha=edge)
    return finer.view(-1).index_select(0, at.view(-1).int()).view(at.shape)
