"""What contrast agent adds: the difference of two scans on one grid, in common units.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..bone.cortex import CorticalBone
from ..imaging.resample import resample, resample_mask
from ..imaging.volume import Volume

# Fewer matched voxels than this do not carry a straight line.
LEAST_VOXELS = 200


@dataclass(frozen=True)
class GreyFit:
    """``contrast = slope * plain + offset`` on bone and marrow that both scans see; `voxels` of them were matched."""

    slope: float
    offset: float
    voxels: int


def fit_grey_values(plain: np.ndarray, contrast: np.ndarray) -> GreyFit:
    """The straight line between the grey values of the same voxels in two scans, whatever a minority of them does.

    Both scans are noisy, so the line is the one of least *orthogonal* distance in units of each scan's spread (a
    regression of one on the other is drawn towards zero by the noise of the other); Tukey's biweight, reweighted
    until it stands still, leaves out what took up contrast and what moved.

    Args:
        plain, contrast: ``(n,)`` values of matched voxels.

    Returns:
        GreyFit: slope 1 and offset 0 where there are too few voxels or no range of grey values to fit to.
    """
    count = int(plain.size)
    if count < LEAST_VOXELS:
        return GreyFit(1.0, 0.0, count)
    x, y = np.asarray(plain, np.float64), np.asarray(contrast, np.float64)
    low, high = np.percentile(x, (10, 90)), np.percentile(y, (10, 90))
    x_scale, y_scale = low[1] - low[0], high[1] - high[0]
    if not (x_scale > 0 and y_scale > 0):
        return GreyFit(1.0, 0.0, count)
    x, y = (x - low.mean()) / x_scale, (y - high.mean()) / y_scale
    angle, center = np.pi / 4, np.zeros(2)
    for _ in range(50):
        normal = np.array((-np.sin(angle), np.cos(angle)))
        distance = normal[0] * (x - center[0]) + normal[1] * (y - center[1])
        scale = max(1.4826 * np.median(np.abs(distance)), 1e-9)
        weight = np.clip(1 - (distance / (4.685 * scale)) ** 2, 0, None) ** 2
        total = weight.sum()
        center = np.array((weight @ x, weight @ y)) / total
        dx, dy = x - center[0], y - center[1]
        moved = 0.5 * np.arctan2(2 * (weight @ (dx * dy)), weight @ (dx * dx) - weight @ (dy * dy))
        if abs(moved - angle) < 1e-9:
            break
        angle = moved
    # The quantiles alone say as much, to a factor; a line far from them fits some cluster, not the scans.
    slope = np.tan(angle) if np.pi / 12 < angle < 5 * np.pi / 12 else 1.0
    slope_out = slope * y_scale / x_scale
    offset = high.mean() + y_scale * (center[1] - slope * center[0]) - slope_out * low.mean()
    return GreyFit(float(slope_out), float(offset), count)


def match_grey_values(fixed: CorticalBone, moving: CorticalBone, matrix: np.ndarray, contrast: str) -> GreyFit:
    """The fit between the scans' units, from what lies within the periosteal surface of both.

    Args:
        fixed, moving: segmentations of the two scans.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        contrast: which scan has the contrast agent, "fixed" or "moving".
    """
    # Interpolated like the scan itself: linear interpolation would dim thin bone, and lower the slope by up to a tenth.
    grey = resample(Volume(moving.grey, moving.affine), Volume(fixed.grey, fixed.affine), matrix).voxels
    whole = resample_mask(moving.whole, moving.affine, fixed.affine, fixed.whole.shape, matrix)
    matched = fixed.whole & whole & np.isfinite(fixed.grey) & np.isfinite(grey)
    values_fixed, values_moving = fixed.grey[matched], grey[matched]
    return fit_grey_values(*((values_fixed, values_moving) if contrast == "moving" else (values_moving, values_fixed)))


def subtract(resampled: Volume, fixed: Volume, fit: GreyFit, contrast: str) -> Volume:
    """The scan with contrast minus the one without, in the units of the scan with contrast.

    Written over `resampled`, which is as large as it: two scans of 512^3 voxels leave no room for more.

    Args:
        resampled: the moving scan on the fixed scan's grid, float32, NaN outside its field of view; see
            `imaging.resample`.
        fixed: the fixed scan.
        fit: the straight line between the two; see `match_grey_values`.
        contrast: which scan has the contrast agent, "fixed" or "moving".

    Returns:
        Volume: signed float32 on the fixed scan's grid. Outside the overlap of both fields of view NaN: 0 would say
        that there is no contrast agent, where nothing is known.
    """
    difference = resampled.voxels
    for z, plane in enumerate(difference):
        still = fixed.voxels[z].astype(np.float32)
        agent, plain = (plane, still) if contrast == "moving" else (still, plane)
        plane[...] = agent - (fit.slope * plain + fit.offset)
        plane[~np.isfinite(plane)] = np.nan
    return Volume(difference, fixed.affine, "subtraction")
