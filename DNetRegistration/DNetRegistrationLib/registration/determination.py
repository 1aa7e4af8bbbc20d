"""Determination: whether the two scans fix a pose, or let it slide.

A ball can be turned and a straight shaft shifted, and nothing in the scans says where it stops. Refinement is the
witness. A pose that is moved a little is brought back where the scans determine it, however little the motion changes
their agreement: so it is for the thin tube of a mouse's ulna. Where they do not, it stays about where it was put.

Where both scans lie on grids of like directions, the steps that the grids make on a smooth surface can hold a ball fast
within a voxel. Other turns then fit as well, and `rivals` finds them: the two belong together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..bone.images import BoneImage
from ..geometry.rigid import apply
from .refinement import gauss_newton, motion, motion_jacobian
from .template import edge_template

POINTS = 4000
# A slender bone takes some twenty steps back, a tibia five.
STEPS = 30


def determination(
    fixed: BoneImage, moving: BoneImage, pose: Tensor, size: float, check: Callable[[], None] = lambda: None
) -> float:
    """The share of a motion that refinement takes back, 0 to 1, for that motion of six of which it takes back least.

    The six are those that change the fixed image least: the three weakest eigenvectors of its information matrix, to
    either side. How far a pose moves is the root mean square over the edges of bone.

    Args:
        fixed, moving: bone images of about one resolution.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm, refined on these images.
        size: of the motion in mm, as `motion` counts it: about a voxel.
        check: called before each step of refinement; an exception from it ends the work.
    """
    template = edge_template(fixed, POINTS)
    jacobian = motion_jacobian(template)
    # Eigenvectors come by ascending eigenvalue.
    weakest = torch.linalg.eigh((jacobian.T @ jacobian).cpu().double()).eigenvectors[:, :3].T
    steps = size * torch.cat((torch.zeros(1, 6), weakest, -weakest)).double()
    moved = pose @ motion(steps, template.center, template.radius)
    back = gauss_newton(template, moving, moved, STEPS, tolerance=0.01 * size, check=check).transforms
    points = template.local().cpu().double()[::8] + torch.tensor(template.center)

    def away(poses: Tensor) -> Tensor:
        """``(6,)`` mm from the first of the poses to each of the others."""
        return (apply(poses[1:], points) - apply(poses[:1], points)).square().sum(-1).mean(-1).sqrt()

    return float((1 - away(back) / away(moved)).min().clamp(min=0))
