"""Rigid refinement by Gauss-Newton on points at the edges of bone, from coarse to native resolution.

One scan is the template: points at its voxel centres, where bone begins or ends, with their values and gradients, which
are computed once (inverse compositional: Baker & Matthews, IJCV 56:221, 2004). The other scan is only ever read at the
points' images. Any number of start transforms are refined at once; the code is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..bone.images import BoneImage, BonePlace, NativeScan, PreparedScan
from ..geometry.rigid import apply, inverse, nearest_rotation, rigid, rotation_from_axis_angle
from ..imaging.tensors import SLAB_VOXELS, dilate, gaussian

# Tukey's biweight loses 5 % of efficiency on normal noise at this multiple of the deviation.
TUKEY = 4.685
# Residuals below this (dense bone is 1) are never outliers: interpolation alone makes as much.
LEAST_DEVIATION = 0.03
# Neighbourhoods whose mean residual is below this are never one-sided.
LEAST_ONE_SIDED = 0.05
# Points at the working spacing, and at each finer one.
WORKING_POINTS, FINER_POINTS = 16000, 64000


@dataclass(frozen=True)
class Template:
    """Points of one scan at the edges of its bone.

    Attributes:
        index: ``(n, 3)`` float32 voxel indices (x, y, z).
        affine: ``(4, 4)`` float64, index to world LPS mm.
        values: ``(n,)`` bone values.
        gradient: ``(n, 3)`` their gradient per mm, along world x, y, z.
        center: ``(3,)`` float64 world centroid of the points, about which rotations are taken.
        radius: root mean square distance of the points from it, in mm.
    """

    index: Tensor
    affine: np.ndarray
    values: Tensor
    gradient: Tensor
    center: np.ndarray
    radius: float

    def local(self) -> Tensor:
        """``(n, 3)`` positions relative to `center`, in mm."""
        linear = torch.tensor(self.affine[:3, :3], dtype=torch.float32, device=self.index.device)
        offset = torch.as_tensor(self.affine[:3, 3] - self.center, dtype=torch.float32, device=self.index.device)
        return self.index @ linear.T + offset


def edge_template(image: BoneImage, count: int, check: Callable[[], None] = lambda: None) -> Template:
    """The `count` voxels of steepest bone value, away from the border of the field of view.

    `check` is called between slabs; whatever it raises ends the work.
    """
    values = image.values
    depth, height, width = values.shape
    to_world = torch.as_tensor(np.linalg.inv(image.affine[:3, :3]), dtype=torch.float32, device=values.device)
    strength = torch.zeros_like(values)
    step = max(1, SLAB_VOXELS // (height * width))
    for start in range(1, depth - 1, step):
        check()
        stop = min(start + step, depth - 1)
        gradient = index_gradient(values[start - 1 : stop + 1])[1:-1, 1:-1, 1:-1] @ to_world
        inner = gradient.square().sum(-1).sqrt()
        if image.inside is not None:
            inner = inner * (erode(image.inside[start - 1 : stop + 1])[1:-1, 1:-1, 1:-1] > 0.999)
        strength[start:stop, 1:-1, 1:-1] = inner
    flat = strength.view(-1)
    steep = (flat > 0.05 * flat.max()).nonzero()[:, 0]
    check()
    chosen = steep[flat[steep].topk(min(count, len(steep)), sorted=False).indices].sort().values
    index = index_of(chosen, values.shape)
    flat = values.reshape(-1)
    strides = (1, width, width * height)
    gradient = torch.stack([(flat[chosen + s] - flat[chosen - s]) / 2 for s in strides], dim=-1) @ to_world
    return make_template(index.float(), image.affine, flat[chosen], gradient)


def index_of(at: Tensor, shape: torch.Size) -> Tensor:
    """Indices ``(n, 3)`` x, y, z of voxels counted in the memory order of an image of `shape` (z, y, x)."""
    _, height, width = shape
    return torch.stack((at % width, at // width % height, at // (width * height)), dim=-1)


def make_template(index: Tensor, affine: np.ndarray, values: Tensor, gradient: Tensor) -> Template:
    """A `Template` of points with their values and gradients, centred on them."""
    mean = index.cpu().double().mean(0).numpy()
    center = affine[:3, :3] @ mean + affine[:3, 3]
    template = Template(index, affine, values, gradient, center, 1.0)
    radius = float(template.local().square().sum(-1).mean().sqrt())
    return Template(index, affine, values, gradient, center, radius)


def index_gradient(values: Tensor) -> Tensor:
    """Central differences ``(z, y, x, 3)`` of an image per voxel, in the order x, y, z; zero on the border."""
    gradient = values.new_zeros((*values.shape, 3))
    gradient[:, :, 1:-1, 0] = (values[:, :, 2:] - values[:, :, :-2]) / 2
    gradient[:, 1:-1, :, 1] = (values[:, 2:] - values[:, :-2]) / 2
    gradient[1:-1, :, :, 2] = (values[2:] - values[:-2]) / 2
    return gradient


def erode(inside: Tensor) -> Tensor:
    """The least share inside among each voxel and its 26 neighbours."""
    return -dilate(-inside)


def index_maps(template: Template, image_affine: np.ndarray, transforms: Tensor) -> Tensor:
    """``(h, 4, 4)`` float64: template index to image index through each world transform."""
    to_index = torch.from_numpy(np.linalg.inv(image_affine))
    return to_index @ transforms @ torch.tensor(template.affine)


def sample_through(template: Template, image: BoneImage | NativeScan, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """``(h, n)`` bone values of `image` at the template's points through ``(h, 4, 4)``, and their share inside."""
    maps = index_maps(template, image.affine, transforms).to(torch.float32).to(template.index.device)
    index = template.index @ maps[:, :3, :3].transpose(-1, -2) + maps[:, None, :3, 3]
    values, inside = image.sample(index.view(-1, 3))
    return values.view(index.shape[:2]), inside.view(index.shape[:2])


