"""Spatial consensus: the rigid transforms that many uncertain correspondences between points agree on, in closed form.

A rigid motion keeps distances: two correct correspondences are as far apart in one scan as in the other. By that, and
by how many others are compatible with both, two of them support each other (second-order compatibility, SC2-PCR, Chen
et al., CVPR 2022). Each compatible set gives a transform by weighted least squares (Kabsch 1976; Umeyama 1991), and the
sets are compared by how many of all correspondences they explain. Nothing is drawn at random, and the result does not
depend on how the scans are turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import rigid

_MOST = 256  # correspondences that are used: the most confident ones
_TRANSFORMS = 4  # that are found, at most
_AROUND = 2.6  # voxels: partners of a keypoint lie so close to its likeliest one
_COMPATIBLE = 2.0  # voxels: correspondences whose distances differ by more contradict each other
_EXPLAINED = 3.0  # voxels: a transform explains a correspondence that it brings so close
_SHARPEST = 1.2  # voxels: scale of the last robust weights
_ITERATIONS = 10  # of robust least squares
_APART = 4.0  # voxels: transforms that differ by less, on average, are one


@dataclass(frozen=True)
class Correspondences:
    """Points of two scans that may show the same places.

    Attributes:
        fixed, moving: ``(n, 3)`` float64 positions, in voxels.
        weight: ``(n,)`` confidence in each correspondence.
    """

    fixed: Tensor
    moving: Tensor
    weight: Tensor

    @classmethod
    def between(cls, fixed: Tensor, moving: Tensor, confidence: Tensor) -> Correspondences:
        """The most confident correspondences of keypoints with the mean of their likely partners, both ways.

        Args:
            fixed: ``(n, 3)`` positions of keypoints.
            moving: ``(m, 3)`` positions of keypoints of the other scan.
            confidence: ``(n, m)`` that two keypoints correspond, at least 0.
        """
        arrived, sure = _partners(moving, confidence)
        returned, sure_too = _partners(fixed, confidence.mT)
        weight = torch.cat((sure, sure_too))
        best = weight.topk(min(_MOST, len(weight))).indices
        return cls(torch.cat((fixed, returned))[best], torch.cat((arrived, moving))[best], weight[best])


def _partners(others: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    """The mean position of the likely partners of each keypoint, near the likeliest, and their summed confidence."""
    near = distances(others, others) < _AROUND
    likely = confidence * near[confidence.argmax(1)]
    total = likely.sum(1)
    return likely @ others / total.clamp(min=1e-30)[:, None], total


def spatial_consensus(found: Correspondences) -> Tensor:
    """``(h, 4, 4)`` transforms of fixed to moving points, a few and all different, best supported first.

    Fewer than three correspondences give no transform.
    """
    fixed, moving, weight = found.fixed, found.moving, found.weight
    if len(weight) < 3 or not weight.sum() > 0:
        return fixed.new_empty(0, 4, 4)
    weight = weight / weight.max() + 1e-9
    differ = (distances(fixed, fixed) - distances(moving, moving)).abs()
    compatible = (1 - (differ / _COMPATIBLE) ** 2).clamp(min=0)
    together = compatible * ((compatible * weight) @ compatible)
    # One transform from each correspondence and those that are compatible with it.
    transforms = fit(fixed, moving, together * weight + 1e-9)
    for _ in range(2):
        transforms = fit(fixed, moving, _support(found, transforms) * weight + 1e-9)
    order = (_support(found, transforms) @ weight).argsort(descending=True, stable=True)
    transforms = transforms[order]
    arrived = _arrived(transforms, fixed)
    chosen: list[int] = []
    left = torch.ones(len(transforms), dtype=torch.bool)
    while len(chosen) < _TRANSFORMS and left.any():
        chosen.append(int(left.nonzero()[0]))
        left &= (arrived - arrived[chosen[-1]]).square().sum(-2).sqrt().mean(-1) > _APART
    return _polished(found, transforms[chosen])


def fit(fixed: Tensor, moving: Tensor, weight: Tensor) -> Tensor:
    """The rigid transforms ``(..., 4, 4)`` that bring ``(n, 3)`` points closest to their partners ``(n, 3)``.

    Least squares with weights ``(..., n)``, in closed form (Kabsch 1976; Umeyama 1991).
    """
    weight = weight / weight.sum(-1, keepdim=True)
    middle, arrival = weight @ fixed, weight @ moving
    spread = (weight @ (moving[:, :, None] * fixed[:, None]).flatten(1)).unflatten(-1, (3, 3))
    rotation = rigid.nearest_rotation(spread - arrival[..., :, None] * middle[..., None, :])
    return rigid.rigid(rotation, arrival - (rotation @ middle[..., None])[..., 0])


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Distances ``(..., n, m)`` between points ``(..., n, 3)`` and ``(..., m, 3)``, without cancellation of digits."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _arrived(transforms: Tensor, points: Tensor) -> Tensor:
    """``(..., 3, n)`` where points ``(n, 3)`` come to lie; rows of three numbers would take several times as long."""
    return transforms[..., :3, :3] @ points.T + transforms[..., :3, 3:]


def _residual(found: Correspondences, transforms: Tensor) -> Tensor:
    return (_arrived(transforms, found.fixed) - found.moving.T).square().sum(-2).sqrt()


def _support(found: Correspondences, transforms: Tensor) -> Tensor:
    """``(..., n)`` from 1 for a correspondence that is explained exactly to 0 for one that is not."""
    return (1 - (_residual(found, transforms) / _EXPLAINED) ** 2).clamp(min=0) ** 2


def _polished(found: Correspondences, transforms: Tensor) -> Tensor:
    """Refines ``(h, 4, 4)`` transforms by robust least squares, with ever sharper Geman-McClure weights."""
    scale = _EXPLAINED
    for _ in range(_ITERATIONS):
        scale = max(_SHARPEST, 0.8 * scale)
        residual = _residual(found, transforms)
        transforms = fit(found.fixed, found.moving, found.weight / (1 + (residual / scale) ** 2) ** 2)
    return transforms
