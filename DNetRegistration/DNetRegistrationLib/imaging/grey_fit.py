"""A straight line between the grey values of two scans of one thing, robust to what changed. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Fewer matched voxels than this do not carry a straight line.
LEAST_VOXELS = 200


@dataclass(frozen=True)
class GreyFit:
    """``contrast = slope * plain + offset``, fitted to bone and marrow that both scans show.

    Attributes:
        slope, offset: of the straight line.
        voxels: how many were matched.
    """

    slope: float
    offset: float
    voxels: int


def fit_grey_values(plain: np.ndarray, contrast: np.ndarray) -> GreyFit:
    """Fits a straight line to the grey values of the same voxels in two scans, robust to a minority of outliers.

    Both scans are noisy, so the line is the one of least *orthogonal* distance in units of each scan's spread: noise of
    the one biases a regression of the other on it towards zero. Tukey's biweight, reweighted until the line stands
    still, leaves out voxels that took up contrast agent or moved.

    Args:
        plain, contrast: ``(n,)`` values of matched voxels.

    Returns:
        GreyFit: with slope 1 and offset 0 if there are too few voxels, or no range of grey values.
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
    # The quantiles alone give the slope to a factor. A line far from that fits some cluster, not the scans.
    slope = np.tan(angle) if np.pi / 12 < angle < 5 * np.pi / 12 else 1.0
    slope_out = slope * y_scale / x_scale
    offset = high.mean() + y_scale * (center[1] - slope * center[0]) - slope_out * low.mean()
    return GreyFit(float(slope_out), float(offset), count)
