"""Strain: what is left between two scans of one bone where one of them states a wrong voxel size, or a wrong tilt.

A rigid pose averages such an error over the bone, and its correlation hardly tells. So an affine map is fitted to the
edges of the bone, in both directions, from the rigid pose. An edge also moves where the voxels beside it are of another
brightness (liquid, contrast agent) or blur, since the bone threshold then cuts it elsewhere. The fit holds both as
nuisances, and what they leave counts as the uncertainty of the strain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.images import BoneImage, NativeScan, pool_image
from ..bone.prepare import PreparedScan
from ..core.threads import at_once
from ..geometry.rigid import inverse
from ..geometry.transforms import affine_matrix
from .refinement import Fit, one_sided, tukey
from .similarity import edge_agreement
from .strain_cause import COLUMNS, ROWS, Cause, find_cause
from .template import Template, edge_template, sample_through
from .uncertainty import sums_over_cells

# Voxels that are averaged along each axis, points and iterations, on the images at the working spacing: coarse ones
# first, since a large strain moves the ends of a bone by several voxels. Coarser ones yet mislead cut fields of view.
PASSES = ((2, 4000, 12), (1, 16000, 6))
# Edges of a neighbourhood as wide as the bone's radius are displaced together by this share of a voxel.
SYSTEMATIC = 0.3
# A component that the bone does not determine is pulled to zero by a prior of this deviation.
PRIOR = 0.1
# A strain counts from this size on, where it displaces the bone by this share of a voxel's longest edge on average, and
# its chi square (six degrees of freedom) is beyond chance. Contrast agent and other liquid feign up to 0.2 voxels.
LEAST_STRAIN, LEAST_DISPLACED, LEAST_CHI_SQUARE = 0.01, 0.25, 22.5
# Of strains of 3 to 15 % in whole and cut views, the error was 1 to 1.5 times the displacement.
MOST_MOVED = 2.0
# Blur that differs between scans, and contrast agent, feign a strain, under which the edges agree about as before: of
# 14 feigned ones ten left 0.9 to 1.6 times as much of them unexplained as the rigid pose. Of 30 strains and shears, 29
# left less. Feigned ones that no one number of a grid explains left 0.85 and 0.88; of true ones 0.79 and less was left.
MOST_UNEXPLAINED, MOST_WITHOUT_CAUSE = 0.9, 0.82
# Interpolation and noise alone leave as much.
LEAST_UNEXPLAINED = 0.005
# A step that strains the bone by more is out of the linear model's reach.
LARGEST_STEP = 0.15
# The fit itself is held to no strain by this share of what edges tell of a component on average: a component that only
# the edges of noise tell would run away.
HELD = 3e-3
# No strain is known better than this: few neighbourhoods leave some components without any error.
LEAST_ERROR = 1e-4
# A pass with fewer points tells nothing.
LEAST_POINTS = 200
# Steps end when none moves a point at the template's radius by more than this share of a voxel.
STILL = 2e-3


@dataclass(frozen=True)
class Strain:
    """How the moving scan's geometry is strained against the fixed one's.

    Attributes:
        tensor: ``(3, 3)`` symmetric, in the fixed scan's world frame (LPS): the right stretch of the map from fixed to
            moving points, less the identity. 0.06 along an axis: there the moving scan is 6 % longer.
        standard_error: ``(3, 3)`` of its components, as far as edges are displaced. A component that no edge tells,
            such as that along a straight shaft, comes out near 0.
        chi_square: the tensor's, by the covariance of its six components.
        displacement: mean distance in mm over the fixed scan's bone that the strain moves it, after the best rigid
            motion.
        error: mean distance in mm over the fixed scan's bone between where the rigid pose puts it and where the
            strained one does.
        voxel: longest edge in mm of the voxels that it was measured with.
        cause: the simplest error of a scan's grid that explains the tensor.
        matrix: ``(4, 4)`` the strained map, fixed to moving points, LPS mm.
        unexplained: what the strained map leaves of the edges unexplained, in multiples of what the rigid pose does: 1
            less the correlation.
    """

    tensor: np.ndarray
    standard_error: np.ndarray
    chi_square: float
    displacement: float
    error: float
    voxel: float
    cause: Cause
    matrix: np.ndarray
    unexplained: float

    @property
    def largest(self) -> float:
        """The largest principal strain, by its absolute value."""
        return float(np.abs(np.linalg.eigvalsh(self.tensor)).max())

    @property
    def significant(self) -> bool:
        """Whether it is to be told: it is beyond chance, and the edges agree clearly better under it."""
        most = MOST_WITHOUT_CAUSE if self.cause.kind == "other" else MOST_UNEXPLAINED
        return self.beyond_chance and self.unexplained < most

    @property
    def beyond_chance(self) -> bool:
        """Whether it is large enough to matter, and beyond what edges of bone tell by chance."""
        displaced = self.displacement >= LEAST_DISPLACED * self.voxel
        # A strain hardly moves the bone as a whole from its rigid pose: a fit that does so went astray.
        astray = self.error > MOST_MOVED * self.displacement
        certain = self.largest >= LEAST_STRAIN and self.chi_square >= LEAST_CHI_SQUARE
        return displaced and certain and not astray

    @property
    def expected_error(self) -> float:
        """What of `error` is to be expected, in mm.

        A strain that is too small to tell, or within chance, may be there: half of what it means is expected. All of
        one that is beyond chance is, also where the edges agree so little better that it is not told: then the pose
        itself may be off.
        """
        if self.significant or (self.beyond_chance and self.unexplained < 1):
            return self.error
        return self.likely_error / 2

    @property
    def likely_error(self) -> float:
        """`error` without what chance makes of it: the mean of a chi square of six components is six.

        Nothing of it is likely where the edges agree no better under the strain.
        """
        if self.unexplained >= 1:
            return 0.0
        return self.error * float(np.sqrt(max(0.0, 1 - 6 / max(self.chi_square, 1e-9))))

    @property
    def sentence(self) -> str | None:
        """Says what is wrong and what to check; None where the strain is not significant."""
        return self.cause.sentence(self.largest) if self.significant else None


def find_strain(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, check: Callable[[], None] = lambda: None
) -> Strain:
    """Measures the strain between two scans of one bone.

    Args:
        fixed, moving: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm: the rigid answer.
        check: called between steps; an exception from it ends the work.
    """
    there, back = partial(_one_way, fixed, moving, pose), partial(_one_way, moving, fixed, inverse(pose))
    (forward, forward_covariance), (backward, backward_covariance) = at_once(there, back, check)
    backward = np.linalg.inv(backward)
    affine = (forward + backward) / 2
    rigid, _ = _polar(affine[:3, :3])
    # To first order, a strain E of the moving frame is -R^T E R in the fixed one: rows of a matrix one after the other.
    turn = np.kron(rigid.T, rigid.T)
    forward_covariance, backward_covariance = _six(forward_covariance), _six(turn @ backward_covariance @ turn.T)
    # Where one direction went astray, the other one disagrees: the mean tells nothing along their difference, and the
    # other one may tell all.
    apart = (_polar(forward[:3, :3])[1] - _polar(backward[:3, :3])[1])[ROWS, COLUMNS] / 2
    covariance = (forward_covariance + backward_covariance) / 2
    mean = _strain_of(fixed, moving, pose, affine, covariance + np.outer(apart, apart))
    if mean.significant or apart @ np.linalg.solve(covariance, apart) < LEAST_CHI_SQUARE:
        return mean
    ways = (forward, forward_covariance), (backward, backward_covariance)
    alone = [_strain_of(fixed, moving, pose, *way) for way in ways]
    told = [one for one in alone if one.significant and one.unexplained < MOST_WITHOUT_CAUSE]
    return min(told, key=lambda one: one.unexplained, default=mean)


def _strain_of(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, affine: np.ndarray, covariance: np.ndarray
) -> Strain:
    """The strain of an affine map ``(4, 4)`` against a rigid pose, by the covariance ``(6, 6)`` of its components."""
    rigid, stretch = _polar(affine[:3, :3])
    found = (stretch - np.eye(3))[ROWS, COLUMNS]
    chi_square = float(found @ np.linalg.solve(covariance, found))
    prior = PRIOR**2 * np.eye(6)
    posterior = prior @ np.linalg.solve(prior + covariance, found)
    tensor, error = np.empty((3, 3)), np.empty((3, 3))
    tensor[ROWS, COLUMNS] = tensor[COLUMNS, ROWS] = posterior
    error[ROWS, COLUMNS] = error[COLUMNS, ROWS] = np.sqrt(covariance.diagonal())
    points, weight = points_of_bone(fixed.levels[-1])
    center = np.average(points, axis=0, weights=weight)
    linear = rigid @ (np.eye(3) + tensor)
    strained = affine_matrix(linear, affine[:3, :3] @ center + affine[:3, 3] - linear @ center)
    return Strain(
        tensor,
        error,
        chi_square,
        _mean_distance(points, weight, affine_matrix(np.eye(3) + tensor, -tensor @ center), np.eye(4)),
        _mean_distance(points, weight, strained, pose.numpy()),
        _longest_edge(fixed.levels[-1], moving.levels[-1]),
        find_cause(tensor, covariance, rigid, fixed.native.affine, moving.native.affine),
        strained,
        _unexplained(fixed.levels[-1], moving.levels[-1], pose, torch.from_numpy(strained)),
    )


def _unexplained(fixed: BoneImage, moving: BoneImage, rigid: Tensor, strained: Tensor) -> float:
    left = (1 - edge_agreement(fixed, moving, torch.stack((rigid, strained)))).clamp(min=LEAST_UNEXPLAINED)
    return float(left[1] / left[0])


def _longest_edge(*images: BoneImage) -> float:
    return max(float(image.spacing.max()) for image in images)


def _mean_distance(points: np.ndarray, weight: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    apart = points @ (first - second)[:3, :3].T + (first - second)[:3, 3]
    return float(np.average(np.linalg.norm(apart, axis=1), weights=weight))


def _polar(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation R and the symmetric right stretch U of ``(3, 3)`` R U."""
    left, values, right = np.linalg.svd(linear)
    return left @ right, right.T @ np.diag(values) @ right


