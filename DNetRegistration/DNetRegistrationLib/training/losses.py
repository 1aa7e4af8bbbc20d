"""Losses of a network's 12 numbers against the true motion: the paper's (Eq. 6), displaced points, the geodesic.

All take `estimate` ``(b, 12)`` as in `networks`, `rotation` ``(b, 3, 3)`` and `translation` ``(b, 3)`` in mm, fixed to
moving points about the cubes' centres, and give ``(b,)``, one number a pair, in the estimate's precision. The loss of
a batch is their mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import rigid
from ..networks.siamese import split_parameters

ALPHA, BETA, EPSILON = 0.5, 0.5, 0.01  # Sec. 2.4
RADIUS = 1.28  # mm, about the distance of a mouse bone's voxels from the centre of its cube


def paper_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Eq. 6: alpha |t - t^|^2 / (|t|^2 + epsilon) + beta |r - r^|^2.

    The rotation's parameters r are the nine entries of the true rotation, its columns one after the other, and r^ are
    all nine that the network gives, as they are: not the rotation that Eq. 1 makes of the first six. So the third
    column is trained although nothing reads it, and the first two are drawn to length one, which Eq. 1 does not need.
    The paper gives theta^r nine numbers and calls them redundant, which has no other reading. epsilon is in mm^2.
    """
    theta_t, theta_r = split_parameters(estimate)
    rotation, translation = rotation.to(estimate), translation.to(estimate)
    relative = (theta_t - translation).square().sum(-1) / (translation.square().sum(-1) + EPSILON)
    turned = (theta_r - rotation.transpose(-1, -2).flatten(-2)).square().sum(-1)
    return ALPHA * relative + BETA * turned


def points_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Mean distance in mm between where the estimated and the true motion carry six points.

    The points lie `RADIUS` from the centre along both ways of each axis: rotation and translation are weighed as they
    displace bone, and neither needs a weight of its own.
    """
    theta_t, theta_r = split_parameters(estimate)
    turn = rigid.rotation_from_6d(theta_r) - rotation.to(estimate)
    shift = (theta_t - translation.to(estimate))[..., None]
    # Column k of the difference is what happens to the point on axis k.
    displaced = torch.cat((RADIUS * turn + shift, -RADIUS * turn + shift), dim=-1)
    return displaced.norm(dim=-2).mean(-1)


def geodesic_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """The angle in radians between the rotations, plus the distance of the translations as an angle at `RADIUS`."""
    theta_t, theta_r = split_parameters(estimate)
    turned = rigid.geodesic_angle(rotation.to(estimate), rigid.rotation_from_6d(theta_r))
    return turned + (theta_t - translation.to(estimate)).norm(dim=-1) / RADIUS


LOSSES = {"paper": paper_loss, "points": points_loss, "geodesic": geodesic_loss}
