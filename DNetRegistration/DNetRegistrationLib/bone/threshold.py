"""The bone threshold: normalisation of a scan's intensities by x_th and x_max (Eq. 5), given or found.

Needs no torch, so that a preview can be drawn before anything is aligned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..core.errors import ScanError, Setting
from ..imaging.morphology import dilate, dilate_ball, large_components
from ..imaging.padding import content, with_data
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
HISTOGRAM_BINS = 256
# Otsu's method is applied again to the brighter class while that holds more than this share of the window.
BRIGHTEST_SHARE = 0.05
MOST_SPLITS = 4
# Lengths as shares of the bone's size. Its grey values are looked at in voxels of at most `VOXEL`, smoothed by a
# Gaussian of the deviation `SMOOTHING`; its surroundings lie from `NEAR` to `FAR` off it.
VOXEL, SMOOTHING, NEAR, FAR = 1 / 32, 1 / 48, 1 / 17, 1 / 7
# In voxels, for bones of few.
LEAST_SMOOTHING, LEAST_NEAR, LEAST_RING = 0.6, 1.5, 2.0
# A scene is looked at closer until the size of its bone changes by less than this share, or so many times.
SAME_SIZE, MOST_SCENES = 0.1, 3
# Below this ratio of bone contrast to noise in the preview, bone cannot be told from noise.
LEAST_CONTRAST_TO_NOISE = 4.0
# Fewer bone voxels than this are no object to align.
LEAST_BONE_VOXELS = 27
# Pieces of less than this share of the largest one are fragments or noise.
SMALLEST_PIECE = 0.1
# What stands out from its surroundings this many times as much as bone does is metal.
FAR_BRIGHTER = 5.0
# No metal is this much brighter: that is the rim of a scan without noise.
BRIGHTEST = 200.0
# Where air has its Hounsfield units, metal is brighter than this: enamel is not.
AIR_HU, METAL_HU = (-1100.0, -850.0), 4000.0
# A piece is told that is this many times as far above the threshold as dense bone, if it has so many voxels.
BRIGHT, LEAST_BRIGHT_VOXELS = 3.0, 8
# What lies within another material is metal only if that stands out so many times the noise: soft tissue does not.
# What lies wholly within it never is.
LEAST_WITHIN, WHOLLY_WITHIN = 12.0, 0.8
# The reciprocal of a smaller range of grey values is no float32.
MINIMUM_RANGE = 1e-36
# T is bounded here. In ordinary scans at most 0.5 % of the bone are above.
HIGHEST = 1.5


@dataclass(frozen=True)
class BrightPiece:
    """What is far brighter than bone in a scan, as metal is.

    Attributes:
        volume: in mm3.
        times: how many times as far above the threshold as dense bone.
        center: its middle in the world, (x, y, z) in LPS mm.
    """

    volume: float
    times: float
    center: tuple[float, float, float]


@dataclass(frozen=True)
class BoneScale:
    """Intensity normalisation T (Eq. 5): ``relu(x - threshold) / (maximum - threshold)``, in a scan's grey values.

    Unlike the paper's, it is bounded above, so that metal weighs no more than dense bone does.
    """

    threshold: float
    maximum: float
    bright: BrightPiece | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Grey values (array of any shape) to bone values, 0 below the threshold and 1 at the maximum."""
        return ((values - self.threshold) * (1 / (self.maximum - self.threshold))).clip(0, HIGHEST)


@dataclass(frozen=True, eq=False)
class _Scene:
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

    def without(self, pieces: np.ndarray) -> _Scene:
        """The same scene, with some pieces, and their blurred rims of three voxels, outside the field of view."""
        kept = ~dilate_ball(pieces, np.ones(3), 3)
        image = replace(self.image, voxels=np.where(kept, self.image.voxels, np.nan))
        return replace(self, image=image, smooth=np.where(kept, self.smooth, np.nan))


