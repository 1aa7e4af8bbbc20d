"""Subtraction: the difference of two scans on one grid, in common units, shows contrast agent.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bone.cortex import CorticalBone
from ..imaging.equal_blur import blurred_slices
from ..imaging.grey_fit import GreyFit, fit_grey_values
from ..imaging.resample import resample, resample_mask
from ..imaging.volume import Volume


def match_grey_values(fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray, contrast: str) -> GreyFit:
    """Fits the scans' units to each other, on what lies within the periosteal surface of both.

    Args:
        fixed, moving: segmentations of the two scans.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        contrast: which scan has the contrast agent, "fixed" or "moving".
    """
    # Interpolated like the scan itself: linear interpolation would dim thin bone and lower the slope by up to a tenth.
    grey = resample(Volume(moving.grey, moving.affine), Volume(fixed.grey, fixed.affine), matrix).voxels
    whole = resample_mask(moving.whole, moving.affine, fixed.affine, fixed.whole.shape, matrix)
    matched = fixed.whole & whole & np.isfinite(fixed.grey) & np.isfinite(grey)
    values_fixed, values_moving = fixed.grey[matched], grey[matched]
    return fit_grey_values(*((values_fixed, values_moving) if contrast == "moving" else (values_moving, values_fixed)))


def subtract(
    resampled: Volume, fixed: Volume, fit: GreyFit, contrast: str, blur: Sequence[np.ndarray] | None = None
) -> Volume:
    """Subtracts the scan without contrast agent from the one with it, in the units of the latter.

    The result overwrites `resampled`: two scans of 512^3 voxels leave no room for another.

    Args:
        resampled: the moving scan on the fixed scan's grid, float32, NaN outside its field of view; see
            `imaging.resample`.
        fixed: the fixed scan.
        fit: the straight line between the two; see `match_grey_values`.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        blur: what interpolation did to the other scan, which is done to the fixed one too; see
            `imaging.equal_blur.interpolation_blur`. None leaves it out, and edges in the difference.

    Returns:
        Volume: signed float32 on the fixed scan's grid; NaN outside the overlap of both fields of view, where 0 would
        say that there is no contrast agent.
    """
    difference = resampled.voxels
    slices = fixed.voxels if blur is None else blurred_slices(fixed, blur)
    for plane, still in zip(difference, slices, strict=True):
        still = still.astype(np.float32)
        agent, plain = (plane, still) if contrast == "moving" else (still, plane)
        plane[...] = agent - (fit.slope * plain + fit.offset)
        plane[~np.isfinite(plane)] = np.nan
    return Volume(difference, fixed.affine, "subtraction")


def farthest(values: np.ndarray) -> float:
    """How far the values of a subtraction go from 0, for the display; the most extreme 0.5 % do not count."""
    sample = np.abs(values.ravel()[:: max(1, values.size // 1_000_000)])
    sample = sample[np.isfinite(sample)]
    return float(np.percentile(sample, 99.5)) if sample.size else 0.0
