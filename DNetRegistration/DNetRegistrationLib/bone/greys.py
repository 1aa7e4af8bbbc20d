"""What the grey values of a scan say about why no bone was found in it, or why it fits no other. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..core.errors import ScanError
from ..core.words import capital, percent
from ..imaging.padding import with_data
from ..imaging.volume import Volume
from .cortex import GRID, cortical_bone
from .scenes import preview
from .threshold import find_bone_scale

# Dark bone is found when grey values are inverted, away from the border of the field of view. What was taken for bone
# covers 4 to 94 % of the border in 12 inverted scans, at least three times as much as the true bone. In ordinary scans
# it covers less than what is found when they are inverted, unless they are cut within the bone: there that may be a
# little air or fat at the edge, whose share of the border is 1.9 to 8.6 times its share of the scan (24 scans). Bone's
# share of the border is 0.1 to 1.1 times its share of the scan (191 scans of 40 and 80 um).
LEAST_BORDER, TIMES_BORDER, MOST_ALONG = 0.02, 2.0, 1.5
# Values that ran over a type's range jump from its last eighth to its first one: of 9 such scans 13 to 28 % of the
# voxels in the last eighth lie beside one in the first. In ordinary scans none do. They do in sharpened scans, but of
# the last eighth a third and more have the greatest value there; of wrapped ones at most 8 % have.
END, LEAST_JUMPS, LEAST_JUMPING, MOST_SATURATED = 1 / 8, 0.08, 100, 0.2
# Dense bone is cut off where so much of the bone has the greatest value. In ordinary scans at most 2 % have.
LEAST_CLIPPED = 0.3
# Cortical bone is a dark rim around bright marrow in MR: what lies `BEYOND` shells off the rim is brighter than it, by
# 11 to 50 % of the step to the marrow, in 23 of 24 scans. In ordinary CT it is by at most 9 % in 190 of 191 scans, and
# in sharpened CT up to 21 %. Farther off beam hardening and what else is uneven make it up to 14 % brighter in CT too.
# Only what lies outside the bone counts: marrow within it is darker than fixative in CT, by up to 41 %.
LEAST_RISE, RIM, BEYOND = 0.1, 5, 3
# The bone's surface is found on the preview as on a grid of half the working spacing.
OUTLINE = 1 / GRID
# Bone fills at most 21 % of ordinary scans; marrow and muscle, which are bright in MR, fill more.
MOST_BONE = 0.4
# A bath of it can hide bone for good, and looks like an inverted image or MR.
_OF_AGENT = "if it lies in contrast agent, mask the bone, or scan it with less"
# So many rows of voxels are enough to tell.
ROWS = 1 << 14


@dataclass(frozen=True)
class GreyFault:
    """What is wrong with the grey values of a scan.

    Attributes:
        kind: "wrapped", "inverted", "clipped", "not CT" or "dark rim".
        problem: what it is; it names the scan.
        remedy: what to do.
    """

    kind: str
    problem: str
    remedy: str

    @property
    def sentence(self) -> str:
        """The problem and the remedy, for a verdict."""
        return f"{self.problem}. {capital(self.remedy)}."


def grey_fault(
    volume: Volume, threshold: float | None, mask: np.ndarray | None = None, name: str | None = None
) -> GreyFault | None:
    """The likely fault of a scan in which no bone was found, or that was refused; None where its grey values are plain.

    Args:
        volume: the scan.
        threshold: bone was taken to be above, in the scan's units; None where none was found.
        mask: ``(z, y, x)`` bool, where bone was looked for, or None.
        name: what the words call the scan; its own name by default.
    """
    name = volume.name if name is None else name
    inside = np.isfinite(volume.voxels) if volume.voxels.dtype.kind == "f" else np.ones(volume.voxels.shape, bool)
    if mask is not None:
        inside &= mask
    if not inside.any():
        return None
    if _wrapped(volume.voxels, inside):
        return GreyFault(
            "wrapped",
            f"the grey values of {name} ran over the range of their type: the brightest turn into the darkest at once",
            "export the scan in a type with a wider range",
        )
    if _inverted(volume, threshold if mask is None else None):
        return GreyFault(
            "inverted",
            f"bone is darker than what is around it in {name}, as in inverted images and DICOM of MONOCHROME1, or in "
            "contrast agent brighter than bone",
            f"invert its grey values if they are inverted; {_OF_AGENT}",
        )
    if threshold is None:
        return None
    bone = volume.voxels[inside & (volume.voxels > threshold)]
    clipped = float(np.mean(bone == bone.max())) if bone.size else 0.0
    if clipped == 1:
        return GreyFault(
            "clipped",
            f"all of the bone in {name} has one grey value, {bone[0]:g}, as in a mask or an image of labels",
            "give the scan itself",
        )
    if clipped >= LEAST_CLIPPED:
        return GreyFault(
            "clipped",
            f"{percent(clipped)} of the bone in {name} has its greatest grey value, {bone.max():g}: the rest is cut "
            "off",
            "export the scan with a wider range of grey values",
        )
    data = with_data(volume, None)
    filled = float(np.mean((volume.voxels > threshold)[... if data is None else data]))
    if filled > MOST_BONE:
        return GreyFault(
            "not CT",
            f"{percent(filled)} of {name} is as bright as bone, as marrow and muscle are in MR, where bone is dark",
            "align CT with CT; if it is CT, raise the bone threshold",
        )
    if _rise(volume, threshold, data) > LEAST_RISE:
        return GreyFault(
            "dark rim",
            f"a dark rim lies around what is brightest in {name}, as of bone around marrow in MR, of a sharp kernel, "
            "or in contrast agent as bright as bone",
            f"align CT with CT, reconstructed with a smooth kernel; {_OF_AGENT}; or the scans are of different bones: "
            "check the names",
        )
    return None


def _rise(volume: Volume, threshold: float, data: np.ndarray | None) -> float:
    """How much brighter than the darkest shell around what is bright those next to it are, as a share of that contrast.

    Shells are one voxel of the preview wide. What is bright, as a bone is, may be hollow: shells lie outside it.
    """
    seen = preview(volume, data)
    image, voxel = seen.voxels, float(seen.spacing.min())
    bright = image > threshold
    if not bright.any():
        return 0.0
    away = ndimage.distance_transform_edt(~bright)
    outside = np.isfinite(image) & ~cortical_bone(seen, threshold, OUTLINE * voxel, resolution=voxel).whole
    shells = [image[(away > k) & (away <= k + 1) & outside] for k in range(RIM + BEYOND)]
    grey = [float(np.median(shell)) if shell.size else np.nan for shell in shells]
    if not np.isfinite(grey[:RIM]).all():
        return 0.0
    rim = int(np.argmin(grey[:RIM]))
    return (float(np.nanmax(grey[rim : rim + BEYOND + 1])) - grey[rim]) / (float(np.median(image[bright])) - grey[rim])


def _wrapped(voxels: np.ndarray, inside: np.ndarray) -> bool:
    """Whether neighbours along x lie at opposite ends of the range of a type of one or two bytes."""
    low, high = float(voxels[inside].min()), float(voxels[inside].max())
    kinds = [voxels.dtype] if voxels.dtype.itemsize <= 2 and voxels.dtype.kind in "iu" else [np.int16, np.uint16]
    for kind in kinds:
        least, most = np.iinfo(kind).min, np.iinfo(kind).max
        end = END * (most - least)
        if not (least <= low < least + end and most - end < high <= most):
            continue
        rows, seen = (a.reshape(-1, a.shape[-1]) for a in (voxels, inside))
        step = max(1, len(rows) // ROWS)
        rows, seen = rows[::step].astype(np.float64), seen[::step]
        last, greatest = (rows > most - end) & seen, (rows == high) & seen
        if np.count_nonzero(greatest) > MOST_SATURATED * np.count_nonzero(last):
            continue
        # The greatest value itself is that of saturated metal, beside which it may be dark.
        bright, dark = last & ~greatest, (rows < least + end) & seen
        first, second = slice(None, -1), slice(1, None)
        jumps = np.count_nonzero(bright[:, first] & dark[:, second]) + np.count_nonzero(
            dark[:, first] & bright[:, second]
        )
        if jumps >= LEAST_JUMPING and jumps > LEAST_JUMPS * np.count_nonzero(bright):
            return True
    return False


def _inverted(volume: Volume, threshold: float | None) -> bool:
    """Whether bone is found away from the border in the inverted scan, and what is taken for bone lies along it.

    What takes up much more of the border than of the scan does not lie away from the border.

    A mask tells nothing: within one that is drawn close around bone, marrow is what lies away from the border.
    """
    voxels = volume.voxels.astype(np.float32)
    data = with_data(volume, None)
    seen = np.isfinite(voxels) if data is None else data & np.isfinite(voxels)
    negative = replace(volume, voxels=voxels[seen].max() + voxels[seen].min() - voxels)
    light, dark = _threshold(volume, data) if threshold is None else threshold, _threshold(negative, data)
    if dark is None:
        return False
    own = 1.0 if light is None else _border_share(voxels, light, seen)
    found = _border_share(negative.voxels, dark, seen)
    away = found <= MOST_ALONG * float(np.mean(negative.voxels[seen] > dark))
    return away and own >= LEAST_BORDER and own > TIMES_BORDER * found


def _threshold(volume: Volume, mask: np.ndarray | None) -> float | None:
    try:
        return find_bone_scale(volume, None, mask).threshold
    except ScanError:
        return None


def _border_share(voxels: np.ndarray, threshold: float, inside: np.ndarray) -> float:
    """The share of the voxels on the border of the grid that are above the threshold."""
    faces = [np.moveaxis(a, axis, 0)[end].ravel() for a in (voxels, inside) for axis in range(3) for end in (0, -1)]
    border = np.concatenate(faces[:6])[np.concatenate(faces[6:])]
    return float(np.mean(border > threshold)) if border.size else 0.0
