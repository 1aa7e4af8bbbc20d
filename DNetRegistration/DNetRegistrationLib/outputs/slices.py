"""Slices through two scans for pictures: the planes, what each scan shows there, and how far the window reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..bone.cortex import CorticalBone
from ..imaging.resample import interpolate
from ..imaging.volume import Volume

# Sky blue and orange of Okabe and Ito: apart for every kind of colour vision, and both off the grey axis.
FIXED_COLOR, MOVING_COLOR = "#56B4E9", "#FF9E1B"
# Bone stays below white, so that outlines stand out.
BRIGHTEST = 0.78


@dataclass(frozen=True)
class View:
    """One of the planes of a patient-oriented viewer.

    Attributes:
        name: of the plane.
        right, down, through: LPS axes (0, 1, 2 for x, y, z) to the right, down and through the plane.
        down_sign: of the axis that points down.
        ends: names of the left, right, upper and lower edge.
    """

    name: str
    right: int
    down: int
    down_sign: int
    through: int
    ends: tuple[str, str, str, str]

    def points(self, center: np.ndarray, width: float, through: float, pixels: int) -> np.ndarray:
        """``(pixels, pixels, 3)`` world positions in mm of the pixels' centres, in rows from above.

        Args:
            center: ``(3,)`` of the window, in mm.
            width: of the window, in mm.
            through: where the plane lies along its third axis, in mm.
            pixels: along an edge.
        """
        ticks = (np.arange(pixels) + 0.5) / pixels * width - width / 2
        points = np.empty((pixels, pixels, 3))
        points[..., self.right] = center[self.right] + ticks
        points[..., self.down] = (center[self.down] + self.down_sign * ticks)[:, None]
        points[..., self.through] = through
        return points


VIEWS = (
    View("axial", 0, 1, +1, 2, ("R", "L", "A", "P")),
    View("coronal", 0, 2, -1, 1, ("R", "L", "S", "I")),
    View("sagittal", 1, 2, -1, 0, ("A", "P", "S", "I")),
)


@dataclass(frozen=True)
class Layer:
    """One scan as it is drawn.

    Attributes:
        volume: the scan.
        low, high: its grey values of background and of dense bone, which put two scans on one scale.
        soft: ``(z, y, x)`` float32 share of cortex, smoothed so that its surface at 0.5 has no stairs.
        affine: ``(4, 4)``, index (x, y, z) of `soft` to world LPS mm.
    """

    volume: Volume
    low: float
    high: float
    soft: np.ndarray
    affine: np.ndarray

    @classmethod
    def of(cls, volume: Volume, bone: CorticalBone) -> Layer:
        grey = bone.grey[np.isfinite(bone.grey)][::7]
        dense = bone.grey[bone.cortex] if bone.cortex.any() else grey
        # A Gaussian of this width leaves a sheet of one voxel above 0.5.
        soft = ndimage.gaussian_filter(bone.cortex.astype(np.float32), 0.6, mode="nearest")
        return cls(volume, float(np.percentile(grey, 5)), float(np.percentile(dense, 90)), soft, bone.affine)

    def grey(self, points: np.ndarray) -> np.ndarray:
        """0 (background) to 1 (dense bone) at world positions ``(..., 3)`` in mm; NaN outside the field of view."""
        values = interpolate(self.volume.voxels, self.volume.affine, points)
        return np.clip((values - self.low) / max(self.high - self.low, 1e-6), 0, 1)

    def cortex(self, points: np.ndarray) -> np.ndarray:
        """Share of cortical bone at world positions ``(..., 3)`` in mm."""
        return interpolate(self.soft, self.affine, points)


def window(bones: tuple[CorticalBone, CorticalBone], matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and width in mm of the cube that is shown: the fixed bone, and the part of the moving one near it."""
    corners = [_corners(bones[0])]
    extent = np.ptp(corners[0], axis=0).max()
    for placed in (matrix, np.eye(4)):
        corners.append(
            np.clip(_corners(bones[1], placed), corners[0].min(0) - 0.15 * extent, corners[0].max(0) + 0.15 * extent)
        )
    both = np.concatenate(corners)
    middle = (both.min(0) + both.max(0)) / 2
    return middle, float(np.ptp(both, axis=0).max() * 1.06)


def _corners(bone: CorticalBone, placed: np.ndarray | None = None) -> np.ndarray:
    """World positions (n, 3) of the cortex's extreme voxels in 13 directions, carried back by the rigid `placed`."""
    mask = bone.cortex if bone.cortex.any() else np.isfinite(bone.grey)
    index = np.argwhere(mask)[:, ::-1]
    # Of the 26 neighbours of a voxel, one of each opposite pair.
    directions = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)[14:]
    extremes = np.concatenate([index[[np.argmin(index @ d), np.argmax(index @ d)]] for d in directions])
    corners = extremes @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    return corners if placed is None else (corners - placed[:3, 3]) @ placed[:3, :3]


def visible(bone: CorticalBone, center: np.ndarray, width: float) -> bool:
    """Whether any of a bone may be seen in the cube that is shown, as it lies in the world."""
    corners = _corners(bone)
    return bool((corners.min(0) < center + width / 2).all() and (corners.max(0) > center - width / 2).all())


def round_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(power * max(step for step in (1, 2, 5) if step <= length / power * (1 + 1e-9)))


def length_text(mm: float) -> str:
    if not np.isfinite(mm):
        return "unknown"
    if mm >= 0.9995:
        return f"{mm:.3g} mm"
    return f"{mm * 1000:.0f} µm" if mm >= 0.00995 else f"{mm * 1000:.2g} µm"
