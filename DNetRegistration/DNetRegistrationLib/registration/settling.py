"""Settling: the step that is left to a pose where little holds it, and how loosely it is held.

Gauss-Newton takes a template's gradients for those of the bone. Noise has gradients too. Along a piece of shaft most of
them are noise, so that a step is a small share of what it should be, and a pose stops on its way (errors in variables:
Fuller, Measurement Error Models, 1987). Noise is another one in the other scan: the product of both scans' gradients
holds the bone's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bone.images import BoneImage
from ..core.threads import of_both
from ..geometry.rigid import apply, inverse, rigid
from .refinement import gauss_newton, motion, tukey
from .template import Template, edge_template, sample_through
from .uncertainty import CELL, mean_square, sums_over_cells

EDGES = 4000
# Steps until a pose rests, at most, and the share of a voxel that it then moves by.
STEPS, STILL = 6, 0.02
# The bone's share of a gradient's square is taken to be no less: what is below that, a pose is not moved by.
LEAST_SHARE = 0.02
# With fewer edges in view nothing is known of a step, and the pose counts as held as loosely as this.
LEAST_EDGES, LOOSEST = 50, 1000.0
# Interpolation alone leaves such residuals (dense bone is 1), another one at each point.
INTERPOLATION = 0.01


@dataclass(frozen=True)
class Frame:
    """What steps of a pose are taken about, in the fixed scan.

    Attributes:
        center: ``(3,)`` mm.
        radius: by which rotations are measured, mm.
        voxel: mm.
        mean_square: ``(6, 6)`` the mean square in mm2 of how far a step moves the edges of the bone, as a form of it.
    """

    center: np.ndarray
    radius: float
    voxel: float
    mean_square: Tensor

    @classmethod
    def of(cls, edges: Template) -> Frame:
        """That of the fixed scan's edges."""
        return cls(edges.center, edges.radius, float(edges.spacing.mean()), mean_square(edges))

    def jacobian(self, points: Tensor, gradient: Tensor) -> Tensor:
        """``(n, 6)`` how values with a gradient ``(n, 3)`` at ``(n, 3)`` mm change with a step."""
        local = (points - torch.from_numpy(self.center)) / self.radius
        return torch.cat((torch.linalg.cross(local, gradient), gradient), -1)


@dataclass(frozen=True)
class Part:
    """Points of one scan, sought in the other one.

    Attributes:
        points: ``(n, 3)`` where they lie in the fixed scan, mm.
        jacobian: ``(n, 6)`` how their residuals change with a step, by the scan that they are of.
        other: ``(m, 6)`` the same by the other scan, of one of `every` points.
        residual: ``(n,)`` the other scan's values less their own.
        weight: ``(n,)``.
        fitted: ``(n, k)`` what is fitted besides: gain, offset, blur.
        every: one of so many points has `other`.
    """

    points: Tensor
    jacobian: Tensor
    other: Tensor
    residual: Tensor
    weight: Tensor
    fitted: Tensor
    every: int = 1


@dataclass(frozen=True)
class Held:
    """How edges hold a pose.

    Attributes:
        looseness: how many mm the bone moves when its edges are displaced by 1 mm, root mean squares, in the worst way.
            That is by the step which displaces edges least across themselves: 2 to 4 for most bones, 4 to 5 for slender
            ones, 10 to 30 for pieces of shaft, which slide along their axis, and `LOOSEST` where hardly any edge is
            seen.
        scatter: how far noise lets the bone slide by its edges alone, mm; a voxel where hardly any is seen.
    """

    looseness: float
    scatter: float


@dataclass(frozen=True)
class Told:
    """What residuals tell of a step: ``information @ step = score``, where the score scatters by a covariance.

    Attributes:
        information: ``(6, 6)``, free of noise.
        score: ``(6,)``.
        covariance: ``(6, 6)`` of the score.
    """

    information: Tensor
    score: Tensor
    covariance: Tensor


