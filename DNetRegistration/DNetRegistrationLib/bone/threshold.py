"""Where bone begins in a scan's grey values: x_th and x_max of Eq. 5, given or found.

Needs no torch, so that a preview can be drawn before anything is aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..core.errors import ScanError
from ..imaging.morphology import dilate, large_components
from ..imaging.resample import block_means
from ..imaging.volume import Volume

# The histogram and the half-maximum are taken from a preview of about this many voxels an axis.
PREVIEW_SIZE = 128
HISTOGRAM_BINS = 256
# What Otsu's method parts off is parted again while it holds more than this share of the scan.
BRIGHTEST_SHARE = 0.08
# Below this ratio of bone contrast to noise in the preview, nothing tells bone from noise.
LEAST_CONTRAST_TO_NOISE = 4.0
# Fewer bone voxels than this are no object to align.
LEAST_BONE_VOXELS = 27
# Pieces of less than this share of the largest one are fragments or noise.
SMALLEST_PIECE = 0.1
# The reciprocal of a smaller range of grey values is no float32.
MINIMUM_RANGE = 1e-36


@dataclass(frozen=True)
class BoneScale:
    """T of Eq. 5: ``relu(x - threshold) / (maximum - threshold)``, in the grey values of one scan."""

    threshold: float
    maximum: float

    def __call__(self, values):
        """Grey values (array, of any shape) to bone values, 0 below the threshold and 1 at the maximum."""
        return (values - self.threshold).clip(0, None) * (1 / (self.maximum - self.threshold))


def preview(volume: Volume) -> np.ndarray:
    """A float32 copy of about 128 voxels an axis or fewer, box-averaged; outside the field of view is NaN."""
    factors = np.maximum(1, np.rint(volume.size / PREVIEW_SIZE).astype(int))
    # Isotropic as far as the grid allows: an axis is averaged up to the coarsest voxel size that another one has.
    coarsest = (factors * volume.spacing).max()
    factors = np.maximum(factors, np.minimum((coarsest / volume.spacing).astype(int), volume.size // 8))
    return block_means(volume, factors)[0]


def find_bone_scale(volume: Volume, threshold: float | None = None, mask: np.ndarray | None = None) -> BoneScale:
    """The bone threshold and the level of dense bone of a scan.

    The start is the threshold of Otsu's method (IEEE Trans. SMC 9:62, 1979), applied repeatedly upwards; it is
    then moved to half way between the grey value inside the bone and the one just around it, the half-maximum-height
    rule, which places the bone's surface right whatever the scanner's scale and whatever the bone lies in: air, water,
    dense fixative, bright muscle.

    Args:
        volume: the scan.
        threshold: x_th in the scan's own units, or None to find it.
        mask: boolean array of the scan's shape; only there is bone looked for.

    Returns:
        BoneScale: x_th, and as x_max the 99th percentile of what lies above it (a maximum would be one hot voxel).

    Raises:
        ScanError: the scan has nothing above the threshold, or nothing that stands out as bone.
    """
    image = preview(volume)
    if mask is not None:
        image = np.where(preview(Volume(mask.astype(np.uint8), volume.affine)) > 0.5, image, np.nan)
    valid = image[np.isfinite(image)]
    if threshold is None:
        smooth = _smooth(image)
        threshold = _half_maximum(image, smooth)
        if threshold is None:
            raise ScanError(
                f"{volume.name}: found no bone in it (nothing stands out from its surroundings); "
                "give the bone threshold in the scan's units, or check that this is the right scan"
            )
    elif not np.isfinite(threshold):
        raise ScanError(f"{volume.name}: the bone threshold {threshold} is not a number; give one in the scan's units")
    bone = valid[valid > threshold]
    if bone.size < LEAST_BONE_VOXELS:
        reach = f"grey values reach {valid.max():g}" if valid.size else "the mask holds no voxel of its preview"
        raise ScanError(
            f"{volume.name}: no bone above the threshold {threshold:g} ({reach}); "
            "lower the threshold, or check that this is the right scan"
        )
    maximum = float(np.percentile(bone, 99))
    if not maximum - threshold > MINIMUM_RANGE:
        raise ScanError(
            f"{volume.name}: its bone is only {maximum - threshold:g} above the threshold; scale its values up"
        )
    return BoneScale(float(threshold), maximum)


def _smooth(image: np.ndarray) -> np.ndarray:
    """A 3x3x3 mean: thresholds are found among materials, not among noise. NaN where the field of view ends."""
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
    """Half way between bone and what is around it, from the brightest material downwards; None where there is none.

    The start is the class that Otsu's method parts off, parted again until it is a small share of the scan. Too high a
    start does no harm, since the half-maximum rule comes down from it to the bone's own surface; from too low a one it
    would stop at the surface of the soft tissue. Only where so little is so bright that it makes no object do the lower
    starts get their turn.
    """
    values = smooth[np.isfinite(smooth)]
    above, starts = values, []
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
        inside, outside = np.percentile(smooth[bone], 75), np.percentile(smooth[around], 80)
        # Of what lies around, soft tissue rather than the air beside it: a high percentile, not the median.
        noise = 1.4826 * np.median(np.abs(image[around] - np.median(image[around])))
        if inside - outside < LEAST_CONTRAST_TO_NOISE * noise / np.sqrt(27):
            return None
        moved = (inside + outside) / 2
        if abs(moved - threshold) < 0.01 * (inside - outside):
            break
        threshold = moved
    return float(threshold)
