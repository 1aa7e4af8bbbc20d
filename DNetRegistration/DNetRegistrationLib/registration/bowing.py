"""The shape of a slender bone: how it bows, twists and tapers along its axis.

A slender bone has little inside by which to tell one animal's from another's, and a pose and a strain bring those of
two onto each other within a fraction of a voxel. But they bow, twist and taper differently. Grey values on both sides
of the bone threshold tell that to some hundredths of a voxel, where what lies beside the bone is alike in both scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.images import BoneImage
from ..geometry.rigid import apply, inverse
from ..imaging.splines import Spline
from ..imaging.tensors import inner_slopes
from .blur import blurred
from .endosteum import derivatives
from .refinement import tukey
from .uncertainty import CELL, sums_over_cells

# A bone is slender if its least standard deviation is below this share of the one along its axis: 0.05 to 0.2 of bones
# as slender as mouse ulnae, and of pieces of shaft.
SLENDER = 0.22
# Noise reaches less above the bone threshold, where dense bone is 1.
DENSE = 0.2
# Both images are blurred by a Gaussian of so many voxels, and what lies beside an edge is read with another one.
BLUR, BLUR_BESIDE = 0.7, 1.5
# An edge is at least this share as steep as the steepest ones. So many voxels from it on the dark side the scans differ
# by at most so much, dense bone being 1 above the threshold. Where fewer of the edges are alike, nothing is told.
STEEPEST, STEEP, BESIDE, ALIKE, LEAST_ALIKE = 2000, 0.15, 2.0, 0.06, 0.6
# Nor is it where what lies on the bone, or what is in it, differs by so much in the median from what is farther off: of
# 24 right pairs at most by 0.014 and 0.08. A layer of agent 0.1 mm thick, 0.16 as bright as bone, makes the former 0.02
# to 0.04, and agent in the marrow the latter 0.14 to 0.3.
FAR, MOST_ON_IT, MOST_IN_IT = 4.5, 0.02, 0.12
# A thinner bone hides what is in it: its least standard deviation is to be so many voxels.
LEAST_THICK = 1.3
LEAST_POINTS, MOST_POINTS, ITERATIONS, RIDGE = 500, 20000, 6, 1e-10
# Unknowns of an affine motion.
AFFINE = 12


@dataclass(frozen=True)
class Bowing:
    """How differently two slender bones bow, twist and taper.

    Attributes:
        square: the mean square distance between their edges, in squares of the longest voxel edge.
        variance: what noise alone makes of it.
    """

    square: float
    variance: float

    @property
    def apart(self) -> float:
        """The distance in voxels that is beyond noise: its mean, and two times as much for chance."""
        return float(np.sqrt(max(0.0, self.square - 3 * self.variance)))


@dataclass(frozen=True)
class Frame:
    """A bone's centre, the standard deviations ``(3,)`` along its principal axes, and these as columns, the longest one
    last; LPS mm. Its axis is a parabola about the last one, whose coefficients ``(3, 2)`` are `bend`.
    """

    center: Tensor
    deviations: Tensor
    axes: Tensor
    bend: Tensor

    def outwards(self, points: Tensor) -> Tensor:
        """``(n, 2)`` where points ``(n, 3)`` lie off the bent axis, along the first two axes; mm."""
        across, along = ((points - self.center) @ self.axes).split((2, 1), -1)
        return across - torch.cat((torch.ones_like(along), along, along**2), -1) @ self.bend

    def motions(self, points: Tensor) -> Tensor:
        """``(n, 18, 3)`` how an affine motion and a change of shape move points ``(n, 3)``, along the axes.

        Twelve of an affine motion. Then the axis bows, by its square and its cube, either way; the bone twists; and it
        tapers.
        """
        x, y, z = ((points - self.center) @ self.axes / self.deviations).unbind(-1)
        one, none = torch.ones_like(z), torch.zeros_like(z)
        along = torch.eye(3).to(points)
        affine = (torch.stack((one, x, y, z), -1)[:, :, None, None] * along).flatten(1, 2)
        wide, broad = (self.deviations[:2] / self.deviations[2]).tolist()
        shapes = (
            (z**2 - 1, none), (none, z**2 - 1), (z**3, none), (none, z**3),
            (-broad * y * z, wide * x * z), (wide * x * z, broad * y * z),
        )  # fmt: skip
        return torch.cat((affine, torch.stack([torch.stack((*shape, none), -1) for shape in shapes], 1)), 1)


def slender_frame(image: BoneImage) -> Frame | None:
    """The frame of the bone in a bone image, if it is slender."""
    points, weight = points_of_bone(replace(image, values=image.values.where(image.values > DENSE, 0.0)))
    if len(points) < LEAST_POINTS:
        return None
    center = np.average(points, axis=0, weights=weight)
    away = points - center
    squares, axes = np.linalg.eigh(away.T @ (away * weight[:, None]) / weight.sum())
    if squares[0] > SLENDER**2 * squares[2]:
        return None
    local = away @ axes
    root = np.sqrt(weight)[:, None]
    bend = np.linalg.lstsq(root * local[:, 2:] ** np.arange(3), root * local[:, :2], rcond=None)[0]
    return Frame(*(torch.from_numpy(one) for one in (center, np.sqrt(squares.clip(1e-12)), axes, bend)))


def find_bowing(greys: Sequence[BoneImage], frame: Frame, pose: Tensor) -> Bowing | None:
    """How differently two slender bones bow, twist and taper, of two scans in a pose.

    The residual of an edge of gradient g that is displaced by d is g d. The displacement is an affine motion, which any
    wrong grid makes, and a change of shape. Nuisances are gain, offset, a blur that differs, and how far the outer and
    the inner surface shift, and shift more along the bone. It is fitted in both directions, by edges that both scans
    show, with the mean of both slopes, so that the noise of neither goes together with its slope.

    Args:
        greys: of the fixed and the moving scan, of about one resolution and blur; 0 at the bone threshold.
        frame: of the fixed bone.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.

    Returns:
        None where too little of what lies beside the bone is alike in both scans, and of a bone that is very thin.
    """
    if frame.deviations[0] < LEAST_THICK * max(float(grey.spacing.max()) for grey in greys):
        return None
    greys = [_on_cpu(grey) for grey in greys]
    spacing = max(float(grey.spacing.mean()) for grey in greys)
    greys = [blurred(grey, (BLUR * spacing) ** 2 * np.eye(3)) for grey in greys]
    beside = [blurred(grey, (BLUR_BESIDE**2 - BLUR**2) * spacing**2 * np.eye(3)) for grey in greys]
    still = torch.eye(4, dtype=torch.float64)
    forward = _one_way(greys, beside, frame, pose, still)
    backward = _one_way(greys[::-1], beside[::-1], frame, inverse(pose), inverse(pose))
    if forward is None or backward is None:
        return None
    # Back from moving to fixed, all goes the other way.
    change = (forward.change - backward.change) / 2
    covariance, form = (forward.covariance + backward.covariance) / 2, (forward.form + backward.form) / 2
    voxel = max(float(grey.spacing.max()) for grey in greys) ** 2
    return Bowing(float(change @ form @ change) / voxel, float((form * covariance).sum()) / voxel)


def _on_cpu(grey: BoneImage) -> BoneImage:
    """The image where float64 is fast, and sums are the same each time."""
    return BoneImage(grey.values.cpu(), grey.affine, None if grey.inside is None else grey.inside.cpu())


@dataclass(frozen=True)
class _Fit:
    """A change of shape ``(6,)`` in mm, its covariance ``(6, 6)``, and the form ``(6, 6)`` of its mean square."""

    change: Tensor
    covariance: Tensor
    form: Tensor


@dataclass(frozen=True)
class _Edges:
    """Edges of a scan: voxels ``(n, 3)`` (x, y, z), and their `derivatives`."""

    index: Tensor
    value: Tensor
    gradient: Tensor
    laplacian: Tensor

    def __getitem__(self, chosen: Tensor) -> _Edges:
        return _Edges(self.index[chosen], self.value[chosen], self.gradient[chosen], self.laplacian[chosen])

    @classmethod
    def of(cls, grey: BoneImage) -> _Edges:
        slopes = torch.stack(list(inner_slopes(grey.values.double())), -1)
        steep = (slopes @ torch.from_numpy(np.linalg.inv(grey.affine[:3, :3]))).norm(dim=-1)
        edge = steep > STEEP * steep.flatten().topk(min(STEEPEST, steep.numel())).values[-1]
        if grey.inside is not None:
            edge &= grey.inside[1:-1, 1:-1, 1:-1] > 0.999
        # An odd step takes voxels of all rows.
        index = edge.nonzero()
        index = index[:: len(index) // MOST_POINTS | 1]
        index = index.flip(-1) + 1
        return cls(index.double(), *derivatives(grey, index))


def _one_way(
    greys: Sequence[BoneImage], beside: Sequence[BoneImage], frame: Frame, pose: Tensor, to_fixed: Tensor
) -> _Fit | None:
    """The change of shape from the first scan to the second, by the edges of the first.

    Args:
        greys, beside: of both scans, the latter blurred further.
        frame: of the fixed bone.
        pose: ``(4, 4)`` from the first scan to the second.
        to_fixed: ``(4, 4)`` from the first scan to the fixed one.
    """
    first, second = greys
    edges, to_world = _Edges.of(first), torch.from_numpy(first.affine)
    to_second = torch.linalg.inv(torch.from_numpy(second.affine)) @ pose
    at = apply(to_second @ to_world, edges.index)
    both = (second.sample(at.float())[1] > 0.999) & ((at > 1) & (at < torch.tensor(second.shape[::-1]) - 2)).all(-1)
    if int(both.sum()) < LEAST_POINTS:
        return None
    edges, at, spline = edges[both], at[both], Spline.through(second.values)

    def read(where: Tensor) -> Tensor:
        return spline.sample(where.float()).double()

    values = read(at)
    away = values - values.mean()
    gain = (away * edges.value).sum() / away.square().sum().clamp(min=1e-12)
    radial = frame.outwards(apply(to_fixed @ to_world, edges.index))
    inner = ((edges.gradient @ to_fixed[:3, :3].T @ frame.axes)[:, :2] * radial).sum(-1) > 0
    alike = _alike_beside(beside, edges, inner, to_world, to_second, gain)
    if int(alike.sum()) < max(LEAST_POINTS, LEAST_ALIKE * len(alike)):
        return None
    inner = inner[alike]
    edges, at, values = edges[alike], at[alike], values[alike]
    step = 0.5 * float(first.spacing.mean())
    steps = step * to_second[:3, :3].T
    slope = torch.stack([read(at + one) - read(at - one) for one in steps], -1) / (2 * step)
    slope = (edges.gradient + gain * slope) @ to_fixed[:3, :3].T @ frame.axes / 2
    # Noise is steep in one scan.
    steep = slope.norm(dim=-1)
    kept = steep > STEEP * steep.topk(min(STEEPEST, len(steep))).values[-1]
    edges, slope, steep, values = edges[kept], slope[kept], steep[kept], values[kept]
    within = steep * inner[kept]
    points = apply(to_fixed @ to_world, edges.index)
    motions = frame.motions(points)
    along = (points - frame.center) @ frame.axes[:, 2] / frame.deviations[2]
    # What lies on the bone and what is in it moves its outer and its inner surface, each by itself.
    shifts = (steep, steep * along, within, within * along)
    nuisances = torch.stack((values, torch.ones_like(values), edges.laplacian, *shifts), -1)
    columns = torch.cat(((motions * slope[:, None]).sum(-1), nuisances), -1)
    fitted, covariance, weight = _fitted(columns, edges.value, edges.index)
    shape = slice(AFFINE, motions.shape[1])
    return _Fit(fitted[shape], covariance[shape, shape], _mean_square(motions, weight))


def _alike_beside(
    beside: Sequence[BoneImage], edges: _Edges, inner: Tensor, to_world: Tensor, to_second: Tensor, gain: Tensor
) -> Tensor:
    """``(n,)`` at which edges of the first scan what lies on the dark side is as bright in both.

    At none, where something lies on the bone, or in it, in one scan alone: its edges are not where they were.
    """
    dark = edges.gradient / edges.gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    matrices = torch.linalg.inv(to_world), to_second

    def differ(voxels: float) -> Tensor:
        points = apply(to_world, edges.index) - voxels * float(beside[0].spacing.mean()) * dark
        own, other = (
            image.sample(apply(matrix, points).float())[0].double()
            for image, matrix in zip(beside, matrices, strict=True)
        )
        return gain * other - own

    near = differ(BESIDE) - differ(FAR)[~inner].median()
    sides = (~inner, MOST_ON_IT), (inner, MOST_IN_IT)
    if any(side.any() and abs(float(near[side].median())) > most for side, most in sides):
        return torch.zeros_like(inner)
    return near.abs() < ALIKE


def _fitted(columns: Tensor, target: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The robust least squares fit ``(k,)`` of columns ``(n, k)``, its covariance ``(k, k)`` (see `uncertainty`), and
    the weights ``(n,)``.
    """
    size = columns.norm(dim=0).clamp(min=1e-12)
    columns, weight = columns / size, torch.ones_like(target)
    for _ in range(ITERATIONS):
        inverse_normal = torch.linalg.inv((columns.T * weight) @ columns + RIDGE * torch.eye(len(size)).double())
        solution = inverse_normal @ (columns.T @ (weight * target))
        residual = columns @ solution - target
        scores = sums_over_cells(index // CELL, columns * (weight * residual)[:, None])
        used, weight = weight, tukey(residual[None], torch.ones_like(residual)[None])[0]
    covariance = inverse_normal @ scores.T @ scores @ inverse_normal
    return solution / size, covariance / size / size[:, None], used


def _mean_square(motions: Tensor, weight: Tensor) -> Tensor:
    """``(6, 6)`` as a form of a change of shape, the weighted mean square of what no affine motion makes of it."""
    form = torch.einsum("n,nak,nbk->ab", weight / weight.sum(), motions, motions)
    affine, both = form[:AFFINE, :AFFINE], form[:AFFINE, AFFINE:]
    return form[AFFINE:, AFFINE:] - both.T @ torch.linalg.solve(affine, both)
