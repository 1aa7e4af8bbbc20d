"""What stood still between two scans while the bone moved, as metal and other parts of the scanner do.

Metal that is a few times as bright as bone looks as bone does in soft tissue: nothing in one scan tells which is which.
In two scans, a part of the scanner leaves both where they are, and beside it lies a rigid body that moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bone.prepare import PreparedScan
from ..bone.scenes import preview
from ..bone.threshold import find_bone_scale
from ..core.errors import ScanError
from ..imaging.morphology import dilate
from ..imaging.volume import Volume
from .refinement import distance

# Voxels around what was taken for bone that its blur reaches.
RIM = 3
# What is less bright lies where it was from this Dice on.
SAME_PLACE = 0.5


@dataclass(frozen=True, eq=False)
class Rest:
    """A scan beside what was taken for bone.

    Attributes:
        mask: ``(z, y, x)`` bool, where it is.
        threshold: the next bright material is above.
        where: 1 in the voxels of a preview that are, 0 elsewhere, NaN outside the mask.
    """

    mask: np.ndarray
    threshold: float
    where: Volume


def find_moved_rest(
    fixed: PreparedScan, moving: PreparedScan, volumes: tuple[Volume, Volume], pose: Tensor
) -> tuple[Rest, Rest] | None:
    """The rest of both scans, where a pose leaves the scans where they are and the next bright material moved.

    Args:
        fixed, moving: the scans.
        volumes: the same, as they were given.
        pose: ``(4, 4)`` float64, fixed to moving, LPS mm.
    """
    if distance(pose, torch.eye(4, dtype=pose.dtype), fixed.place) > fixed.cube.spacing:
        return None
    first, second = (_rest(scan, volume) for scan, volume in zip((fixed, moving), volumes, strict=True))
    if first is None or second is None or _dice(first.where, second.where) >= SAME_PLACE:
        return None
    return first, second


def _rest(scan: PreparedScan, volume: Volume) -> Rest | None:
    given = None if scan.native.mask is None else scan.native.mask.cpu().numpy()
    mask = ~dilate(volume.voxels > scan.native.scale.threshold, RIM)
    mask = mask if given is None else mask & given
    try:
        threshold = find_bone_scale(volume, None, mask).threshold
    except ScanError:
        return None
    image = preview(volume, mask)
    where = np.where(np.isnan(image.voxels), np.nan, image.voxels > threshold)
    return Rest(mask, threshold, Volume(where, image.affine))


def _dice(first: Volume, second: Volume) -> float:
    """The overlap of two masks where both scans were seen, in voxels of the first."""
    z, y, x = np.indices(first.voxels.shape)
    place = np.rint(second.to_index(first.to_world(np.stack((x, y, z), -1)))).astype(int)
    inside = ((place >= 0) & (place < second.size)).all(-1)
    x, y, z = np.moveaxis(np.where(inside[..., None], place, 0), -1, 0)
    other = np.where(inside, second.voxels[z, y, x], np.nan)
    both = np.isfinite(first.voxels) & np.isfinite(other)
    total = first.voxels[both].sum() + other[both].sum()
    return float(2 * (first.voxels[both] * other[both]).sum() / total) if total else 1.0