def told_by(parts: Sequence[Part], frame: Frame) -> Told:
    """What points of both scans tell. Their residuals hold the same noise where they lie, so that they are added in
    cells of both.
    """
    every, other, scores = torch.zeros(6, 6).double(), torch.zeros(6, 6).double(), []
    for part in parts:
        root = part.weight.sqrt()[:, None]
        basis = torch.linalg.qr(root * part.fitted)[0]

        def free(columns: Tensor, basis: Tensor = basis, root: Tensor = root) -> Tensor:
            weighted = root * columns
            return weighted - basis @ (basis.T @ weighted)

        jacobian = free(part.jacobian)
        some = jacobian[:: part.every]
        every = every + part.every * some.T @ some
        product = part.every * some.T @ (root[:: part.every] * part.other)
        other = other + (product + product.T) / 2
        scores.append(jacobian * free(part.residual[:, None]))
    points = torch.cat([part.points for part in parts])
    cells = sums_over_cells((points - points.min(0).values) / frame.voxel // CELL, torch.cat(scores))
    every = every + (1e-9 * every.trace() + 1e-12) * torch.eye(6).double()
    # The bone's share, along those steps for which it is smallest and largest.
    factor = torch.linalg.cholesky(every)
    aside = torch.linalg.inv(factor)
    shares, steps = torch.linalg.eigh(aside @ other @ aside.T)
    information = factor @ steps @ torch.diag(shares.clamp(LEAST_SHARE, 1)) @ steps.T @ factor.T
    return Told(information, cells.sum(0), cells.T @ cells + INTERPOLATION**2 * every)


def settled(tolds: Sequence[Told]) -> Tensor:
    """The step ``(6,)`` that all that is told leads to, each weighted by how little it scatters."""
    pulls = [torch.linalg.solve(told.covariance, told.information).T for told in tolds]
    precision = sum(pull @ told.information for pull, told in zip(pulls, tolds, strict=True))
    return torch.linalg.solve(precision, sum(pull @ told.score for pull, told in zip(pulls, tolds, strict=True)))


def scatter(tolds: Sequence[Told], frame: Frame) -> float:
    """How far noise lets the bone slide the way it is held least, by all that is told.

    Returns:
        the deviation of the step that `settled` gives, root mean square over the edges, mm; a voxel where nothing is
        told, or edges on a line say nothing of a turn about it.
    """
    factor, fault = torch.linalg.cholesky_ex(frame.mean_square)
    if fault or not tolds:
        return frame.voxel
    precision = sum(told.information @ torch.linalg.solve(told.covariance, told.information) for told in tolds)
    return float(torch.linalg.eigvalsh(factor.T @ torch.linalg.inv(precision) @ factor)[-1].clamp(min=0).sqrt())


def moved(pose: Tensor, step: Tensor, frame: Frame, most: float) -> tuple[Tensor, float]:
    """A pose ``(4, 4)`` after a step, of `most` mm at most, and how far all of the step would move the edges, mm."""
    length = float((step @ frame.mean_square @ step).sqrt())
    part = step * min(1.0, most / max(length, 1e-12))
    return pose @ inverse(motion(part[None], frame.center, frame.radius))[0], length


def rested(fixed: BoneImage, moving: BoneImage, pose: Tensor, most: int = STEPS) -> Tensor:
    """Where a pose ``(4, 4)``, fixed to moving, comes to rest by the edges of both scans, in so many steps at most."""
    frame = Frame.of(edge_template(fixed, EDGES))
    for _ in range(most):
        if (told := told_by_edges(fixed, moving, pose, frame)) is None:
            break
        step = settled((told,))
        pose, length = moved(pose, step, frame, frame.voxel / 2)
        if length < STILL * frame.voxel:
            break
    return pose


def held(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> Held:
    """How the edges of both scans hold a pose.

    Args:
        fixed, moving: bone images of about one resolution.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm, refined.
    """
    frame = Frame.of(edge_template(fixed, EDGES))
    told = told_by_edges(fixed, moving, pose, frame)
    factor, fault = torch.linalg.cholesky_ex(frame.mean_square)
    if told is None or fault:  # edges on a line say nothing of a turn about it
        return Held(LOOSEST, frame.voxel)
    aside = torch.linalg.inv(factor)
    least = torch.linalg.eigvalsh(aside @ told.information @ aside.T)[0]
    loose = min(float((told.information[3:, 3:].trace() / least.clamp(min=1e-12)).sqrt()), LOOSEST)
    return Held(loose, scatter((told,), frame))


def told_by_edges(fixed: BoneImage, moving: BoneImage, pose: Tensor, frame: Frame) -> Told | None:
    """What the edges of both scans tell of a step at a pose ``(4, 4)``, fixed to moving; None where few are seen."""
    scans = fixed, moving
    parts = of_both(_edges, scans, scans[::-1], (pose, inverse(pose)), (frame,) * 2, (True, False))
    seen = sum(int((part.weight > 0).sum()) for part in parts)
    return told_by(parts, frame) if seen >= LEAST_EDGES else None


def _edges(image: BoneImage, other: BoneImage, pose: Tensor, frame: Frame, forward: bool) -> Part:
    """The edges of one scan.

    Args:
        image, other: of the scan, and of the one in which its edges are sought.
        pose: ``(4, 4)`` the first one to the other.
        frame: of steps in the fixed scan.
        forward: whether the first one is the fixed scan.
    """
    template = edge_template(image, EDGES)
    fit = gauss_newton(template, other, pose[None], 0)
    reach = float(other.spacing.mean()) / 2
    ends = reach * torch.cat((torch.eye(3), -torch.eye(3))).double()
    values, inside = sample_through(template, other, pose @ rigid(torch.eye(3).double(), ends))
    steep = fit.gain[0] * (values[:3] - values[3:]).T / (2 * reach)
    seen = fit.seen * (inside.min(0).values > 0.999)
    points = template.local().cpu().double() + torch.tensor(template.center)
    gradients = [one.cpu().double() for one in (template.gradient, steep)]
    residual = fit.residual[0].cpu().double()
    if not forward:
        points, gradients = apply(pose, points), [one @ pose[:3, :3].T for one in gradients]
    jacobians = [frame.jacobian(points, one) * (1 if forward else -1) for one in gradients]
    found = residual + template.values.cpu().double()
    weight = (seen * tukey(fit.residual, seen))[0].cpu().double()
    return Part(points, jacobians[0], jacobians[1], residual, weight, found[:, None])
