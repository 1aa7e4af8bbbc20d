"""Tells scans of one bone that do not fit since one of them has a wrong voxel size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ScanError
from .answers import refined_near
from .hypotheses import hypotheses_of, ranked_poses
from .inputs import AlignmentInputs
from .preparation import PreparedPair, prepared
from .sizes import sizes_that_fit
from .strain import Strain, find_strain
from .verification import verify
from .watch import Watch


def size_fault(
    pair: PreparedPair, inputs: AlignmentInputs, pose: Tensor, device: torch.device, watch: Watch
) -> str | None:
    """What is wrong with a voxel size, where scans that do not fit come to do so without their strain.

    No rigid pose shows that they are of one bone if one of them is some percent too large.
    """
    thresholds = pair.fixed.native.scale.threshold, pair.moving.native.scale.threshold
    beside = replace(inputs, thresholds=thresholds, initial=None)
    part = watch.part(0.9, 1.0)
    try:
        strain = find_strain(pair.fixed, pair.moving, pose, watch.check)
        if strain.sentence is not None and _fit_without(strain, beside, pose, device, part):
            return strain.sentence
        return _of_another_size(pair, beside, device, part)
    except ScanError:
        return None


def _fit_without(strain: Strain, inputs: AlignmentInputs, pose: Tensor, device: torch.device, watch: Watch) -> bool:
    """Whether two scans fit near a pose once the moving one is without a strain."""
    undone = pose.numpy() @ np.linalg.inv(strain.matrix) @ inputs.moving.affine
    unstrained = replace(inputs, moving=replace(inputs.moving, affine=undone))
    return _fit(unstrained, pose, device, watch)


def _of_another_size(pair: PreparedPair, inputs: AlignmentInputs, device: torch.device, watch: Watch) -> str | None:
    """Says which length of a grid is wrong, where that is too much for a strain to be fitted at any rigid pose."""

    def posed(scans: PreparedPair, near: Tensor | None) -> Tensor | None:
        poses = next(hypotheses_of(scans, inputs, watch))[1] if near is None else near[None]
        return ranked_poses(scans, poses, "working", watch.check)[0][0] if len(poses) else None

    for size, cause, pose in sizes_that_fit(pair, posed, watch.check):
        volume = getattr(inputs, size.scan)
        right = replace(volume, affine=size.undone(getattr(pair, size.scan)) @ volume.affine)
        if _fit(replace(inputs, **{size.scan: right}), pose, device, watch):
            return cause.sentence(abs(cause.amount))
    return None


def _fit(inputs: AlignmentInputs, pose: Tensor, device: torch.device, watch: Watch) -> bool:
    """Whether two scans, prepared anew, fit near a pose. Nothing of them is held afterwards: they may be large."""
    pair = prepared(inputs, device, watch)
    return verify(pair, refined_near(pair, pose, "working", watch.check)).accepted
