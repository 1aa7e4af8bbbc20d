"""The bone threshold: normalisation of a scan's intensities by x_th and x_max (Eq. 5), given or found.

Needs no torch, so that a preview can be drawn before anything is aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..core.errors import ScanError, Setting
from ..imaging.morphology import dilate, large_components
from ..imaging.resample import block_means
from ..imaging.volume import Volume

# The histogram and the half-maximum are taken from a preview of about this many voxels an axis.
PREVIEW_SIZE = 128
HISTOGRAM_BINS = 256
# Otsu's method is applied again to the brighter class while that holds more than this share of the scan.
BRIGHTEST_SHARE = 0.08
# Below this ratio of bone contrast to noise in the preview, bone cannot be told from noise.
LEAST_CONTRAST_TO_NOISE = 4.0
# Fewer bone voxels than this are no object to align.
LEAST_BONE_VOXELS = 27
# Pieces of less than this share of the largest one are fragments or noise.
SMALLEST_PIECE = 0.1
# The reciprocal of a smaller range of grey values is no float32.
MINIMUM_RANGE = 1e-36


@dataclass(frozen=True)
class BoneScale:
    """Intensity normalisation T (Eq. 5): ``relu(x - threshold) / (maximum - threshold)``, in a scan's grey values."""

    threshold: float
    maximum: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Grey values (array of any shape) to bone values, 0 below the threshold and 1 at the maximum."""
        return (values - self.threshold).clip(0, None) * (1 / (self.maximum - self.threshold))


def preview(volume: Volume) -> np.ndarray:
    """Averages a scan to about 128 voxels an axis or fewer, ``(z, y, x)`` float32, NaN outside the field of view."""
    factors = np.maximum(1, np.rint(volume.size / PREVIEW_SIZE).astype(int))
    # Isotropic as far as the grid allows: each axis is averaged to the coarsest voxel size of any axis.
    coarsest = (factors * volume.spacing).max()
    factors = np.maximum(factors, np.minimum((coarsest / volume.spacing).astype(int), volume.size // 8))
    return block_means(volume, factors)[0]


def find_bone_scale(
    volume: Volume, threshold: float | None = None, mask: np.ndarray | None = None, role: str | None = None
) -> BoneScale:
    """Finds the bone threshold and the level of dense bone of a scan.

    The threshold of Otsu's method (IEEE Trans. SMC 9:62, 1979), applied repeatedly upwards, is the start. It moves to
    half way between the grey value inside the bone and the one just around it (half-maximum-height rule). So the bone's
    surface is right for any scale of the scanner, and in air, water, dense fixative or bright muscle.

    Args:
        volume: the scan.
        threshold: x_th in the scan's own units, or None to find it.
        mask: boolean array of the scan's shape; bone is looked for only there.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose threshold to set.

    Returns:
        BoneScale: x_th, and as x_max the 99th percentile of the values above it (the maximum would be one hot voxel).

    Raises:
        ScanError: the scan has nothing above the threshold, or nothing that stands out as bone.
    """
    setting = Setting("threshold", role)
    image = preview(volume)
    if mask is not None:
        image = np.where(preview(Volume(mask.astype(np.uint8), volume.affine)) > 0.5, image, np.nan)
    valid = image[np.isfinite(image)]
    if threshold is None:
        smooth = _smooth(image)
        threshold = _half_maximum(image, smooth)
        if threshold is None:
            raise ScanError(
                f"{volume.name}: found no bone in it (nothing stands out from its surroundings)",
                "give the bone threshold in the scan's units, or check that this is the right scan",
                setting,
            )
    elif not np.isfinite(threshold):
        problem = f"{volume.name}: the bone threshold {threshold} is not a number"
        raise ScanError(problem, "give one in the scan's units", setting)
    bone = valid[valid > threshold]
    if bone.size < LEAST_BONE_VOXELS:
        reach = f"grey values reach {valid.max():g}" if valid.size else "the mask holds no voxel of its preview"
        problem = f"{volume.name}: no bone above the threshold {threshold:g} ({reach})"
        raise ScanError(problem, "lower the threshold, or check that this is the right scan", setting)
    maximum = float(np.percentile(bone, 99))
    if not maximum - threshold > MINIMUM_RANGE:
        problem = f"{volume.name}: its bone is only {maximum - threshold:g} above the threshold"
        raise ScanError(problem, "scale its values up")
    return BoneScale(float(threshold), maximum)


def _smooth(image: np.ndarray) -> np.ndarray:
    """The 3x3x3 mean, so that thresholds lie between materials and not within noise; NaN outside the field of view."""
    inside = np.isfinite(image)
    if inside.all():
        return ndimage.uniform_filter(image, 3, mode="nearest")
    weight = ndimage.uniform_filter(inside.astype(np.float32), 3)
    mean = ndimage.uniform_filter(np.where(inside, image, 0), 3) / np.maximum(weight, 1e-3)
    return np.where(inside, mean, np.nan)


def _otsu(values: np.ndarray) -> float:
    if values.size == 0:
        return np.inf
    # In float64: between large float32 values, there are no 256 bins.
    low, high = np.percentile(values, (0.05, 99.95)).astype(float)
    if not high > low:
        return float(high)
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1] / counts.sum()
    moment = np.cumsum(counts * centers)[:-1] / counts.sum()
    mean = (counts * centers).sum() / counts.sum()
    spread = below * (1 - below)
    between = np.divide((mean * below - moment) ** 2, spread, out=np.zeros_like(below), where=spread > 0)
    return float(edges[np.argmax(between) + 1])


def _half_maximum(image: np.ndarray, smooth: np.ndarray) -> float | None:
    """The grey value half way between bone and its surroundings; None where there is no bone.

    Otsu's threshold is found again and again among the voxels above the last one, until few remain. Each is a start,
    and the highest is tried first. Too high a start does no harm: from there the half-maximum rule comes down to the
    bone's own surface. From too low a start it would stop at the surface of the soft tissue. Lower starts are tried
    only if the voxels above are too few for an object.
    """
    values = smooth[np.isfinite(smooth)]
    above = values
    starts: list[float] = []
    while above.size > BRIGHTEST_SHARE * values.size and (not starts or np.ptp(above) > 0):
        starts.append(_otsu(above))
        above = above[above > starts[-1]]
    for start in reversed(starts):
        threshold = _half_maximum_from(image, smooth, start)
        if threshold is not None:
            return threshold
    return None


def _half_maximum_from(image: np.ndarray, smooth: np.ndarray, threshold: float) -> float | None:
    for _ in range(8):
        bone = large_components(smooth > threshold, SMALLEST_PIECE)
        if bone.sum() < LEAST_BONE_VOXELS:
            return None
        near = dilate(bone, 2)
        around = dilate(near, 3) & ~near & np.isfinite(smooth)
        if around.sum() < LEAST_BONE_VOXELS:
            around = ~bone & np.isfinite(smooth)
        if not around.any():
            return None
        # The outer percentile is high, so that it is of soft tissue rather than of the air beside it.
        inside, outside = np.percentile(smooth[bone], 75), np.percentile(smooth[around], 80)
        noise = 1.4826 * np.median(np.abs(image[around] - np.median(image[around])))
        if inside - outside < LEAST_CONTRAST_TO_NOISE * noise / np.sqrt(27):
            return None
        moved = (inside + outside) / 2
        if abs(moved - threshold) < 0.01 * (inside - outside):
            break
        threshold = moved
    return float(threshold)
