"""The uncertainty of a pose that its residuals leave: how far the bone may be moved before they would tell.

The covariance of a least-squares estimate is H^-1 M H^-1, where H is the information matrix and M the covariance of the
gradient (the "sandwich": Huber, Proc. 5th Berkeley Symp. 1:221, 1967; White, Econometrica 48:817, 1980). Residuals of
neighbours go together, by blur and by what changed in the bone, so that M is summed over cells of them (Liang & Zeger,
Biometrika 73:13, 1986).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..bone.images import BoneImage
from ..geometry.rigid import rigid
from .refinement import gauss_newton, motion_jacobian, tukey
from .template import Template, edge_template, sample_through

POINTS = 4000
# Edge of a cell in voxels.
CELL = 4


@dataclass(frozen=True)
class Uncertainty:
    """How far a pose may be off, as the root mean square over the edges of bone of how far they move.

    Attributes:
        random: the standard deviation in mm that residuals tell: noise, and change that is patchy.
        dilution: how many mm the pose moves when edges are displaced by 1 mm to one side or the other, each cell at
            random. It is larger the less the shape holds the pose, as a piece of shaft does along its axis.
    """

    random: float
    dilution: float


def uncertainty(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> Uncertainty:
    """The uncertainty of a pose.

    Args:
        fixed, moving: bone images of about one resolution.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm, refined.
    """
    template, spacing = edge_template(fixed, POINTS), float(fixed.spacing.mean())
    fit = gauss_newton(template, moving, pose[None], 0)
    steps = spacing * torch.cat((torch.eye(3), -torch.eye(3))).double()
    values, inside = sample_through(template, moving, pose @ rigid(torch.eye(3).double(), steps))
    # Noise makes either gradient too steep or too flat at random; the mean of both halves that.
    gradient = fit.gain[0] * (values[:3] - values[3:]).T / (2 * spacing)
    jacobian = motion_jacobian(replace(template, gradient=(template.gradient + gradient) / 2)).cpu().double()
    prior = fit.seen * (inside.min(0).values > 0.999)
    weight = (prior * tukey(fit.residual, prior))[0].cpu().double()[:, None]
    information = (weight * jacobian).T @ jacobian
    # Where the other image shows no edge, nothing is known.
    ridge = (1e-6 * information.trace() + 1e-12) * torch.eye(6).double()
    squares = mean_square(template)

    def spread(residual: Tensor) -> float:
        """The deviation of the pose that residuals ``(n,)`` of the points lead to."""
        scores = sums_over_cells(template.index // CELL, weight * residual.cpu().double()[:, None] * jacobian)
        steps = torch.linalg.solve(information + ridge, scores.T)
        return float((squares * (steps @ steps.T)).sum().clamp(min=0).sqrt())

    return Uncertainty(spread(fit.residual[0]), spread(template.gradient.norm(dim=-1)))


def mean_square(template: Template) -> Tensor:
    """``(6, 6)`` float64 on the CPU: as a form of a step, the mean square in mm2 of how far it moves the points."""
    # What a step does to a point p is the cross product of its rotation and p, plus its translation.
    local = (template.local() / template.radius).cpu().double()
    axes = torch.eye(3).double().expand(len(local), 3, 3)
    moved = torch.cat((torch.linalg.cross(axes, local[:, None].expand(-1, 3, 3)), axes), dim=1)
    return torch.einsum("nij,nkj->ik", moved, moved) / len(local)


def sums_over_cells(cells: Tensor, values: Tensor) -> Tensor:
    """Sums ``(m, k)`` float64 on the CPU of values ``(n, k)`` over the cells of a grid that hold any, ``(n, 3)`` whole
    numbers.
    """
    # On the CPU: a GPU adds floats in any order, and the sums would differ from run to run.
    cells = (cells - cells.min(0).values).cpu().long()
    width, height = (cells[:, :2].max(0).values + 1).tolist()
    place = ((cells[:, 2] * height + cells[:, 1]) * width + cells[:, 0]).numpy()
    if place.max() > 16 * len(place):  # the box is mostly empty, and as a whole may not fit into memory
        place = np.unique(place, return_inverse=True)[1]
    # NumPy's counting takes a fraction of the time of `index_add_`.
    sums = [np.bincount(place, column) for column in values.T.cpu().double().contiguous().numpy()]
    return torch.from_numpy(np.stack(sums, -1)[np.bincount(place) > 0])