@dataclass(frozen=True)
class Fit:
    """Where Gauss-Newton ended, for ``h`` starts.

    Attributes:
        transforms: ``(h, 4, 4)`` float64, template space to image space.
        gain: ``(h,)`` what the image's values were multiplied with.
        residual: ``(h, n)`` gain x image - template at the end.
        seen: ``(h, n)`` 1 for points that lay in the image's field of view and were to be kept, else 0.
    """

    transforms: Tensor
    gain: Tensor
    residual: Tensor
    seen: Tensor


def gauss_newton(
    template: Template,
    image: BoneImage | NativeScan,
    transforms: Tensor,
    iterations: int,
    keep: Tensor | None = None,
    tolerance: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> Fit:
    """Refines ``(h, 4, 4)`` world transforms, template to image, with a robust weight and a fitted gain.

    Each step solves for six motion parameters and the gain together: gain * image(T p) = f(p) + J xi, where xi moves
    the template's points about their centroid, and then composes T with the inverse of that motion.

    Args:
        template: the points.
        image: the other scan at about the same resolution.
        transforms: start, float64, on the CPU.
        iterations: the most steps.
        keep: ``(n,)`` weight of each point, or None for one.
        tolerance: stop when no start moved a point at the template's radius by more than this, in mm.
        check: called before each step; whatever it raises ends the work.
    """
    jacobian = motion_jacobian(template)
    base = torch.ones_like(template.values) if keep is None else keep
    gain = torch.ones(len(transforms), device=base.device)
    step = None
    if len(base) == 0:
        return Fit(transforms, gain, base.expand(len(transforms), 0), base.expand(len(transforms), 0))
    for iteration in range(iterations + 1):
        check()
        values, inside = sample_through(template, image, transforms)
        prior = base * (inside > 0.999)
        residual = gain[:, None] * values - template.values
        if iteration == 0:
            gain = _gain(values, template.values, prior)
            residual = gain[:, None] * values - template.values
        weight = prior * tukey(residual, prior)
        if iteration == iterations or (step is not None and float(step.abs().max()) < tolerance):
            break
        step, gain = _solve(jacobian, values, template.values, weight)
        transforms = transforms @ inverse(motion(step, template.center, template.radius))
    return Fit(transforms, gain, residual, prior)


def motion_jacobian(template: Template) -> Tensor:
    """``(n, 6)`` derivative of the template's values by the numbers that `motion` takes."""
    local = template.local() / template.radius
    return torch.cat((torch.linalg.cross(local, template.gradient), template.gradient), dim=-1)


def _gain(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((weight * values * target).sum(-1) / (weight * values * values).sum(-1).clamp(min=1e-6)).clamp(0.2, 5.0)


def tukey(residual: Tensor, prior: Tensor) -> Tensor:
    """Tukey's biweight ``(h, n)`` of residuals, scaled by the median absolute residual of the points that count."""
    masked = residual.abs().where(prior > 0, torch.nan)
    deviation = (1.4826 * masked.nanmedian(-1).values).nan_to_num(1.0).clamp(min=LEAST_DEVIATION)
    return (1 - (residual / (TUKEY * deviation[:, None])).square()).clamp(min=0).square()


def _solve(jacobian: Tensor, values: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares of ``values * gain - jacobian @ step = target``: steps (h, 6) float64, gains (h,)."""
    columns = torch.cat((-jacobian.expand(len(values), -1, -1), values[..., None]), dim=-1)
    weighted = columns * weight[..., None]
    normal = (weighted.transpose(-1, -2) @ columns).cpu().double()
    right = (weighted.transpose(-1, -2) @ target).cpu().double()
    ridge = 1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(7, dtype=torch.float64)
    solution = torch.linalg.solve(normal + ridge + 1e-12 * torch.eye(7, dtype=torch.float64), right)
    return solution[:, :6], solution[:, 6].clamp(0.2, 5.0).to(values)


def motion(step: Tensor, center: np.ndarray, radius: float) -> Tensor:
    """``(h, 4, 4)`` rigid motions of ``(h, 6)`` float64 steps about `center`.

    A step is a rotation vector in radians times `radius`, and a translation, both in mm: six numbers of like size.
    """
    vector = step[:, :3] / radius
    angle = vector.norm(dim=-1)
    # A step beyond a quarter radian is out of the linear model's reach.
    shrink = (0.25 / angle.clamp(min=0.25))[:, None]
    axis = torch.where(angle[:, None] > 0, vector, torch.tensor((1.0, 0.0, 0.0), dtype=vector.dtype))
    rotation = rotation_from_axis_angle(axis, angle.clamp(max=0.25))
    middle = torch.from_numpy(np.asarray(center))
    return rigid(rotation, step[:, 3:] * shrink + middle - rotation @ middle)


def finer_template(image: BoneImage | NativeScan, coarser: Template, count: int) -> Template:
    """At most `count` voxels of an image among those that make up a coarser template's voxels.

    So no image finer than the working spacing is ever passed through as a whole. In a bone image the steepest are
    taken; among native voxels, where noise is as steep as bone, an even sample.
    """
    factors = torch.as_tensor(np.rint(_voxel(coarser.affine) / image.spacing)).long().to(coarser.index.device)
    children = torch.cartesian_prod(*(torch.arange(int(f), device=factors.device) for f in factors))
    native = isinstance(image, NativeScan)
    corners = coarser.index.long() * factors
    index = (corners[:, None] + children.view(-1, 3)).view(-1, 3)
    if native:
        # An odd step takes every child in turn.
        index = index[:: max(1, len(index) // count) | 1]
    depth, height, width = image.shape
    index = index[((index > 0) & (index < torch.tensor((width, height, depth), device=index.device) - 1)).all(-1)]
    strides = (1, width, width * height)
    at = index @ torch.tensor(strides, device=index.device)
    values, seen = image.read(at)
    gradient = torch.empty(len(at), 3, device=at.device)
    for axis, stride in enumerate(strides):
        after, seen_after = image.read(at + stride)
        before, seen_before = image.read(at - stride)
        gradient[:, axis] = (after - before) / 2
        seen = seen & seen_after & seen_before
    gradient = gradient @ torch.as_tensor(np.linalg.inv(image.affine[:3, :3]), dtype=torch.float32, device=at.device)
    chosen = seen.nonzero()[:, 0]
    if not native and len(chosen) > count:
        chosen = chosen[gradient[chosen].square().sum(-1).topk(count, sorted=False).indices.sort().values]
    return make_template(index[chosen].float(), image.affine, values[chosen], gradient[chosen])


def _voxel(affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)


def one_sided(template: Template, fit: Fit, cell: float) -> Tensor:
    """``(n,)`` weights of edge points: 0 where a whole neighbourhood disagrees in one direction, else 1.

    That is matter which only one scan shows: cartilage with contrast agent, a fragment, muscle. It is left out for
    good, since its edge voxels, mixed with bone, deviate too little for the robust weight and pull all the same. A pose
    that is still off deviates to both sides within a neighbourhood, and keeps its points.

    Args:
        template: the points.
        fit: of one transform.
        cell: residuals are averaged over cells of about this size in mm and then over a Gaussian of 1.5 cells.
    """
    if len(template.values) == 0:
        return template.values
    # On the CPU: sums of floats in any order, as a GPU adds them, would differ from run to run.
    index, seen = template.index.cpu().long(), fit.seen[0].cpu()
    residual = seen * fit.residual[0].cpu().clamp(-0.5, 0.5)
    cells = index // torch.as_tensor(np.maximum(1, np.rint(cell / _voxel(template.affine)))).long()
    shape = (cells.max(0).values + 1).tolist()
    at = cells @ torch.tensor((1, shape[0], shape[0] * shape[1]))
    grid = torch.zeros(2, shape[2] * shape[1] * shape[0])
    grid[0].index_add_(0, at, residual)
    grid[1].index_add_(0, at, seen)
    total, count = (gaussian(layer.view(shape[::-1]), 1.5).view(-1)[at] for layer in grid)
    mean = (total / count.clamp(min=1e-3)).abs()
    return (mean < max(3 * 1.4826 * float(mean.median()), LEAST_ONE_SIDED)).to(template.values)


@dataclass(frozen=True)
class Refined:
    """A refined pose.

    Attributes:
        pose: ``(4, 4)`` float64, fixed to moving, LPS mm: the mean of both directions.
        disagreement: root mean square distance in mm between fixed-to-moving and the inverse of moving-to-fixed, at the
            radius of the bone: what lacks to inverse consistency.
        spacing: voxel size in mm at which it ended.
    """

    pose: Tensor
    disagreement: float
    spacing: float


def refine(
    fixed: PreparedScan,
    moving: PreparedScan,
    pose: Tensor,
    native: bool,
    check: Callable[[float], None] = lambda fraction: None,
) -> Refined:
    """Refines one ``(4, 4)`` pose in both directions, at the working spacing and, if `native`, on from there.

    Each scan is the template once, and the two results are averaged: what pulls one of them, such as contrast agent
    that only one scan shows, pulls the other less or the other way, and their disagreement tells of it.

    Args:
        fixed, moving: the scans.
        pose: start, fixed to moving, LPS mm, float64.
        native: go on to the finest resolution that both scans have; otherwise end at the working spacing.
        check: called with the fraction done; whatever it raises ends the work.
    """
    steps = resolutions(fixed, moving)[: None if native else 1]
    templates = None
    for number, spacing in enumerate(steps):
        step_check = partial(check, number / len(steps))
        images = fixed.image_near(spacing), moving.image_near(spacing)
        if templates is None:
            # Finer steps choose among the points of this one.
            count = WORKING_POINTS if len(steps) == 1 else FINER_POINTS
            templates = [edge_template(image, count, step_check) for image in images]
        else:
            templates = [_template_on(image, last) for image, last in zip(images, templates, strict=True)]
        iterations = (12, 8) if number == 0 else (6, 4)
        there = _one_way(templates[0], images[1], pose, steps[0], iterations, step_check)
        back = inverse(_one_way(templates[1], images[0], inverse(pose), steps[0], iterations, step_check))
        disagreement = distance(there, back, fixed.place)
        pose = _halfway(there, back, torch.tensor(fixed.place.center))
    return Refined(pose, disagreement, max(float(image.spacing.mean()) for image in images))


def resolutions(fixed: PreparedScan, moving: PreparedScan) -> list[float]:
    """Voxel sizes in mm from the working spacing down by halves to the coarser of the two native ones."""
    finest = max(float(scan.images[0].spacing.mean()) for scan in (fixed, moving))
    steps = [max(float(scan.levels[-1].spacing.mean()) for scan in (fixed, moving))]
    while steps[-1] > 1.4 * finest:
        steps.append(max(steps[-1] / 2, finest))
    return steps


def _template_on(image: BoneImage | NativeScan, coarser: Template) -> Template:
    # One scan may have no finer image where the other has.
    return coarser if np.array_equal(image.affine, coarser.affine) else finer_template(image, coarser, FINER_POINTS)


def _one_way(
    template: Template,
    image: BoneImage | NativeScan,
    pose: Tensor,
    working: float,
    iterations: tuple[int, int],
    check: Callable[[], None],
) -> Tensor:
    """One ``(4, 4)`` pose refined on an image of the other scan, with all points and then without one-sided ones."""
    tolerance = 1e-3 * float(image.spacing.mean())
    fit = gauss_newton(template, image, pose[None], iterations[0], None, tolerance, check)
    keep = one_sided(template, fit, working)
    return gauss_newton(template, image, fit.transforms, iterations[1], keep, tolerance, check).transforms[0]


def distance(first: Tensor, second: Tensor, place: BonePlace) -> float:
    """Root mean square distance in mm between two poses, over six points at the bone's radius about its centre."""
    corners = torch.cat((torch.eye(3), -torch.eye(3))).double() * place.radius + torch.tensor(place.center)
    return float((apply(first, corners) - apply(second, corners)).square().sum(-1).mean().sqrt())


def _halfway(first: Tensor, second: Tensor, center: Tensor) -> Tensor:
    """The mean of two near poses, taken at `center`."""
    rotation = nearest_rotation(first[:3, :3] + second[:3, :3])
    middle = (apply(first, center[None]) + apply(second, center[None]))[0] / 2
    return rigid(rotation, middle - rotation @ center)
