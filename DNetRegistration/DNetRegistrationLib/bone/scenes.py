"""Scenes to look for bone in: ever closer to it, in lengths of its size, whatever else is in view. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..imaging.morphology import box_around, dilate_ball, large_components
from ..imaging.resample import block_means
from ..imaging.volume import Volume

# A preview has about this many voxels an axis.
PREVIEW_SIZE = 128
# The scene in which bone is looked for has about this many voxels along its longest axis.
SEARCH_SIZE = 64
# Deviation of the Gaussian that smooths it, in voxels: a mean of 3x3x3 leaves as much noise.
COARSE_SMOOTHING = 0.82
# Smaller pieces, as a share of the largest, are no objects.
SMALLEST_OBJECT = 0.02
HISTOGRAM_BINS, MOST_SPLITS = 256, 4
# Lengths as shares of the bone's size. Its grey values are looked at in voxels of at most `VOXEL`, smoothed by a
# Gaussian of the deviation `SMOOTHING`; its surroundings lie from `NEAR` to `FAR` off it.
VOXEL, SMOOTHING, NEAR, FAR = 1 / 32, 1 / 48, 1 / 17, 1 / 7
# In voxels, for bones of few.
LEAST_SMOOTHING, LEAST_NEAR, LEAST_RING = 0.6, 1.5, 2.0
# Fewer voxels than this are no object to align.
LEAST_BONE_VOXELS = 27
# What stands out from its surroundings this many times as much as bone does is metal.
FAR_BRIGHTER = 5.0


@dataclass(frozen=True, eq=False)
class Scene:
    """Grey values to look for bone in.

    Attributes:
        native: the part of the scan that is shown, or all of it.
        mask: of the part, or None.
        image: the part averaged over blocks of voxels, NaN outside the field of view.
        smooth: ``(z, y, x)`` its values without noise, so that thresholds lie between materials.
        left: the share of white noise that smoothing left.
        near, far: in mm; what surrounds an object lies between them.
    """

    native: Volume
    mask: np.ndarray | None
    image: Volume
    smooth: np.ndarray
    left: float
    near: float
    far: float

    def without(self, pieces: np.ndarray) -> Scene:
        """The same scene, with some pieces, and their blurred rims of three voxels, outside the field of view."""
        kept = ~dilate_ball(pieces, np.ones(3), 3)
        image = replace(self.image, voxels=np.where(kept, self.image.voxels, np.nan))
        return replace(self, image=image, smooth=np.where(kept, self.smooth, np.nan))


def preview(volume: Volume, mask: np.ndarray | None = None) -> Volume:
    """Averages a scan to about 128 voxels an axis or fewer, float32.

    Voxels are NaN that lie outside the field of view in part, or outside the mask in the main.
    """
    return _averaged(volume, mask, _preview_factors(volume))


def _preview_factors(volume: Volume) -> np.ndarray:
    factors = np.maximum(1, np.rint(volume.size / PREVIEW_SIZE).astype(int))
    # Isotropic as far as the grid allows: each axis is averaged to the coarsest voxel size of any axis.
    coarsest = (factors * volume.spacing).max()
    return np.maximum(factors, np.minimum((coarsest / volume.spacing).astype(int), volume.size // 8))


def _averaged(volume: Volume, mask: np.ndarray | None, factors: np.ndarray) -> Volume:
    factors = np.clip(factors, 1, np.maximum(1, volume.size // 8))
    means, affine = block_means(volume, factors)
    if mask is not None:
        means[~(block_means(Volume(mask.astype(np.uint8)), factors)[0] > 0.5)] = np.nan
    return Volume(means, affine)


def _cropped(volume: Volume, box: tuple[slice, ...]) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_world([part.start for part in reversed(box)])
    return replace(volume, voxels=volume.voxels[box], affine=affine)


def scene_of_objects(volume: Volume, mask: np.ndarray | None, image: Volume) -> Scene:
    """What is brighter than its background, without the rest of the field of view."""
    while True:
        coarse = _coarse(image)
        smooth = _smoothed(coarse.voxels, np.full(3, COARSE_SMOOTHING))
        objects = large_components(smooth > _background(smooth, voxel_noise(coarse)), SMALLEST_OBJECT)
        box = box_around(objects, (1, 1, 1))
        if box is None or np.prod([part.stop - part.start for part in box]) > 0.8 * smooth.size:
            break
        volume, mask = part_of(volume, mask, _carried(box, coarse, volume))
        if _is_finer(_preview_factors(volume), image.spacing / volume.spacing):
            image = preview(volume, mask)
        else:
            image = _cropped(image, _carried(box, coarse, image))
    spacing = coarse.spacing.min()
    return Scene(volume, mask, coarse, smooth, _left(np.full(3, COARSE_SMOOTHING)), 2 * spacing, 5 * spacing)


def close_scene(scene: Scene, pieces: np.ndarray, metal: float, size: float) -> Scene:
    """The bone and its surroundings, at a resolution that depends on the size of the bone alone."""
    step = scene.image.spacing[::-1]
    box = box_around(pieces, np.ceil(FAR * size / step).astype(int) + 2)
    assert box is not None  # a material has voxels
    native, mask = part_of(scene.native, scene.mask, _carried(box, scene.image, scene.native))
    image = _averaged(native, mask, (VOXEL * size / native.spacing).astype(int))
    # Averaging over a voxel has blurred it already. A little more is needed in any case: noise is no material.
    blur = np.sqrt(np.maximum((SMOOTHING * size / image.spacing) ** 2 - 1 / 12, LEAST_SMOOTHING**2))
    voxel = image.spacing.min()
    near = max(NEAR * size, LEAST_NEAR * voxel)
    far = max(FAR * size, near + LEAST_RING * voxel)
    closer = Scene(native, mask, image, _smoothed(image.voxels, blur[::-1]), _left(blur), near, far)
    with np.errstate(invalid="ignore"):
        far_brighter = image.voxels > metal
    return closer.without(far_brighter) if far_brighter.any() else closer


def _coarse(image: Volume) -> Volume:
    """The preview averaged further, to about 64 voxels along its longest axis."""
    factors = np.where(image.spacing < 1.5 * image.spacing.min(), np.rint(image.size.max() / SEARCH_SIZE), 1)
    return _averaged(image, None, factors.astype(int))


def _carried(box: tuple[slice, ...], coarse: Volume, fine: Volume) -> tuple[slice, ...]:
    """A box of whole blocks on the grid that they are blocks of."""
    factors = np.rint(coarse.spacing / fine.spacing).astype(int)[::-1]
    return tuple(slice(part.start * f, part.stop * f) for part, f in zip(box, factors, strict=True))


def part_of(volume: Volume, mask: np.ndarray | None, box: tuple[slice, ...]) -> tuple[Volume, np.ndarray | None]:
    return _cropped(volume, box), None if mask is None else mask[box]


def _is_finer(factors: np.ndarray, than: np.ndarray) -> bool:
    return bool((factors < np.rint(than)).any())


def _background(smooth: np.ndarray, noise: float) -> float:
    """The grey value above which anything may be an object, however far metal is brighter."""
    lower = ordered(smooth)
    split = background = otsu(lower)
    lower, upper = parted(lower, split)
    bright = quantile(upper, 0.5) if upper.size else split
    # The first splits below metal may part its blurred rim.
    for _ in range(MOST_SPLITS):
        split = otsu(lower)
        lower, middle = parted(lower, split)
        if min(lower.size, middle.size) < LEAST_BONE_VOXELS:
            break
        dark = quantile(lower, 0.5)
        step = quantile(middle, 0.5) - dark
        if step < noise:
            break
        if bright - dark > FAR_BRIGHTER * step:
            background = split
    return background


def size_of(scene: Scene, pieces: np.ndarray) -> float:
    """The cube root of the volume of the box whose points scatter as those of `pieces`, in mm."""
    points = np.argwhere(pieces)[:, ::-1] @ scene.image.affine[:3, :3].T
    spread = np.linalg.eigvalsh(np.cov(points.T)).clip(scene.image.spacing.min() ** 2 / 12)
    return float(np.sqrt(12) * spread.prod() ** (1 / 6))


def _left(deviation: np.ndarray) -> float:
    """The share of white noise that a Gaussian leaves: the root of the sum of its squared weights."""
    return float(np.prod((2 * np.sqrt(np.pi) * deviation) ** -0.5))


def _smoothed(image: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Gaussian means of what lies inside the field of view, of a deviation in voxels along z, y, x."""
    inside = np.isfinite(image)
    if inside.all():
        return ndimage.gaussian_filter(image, deviation, mode="nearest", truncate=3)
    weight = ndimage.gaussian_filter(inside.astype(np.float32), deviation, truncate=3)
    mean = ndimage.gaussian_filter(np.where(inside, image, 0), deviation, truncate=3) / np.maximum(weight, 1e-3)
    return np.where(inside, mean, np.nan)


