"""Masks of the bone itself, as a threshold gives them, are made to reach past it. Needs no torch.

Where the surface of bone lies is told by the greys on both sides of it, and none are seen beyond a mask.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.constants import PAPER_SPACING
from ..core.errors import ScanError
from ..imaging.morphology import dilate_ball
from ..imaging.padding import with_data
from ..imaging.resample import resample_mask
from ..imaging.volume import Volume
from .scenes import PREVIEW_SIZE, preview
from .threshold import find_bone_scale

# A mask reaches so far past the bone, in working spacings (0.32 mm for a mouse) or voxels, whichever are larger. By
# 0.16 mm it showed too little, or moved the answer by 1 to 4 um; by 0.24 mm it did not, where it held all of the bone.
# In voxels of 160 um two of them were too few for three of six pairs.
REACH = 4.0
# It is one of the bone itself where half of it, and half of its border, lie no farther than this from bone. A crop
# through bone may end on it too, but shows more of what surrounds it.
TIGHT = 3.0
# It holds at least this share of a piece of bone about it.
LEAST = 0.5
# Where a piece of bone as large as this share of what it holds goes on beyond its reach, its owner cut the bone there.
# On 38 synthetic bones that share was at most 0.001 with masks of a threshold, which end at the surface, and at most
# 0.11 with masks of the cortex, which leave out trabeculae. Where half of the bone was marked it was 0.40 or more, but
# for one cut along a growth plate, where the bone does not go on.
CUT = 0.2
# The working spacing as a share of how far a mask reaches from its centroid: 1 / 38 as for bone, see `cube`.
SPACING = 1 / 38
# So much of another bone's blurred rim is left out, in working spacings.
RIM = 1.0


def reaching_past(
    volume: Volume, mask: np.ndarray | None, threshold: float | None = None, spacing: float | None = None
) -> np.ndarray | None:
    """A mask that shows what surrounds the bone too; `mask` where it does so, or where no bone is found about it.

    A piece of bone of which the mask holds less than half stays outside, and so does bone beyond a cut.

    Args:
        volume: the scan.
        mask: ``(z, y, x)`` bool, or None.
        threshold: bone is above, in the scan's units; None to find it.
        spacing: working spacing in mm; None to choose it by the size of the mask.
    """
    if mask is None:
        return None
    # A preview has voxels of one size: of a small scan it would average thick slices, and blur the bone away.
    image = volume if max(volume.voxels.shape) <= PREVIEW_SIZE else preview(volume, with_data(volume, None))
    step, values = image.spacing[::-1], image.voxels
    within = resample_mask(mask, volume.affine, image.affine, values.shape, np.eye(4))
    points = np.argwhere(within) * step
    if not len(points):
        return mask
    if spacing is None:
        away = np.linalg.norm(points - points.mean(0), axis=1)
        spacing = max(PAPER_SPACING, SPACING * float(np.quantile(away, 0.95)))
    spacing = max(spacing, float(np.prod(volume.spacing)) ** (1 / 3))
    near = dilate_ball(within, step, REACH * spacing)
    if threshold is None:
        threshold = _threshold(image, near)
        if threshold is None:
            return mask
    bone = values > threshold
    border = dilate_ball(within, step, step.max()) & ~within
    if not border.any() or not (bone & within).any():
        return mask
    away = ndimage.distance_transform_edt(~(bone & within), sampling=step)
    if max(np.median(away[border]), np.median(away[within])) > TIGHT * spacing:
        return mask
    beyond = bone & ~near
    bone &= dilate_ball(within, step, (REACH + RIM) * spacing)
    pieces, _ = ndimage.label(bone)
    sizes = np.bincount(pieces[bone])
    # A stray voxel of a mask makes another bone none of its own.
    shares = np.bincount(pieces[bone & within], minlength=len(sizes)) / np.maximum(sizes, 1)
    own = bone & (shares >= LEAST)[pieces]
    if not own.any():
        return mask
    cut_off = _large_pieces(beyond, own, CUT * np.count_nonzero(own & within))
    if cut_off.any():
        own &= dilate_ball(within, step, RIM * spacing) | ~dilate_ball(cut_off, step, 2 * REACH * spacing)
    other = bone & ~own
    if other.any():
        near &= ~dilate_ball(other, step, RIM * spacing)
    z, y, x = volume.voxels.shape
    return resample_mask(near, image.affine, volume.affine, (z, y, x), np.eye(4)) | mask


def _large_pieces(mask: np.ndarray, touched: np.ndarray, least: float) -> np.ndarray:
    """The pieces of a mask, of so many voxels at least, that another one holds a part of."""
    pieces, _ = ndimage.label(mask)
    chosen = np.bincount(pieces[mask], minlength=1) >= max(least, 1)
    chosen &= np.isin(np.arange(len(chosen)), pieces[mask & touched])
    return chosen[pieces]


def _threshold(image: Volume, near: np.ndarray) -> float | None:
    """The bone threshold near a mask, of all that is seen where too little is near it; None where there is no bone."""
    for where in (near, None):
        try:
            return find_bone_scale(image, None, where).threshold
        except ScanError:
            continue
    return None
