"""Slices through two scans for pictures: the planes, what each scan shows there, and how far the window reaches.

The planes lie along the fixed bone's own axes, so that bones of different animals look alike however they lay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..bone.cortex import CorticalBone
from ..imaging.resample import interpolate
from ..imaging.volume import Volume
from .colors import FIXED, MOVING, Color

# Bone stays below white, so that outlines stand out.
BRIGHTEST = 0.78
#: A direction is named by the axes of the world from which it is less than 60 degrees away.
_NAMED = 0.5


def _hexadecimal(color: Color) -> str:
    return "#" + "".join(f"{round(255 * part):02X}" for part in color)


FIXED_COLOR, MOVING_COLOR = _hexadecimal(FIXED), _hexadecimal(MOVING)


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


@dataclass(frozen=True)
class View:
    """A square plane that is shown.

    Attributes:
        name: of the plane.
        center: ``(3,)`` its middle, in world LPS mm.
        right, down: ``(3,)`` unit vectors of the world.
        width: of the square, in mm.
        ends: names of the left, right, upper and lower edge.
    """

    name: str
    center: np.ndarray
    right: np.ndarray
    down: np.ndarray
    width: float
    ends: tuple[str, str, str, str]

    def points(self, pixels: int) -> np.ndarray:
        """``(pixels, pixels, 3)`` world positions in mm of the pixels' centres, in rows from above."""
        ticks = (np.arange(pixels) + 0.5) / pixels * self.width - self.width / 2
        return self.center + ticks[:, None, None] * self.down + ticks[:, None] * self.right


@dataclass(frozen=True)
class Window:
    """The cube that is shown.

    Attributes:
        axes: ``(3, 3)`` columns are those of the fixed bone; see `bone_axes`.
        center: ``(3,)`` in world LPS mm.
        width: of the cube, in mm.
        middle: ``(3,)`` of the fixed cortex, through which all planes pass.
    """

    axes: np.ndarray
    center: np.ndarray
    width: float
    middle: np.ndarray

    def views(self, anatomical: bool) -> tuple[View, View, View]:
        """A cross-section of the bone, and a section along it through its wide and through its narrow side.

        Args:
            anatomical: the edges are named by directions of the body, else by axes of the world.
        """
        wide, narrow, long = self.axes.T
        planes = (
            ("cross-section", wide, narrow),
            ("lengthwise, wide", wide, -long),
            ("lengthwise, narrow", narrow, -long),
        )
        views = []
        for name, right, down in planes:
            through = np.cross(right, down)
            center = self.center + through * ((self.middle - self.center) @ through)
            ends = [direction_name(towards, anatomical) for towards in (-right, right, -down, down)]
            views.append(View(name, center, right, down, self.width, (ends[0], ends[1], ends[2], ends[3])))
        return views[0], views[1], views[2]

    def shows(self, bone: CorticalBone) -> bool:
        """Whether any of a bone may be seen, as it lies in the world."""
        corners = (_corners(bone) - self.center) @ self.axes
        return bool((corners.min(0) < self.width / 2).all() and (corners.max(0) > -self.width / 2).all())


def window(bones: tuple[CorticalBone, CorticalBone], matrix: np.ndarray) -> Window:
    """What is shown: the fixed bone, and the part of the moving one near it, before and after.

    Args:
        bones: cortical bone of the fixed and of the moving scan.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
    """
    axes = bone_axes(bones[0])
    own = _corners(bones[0]) @ axes
    beyond = 0.15 * np.ptp(own, axis=0).max()
    others = [
        np.clip(_corners(bones[1], placed) @ axes, own.min(0) - beyond, own.max(0) + beyond)
        for placed in (matrix, np.eye(4))
    ]
    both = np.concatenate([own, *others])
    center = axes @ ((both.min(0) + both.max(0)) / 2)
    return Window(axes, center, float(np.ptp(both, axis=0).max() * 1.06), bones[0].center)


def bone_axes(bone: CorticalBone) -> np.ndarray:
    """The principal axes of a cortex: ``(3, 3)``, columns are its wide, its narrow and its long axis in the world.

    The long axis points to the thicker end, the wide one to where the bone reaches out further. The third follows: the
    axes are right-handed, so that a left leg stays a left leg.
    """
    index = np.argwhere(bone.cortex if bone.cortex.any() else np.isfinite(bone.grey))[:, ::-1]
    if len(index) < 4:
        return np.eye(3)
    points = index[:: max(1, len(index) // 200_000)] @ bone.affine[:3, :3].T
    points = points - points.mean(0)
    wide, long = np.linalg.eigh(points.T @ points)[1].T[1:]
    along, across = points @ long, points @ wide
    thickness = (points**2).sum(1) - along**2
    long = long if (along * thickness).sum() >= 0 else -long
    wide = wide if (across**3).sum() >= 0 else -wide
    return np.stack((wide, np.cross(long, wide), long), 1)


def direction_name(towards: np.ndarray, anatomical: bool) -> str:
    """A unit vector ``(3,)`` of the LPS world by the axes that it follows, the nearest first.

    Args:
        towards: the direction.
        anatomical: name it by directions of the body as radiologists do, else by axes.

    Example:
        >>> direction_name(np.array((0, 0, -1.0)), True), direction_name(np.array((0.8, -0.6, 0)), True)
        ('I', 'LA')
        >>> direction_name(np.array((0.8, -0.6, 0)), False)
        '+x -y'
    """
    names = ("RL", "AP", "IS") if anatomical else (("-x", "+x"), ("-y", "+y"), ("-z", "+z"))
    order = [axis for axis in np.argsort(-np.abs(towards), kind="stable") if abs(towards[axis]) > _NAMED]
    return ("" if anatomical else " ").join(names[axis][int(towards[axis] > 0)] for axis in order)


def _corners(bone: CorticalBone, placed: np.ndarray | None = None) -> np.ndarray:
    """World positions (n, 3) of the cortex's extreme voxels in 13 directions, carried back by the rigid `placed`."""
    mask = bone.cortex if bone.cortex.any() else np.isfinite(bone.grey)
    index = np.argwhere(mask)[:, ::-1]
    # Of the 26 neighbours of a voxel, one of each opposite pair.
    directions = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)[14:]
    extremes = np.concatenate([index[[np.argmin(index @ d), np.argmax(index @ d)]] for d in directions])
    corners = extremes @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    return corners if placed is None else (corners - placed[:3, 3]) @ placed[:3, :3]


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
