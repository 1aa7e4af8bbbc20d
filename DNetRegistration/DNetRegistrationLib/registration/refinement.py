"""Rigid refinement by Gauss-Newton on points at the edges of bone, from coarse to native resolution.

One scan is the template, whose values and gradients are computed once (inverse compositional: Baker & Matthews, IJCV
56:221, 2004). The other scan is only sampled where a transform puts the template's points. Any number of start
transforms are refined at once. The code is the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import BonePlace
from ..bone.images import BoneImage, NativeScan
from ..bone.prepare import PreparedScan
from ..core.threads import at_once
from ..geometry.rigid import apply, inverse, nearest_rotation, rigid, rotation_from_axis_angle
from ..imaging.tensors import gaussian
from .template import Template, edge_template, finer_template, sample_through

# Tukey's biweight loses 5 % of efficiency on normal noise at this multiple of the deviation.
TUKEY = 4.685
# Residuals below this (dense bone is 1) are never outliers: interpolation alone causes as much.
LEAST_DEVIATION = 0.03
# Neighbourhoods whose mean residual is below this are never one-sided.
LEAST_ONE_SIDED = 0.05
# Steps end when none moves a point at the template's radius by more than this share of a voxel.
STILL = 1e-2
# Points at the working spacing, and at each finer one.
WORKING_POINTS, FINER_POINTS = 16000, 64000


@dataclass(frozen=True)
class Fit:
    """The end of Gauss-Newton from ``h`` starts.

    Attributes:
        transforms: ``(h, 4, 4)`` float64, template space to image space.
        gain: ``(h,)`` factors of the image's values.
        residual: ``(h, n)`` gain x image - template.
        seen: ``(h, n)`` the weight of each point that lies in the image's field of view, else 0.
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

    Each step solves for six motion parameters xi and the gain together, gain * image(T p) = f(p) + J xi, where xi moves
    the template's points about their centroid. It then composes T with the inverse of that motion.

    Args:
        template: the points.
        image: the other scan at about the same resolution.
        transforms: starts, float64, on the CPU.
        iterations: the largest number of steps.
        keep: ``(n,)`` weights of the points, or None for ones.
        tolerance: in mm. Steps end when none moved a point at the template's radius by more.
        check: called before each step; an exception from it ends the work.
    """
    base = torch.ones_like(template.values) if keep is None else keep
    gain = torch.ones(len(transforms), device=base.device)
    known, step = torch.cat((template.values[None], -motion_jacobian(template).T)), None
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
        step, gain = _solve(known, values, weight)
        transforms = transforms @ inverse(motion(step, template.center, template.radius))
    return Fit(transforms, gain, residual, prior)


def motion_jacobian(template: Template) -> Tensor:
    """``(n, 6)`` derivative of the template's values with respect to the step that `motion` takes."""
    local = template.local() / template.radius
    return torch.cat((torch.linalg.cross(local, template.gradient), template.gradient), dim=-1)