def ordered(image: np.ndarray) -> np.ndarray:
    """The values of an image inside the field of view, ascending: quantiles and histograms of parts are look-ups."""
    return np.sort(image[np.isfinite(image)])


def parted(values: np.ndarray, split: float) -> tuple[np.ndarray, np.ndarray]:
    """Ascending values up to `split`, and those above it."""
    at = values.searchsorted(split, "right")
    return values[:at], values[at:]


def quantile(values: np.ndarray, share: float) -> float:
    """The value below which a share, 0 to 1, of ascending values lie, interpolated linearly."""
    at = share * (values.size - 1)
    around = values[[int(at), min(int(at) + 1, values.size - 1)]].astype(float)
    return float(around[0] + (at - int(at)) * (around[1] - around[0]))


def otsu(values: np.ndarray) -> float:
    """The split of ascending values into two classes (Otsu); infinite for none."""
    if values.size == 0:
        return np.inf
    low, high = quantile(values, 0.0005), quantile(values, 0.9995)
    if not high > low:
        return high
    # In float64: between large float32 values, there are no 256 bins.
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    counts = np.diff(values.searchsorted(np.append(edges[:-1], np.nextafter(high, np.inf))))
    if not counts.any():  # floats so close that the edges lie between none
        return high
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1] / counts.sum()
    moment = np.cumsum(counts * centers)[:-1] / counts.sum()
    mean = (counts * centers).sum() / counts.sum()
    spread = below * (1 - below)
    between = np.divide((mean * below - moment) ** 2, spread, out=np.zeros_like(below), where=spread > 0)
    return float(edges[np.argmax(between) + 1])


def voxel_noise(volume: Volume) -> float:
    """Standard deviation of the noise of single voxels, from the differences of neighbours."""
    slices = volume.voxels[:: max(1, len(volume.voxels) // 16)].astype(np.float32)
    steps = np.abs(np.diff(slices, axis=2))
    steps = steps[np.isfinite(steps)]
    return float(1.4826 * np.median(steps) / np.sqrt(2)) if steps.size else 0.0
