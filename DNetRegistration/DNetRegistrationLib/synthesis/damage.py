"""What befalls a scan: other bounds, a wrong grid, lost slices, metal, other grey values. The truth is carried along.

Each function takes a `Seen` and returns another one. Grey values keep their dtype: they are rounded and clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ..imaging.volume import Volume
from .fields import share_inside
from .solids import Solid


@dataclass(frozen=True)
class Seen:
    """A scan, and where landmarks of the bones are in it.

    Attributes:
        volume: the scan.
        landmarks: ``(n, 3)`` float64, continuous indices x, y, z; NaN where the scan shows a landmark no more.
    """

    volume: Volume
    landmarks: np.ndarray

    @property
    def world(self) -> np.ndarray:
        """``(n, 3)`` where the scan says that the landmarks are, LPS mm."""
        return self.volume.to_world(self.landmarks)

    @property
    def inside(self) -> np.ndarray:
        """``(n,)`` bool, which landmarks lie in the field of view."""
        # NaN compares as false.
        return np.all((self.landmarks > -0.5) & (self.landmarks < self.volume.size - 0.5), axis=1)


def regraded(seen: Seen, function: Callable[[np.ndarray], np.ndarray]) -> Seen:
    """Grey values changed by a function of float64 voxels ``(z, y, x)``."""
    voxels = seen.volume.voxels
    values = function(voxels.astype(np.float64))
    if voxels.dtype.kind != "f":
        limits = np.iinfo(voxels.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return replace(seen, volume=replace(seen.volume, voxels=values.astype(voxels.dtype)))


def clipped(seen: Seen, level: float) -> Seen:
    """Grey values saturated at a level."""
    return regraded(seen, lambda values: np.minimum(values, level))


def wrapped(seen: Seen, level: float) -> Seen:
    """Grey values that begin anew at the lowest one above a level, as where a narrow integer overflows."""

    def wrap(values: np.ndarray) -> np.ndarray:
        low = np.nanmin(values)
        return low + np.mod(values - low, level - low)

    return regraded(seen, wrap)


def inverted(seen: Seen) -> Seen:
    """The brightest voxels become the darkest ones."""
    return regraded(seen, lambda values: np.nanmax(values) + np.nanmin(values) - values)


def blurred(seen: Seen, sigma: float) -> Seen:
    """Seen through a Gaussian of `sigma` voxels."""
    return regraded(seen, lambda values: ndimage.gaussian_filter(values, sigma, mode="nearest"))


def sharpened(seen: Seen, sigma: float, amount: float) -> Seen:
    """With the overshoot of a sharp reconstruction kernel: `amount` of what a Gaussian of `sigma` voxels takes away."""
    return regraded(seen, lambda values: values + amount * (values - ndimage.gaussian_filter(values, sigma)))


def painted(seen: Seen, solid: Solid, value: float, only: str = "all") -> Seen:
    """A solid of one grey value in the scan.

    Args:
        seen: the scan.
        solid: of points in the world, mm. Its surface is a ramp over a voxel.
        value: of the solid.
        only: "all" voxels are changed, "brighter" ones become darker no more, or "darker" ones brighter.
    """
    volume = seen.volume
    depth = solid(volume.to_world(_indices(volume)))
    cover = share_inside(depth, float(volume.spacing.mean()))
    choose = {"all": lambda before, after: after, "brighter": np.maximum, "darker": np.minimum}[only]
    return regraded(seen, lambda values: choose(values, values + cover * (value - values)))


def streaked(seen: Seen, center: np.ndarray, radius: float, strength: float, spokes: int, phase: float) -> Seen:
    """Bright and dark rays in the slices (x, y) around metal, which fall off with the distance.

    Args:
        seen: the scan.
        center: ``(3,)`` of the metal in the world, mm.
        radius: of the metal, mm: it reaches so many slices.
        strength: of the rays beside the metal, in grey values.
        spokes: how many bright rays.
        phase: their direction, rad.
    """
    volume = seen.volume
    away = (_indices(volume) - volume.to_index(center)) * volume.spacing
    far = np.hypot(away[..., 0], away[..., 1])
    rays = np.cos(spokes * np.arctan2(away[..., 1], away[..., 0]) + phase)
    rays *= strength * (np.abs(away[..., 2]) < radius) / (1 + far / (2 * radius))
    return regraded(seen, lambda values: values + rays)


def restated(seen: Seen, linear: np.ndarray) -> Seen:
    """The same voxels, said to lie elsewhere: the world stretched by a ``(3, 3)`` matrix about the scan's middle."""
    volume = seen.volume
    affine = volume.affine.copy()
    affine[:3, :3] = linear @ affine[:3, :3]
    affine[:3, 3] = volume.center - affine[:3, :3] @ ((volume.size - 1) / 2)
    return replace(seen, volume=replace(volume, affine=affine))


def in_axes(volume: Volume, linear: np.ndarray) -> np.ndarray:
    """A ``(3, 3)`` matrix over lengths along the scan's own axes as one of world points. Axes may be oblique."""
    return volume.direction @ linear @ np.linalg.inv(volume.direction)


def restacked(seen: Seen, axis: int, order: Sequence[int]) -> Seen:
    """Other slices along an axis (0 for x): some left out, some repeated. The stack closes up unnoticed.

    A landmark in a slice that is left out is seen no more. One in a repeated slice lies in the middle of them.
    """
    volume, order = seen.volume, np.asarray(order)
    count = np.bincount(order, minlength=volume.size[axis])
    place = np.bincount(order, weights=np.arange(len(order)), minlength=volume.size[axis]) / np.where(
        count, count, np.nan
    )
    landmarks = seen.landmarks.copy()
    slices = np.rint(np.nan_to_num(landmarks[:, axis], nan=0)).astype(int)
    # A landmark may lie outside the field of view: it keeps its distance from the end.
    ends = np.flatnonzero(count)[[0, -1]]
    slices = np.clip(slices, *ends)
    landmarks[:, axis] += place[slices] - slices
    return Seen(replace(volume, voxels=volume.voxels.take(order, 2 - axis)), landmarks)


def cropped(seen: Seen, low: Sequence[int], high: Sequence[int]) -> Seen:
    """The voxels from indices `low` up to, not including, `high`; (x, y, z)."""
    volume = seen.volume
    cut = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_world(low)
    return Seen(replace(volume, voxels=volume.voxels[cut], affine=affine), seen.landmarks - np.array(low))


def padded(seen: Seen, before: Sequence[int], after: Sequence[int], value: float) -> Seen:
    """More voxels of one value before and after the others; (x, y, z)."""
    volume = seen.volume
    widths = list(zip(before, after, strict=True))[::-1]
    affine = volume.affine.copy()
    affine[:3, 3] = volume.to_world(-np.array(before))
    voxels = np.pad(volume.voxels, widths, constant_values=value)
    return Seen(replace(volume, voxels=voxels, affine=affine), seen.landmarks + np.array(before))


def enlarged(seen: Seen, factor: float) -> Seen:
    """The same voxels in a world that is larger by a factor, about its origin."""
    affine = np.diag((factor, factor, factor, 1)) @ seen.volume.affine
    return replace(seen, volume=replace(seen.volume, affine=affine))


def _indices(volume: Volume) -> np.ndarray:
    """``(z, y, x, 3)``, the indices x, y, z of all voxels."""
    z, y, x = np.indices(volume.voxels.shape)
    return np.stack((x, y, z), -1)