def _six(covariance: np.ndarray) -> np.ndarray:
    """The ``(6, 6)`` covariance of a matrix's symmetric part, from that of its nine components in rows."""
    symmetric = np.zeros((6, 9))
    for number, (row, column) in enumerate(zip(ROWS, COLUMNS, strict=True)):
        symmetric[number, 3 * row + column] += 0.5
        symmetric[number, 3 * column + row] += 0.5
    return symmetric @ covariance @ symmetric.T


def _one_way(
    template_scan: PreparedScan, image_scan: PreparedScan, pose: Tensor, check: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The affine map ``(4, 4)`` between two scans, and the covariance ``(9, 9)`` of its linear part, in rows."""
    rigid = pose
    for factor, count, iterations in PASSES:
        source, image = (pool_image(scan.levels[-1], factor) for scan in (template_scan, image_scan))
        check()
        template = edge_template(source, count, check)
        if factor > 1 and len(template.values) < LEAST_POINTS:
            continue
        beside = torch.zeros_like(template.values)
        if factor == 1:
            beside = _beside(template, template_scan.native, image_scan.native, pose)
        problem = _Problem(template, image, rigid, beside, check)
        pose, fit = problem.solve(pose, iterations)
    keep = one_sided(template, fit, float(source.spacing.mean()))
    pose, fit = problem.solve(pose, iterations, keep)
    return pose.numpy(), problem.covariance(fit, _longest_edge(source, image))


def _beside(template: Template, own: NativeScan, other: NativeScan, pose: Tensor) -> Tensor:
    """``(n,)`` how much brighter the other scan is on the dark side of each edge; dense bone is 1 above the threshold.

    It is read from native voxels, about one and a half of the template's away from the edge, where either scan has
    values, and 0 elsewhere.
    """
    dark = -template.gradient / template.gradient.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    to_index = torch.as_tensor(np.linalg.inv(template.affine[:3, :3]), dtype=torch.float32, device=dark.device)
    reach = float(template.spacing.mean())
    # The mean of eight places is less noisy than a voxel.
    around = torch.cartesian_prod(*[torch.tensor((-0.25, 0.25))] * 3).to(dark.device)
    at = (template.index + 1.5 * reach * dark @ to_index.T)[:, None] + around
    places = replace(template, index=at.view(-1, 3))
    (first, seen_first), (second, seen_second) = (
        sample_through(places, _unclamped(scan), transform[None])
        for scan, transform in ((own, torch.eye(4, dtype=torch.float64)), (other, pose))
    )
    difference = ((second - first).clamp(-1, 1) * ((seen_first > 0.999) & (seen_second > 0.999)))[0]
    return difference.view(-1, 8).mean(-1)


def _unclamped(scan: NativeScan) -> NativeScan:
    """The scan with a threshold so low that it tells the brightness of what lies beside bone."""
    scale = scan.scale
    return replace(scan, scale=replace(scale, threshold=2 * scale.threshold - scale.maximum))


class _Problem:
    """Gauss-Newton for an affine map and the nuisances, as `refinement.gauss_newton` is for a rigid one.

    The unknowns are nine of a linear map and three of a translation, then how far all edges are displaced and how far
    for each unit of brightness beside them, both along the gradient and in mm; and the gain of the image.
    """

    def __init__(
        self, template: Template, image: BoneImage, rigid: Tensor, beside: Tensor, check: Callable[[], None]
    ) -> None:
        self.template, self.image, self.rigid, self.check = template, image, rigid, check
        gradient, local = template.gradient, template.local() / template.radius
        steep = gradient.norm(dim=-1)
        linear = (gradient[:, :, None] * local[:, None]).flatten(1)
        unknowns = torch.cat((linear, gradient, torch.stack((steep, steep * beside), -1)), dim=-1)
        # Of the least squares problem: the unknowns, the image's values, which each step puts in, and the target. Lines
        # of memory take a third of the time that rows of sixteen numbers do.
        self.lines = torch.cat((unknowns.T, torch.zeros_like(template.values)[None], template.values[None]))

    def solve(self, pose: Tensor, iterations: int, keep: Tensor | None = None) -> tuple[Tensor, Fit]:
        target = self.template.values
        base = torch.ones_like(target) if keep is None else keep
        nuisance, gain = self.lines.new_zeros(2), torch.zeros(())
        still = False
        tolerance = STILL * float(self.image.spacing.min())
        for iteration in range(iterations + 1):
            self.check()
            values, inside = (one[0] for one in sample_through(self.template, self.image, pose[None]))
            prior = base * (inside > 0.999)
            if iteration == 0:
                gain = (prior * values * target).sum() / (prior * values.square()).sum().clamp(min=1e-6)
            residual = gain * values - target - nuisance @ self.lines[12:14]
            weight = prior * tukey(residual[None], prior[None])[0]
            if iteration == iterations or still:
                break
            self.lines[14] = values
            product = _product(self.lines, weight)
            normal, right = product[:15, :15], product[:15, 15]
            held = self._held(normal)
            # A step strains the template, and the map by its inverse.
            strained = self.rigid[:3, :3].T @ pose[:3, :3] - torch.eye(3, dtype=torch.float64)
            right[:9] -= held[:9, :9] @ strained.flatten() * self.template.radius
            solution = torch.linalg.solve(normal + held, right)
            # The unknowns move the target, not the image.
            step, nuisance, gain = -solution[:12], -solution[12:14].to(values), solution[14].to(values)
            pose = pose @ torch.linalg.inv(self._motion(step))
            still = float(step.abs().max()) < tolerance
        return pose, Fit(pose[None], gain[None], residual[None], prior[None])

    @staticmethod
    def _held(normal: Tensor) -> Tensor:
        """What to add to normal equations: a hold on the symmetric part of the linear map, and a little on all."""
        exchange = torch.eye(9, dtype=torch.float64).view(3, 3, 9).transpose(0, 1).reshape(9, 9)
        held = (1e-6 * normal.diagonal().mean() + 1e-12) * torch.eye(len(normal), dtype=torch.float64)
        held[:9, :9] += HELD * normal.diagonal()[:9].mean() * (torch.eye(9, dtype=torch.float64) + exchange) / 2
        return held

    def _motion(self, step: Tensor) -> Tensor:
        """The affine motion ``(4, 4)`` of a step ``(12,)`` in mm about the template's centre."""
        linear = step[:9].view(3, 3) / self.template.radius
        shrink = LARGEST_STEP / max(LARGEST_STEP, float(linear.norm()))
        center = self.template.center
        moved = np.eye(3) + shrink * linear.numpy()
        return torch.from_numpy(affine_matrix(moved, center + shrink * step[9:].numpy() - moved @ center))

    def covariance(self, fit: Fit, voxel: float) -> np.ndarray:
        """``(9, 9)`` of the linear part: sandwich estimator over neighbourhoods (White, Econometrica 48:817, 1980).

        The edges of each are displaced together, by a share of a voxel in mm. Noise is nothing to that. A map that left
        the field of view knows nothing: its errors are 1.
        """
        residual, prior = fit.residual[0], fit.seen[0]
        if not prior.any():
            return np.eye(9)
        weight = prior * tukey(residual[None], prior[None])[0]
        unknowns, local = self.lines[:14], self.template.local() / self.template.radius
        steep = unknowns[12]
        scores = SYSTEMATIC * voxel * sums_over_cells(local.round(), (unknowns * (weight * steep)).T)
        normal = _product(unknowns, weight)
        bread = torch.linalg.inv(normal + self._held(normal))
        found = (bread @ scores.T @ scores @ bread)[:9, :9] / self.template.radius**2
        return found.numpy() + LEAST_ERROR**2 * np.eye(9)


def _product(lines: Tensor, weight: Tensor) -> Tensor:
    """``(k, k)`` float64 the weighted products of lines ``(k, n)``."""
    return ((lines * weight) @ lines.T).cpu().double()