@dataclass(frozen=True, eq=False)
class _Material:
    """What stands out from its surroundings, in a scene.

    Attributes:
        threshold: the grey value half way between inside and outside.
        inside, outside: grey values of the material and of what is around it.
        noise: standard deviation of the latter in a voxel.
        pieces: ``(z, y, x)`` bool, where it is.
        around: ``(z, y, x)`` bool, its surroundings.
    """

    threshold: float
    inside: float
    outside: float
    noise: float
    pieces: np.ndarray
    around: np.ndarray

    @property
    def contrast(self) -> float:
        return self.inside - self.outside


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
        BoneScale: x_th, and as x_max the 99th percentile of the values above it that are not far brighter than bone.

    Raises:
        ScanError: the scan has nothing above the threshold, or nothing that stands out as bone.
    """
    setting = Setting("threshold", role)
    volume, mask = _part(volume, with_data(volume, mask), content(volume))
    whole = preview(volume, mask)
    if threshold is None:
        found = _found(volume, mask, whole)
        if found is None:
            raise ScanError(
                f"{volume.name}: found no bone in it (nothing stands out from its surroundings)",
                "give the bone threshold in the scan's units, or check that this is the right scan",
                setting,
            )
        scene, material = found
        threshold, values = material.threshold, scene.image.voxels
        values = values[np.isfinite(values)]
        bone = values[(values > threshold) & (values < material.outside + FAR_BRIGHTER * material.contrast)]
    elif not np.isfinite(threshold):
        problem = f"{volume.name}: the bone threshold {threshold} is not a number"
        raise ScanError(problem, "give one in the scan's units", setting)
    else:
        values = whole.voxels[np.isfinite(whole.voxels)]
        bone = _without_far_brighter(values[values > threshold], threshold)
    if bone.size < LEAST_BONE_VOXELS:
        reach = f"grey values reach {values.max():g}" if values.size else "the mask holds no voxel of its preview"
        problem = f"{volume.name}: no bone above the threshold {threshold:g} ({reach})"
        raise ScanError(problem, "lower the threshold, or check that this is the right scan", setting)
    maximum = float(np.percentile(bone, 99))
    if not maximum - threshold > MINIMUM_RANGE:
        problem = f"{volume.name}: its bone is only {maximum - threshold:g} above the threshold"
        raise ScanError(problem, "scale its values up", setting)
    scale = BoneScale(float(threshold), maximum)
    return replace(scale, bright=_bright_piece(whole, scale))


def _bright_piece(image: Volume, scale: BoneScale) -> BrightPiece | None:
    bright = image.voxels > scale.threshold + BRIGHT * (scale.maximum - scale.threshold)
    if np.count_nonzero(bright) < LEAST_BRIGHT_VOXELS:
        return None
    times = (float(np.median(image.voxels[bright])) - scale.threshold) / (scale.maximum - scale.threshold)
    center = image.to_world(np.argwhere(bright)[:, ::-1].mean(0))
    volume = np.count_nonzero(bright) * abs(np.linalg.det(image.affine[:3, :3]))
    return BrightPiece(float(volume), times, tuple(float(c) for c in center))


def _without_far_brighter(bone: np.ndarray, threshold: float) -> np.ndarray:
    """Values above a threshold, without a brighter class (Otsu's) that is far above it."""
    while bone.size:
        split = _otsu(bone)
        lower, upper = bone[bone <= split], bone[bone > split]
        if min(lower.size, upper.size) == 0 or lower.size < LEAST_BONE_VOXELS:
            break
        dense, other = np.percentile(lower, 75) - threshold, np.percentile(upper, 75) - threshold
        if other < FAR_BRIGHTER * dense:
            break
        bone = lower
    return bone


# --- scenes -----------------------------------------------------------------------------------------------------------


def _found(volume: Volume, mask: np.ndarray | None, whole: Volume) -> tuple[_Scene, _Material] | None:
    """Finds the bone, in scenes ever closer to it: what else is in view, and how much of it, does not matter."""
    scene = _scene_of_objects(volume, mask, whole)
    found = _bone(scene)
    if found is None:
        return None
    (material, metal), size = found, 0.0
    for _ in range(MOST_SCENES):
        measured = _size(scene, material.pieces)
        if abs(measured - size) < SAME_SIZE * size:
            break
        size = measured
        # A wire may be too thin to be seen from afar.
        metal = min(metal, material.outside + FAR_BRIGHTER * material.contrast)
        closer = _close_scene(scene, material.pieces, metal, size)
        again = _brightest(closer)
        if again is None:
            break
        scene, material = closer, again
    return scene, material


def _scene_of_objects(volume: Volume, mask: np.ndarray | None, image: Volume) -> _Scene:
    """What is brighter than its background, without the rest of the field of view."""
    while True:
        coarse = _coarse(image)
        smooth = _smoothed(coarse.voxels, np.full(3, COARSE_SMOOTHING))
        box = _box(large_components(smooth > _background(smooth, _noise(coarse)), SMALLEST_OBJECT), np.full(3, 1))
        if box is None or np.prod([part.stop - part.start for part in box]) > 0.8 * smooth.size:
            break
        volume, mask = _part(volume, mask, _carried(box, coarse, volume))
        if _is_finer(_preview_factors(volume), image.spacing / volume.spacing):
            image = preview(volume, mask)
        else:
            image = _cropped(image, _carried(box, coarse, image))
    spacing = coarse.spacing.min()
    return _Scene(volume, mask, coarse, smooth, _left(np.full(3, COARSE_SMOOTHING)), 2 * spacing, 5 * spacing)


def _coarse(image: Volume) -> Volume:
    """The preview averaged further, to about 64 voxels along its longest axis."""
    factors = np.where(image.spacing < 1.5 * image.spacing.min(), np.rint(image.size.max() / SEARCH_SIZE), 1)
    return _averaged(image, None, factors.astype(int))


def _carried(box: tuple[slice, ...], coarse: Volume, fine: Volume) -> tuple[slice, ...]:
    """A box of whole blocks on the grid that they are blocks of."""
    factors = np.rint(coarse.spacing / fine.spacing).astype(int)[::-1]
    return tuple(slice(part.start * f, part.stop * f) for part, f in zip(box, factors, strict=True))


def _part(volume: Volume, mask: np.ndarray | None, box: tuple[slice, ...]) -> tuple[Volume, np.ndarray | None]:
    return _cropped(volume, box), None if mask is None else mask[box]


def _is_finer(factors: np.ndarray, than: np.ndarray) -> bool:
    return bool((factors < np.rint(than)).any())


def _background(smooth: np.ndarray, noise: float) -> float:
    """The grey value above which anything may be an object, however far metal is brighter."""
    values = smooth[np.isfinite(smooth)]
    split = background = _otsu(values)
    bright = np.median(values[values > split]) if (values > split).any() else split
    # The first splits below metal may part its blurred rim.
    for _ in range(MOST_SPLITS):
        lower = values[values <= split]
        split = _otsu(lower)
        dark, middle = lower[lower <= split], lower[lower > split]
        if min(dark.size, middle.size) < LEAST_BONE_VOXELS:
            break
        step = np.median(middle) - np.median(dark)
        if step < noise:
            break
        if bright - np.median(dark) > FAR_BRIGHTER * step:
            background = split
    return float(background)


def _size(scene: _Scene, pieces: np.ndarray) -> float:
    """The cube root of the volume of the box whose points scatter as those of `pieces`, in mm."""
    points = np.argwhere(pieces)[:, ::-1] @ scene.image.affine[:3, :3].T
    spread = np.linalg.eigvalsh(np.cov(points.T)).clip(scene.image.spacing.min() ** 2 / 12)
    return float(np.sqrt(12) * spread.prod() ** (1 / 6))


def _close_scene(scene: _Scene, pieces: np.ndarray, metal: float, size: float) -> _Scene:
    """The bone and its surroundings, at a resolution that depends on the size of the bone alone."""
    step = scene.image.spacing[::-1]
    box = _box(pieces, np.ceil(FAR * size / step).astype(int) + 2)
    native, mask = _part(scene.native, scene.mask, _carried(box, scene.image, scene.native))
    image = _averaged(native, mask, (VOXEL * size / native.spacing).astype(int))
    # Averaging over a voxel has blurred it already. A little more is needed in any case: noise is no material.
    blur = np.sqrt(np.maximum((SMOOTHING * size / image.spacing) ** 2 - 1 / 12, LEAST_SMOOTHING**2))
    voxel = image.spacing.min()
    near = max(NEAR * size, LEAST_NEAR * voxel)
    far = max(FAR * size, near + LEAST_RING * voxel)
    closer = _Scene(native, mask, image, _smoothed(image.voxels, blur[::-1]), _left(blur), near, far)
    with np.errstate(invalid="ignore"):
        far_brighter = image.voxels > metal
    return closer.without(far_brighter) if far_brighter.any() else closer


def _box(pieces: np.ndarray, margin: np.ndarray) -> tuple[slice, ...] | None:
    found = ndimage.find_objects(pieces.astype(np.uint8))
    if not found:
        return None
    return tuple(
        slice(max(0, part.start - m), min(n, part.stop + m))
        for part, m, n in zip(found[0], margin, pieces.shape, strict=True)
    )


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


# --- materials --------------------------------------------------------------------------------------------------------


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


def _bone(scene: _Scene) -> tuple[_Material, float] | None:
    """The bone in a scene, and the grey value above which there is metal."""
    found, metal = _brightest(scene), np.inf
    for _ in range(3):
        if found is None:
            return None
        scene = scene.without(found.pieces)
        beneath = _brightest(scene)
        if beneath is None or not _is_metal(found, beneath, _noise(scene.native)):
            break
        found, metal = beneath, found.threshold
    return found, metal


def _is_metal(bright: _Material, beneath: _Material, noise: float) -> bool:
    """Whether a material is so much brighter than another one that this is the bone.

    Soft tissue stands out little from water, and foam from air, and bone twenty times as much. But they stand out
    little from the noise too, and bone lies within soft tissue, and metal seldom within bone.
    """
    outsides = np.array((bright.outside, beneath.outside))
    if ((outsides > AIR_HU[0]) & (outsides < AIR_HU[1])).any() and bright.inside < METAL_HU:
        return False
    times = (bright.inside - beneath.outside) / beneath.contrast
    if not FAR_BRIGHTER < times < BRIGHTEST:
        return False
    around = np.count_nonzero(dilate(beneath.pieces, 3)[bright.around]) / np.count_nonzero(bright.around)
    least = LEAST_CONTRAST_TO_NOISE if around < 0.5 else LEAST_WITHIN
    return around < WHOLLY_WITHIN and beneath.contrast > least * noise


def _noise(volume: Volume) -> float:
    """Standard deviation of the noise of single voxels, from the differences of neighbours."""
    slices = volume.voxels[:: max(1, len(volume.voxels) // 16)].astype(np.float32)
    steps = np.abs(np.diff(slices, axis=2))
    steps = steps[np.isfinite(steps)]
    return float(1.4826 * np.median(steps) / np.sqrt(2)) if steps.size else 0.0


def _brightest(scene: _Scene) -> _Material | None:
    """The brightest material that stands out, and is more than a dense part of another one.

    Otsu's threshold is found again and again among the voxels above the last one, until few remain. Each is a start,
    and the highest is tried first. Too high a start does no harm: from there the half-maximum rule comes down to the
    bone's own surface. From too low a start it would stop at the surface of the soft tissue. Lower starts are tried
    only if the voxels above are too few for an object.
    """
    values = scene.smooth[np.isfinite(scene.smooth)]
    above = values
    starts: list[float] = []
    while above.size > BRIGHTEST_SHARE * values.size and (not starts or np.ptp(above) > 0):
        starts.append(_otsu(above))
        above = above[above > starts[-1]]
    for start in reversed(starts):
        material = _material(scene, start)
        if material is not None:
            return material
    return None


def _material(scene: _Scene, threshold: float) -> _Material | None:
    """The material above a threshold that moves to half way between its grey value and the one around it."""
    image, smooth, step = scene.image.voxels, scene.smooth, scene.image.spacing[::-1]
    for _ in range(8):
        pieces = large_components(smooth > threshold, SMALLEST_PIECE)
        if np.count_nonzero(pieces) < LEAST_BONE_VOXELS:
            return None
        around = dilate_ball(pieces, step, scene.far) & ~dilate_ball(pieces, step, scene.near) & np.isfinite(smooth)
        if np.count_nonzero(around) < LEAST_BONE_VOXELS:
            around = ~pieces & np.isfinite(smooth)
        if not around.any():
            return None
        # The outer percentile is high, so that it is of soft tissue rather than of the air beside it.
        inside, outside = np.percentile(smooth[pieces], 75), np.percentile(smooth[around], 80)
        noise = 1.4826 * np.median(np.abs(image[around] - np.median(image[around])))
        if inside - outside < LEAST_CONTRAST_TO_NOISE * noise * scene.left:
            return None
        moved = (inside + outside) / 2
        close = abs(moved - threshold) < 0.01 * (inside - outside)
        if close:
            break
        threshold = moved
    return _Material(float(threshold), float(inside), float(outside), float(noise), pieces, around)
