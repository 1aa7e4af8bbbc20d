"""Losses: of a network's 12 numbers against the true motion, and of matches against the true partners.

Those of `LOSSES` compare 12 numbers, the paper's way (Eq. 6), by displaced points, or by the geodesic. They take
`estimate` ``(b, 12)`` as in `networks.regression`, `rotation` ``(b, 3, 3)`` and `translation` ``(b, 3)`` in mm, fixed
to moving points about the cubes' centres, and give ``(b,)``, one number a pair, in the estimate's precision. The loss
of a batch is their mean.

`criterion_for(name)` returns the function that scores a network's prediction for a batch; it is passed to
`Network.loss`. Which loss a network trains with is in `recipes`. What is added while poses are learned is in
`pose_stage`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.constants import PAPER_SPACING
from ..geometry import rigid
from ..geometry.correspondences import distances
from ..networks.batch import PairBatch
from ..networks.contract import Criterion
from ..networks.equivariant import MatchPrediction
from ..networks.regression import BONE_RADIUS, split_parameters
from .recipes import MATCHING
from .validation import errors

ALPHA, BETA, EPSILON = 0.5, 0.5, 0.01  # Sec. 2.4
# Of keypoints, in voxels of the paper's spacing.
_SPREAD = 0.8  # two at the same place lie about so far apart
_SAME, _OTHER = 1.5, 2.2  # nearer is a partner, farther is none


def paper_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Eq. 6: alpha |t - t^|^2 / (|t|^2 + epsilon) + beta |r - r^|^2.

    The parameters r are the nine entries of the true rotation, its columns one after the other. r^ are the network's
    nine numbers, not the rotation that Eq. 1 makes of the first six. So the third column is trained although nothing
    reads it, and the first two are drawn to length one, which Eq. 1 does not need. The paper gives theta^r nine numbers
    and calls them redundant, which has no other reading. epsilon is in mm^2.
    """
    theta_t, theta_r = split_parameters(estimate)
    rotation, translation = rotation.to(estimate), translation.to(estimate)
    relative = (theta_t - translation).square().sum(-1) / (translation.square().sum(-1) + EPSILON)
    turned = (theta_r - rotation.transpose(-1, -2).flatten(-2)).square().sum(-1)
    return ALPHA * relative + BETA * turned


def points_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Mean distance in mm between six points moved by the estimated and by the true motion.

    The points lie `BONE_RADIUS` from the centre on both sides of each axis: rotation and translation count as they
    displace bone, and need no weights.
    """
    theta_t, theta_r = split_parameters(estimate)
    turn = rigid.rotation_from_6d(theta_r) - rotation.to(estimate)
    shift = (theta_t - translation.to(estimate))[..., None]
    # Column k of the difference is the displacement of the point on axis k.
    displaced = torch.cat((BONE_RADIUS * turn + shift, -BONE_RADIUS * turn + shift), dim=-1)
    return displaced.norm(dim=-2).mean(-1)


def geodesic_loss(estimate: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Angle in radians between the rotations, plus the distance of the translations as an angle at `BONE_RADIUS`."""
    theta_t, theta_r = split_parameters(estimate)
    turned = rigid.geodesic_angle(rotation.to(estimate), rigid.rotation_from_6d(theta_r))
    return turned + (theta_t - translation.to(estimate)).norm(dim=-1) / BONE_RADIUS


LOSSES = {"paper": paper_loss, "points": points_loss, "geodesic": geodesic_loss}


def criterion_for(loss: str) -> Criterion:
    """The criterion of a recipe's loss: one of `LOSSES`, or `MATCHING`."""
    return matching_loss if loss == MATCHING else partial(motion_loss, LOSSES[loss])


def motion_loss(loss, motions: tuple[Tensor, Tensor | None], batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
    """The mean loss of pairs, and their mean errors.

    Args:
        loss: one of `LOSSES`.
        motions: ``(b, 12)`` from fixed to moving; and from moving to fixed, or None where only the first counts.
        batch: the truth.
    """
    forward, backward = motions
    with torch.autocast(forward.device.type, enabled=False):
        mean = loss(forward.float(), batch.rotation, batch.translation).mean()
        if backward is not None:
            inverse = batch.rotation.transpose(-1, -2)
            shift = -(inverse @ batch.translation[..., None])[..., 0]
            mean = (mean + loss(backward.float(), inverse, shift).mean()) / 2
        translation, rotation = split_parameters(forward.detach().double())
        turned, shifted = errors(rigid.rotation_from_6d(rotation), translation, batch)
    return mean, {"re_deg": turned.mean(), "te_um": shifted.mean()}


def matching_loss(prediction: MatchPrediction, batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
    """Cross-entropy of matches against the true partners, and of matchability against there being none.

    Its figures are these two parts.
    """
    fixed, moving, scores = prediction.fixed, prediction.moving, prediction.scores
    with torch.autocast(fixed.positions.device.type, enabled=False):
        rotation, translation = batch.rotation.to(fixed.positions), batch.translation.to(fixed.positions)
        arrived = fixed.positions @ rotation.mT + translation[:, None] / PAPER_SPACING
        apart = distances(arrived, moving.positions)
        apart = apart.masked_fill(~(fixed.valid[:, :, None] & moving.valid[:, None]), torch.inf)
        likely = torch.exp(-0.5 * (apart / _SPREAD) ** 2) * (apart < 3 * _SPREAD)
        log_matches = scores.log_matches.clamp(min=-60)
        matching = unmatched = torch.zeros((), device=apart.device)
        for axis, logits, valid in ((2, scores.fixed_logits, fixed.valid), (1, scores.moving_logits, moving.valid)):
            nearest = apart.amin(axis)
            share = likely / likely.sum(axis, keepdim=True).clamp(min=1e-6)
            entropy = -(share * log_matches).sum(axis)
            matching = matching + 0.5 * _mean(entropy, nearest < _SAME)
            unmatched = unmatched + 0.5 * _mean(F.softplus(logits), (nearest > _OTHER) & valid)
    return matching + unmatched, {"matching": matching.detach(), "unmatched": unmatched.detach()}


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
