"""The inner surface of the cortex in two scans: of one bone it differs by noise, of two relatives by their shape.

Pieces of shaft of two littermates agree nearly as well as two scans of one piece do. But noise is another one in each
voxel, and shape differs over about a voxel of the surface. What differs over more voxels is of the scanner: beam
hardening, rings, blur. Agent and callus lie against the outer surface, so that only the inner one is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.images import BoneImage
from ..geometry.rigid import apply, inverse
from ..imaging.splines import Spline
from ..imaging.tensors import sample_linear
from .refinement import tukey
from .template import Template, edge_template, sample_through

POINTS = 16000
# Edges within so many voxels of the marrow's border are the endosteum's.
NEAR = 1.5
# Edges of two relatives are displaced alike within `BESIDE` voxels and as they happen to be from `APART` to `FAR` ones.
# What the scanner does is much the same there, the less so the farther they are.
BESIDE, APART, FAR = 1, 2, 3
# With fewer edges nothing is told.
LEAST_POINTS = 500
ITERATIONS = 5


def endosteal_misfit(greys: Sequence[BoneImage], bones: Sequence[CorticalBone], pose: Tensor) -> float | None:
    """Root mean square distance between the inner surfaces of two cortices, beyond noise and scanner, in voxels.

    A displacement d along the gradient g of a grey I changes it by |g| d. What an affine motion, gain, offset, a blur
    that differs and a threshold that differs change is fitted and taken out. The covariance of d over edges beside each
    other holds no white noise; less that over edges some voxels apart, it holds nothing that changes slowly. The mean
    of both directions.

    Args:
        greys: of the fixed and the moving scan, of about one resolution and blur; 0 at the bone threshold. Voxels that
            are not finite are not seen.
        bones: their cortical bone.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.

    Returns:
        the distance, as a share of the longest voxel edge; None where too little of the endosteum is seen.
    """
    greys = [_seen(grey) for grey in greys]
    found = [_one_way(greys, bones[0], pose), _one_way(greys[::-1], bones[1], inverse(pose))]
    squares = [square for square in found if square is not None]
    if not squares:
        return None
    voxel = max(float(grey.spacing.max()) for grey in greys)
    return float(np.sqrt(max(0.0, sum(squares) / len(squares)))) / voxel


def _seen(grey: BoneImage) -> BoneImage:
    """The image, whose voxels that are not finite lie outside its field of view."""
    finite = grey.values.isfinite()
    if finite.all():
        return grey
    inside = finite.to(grey.values) if grey.inside is None else grey.inside * finite
    return BoneImage(grey.values.where(finite, 0.0), grey.affine, inside)


def _one_way(greys: Sequence[BoneImage], bone: CorticalBone, pose: Tensor) -> float | None:
    """The mean square in mm2 at the first scan's endosteum."""
    template = edge_template(greys[0], POINTS)
    index = torch.linalg.inv(torch.tensor(greys[1].affine)) @ pose @ torch.tensor(template.affine)
    at = apply(index, template.index.cpu().double()).to(template.values)
    limit = torch.tensor(greys[1].shape[::-1], device=at.device) - 2
    seen = sample_through(template, greys[1], pose[None])[1][0] > 0.999
    kept = seen & _on_endosteum(template, bone) & ((at > 1) & (at < limit)).all(-1)
    if int(kept.sum()) < LEAST_POINTS:
        return None
    target, gradient, local = template.values[kept], template.gradient[kept], template.local()[kept] / template.radius
    steep, voxels = gradient.norm(dim=-1), template.index[kept].long()
    values = Spline.through(greys[1].values).sample(at[kept])
    linear = (gradient[:, :, None] * local[:, None]).flatten(1)
    plain = torch.stack((values, torch.ones_like(values), _laplacian(greys[0].values, voxels), steep), -1)
    columns = torch.cat((plain, gradient, linear), -1).cpu().double()
    target, steep = target.cpu().double(), steep.cpu().double()
    weight = torch.ones_like(target)
    for _ in range(ITERATIONS):
        root = weight.sqrt()[:, None]
        fitted = torch.linalg.lstsq(root * columns, root * target[:, None], driver="gelsd").solution[:, 0]
        residual = target - columns @ fitted
        weight = tukey(residual[None], torch.ones_like(residual)[None])[0]
    pulls, masses = (_on_grid(voxels, weight * steep * one) for one in (residual, steep))
    return _covariance(pulls, masses, BESIDE, 0) - _covariance(pulls, masses, FAR, APART - 1)


def _on_grid(voxels: Tensor, values: Tensor) -> np.ndarray:
    """``(z, y, x)`` values ``(n,)`` at voxels ``(n, 3)`` (x, y, z), 0 elsewhere, on the box that holds them."""
    at = (voxels - voxels.min(0).values).cpu().numpy()[:, ::-1]
    grid = np.zeros(at.max(0) + 1)
    grid[tuple(at.T)] = values.numpy()
    return grid


def _covariance(pulls: np.ndarray, masses: np.ndarray, reach: int, within: int) -> float:
    """The covariance in mm2 of the displacements of edges that are more than `within` and up to `reach` voxels apart.

    Args:
        pulls: ``(z, y, x)`` displacements times `masses`, 0 where no edge is.
        masses: ``(z, y, x)`` how much each edge tells of its displacement.
    """

    def around(values: np.ndarray) -> np.ndarray:
        """The sums over such places about each voxel."""
        sides = 2 * reach + 1, 2 * within + 1
        larger, smaller = (ndimage.uniform_filter(values, side, mode="constant") * side**3 for side in sides)
        return larger - smaller

    return float((pulls * around(pulls)).sum() / max((masses * around(masses)).sum(), 1e-12))


def _on_endosteum(template: Template, bone: CorticalBone) -> Tensor:
    """``(n,)`` which edges lie about the border of the marrow, with the brighter side away from it."""
    marrow = (bone.depth > 0) & ~bone.cortex
    away = ndimage.distance_transform_edt(~marrow, bone.spacing[::-1])
    away = torch.from_numpy((away - ndimage.distance_transform_edt(marrow, bone.spacing[::-1])).astype(np.float32))
    to_bone = torch.from_numpy(np.linalg.inv(bone.affine))
    reach = float(template.spacing.mean())
    points = apply(torch.tensor(template.affine), template.index.cpu().double())
    rise = template.gradient.cpu() / template.gradient.cpu().norm(dim=-1, keepdim=True).clamp(min=1e-9)

    def sampled(image: Tensor, there: Tensor) -> Tensor:
        return sample_linear(image, apply(to_bone, there).float())[0]

    far, further = sampled(away, points), sampled(away, points + reach * rise.double())
    depth = sampled(torch.from_numpy(bone.depth), points)
    near = (far.abs() < NEAR * reach) & (depth >= far.abs()) & (further > far)
    return near.to(template.values.device)


def _laplacian(values: Tensor, voxels: Tensor) -> Tensor:
    """``(n,)`` the discrete Laplacian at voxels ``(n, 3)`` (x, y, z) within the border."""
    x, y, z = voxels.unbind(-1)
    around = values[z, y, x - 1] + values[z, y, x + 1] + values[z, y - 1, x] + values[z, y + 1, x]
    return around + values[z - 1, y, x] + values[z + 1, y, x] - 6 * values[z, y, x]