def _gain(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((weight * values * target).sum(-1) / (weight * values * values).sum(-1).clamp(min=1e-6)).clamp(0.2, 5.0)


def tukey(residual: Tensor, prior: Tensor) -> Tensor:
    """Tukey's biweight ``(h, n)`` of residuals, scaled by the median absolute residual of the points with weight."""
    if residual.shape[-1] == 0:  # there is no median of nothing
        return residual
    masked = residual.abs().where(prior > 0, torch.nan)
    deviation = (1.4826 * _nanmedian(masked)).nan_to_num(1.0).clamp(min=LEAST_DEVIATION)
    return (1 - (residual / (TUKEY * deviation[:, None])).square()).clamp(min=0).square()


def _nanmedian(values: Tensor) -> Tensor:
    """``(h,)`` `torch.nanmedian` of ``(h, n)`` values of 0 and more; on the CPU in a third of its time."""
    if values.device.type != "cpu":
        return values.nanmedian(-1).values
    rows = values.numpy()
    middle = np.maximum(np.count_nonzero(rows >= 0, axis=-1) - 1, 0) // 2
    # NaN comes last.
    found = [np.partition(row, at)[at] for row, at in zip(rows, middle, strict=True)]
    return torch.from_numpy(np.array(found, rows.dtype))


def _solve(known: Tensor, values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Solves ``values * gain - jacobian @ step = target`` by weighted least squares.

    Args:
        known: ``(7, n)`` the target, then the columns of the Jacobian times -1. Lines of memory take a third of the
            time that rows of seven numbers do.
        values, weight: ``(h, n)``.

    Returns:
        ``(h, 6)`` float64 steps and ``(h,)`` gains.
    """
    lines = torch.cat((known.expand(len(values), -1, -1), values[:, None]), 1)
    product = ((lines * weight[:, None]) @ lines.mT).cpu().double()
    normal, right = product[:, 1:, 1:], product[:, 1:, 0]
    ridge = 1e-6 * normal.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-12
    solution = torch.linalg.solve(normal + ridge[:, None, None] * torch.eye(7, dtype=torch.float64), right)
    return solution[:, :6], solution[:, 6].clamp(0.2, 5.0).to(values)


def motion(step: Tensor, center: np.ndarray, radius: float) -> Tensor:
    """``(h, 4, 4)`` rigid motions of ``(h, 6)`` float64 steps about `center`.

    A step is a rotation vector in radians times `radius` and a translation: six numbers in mm, of like size.
    """
    vector = step[:, :3] / radius
    angle = vector.norm(dim=-1)
    # A step beyond a quarter radian is out of the linear model's reach.
    shrink = (0.25 / angle.clamp(min=0.25))[:, None]
    axis = torch.where(angle[:, None] > 0, vector, torch.tensor((1.0, 0.0, 0.0), dtype=vector.dtype))
    rotation = rotation_from_axis_angle(axis, angle.clamp(max=0.25))
    middle = torch.from_numpy(np.asarray(center))
    return rigid(rotation, step[:, 3:] * shrink + middle - rotation @ middle)


def one_sided(template: Template, fit: Fit, cell: float) -> Tensor:
    """``(n,)`` weights of edge points: 0 where a whole neighbourhood deviates in one direction, else 1.

    There only one scan shows matter: cartilage with contrast agent, a fragment, muscle. Its edge voxels, mixed with
    bone, deviate too little for the robust weight, and would pull. A pose that is still off deviates to both sides
    within a neighbourhood, and keeps its points.

    Args:
        template: the points.
        fit: of one transform.
        cell: in mm. Residuals are averaged over cells of about this size and then by a Gaussian of 1.5 cells.
    """
    if len(template.values) == 0:
        return template.values
    # On the CPU: a GPU adds floats in any order, and the sums would differ from run to run.
    index, seen = template.index.cpu().long(), fit.seen[0].cpu()
    residual = seen * fit.residual[0].cpu().clamp(-0.5, 0.5)
    cells = index // torch.as_tensor(np.maximum(1, np.rint(cell / template.spacing))).long()
    cells -= cells.min(0).values
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
        disagreement: the inverse-consistency error in mm: root mean square distance between fixed-to-moving and the
            inverse of moving-to-fixed, at the radius of the bone.
        spacing: voxel size in mm at which refinement ended.
        scatter: how far noise lets the bone slide by what is inside of it and its edges, mm; None where edges alone
            told the pose.
    """

    pose: Tensor
    disagreement: float
    spacing: float
    scatter: float | None = None


def refine(
    fixed: PreparedScan,
    moving: PreparedScan,
    pose: Tensor,
    native: bool,
    check: Callable[[float], None] = lambda fraction: None,
) -> Refined:
    """Refines one ``(4, 4)`` pose in both directions, at the working spacing and, if `native`, on from there.

    Each scan is the template once, and the two results are averaged. Contrast agent that only one scan shows pulls one
    of them more than the other, or the other way, and their disagreement tells of it.

    Args:
        fixed, moving: the scans.
        pose: start, fixed to moving, LPS mm, float64.
        native: continue to the finest resolution that both scans have, instead of ending at the working spacing.
        check: called with the fraction done; an exception from it ends the work.
    """
    steps = resolutions(fixed, moving)[: None if native else 1]
    # Finer steps choose among the points of the first one.
    count = WORKING_POINTS if len(steps) == 1 else FINER_POINTS
    templates: list[Template] = []
    for number, spacing in enumerate(steps):
        step_check = partial(check, number / len(steps))
        images = fixed.image_near(spacing), moving.image_near(spacing)
        if number == 0:
            templates = [edge_template(scan.levels[-1], count, step_check) for scan in (fixed, moving)]
        else:
            templates = [_template_on(image, last) for image, last in zip(images, templates, strict=True)]
        iterations = (12, 8) if number == 0 else (6, 4)
        there = partial(_one_way, templates[0], images[1], pose, steps[0], iterations)
        back = partial(_one_way, templates[1], images[0], inverse(pose), steps[0], iterations)
        forward, backward = at_once(there, back, step_check)
        backward = inverse(backward)
        disagreement = distance(forward, backward, fixed.place)
        pose = _halfway(forward, backward, torch.tensor(fixed.place.center))
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
    """Refines one ``(4, 4)`` pose on an image of the other scan, with all points and then without one-sided ones."""
    tolerance = STILL * float(image.spacing.mean())
    fit = gauss_newton(template, image, pose[None], iterations[0], None, tolerance, check)
    keep = one_sided(template, fit, working)
    return gauss_newton(template, image, fit.transforms, iterations[1], keep, tolerance, check).transforms[0]


def distance(first: Tensor, second: Tensor, place: BonePlace) -> float:
    """Root mean square distance in mm between two poses, over six points at the bone's radius about its centre."""
    corners = torch.cat((torch.eye(3), -torch.eye(3))).double() * place.radius + torch.tensor(place.center)
    return float((apply(first, corners) - apply(second, corners)).square().sum(-1).mean().sqrt())


def _halfway(first: Tensor, second: Tensor, center: Tensor) -> Tensor:
    """The mean of two poses that are close together, taken at `center`."""
    rotation = nearest_rotation(first[:3, :3] + second[:3, :3])
    middle = (apply(first, center[None]) + apply(second, center[None]))[0] / 2
    return rigid(rotation, middle - rotation @ center)
