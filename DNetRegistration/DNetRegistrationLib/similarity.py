"""How alike two bone images are where both scans look."""

from __future__ import annotations

import torch
from torch import Tensor

from .preprocessing import BoneImage
from .refinement import bone_template, sample_through


def overlap_correlation(fixed: BoneImage, moving: BoneImage, poses: Tensor) -> Tensor:
    """``(h,)`` normalised correlation over what both fields of view show of the region of either bone.

    Bone that only one scan shows although both look there counts against a pose; bone outside the other's field of view
    does not. The correlation is shrunk by the share of the fixed bone that the overlap holds, so that a sliver cannot win.
    """
    one = _one_way(fixed, moving, poses)
    return one


def _one_way(fixed: BoneImage, moving: BoneImage, poses: Tensor) -> Tensor:
    template = bone_template(fixed)
    values, inside = sample_through(template, moving, poses)
    weight = inside
    total = weight.sum(-1, keepdim=True).clamp(min=1e-6)
    mean_f = (weight * template.values).sum(-1, keepdim=True) / total
    mean_m = (weight * values).sum(-1, keepdim=True) / total
    f, m = template.values - mean_f, values - mean_m
    covariance = (weight * f * m).sum(-1)
    variance = (weight * f * f).sum(-1) * (weight * m * m).sum(-1)
    correlation = covariance / variance.clamp(min=1e-12).sqrt()
    bone = template.values / template.values.sum()
    share = (inside * bone).sum(-1)
    return correlation * (share / 0.5).clamp(max=1).sqrt()
