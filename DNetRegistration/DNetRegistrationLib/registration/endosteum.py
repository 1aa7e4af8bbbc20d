"""The inner surface of the cortex in two scans: of one bone it differs by noise, of two relatives by their shape.

Pieces of shaft of two littermates agree nearly as well as two scans of one piece do. But shape displaces edges, which
changes grey values the more the steeper they are, and over about a voxel of the surface. Noise is as strong where the
greys are flat, and what differs over more voxels is of the scanner: beam hardening, rings, blur. Agent and callus lie
against the outer surface, so that only the inner one is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.fft import irfftn, next_fast_len, rfftn
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.images import BoneImage
from ..geometry.rigid import apply, inverse
from ..imaging.splines import Spline
from ..imaging.tensors import sample_linear
from .refinement import tukey

# Points so many voxels from the marrow's border are asked, the flat ones among them for the noise. Most bones have some
# 10000; of more, those in the middle slices.
NEAR, POINTS = 2.5, 40000
# Edges of two relatives are displaced alike within `BESIDE` voxels and as they happen to be from `APART` to `FAR` ones.
# What the scanner does is much the same there, the less so the farther they are.
BESIDE, APART, FAR = 1, 3, 3
# With fewer points nothing is told, nor where the flat ones differ more than noise lets them, by so many deviations:
# dense bone that one scan has cut off, or what else is not the surface. Of 234 right pairs 1 % lay lower than -8.2.
LEAST_POINTS, MOST_BELOW = 500, 10.0
ITERATIONS = 5


@dataclass(frozen=True)
class Misfit:
    """How far apart the inner surfaces of two cortices are, beyond noise and scanner.

    Attributes:
        square: the mean square distance, in squares of the longest voxel edge; noise may make it negative.
        deviation: of the square, by noise.
    """

    square: float
    deviation: float


def endosteal_misfit(greys: Sequence[BoneImage], bones: Sequence[CorticalBone], pose: Tensor) -> Misfit | None:
    """The misfit of the inner surfaces of two cortices.

    A displacement d along the slope s of a grey changes it by s d. What an affine motion, gain, offset, a blur that
    differs and a threshold that differs change is fitted and taken out. The products of what is left at two points so
    far apart have the mean s s' K + C: the covariance K of d, and that of noise, C. Both are fitted to the points
    beside each other; from K, that of points some voxels apart is taken, so that it holds nothing that changes slowly.
    The mean of both directions.

    Args:
        greys: of the fixed and the moving scan, of about one resolution and blur; 0 at the bone threshold. Voxels that
            are not finite are not seen.
        bones: their cortical bone.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.

    Returns:
        the misfit; None where too little of the endosteum is seen, or something else differs.
    """
    greys = [_seen(grey) for grey in greys]
    found = [_one_way(greys, bones[0], pose), _one_way(greys[::-1], bones[1], inverse(pose))]
    ways = [way for way in found if way is not None]
    if not ways:
        return None
    # Both directions hold the same noise.
    square, deviation = np.mean(ways, axis=0) / max(float(grey.spacing.max()) for grey in greys) ** 2
    return Misfit(float(square), float(deviation)) if square >= -MOST_BELOW * deviation else None


def _seen(grey: BoneImage) -> BoneImage:
    """The image, whose voxels that are not finite lie outside its field of view."""
    finite = grey.values.isfinite()
    if finite.all():
        return grey
    inside = finite.to(grey.values) if grey.inside is None else grey.inside * finite
    return BoneImage(grey.values.where(finite, 0.0), grey.affine, inside)


def _one_way(greys: Sequence[BoneImage], bone: CorticalBone, pose: Tensor) -> tuple[float, float] | None:
    """The mean square in mm2 at the first scan's endosteum, and its deviation."""
    index, outwards = _about_endosteum(greys[0], bone)
    points = apply(torch.tensor(greys[0].affine), index.double())
    device, step = greys[0].values.device, float(greys[0].spacing.mean()) * outwards
    to_other = torch.linalg.inv(torch.tensor(greys[1].affine)) @ pose
    at, after, before = (apply(to_other, there).float() for there in (points, points + step, points - step))
    limit = torch.tensor(greys[1].shape[::-1]) - 2
    views = zip(greys, (index.float(), at), strict=True)
    seen = torch.stack([image.sample(there.to(device))[1].cpu() > 0.999 for image, there in views]).all(0)
    kept = seen & ((at > 1) & (at < limit)).all(-1)
    if int(kept.sum()) < LEAST_POINTS:
        return None
    index, outwards, points = index[kept], outwards[kept], points[kept]
    target, gradient, laplacian = derivatives(greys[0], index)
    spline = Spline.through(greys[1].values)
    values, ahead, behind = (spline.sample(there[kept].to(device)).cpu().double() for there in (at, after, before))
    # Noise that makes one scan steeper goes together with what is left of it: the mean of both slopes does not.
    away = values - values.mean()
    gain = (away * target).sum() / away.square().sum().clamp(min=1e-12)
    other = gain * (ahead - behind) / (2 * float(greys[0].spacing.mean()))
    slope = ((gradient * outwards).sum(-1) + other) / 2
    local = points - points.mean(0)
    local = local / local.square().sum(-1).mean().sqrt()
    linear = (gradient[:, :, None] * local[:, None]).flatten(1)
    plain = torch.stack((values, torch.ones_like(values), laplacian, slope), -1)
    columns = torch.cat((plain, gradient, linear), -1)
    weight = torch.ones_like(target)
    for _ in range(ITERATIONS):
        root = weight.sqrt()[:, None]
        fitted = torch.linalg.lstsq(root * columns, root * target[:, None], driver="gelsd").solution[:, 0]
        residual = target - columns @ fitted
        weight = tukey(residual[None], torch.ones_like(residual)[None])[0]
    return _covariance(*(_on_grid(index, one) for one in (residual, slope, weight)))


