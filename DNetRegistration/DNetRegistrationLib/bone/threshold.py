"""The bone threshold: normalisation of a scan's intensities by x_th and x_max (Eq. 5), given or found.

Needs no torch, so that a preview can be drawn before anything is aligned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ScanError, Setting
from ..imaging.masks import mask_on
from ..imaging.morphology import box_around, dilate
from ..imaging.padding import content, with_data
from ..imaging.volume import Volume, as_volume
from .materials import Material, bone_material, brightest
from .scenes import (
    FAR_BRIGHTER,
    LEAST_BONE_VOXELS,
    Scene,
    close_scene,
    otsu,
    part_of,
    parted,
    preview,
    quantile,
    scene_of_objects,
    size_of,
)

if TYPE_CHECKING:
    import SimpleITK as sitk

# A scene is looked at closer until the size of its bone changes by less than this share, or so many times.
SAME_SIZE, MOST_SCENES = 0.1, 3
# A piece is told that is this many times as far above the threshold as dense bone, if it has so many voxels.
BRIGHT, LEAST_BRIGHT_VOXELS = 3.0, 8
# Voxels about it that its blur reaches.
METAL_RIM = 3
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


def find_bone_scale(
    volume: Volume | sitk.Image,
    threshold: float | None = None,
    mask: Any = None,
    role: str | None = None,
) -> BoneScale:
    """Finds the bone threshold and the level of dense bone of a scan.

    The threshold of Otsu's method (IEEE Trans. SMC 9:62, 1979), applied repeatedly upwards, is the start. It moves to
    half way between the grey value inside the bone and the one just around it (half-maximum-height rule). So the bone's
    surface is right for any scale of the scanner, and in air, water, dense fixative or bright muscle.

    Args:
        volume: the scan, a Volume or a SimpleITK image.
        threshold: x_th in the scan's own units, or None to find it.
        mask: bone is looked for only there; see `masks.mask_on`.
        role: "fixed" or "moving" where the scan is one of a pair; errors then say whose threshold to set.

    Returns:
        BoneScale: x_th, and as x_max the 99th percentile of the values above it that are not far brighter than bone.

    Raises:
        ScanError: the scan is another thing, has nothing above the threshold, or nothing that stands out as bone.
    """
    setting, masked, volume = Setting("threshold", role), mask is not None, as_volume(volume, "scan")
    # Also a mask that was checked before: without the padding of a scan it may be empty.
    mask = None if mask is None else mask_on(mask, volume, role)
    volume, mask = part_of(volume, with_data(volume, mask), content(volume))
    whole = preview(volume, mask)
    if threshold is None:
        found = _found(volume, mask, whole)
        if found is None:
            raise ScanError(
                f"{volume.name}: found no bone in it (nothing stands out from its surroundings)",
                "give the bone threshold in the scan's units, or "
                + ("let the mask hold what surrounds the bone too" if masked else "check that this is the right scan"),
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
    x, y, z = (float(c) for c in center)
    return BrightPiece(float(volume), times, (x, y, z))


def without_metal(volume: Volume, scale: BoneScale, mask: np.ndarray | None) -> np.ndarray | None:
    """A mask ``(z, y, x)`` without what is far brighter than bone, and its blurred rim; `mask` where nothing is.

    Metal that stays where it is while the bone is moved would count against the right pose.
    """
    if scale.bright is None:
        return mask
    bright = volume.voxels > scale.threshold + BRIGHT * (scale.maximum - scale.threshold)
    seen = np.ones(bright.shape, bool) if mask is None else mask.copy()
    wider = box_around(bright, (METAL_RIM,) * 3)
    assert wider is not None  # it has voxels
    seen[wider] &= ~dilate(bright[wider], METAL_RIM)
    return seen


def _without_far_brighter(bone: np.ndarray, threshold: float) -> np.ndarray:
    """Values above a threshold, without a brighter class (Otsu's) that is far above it."""
    bone = np.sort(bone)
    while bone.size:
        lower, upper = parted(bone, otsu(bone))
        if min(lower.size, upper.size) == 0 or lower.size < LEAST_BONE_VOXELS:
            break
        dense, other = quantile(lower, 0.75) - threshold, quantile(upper, 0.75) - threshold
        if other < FAR_BRIGHTER * dense:
            break
        bone = lower
    return bone


def _found(volume: Volume, mask: np.ndarray | None, whole: Volume) -> tuple[Scene, Material] | None:
    """Finds the bone, in scenes ever closer to it: what else is in view, and how much of it, does not matter."""
    scene = scene_of_objects(volume, mask, whole)
    found = bone_material(scene)
    if found is None:
        return None
    (material, metal), size = found, 0.0
    for _ in range(MOST_SCENES):
        measured = size_of(scene, material.pieces)
        if abs(measured - size) < SAME_SIZE * size:
            break
        size = measured
        # A wire may be too thin to be seen from afar.
        metal = min(metal, material.outside + FAR_BRIGHTER * material.contrast)
        closer = close_scene(scene, material.pieces, metal, size)
        again = brightest(closer)
        if again is None:
            break
        scene, material = closer, again
    return scene, material
