"""Tells scans of one bone that do not fit since one of them has a wrong voxel size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ScanError
from .answers import refined_near
from .hypotheses import hypotheses_of, ranked_poses
from .inputs import AlignmentInputs
from .preparation import PreparedPair, prepared
from .strain import Strain, find_strain
from .strain_cause import Cause
from .verification import verify
from .watch import Watch

# A strain is fitted from a rigid pose where one bone is larger by less (natural logarithm). The cortices of one bone in
# two scans differed in thickness by 3 to 4 % (standard deviation; 42 pairs), in views of a part of it too.
LEAST_LARGER = 0.08


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
    unstrained = prepared(replace(inputs, moving=replace(inputs.moving, affine=undone)), device, watch)
    return verify(unstrained, refined_near(unstrained, pose, "working", watch.check)).accepted


def _of_another_size(pair: PreparedPair, inputs: AlignmentInputs, device: torch.device, watch: Watch) -> str | None:
    """Says how much larger the moving scan is, where that is too much for a strain to be fitted at any rigid pose.

    The cortices tell its size roughly, also of a part of the bone.
    """
    scale = pair.bones[1].thickness / pair.bones[0].thickness
    if not abs(math.log(scale)) >= LEAST_LARGER:
        return None
    shrunk = np.diag((1 / scale, 1 / scale, 1 / scale, 1.0)) @ inputs.moving.affine
    inputs = replace(inputs, moving=replace(inputs.moving, affine=shrunk))
    pair = prepared(inputs, device, watch)
    _, poses, _ = next(hypotheses_of(pair, inputs, watch))
    if len(poses) == 0:
        return None
    pose, _ = ranked_poses(pair, poses, "working", watch.check)[0]
    refined = refined_near(pair, pose, "working", watch.check)
    left = find_strain(pair.fixed, pair.moving, refined.pose, watch.check)
    if left.significant and left.cause.kind != "size":
        return None
    fits = verify(pair, refined).accepted
    del pair  # of large scans no more are held at once than where a strain alone is undone
    if not (fits or _fit_without(left, inputs, refined.pose, device, watch)):
        return None
    return Cause("size", amount=scale * (1 + float(np.trace(left.tensor)) / 3) - 1).sentence(left.largest)