def _covariance(residual: np.ndarray, slope: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The covariance in mm2 of the displacements of neighbours, beyond that of points some voxels apart, and its
    deviation by noise.

    Args:
        residual, slope, weight: ``(z, y, x)``, 0 where nothing is known.
    """
    pulls, masses = (_products(weight * slope * one) for one in (residual, slope))
    noise, slopes, known = (_products(weight * one) for one in (residual, slope, 1.0))
    # Least squares of the products of residuals on those of slopes and a constant, of points each so far apart.
    share = slopes / known.clip(1e-9)
    pulls, masses = pulls - share * noise, masses - share * slopes
    # The products of two points are counted twice.
    variance = 2 * _products((weight * slope * residual) ** 2)
    apart = np.abs(np.indices(pulls.shape) - FAR).max(0)
    near, far = (apart > 0) & (apart <= BESIDE), (apart >= APART) & (apart <= FAR)
    mass = [max(float(masses[ring].sum()), 1e-12) for ring in (near, far)]
    square = float(pulls[near].sum() / mass[0] - pulls[far].sum() / mass[1])
    return square, float(np.hypot(np.sqrt(variance[near].sum()) / mass[0], np.sqrt(variance[far].sum()) / mass[1]))


def _products(values: np.ndarray) -> np.ndarray:
    """``(z, y, x)`` sums of the products of values ``(z, y, x)`` that lie from -`FAR` to `FAR` voxels apart."""
    sizes = [next_fast_len(size + FAR, real=True) for size in values.shape]
    spectrum = rfftn(values, sizes)
    products = irfftn(spectrum.real**2 + spectrum.imag**2, sizes)
    reach = np.arange(-FAR, FAR + 1)
    return products[np.ix_(reach, reach, reach)]


def _on_grid(voxels: Tensor, values: Tensor) -> np.ndarray:
    """``(z, y, x)`` values ``(n,)`` at voxels ``(n, 3)`` (x, y, z), 0 elsewhere, on the box that holds them."""
    at = (voxels - voxels.min(0).values).numpy()[:, ::-1]
    grid = np.zeros(at.max(0) + 1)
    grid[tuple(at.T)] = values.numpy()
    return grid


def _about_endosteum(grey: BoneImage, bone: CorticalBone) -> tuple[Tensor, Tensor]:
    """Voxels ``(n, 3)`` (x, y, z) nearer to the border of the marrow than to the outer surface, and the directions
    ``(n, 3)`` away from the marrow there.
    """
    marrow = (bone.depth > 0) & ~bone.cortex
    away = ndimage.distance_transform_edt(~marrow, bone.spacing[::-1])
    away = (away - ndimage.distance_transform_edt(marrow, bone.spacing[::-1])).astype(np.float32)
    reach = NEAR * float(grey.spacing.mean())
    some = torch.from_numpy(np.argwhere((np.abs(away) < reach) & (bone.depth > 0))[:, ::-1].copy())
    # The bone's voxels may be smaller. Differences want neighbours.
    there = apply(torch.from_numpy(np.linalg.inv(grey.affine) @ bone.affine), some.double()).round().long()
    limit, near = torch.tensor(grey.shape[::-1]) - 1, np.zeros(grey.shape, bool)
    near[tuple(there[((there > 0) & (there < limit)).all(-1)].numpy()[:, ::-1].T)] = True
    index = torch.from_numpy(np.argwhere(near)[:, ::-1].copy())
    to_bone = torch.from_numpy(np.linalg.inv(bone.affine))
    points = apply(torch.tensor(grey.affine), index.double())

    def sampled(image: np.ndarray, shift: Tensor | float = 0.0) -> Tensor:
        return sample_linear(torch.from_numpy(image), apply(to_bone, points + shift).float())[0].double()

    far = sampled(away).abs()
    kept = (far < reach) & (sampled(bone.depth) >= far)
    spare = max(0, int(kept.sum()) - POINTS) // 2
    chosen = kept.nonzero()[spare : spare + POINTS, 0]
    index, points = index[chosen], points[chosen]
    steps = float(grey.spacing.mean()) * torch.eye(3).double()
    outwards = torch.stack([sampled(away, step) - sampled(away, -step) for step in steps], -1)
    return index, outwards / outwards.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def derivatives(grey: BoneImage, voxels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values ``(n,)`` at voxels ``(n, 3)`` (x, y, z) within the border, their gradients ``(n, 3)`` per mm, and their
    discrete Laplacian ``(n,)``.
    """
    values = grey.values.cpu().double()

    def read(at: Tensor) -> Tensor:
        x, y, z = at.unbind(-1)
        return values[z, y, x]

    here, steps = read(voxels), torch.eye(3).long()
    ends = [(read(voxels + step), read(voxels - step)) for step in steps]
    gradient = torch.stack([(after - before) / 2 for after, before in ends], -1)
    laplacian = sum(after + before for after, before in ends) - 6 * here
    return here, gradient @ torch.from_numpy(np.linalg.inv(grey.affine[:3, :3])), laplacian
