"""Materials that stand out in a scene, and which of them is bone. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..imaging.morphology import box_around, dilate, dilate_ball, large_components
from .scenes import FAR_BRIGHTER, LEAST_BONE_VOXELS, Scene, ordered, otsu, parted, quantile, voxel_noise

# Otsu's method is applied again to the brighter class while that holds more than this share of the window.
BRIGHTEST_SHARE = 0.05
# Below this ratio of bone contrast to noise in the preview, bone cannot be told from noise.
LEAST_CONTRAST_TO_NOISE = 4.0
# Around thin soft tissue there is air: it counts as at most this share of what is around an object. It is known by a
# step up to what is left that is more than the second number of the step from there to the object, which noise cannot
# make; and what is left has to be more than the third.
MOST_AIR, AIR_STEP, LEAST_MATTER = 0.3, 0.5, 0.4
# Pieces of less than this share of the largest one are fragments or noise.
SMALLEST_PIECE = 0.1
# No metal is this much brighter: that is the rim of a scan without noise.
BRIGHTEST = 200.0
# Where air has its Hounsfield units, metal is brighter than this: enamel is not.
AIR_HU, METAL_HU = (-1100.0, -850.0), 4000.0
# What is beneath metal stands out so many times the noise of a voxel: soft tissue beneath bone does not. What lies
# wholly within another material is no metal.
LEAST_BENEATH, WHOLLY_WITHIN = 12.0, 0.8


@dataclass(frozen=True, eq=False)
class Material:
    """What stands out from its surroundings, in a scene.

    Attributes:
        threshold: the grey value half way between inside and outside.
        inside, outside: grey values of the material and of what is around it.
        pieces: ``(z, y, x)`` bool, where it is.
        around: ``(z, y, x)`` bool, its surroundings.
    """

    threshold: float
    inside: float
    outside: float
    pieces: np.ndarray
    around: np.ndarray

    @property
    def contrast(self) -> float:
        return self.inside - self.outside


def bone_material(scene: Scene) -> tuple[Material, float] | None:
    """The bone in a scene, and the grey value above which there is metal."""
    found, metal = brightest(scene), np.inf
    if found is None:
        return None
    noise = voxel_noise(scene.native)
    for _ in range(3):
        # Nothing beneath can be so dark: this mostly saves looking for it.
        if found.inside - np.nanmin(scene.smooth) <= FAR_BRIGHTER * LEAST_BENEATH * noise:
            break
        scene = scene.without(found.pieces)
        beneath = brightest(scene)
        if beneath is None or not _is_metal(found, beneath, noise):
            break
        found, metal = beneath, found.threshold
    return found, metal


def _is_metal(bright: Material, beneath: Material, noise: float) -> bool:
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
    return bool(around < WHOLLY_WITHIN and beneath.contrast > LEAST_BENEATH * noise)


def brightest(scene: Scene) -> Material | None:
    """The brightest material that stands out, and is more than a dense part of another one.

    Otsu's threshold is found again and again among the voxels above the last one, until few remain. Each is a start,
    and the highest is tried first. Too high a start does no harm: from there the half-maximum rule comes down to the
    bone's own surface. From too low a start it would stop at the surface of the soft tissue. Lower starts are tried
    only if the voxels above are too few for an object.
    """
    above = values = ordered(scene.smooth)
    starts: list[float] = []
    while above.size > BRIGHTEST_SHARE * values.size and (not starts or above[-1] > above[0]):
        starts.append(otsu(above))
        above = parted(above, starts[-1])[1]
    for start in reversed(starts):
        material = _material(scene, start)
        if material is not None:
            return material
    return None


def _material(scene: Scene, threshold: float) -> Material | None:
    """The material above a threshold that moves to half way between its grey value and the one around it."""
    image, smooth, step = scene.image.voxels, scene.smooth, scene.image.spacing[::-1]
    seen = np.isfinite(smooth)
    for _ in range(8):
        pieces = large_components(smooth > threshold, SMALLEST_PIECE)
        if np.count_nonzero(pieces) < LEAST_BONE_VOXELS:
            return None
        box = box_around(pieces, np.ceil(scene.far / step).astype(int) + 1)
        part = pieces[box]
        around = dilate_ball(part, step, scene.far) & ~dilate_ball(part, step, scene.near) & seen[box]
        if np.count_nonzero(around) < LEAST_BONE_VOXELS:
            box, around = (slice(None),) * 3, ~pieces & seen
        if not around.any():
            return None
        inside = np.percentile(smooth[pieces], 75)
        around = _without_air(smooth[box], around, inside)
        # The outer percentile is high, so that it is of soft tissue rather than of the air beside it.
        outside = np.percentile(smooth[box][around], 80)
        if _is_noisier(image[box][around], outside, (inside - outside) / (LEAST_CONTRAST_TO_NOISE * scene.left)):
            return None
        moved = (inside + outside) / 2
        close = abs(moved - threshold) < 0.01 * (inside - outside)
        if close:
            break
        threshold = moved
    surroundings = np.zeros(pieces.shape, bool)
    surroundings[box] = around
    return Material(float(threshold), float(inside), float(outside), pieces, surroundings)


def _without_air(smooth: np.ndarray, around: np.ndarray, inside: float) -> np.ndarray:
    """What is around an object, without the darkest of it that is more air than `MOST_AIR`.

    Otherwise the step from air to soft tissue would count as noise, and the outer percentile would be of air.

    Args:
        smooth: ``(z, y, x)`` grey values.
        around: ``(z, y, x)`` bool.
        inside: the object's grey value.
    """
    values = ordered(smooth[around])
    split = otsu(values)
    air, matter = parted(values, split)
    if not MOST_AIR * values.size < air.size < (1 - LEAST_MATTER) * values.size:
        return around
    soft = quantile(matter, 0.5)
    if soft - quantile(air, 0.5) < AIR_STEP * (inside - soft):
        return around
    # So many of the air's voxels that they are the allowed share.
    kept = min(round(matter.size * MOST_AIR / (1 - MOST_AIR)), air.size - 1)
    return around & (smooth > air[-kept - 1])


def _is_noisier(values: np.ndarray, middle: float, limit: float) -> bool:
    """Whether the deviation of values, by the median distance from their median, is above a limit."""
    # The median distance is at most twice the mean distance from anywhere, which mostly settles it in a tenth of the
    # time.
    if 1.4826 * 2 * np.abs(values - middle).mean(dtype=np.float64) <= limit:
        return False
    return bool(1.4826 * np.median(np.abs(values - np.median(values))) > limit)
