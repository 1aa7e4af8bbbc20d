"""From uncertain matches between points to the rigid transforms that many of them agree on, in closed form.

A rigid motion keeps distances: two matches that both are right are as far apart in one scan as in the other. Matches
vouch for each other by that, and by how many others vouch for both (second-order compatibility, SC2-PCR, Chen et al.,
CVPR 2022); each set of matches that hold together gives a transform by weighted least squares (Kabsch 1976; Umeyama
1991), and the sets are compared by how many of all matches they explain. No random draw is made, and nothing here
depends on how the scans are turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import rigid

_LARGEST = 256  # matches that are looked at: the most confident
_AROUND = 2.6  # voxels: a token's partner is sought among what lies so close to its likeliest one
_COMPATIBLE = 2.0  # voxels: matches whose distances differ by more contradict each other
_EXPLAINED = 3.0  # voxels: a match that ends further off is not explained
_SHARPEST = 1.2  # voxels: scale of the last robust weights
_POLISH = 10
_APART = 4.0  # voxels: transforms that differ by less, on average, are one


@dataclass(frozen=True)
class Match:
    """Points of two scans that may be the same places.

    Attributes:
        fixed, moving: ``(n, 3)`` float64 positions.
        weight: ``(n,)`` how sure it is.
    """

    fixed: Tensor
    moving: Tensor
    weight: Tensor

    @classmethod
    def between(cls, fixed: Tensor, moving: Tensor, confidence: Tensor) -> Match:
        """Matches of every token with the middle of its likely partners, both ways; the most confident of them.

        Args:
            fixed: ``(n, 3)`` positions of tokens.
            moving: ``(m, 3)`` positions of the other scan's.
            confidence: ``(n, m)`` that they are the same, at least 0.
        """
        arrived, sure = _partners(moving, confidence)
        returned, sure_too = _partners(fixed, confidence.mT)
        weight = torch.cat((sure, sure_too))
        best = weight.topk(min(_LARGEST, len(weight))).indices
        return cls(torch.cat((fixed, returned))[best], torch.cat((arrived, moving))[best], weight[best])


def _partners(others: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """Mean position of the likely partners of each token, near the likeliest; and the confidence they sum to."""
    near = distances(others, others) < _AROUND
    likely = confidence * near[confidence.argmax(1)]
    total = likely.sum(1)
    return likely @ others / total.clamp(min=1e-30)[:, None], total


def agree(match: Match, most: int = 4) -> Tensor:
    """``(h, 4, 4)`` transforms of fixed to moving points, at most `most` and all different, best supported first.

    None where there are fewer than three matches.
    """
    fixed, moving, weight = match.fixed, match.moving, match.weight
    if len(weight) < 3 or not weight.sum() > 0:
        return fixed.new_empty(0, 4, 4)
    weight = weight / weight.max() + 1e-9
    differ = (distances(fixed, fixed) - distances(moving, moving)).abs()
    compatible = (1 - (differ / _COMPATIBLE) ** 2).clamp(min=0)
    together = compatible * ((compatible * weight) @ compatible)
    # One from each match and those that vouch for it.
    transforms = fit(fixed, moving, together * weight + 1e-9)
    for _ in range(2):
        transforms = fit(fixed, moving, _support(match, transforms) * weight + 1e-9)
    order = (_support(match, transforms) @ weight).argsort(descending=True, stable=True)
    transforms = transforms[order]
    arrived = rigid.apply(transforms, fixed)
    chosen: list[int] = []
    left = torch.ones(len(transforms), dtype=torch.bool)
    while len(chosen) < most and left.any():
        chosen.append(int(left.nonzero()[0]))
        left &= (arrived - arrived[chosen[-1]]).norm(dim=-1).mean(-1) > _APART
    return _polished(match, transforms[chosen])


def fit(fixed: Tensor, moving: Tensor, weight: Tensor) -> Tensor:
    """The rigid transforms ``(..., 4, 4)`` that carry ``(n, 3)`` points closest to their partners.

    Least squares with weights ``(..., n)``, in closed form (Kabsch 1976; Umeyama 1991).
    """
    weight = weight / weight.sum(-1, keepdim=True)
    middle, arrival = weight @ fixed, weight @ moving
    spread = (weight @ (moving[:, :, None] * fixed[:, None]).flatten(1)).unflatten(-1, (3, 3))
    rotation = rigid.nearest_rotation(spread - arrival[..., :, None] * middle[..., None, :])
    return rigid.rigid(rotation, arrival - (rotation @ middle[..., None])[..., 0])


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Between all points ``(..., n, 3)`` and ``(..., m, 3)``, without the cancellation of a matrix product."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _residual(match: Match, transforms: Tensor) -> Tensor:
    return (rigid.apply(transforms, match.fixed) - match.moving).norm(dim=-1)


def _support(match: Match, transforms: Tensor) -> Tensor:
    """``(..., n)`` from 1 for a match explained exactly to 0."""
    return (1 - (_residual(match, transforms) / _EXPLAINED) ** 2).clamp(min=0) ** 2


def _polished(match: Match, transforms: Tensor) -> Tensor:
    """Robust least squares with ever sharper Geman-McClure weights, from each of ``(h, 4, 4)`` transforms."""
    scale = _EXPLAINED
    for _ in range(_POLISH):
        scale = max(_SHARPEST, 0.8 * scale)
        residual = _residual(match, transforms)
        transforms = fit(match.fixed, match.moving, match.weight / (1 + (residual / scale) ** 2) ** 2)
    return transforms
