"""Bone images: T of a scan (Eq. 5), from native to working resolution."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..imaging.tensors import SLAB_VOXELS, is_worth_a_pass, pooled_by, sample_channels, sample_linear, weighted
from .threshold import HIGHEST

if TYPE_CHECKING:
    from ..imaging.volume import Volume
    from .threshold import BoneScale

# Voxels of a native scan that a GPU works on at a time; a CPU takes `SLAB_VOXELS`.
GPU_SLAB_VOXELS = 1 << 25

Made = TypeVar("Made")


@dataclass(frozen=True)
class BoneImage:
    """T of a scan on a grid that is its own, or a coarser one with the same axes.

    Attributes:
        values: ``(z, y, x)`` float32, 0 outside bone, around 1 in dense bone and `HIGHEST` at most; the mean over each
            voxel.
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
        inside: ``(z, y, x)`` float32 share of each voxel in the field of view, or None where all of it is inside.
    """

    values: Tensor
    affine: np.ndarray
    inside: Tensor | None = None

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def shape(self) -> torch.Size:
        """Number of voxels along z, y, x."""
        return self.values.shape

    def read(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Bone values ``(n,)`` of voxels ``(n,)`` counted in memory order, and whether they lie inside as a whole."""
        values = self.values.reshape(-1)[at]
        seen = torch.ones_like(at, dtype=torch.bool) if self.inside is None else self.inside.reshape(-1)[at] > 0.999
        return values, seen

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Bone values ``(n,)`` at continuous indices ``(n, 3)`` (x, y, z), and the share of each that lies inside."""
        if self.inside is not None and is_worth_a_pass(self.values, index):
            return sample_channels(self._weighted, index)
        return sample_linear(self.values, index, self.inside, finite=True)

    def kept(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What was made of the image under this name; made now where nothing was. It is kept as long as the image is.

        Threads that ask at once may each make it.
        """
        kept: dict[Hashable, Any] = vars(self).setdefault("_kept", {})
        if name not in kept:
            kept[name] = make()
        return kept[name]

    @cached_property
    def _weighted(self) -> Tensor:
        assert self.inside is not None
        return weighted(self.values, self.inside)


@dataclass(frozen=True)
class NativeScan:
    """A scan's own voxels, which stay in memory as they are and become bone values on access.

    Attributes:
        raw: ``(z, y, x)`` tensor. The bits of uint16 are held as int16, which torch can index.
        unsigned: whether `raw` holds such bits.
        scale: T of this scan.
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
        mask: ``(z, y, x)`` bool tensor of where to look, or None.
        bounds: of bone values. They end at the threshold, unless what lies below it counts too.
    """

    raw: Tensor
    unsigned: bool
    scale: BoneScale
    affine: np.ndarray
    mask: Tensor | None = None
    bounds: tuple[float, float] = (0.0, HIGHEST)

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def bone(self, raw: Tensor) -> Tensor:
        """Raw values of any shape to float32 bone values; NaN outside the field of view."""
        raw = raw.view(torch.uint16) if self.unsigned else raw
        values = raw.to(torch.float32, copy=True)
        # In place: memory bandwidth limits a pass through a scan.
        values.sub_(self.scale.threshold).mul_(1 / (self.scale.maximum - self.scale.threshold))
        return values.clamp_(*self.bounds)

    @property
    def shape(self) -> torch.Size:
        """Number of voxels along z, y, x."""
        return self.raw.shape

    def read(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Bone values ``(n,)`` of voxels ``(n,)`` counted in memory order, and whether they lie inside."""
        values = self.bone(self.raw.view(-1)[at])
        seen = values.isfinite()
        return values, seen if self.mask is None else seen & self.mask.view(-1)[at]

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Bone values ``(n,)`` at continuous indices ``(n, 3)`` (x, y, z), and the share of each that lies inside."""
        return sample_linear(self.raw, index, self.mask, self.bone, finite=not self.raw.is_floating_point())


def native_scan(volume: Volume, scale: BoneScale, mask: np.ndarray | None, device: torch.device) -> NativeScan:
    """The scan as a tensor on a device; it shares the volume's memory where device and dtype allow.

    Args:
        volume: the scan.
        scale: T of the scan.
        mask: ``(z, y, x)`` array of where to look, or None.
        device: where the tensor lies.
    """
    voxels = np.ascontiguousarray(volume.voxels)
    unsigned = voxels.dtype == np.uint16
    if unsigned:
        voxels = voxels.view(np.int16)
    elif voxels.dtype not in (np.uint8, np.int8, np.int16, np.int32, np.float32):
        voxels = voxels.astype(np.float32)
    raw = _tensor(voxels).to(device)
    return NativeScan(
        raw, unsigned, scale, volume.affine, None if mask is None else _tensor(mask.astype(bool, copy=False)).to(device)
    )


class _Writable:
    """The memory of an array, whether it may be written to or not."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def _tensor(array: np.ndarray) -> Tensor:
    # torch warns of memory that is read-only, as SimpleITK's views are. Nothing here writes to it, and filters of
    # warnings are those of all threads: of two that set them at once, one would leave its own behind.
    return torch.from_numpy(np.asarray(_Writable(np.ascontiguousarray(array))))


def bone_pyramid(scan: NativeScan, working: float, check: Callable[[], None] = lambda: None) -> list[BoneImage]:
    """Box-averaged bone images, finest first, each with voxels about twice as large as the last, up to `working` mm.

    T comes before averaging, as in the paper (Sec. 2.3). The finest image is averaged from the native voxels, unless
    they are at the working spacing already. So the native scan is never copied as a whole.

    Args:
        scan: the native scan.
        working: the coarsest voxel size in mm.
        check: called between slabs; an exception from it ends the work.
    """
    return extended([_first_level(scan, _factors(scan.spacing, working), check)], working)


def extended(levels: list[BoneImage], working: float) -> list[BoneImage]:
    """The levels and all further ones up to `working` mm."""
    levels = list(levels)
    while max(factors := _factors(levels[-1].spacing, working)) > 1:
        levels.append(pooled(levels[-1], factors))
    return levels


def _factors(spacing: np.ndarray, working: float) -> tuple[int, int, int]:
    """1 or 2 for each of x, y, z: the factors that bring voxels closest to twice the finest size, within `working`."""
    target = 2 * spacing.min()
    if target > working * 1.001:
        return (1, 1, 1)
    x, y, z = (2 if 2 * s <= 1.5 * target and 2 * s <= working * 1.001 else 1 for s in spacing)
    return x, y, z


def _coarser(affine: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    grid = np.diag((*factors, 1.0))
    grid[:3, 3] = (np.array(factors) - 1) / 2
    return affine @ grid


def pooled(image: BoneImage, factors: tuple[int, int, int]) -> BoneImage:
    """The image averaged over blocks of (x, y, z) `factors`, each 1 or 2, of its voxels."""
    affine = _coarser(image.affine, factors)
    if image.inside is None:
        return BoneImage(pooled_by(image.values, factors), affine)
    # The mean over the part inside, as on every level.
    inside = pooled_by(image.inside, factors)
    return BoneImage(pooled_by(image.values * image.inside, factors) / inside.clamp(min=1e-3), affine, inside)


def pool_image(image: BoneImage, factor: int) -> BoneImage:
    """Means over blocks of `factor` (a power of two) voxels an axis; they are kept with the image."""
    if factor == 1:
        return image
    return image.kept(("pooled", factor), lambda: extended([image], float(image.spacing.min()) * factor)[-1])


def _first_level(scan: NativeScan, factors: tuple[int, int, int], check: Callable[[], None]) -> BoneImage:
    partial = scan.mask is not None or (scan.raw.is_floating_point() and not bool(scan.raw.sum().isfinite()))
    most = SLAB_VOXELS if scan.raw.device.type == "cpu" else GPU_SLAB_VOXELS
    step = max(2, most // (scan.raw.shape[1] * scan.raw.shape[2]) // 2 * 2)
    depth = scan.raw.shape[0] // factors[2] * factors[2]
    values, inside = [], []
    for start in range(0, depth, step):
        check()
        stop = min(start + step, depth)
        slab = scan.bone(scan.raw[start:stop])
        if not partial:
            values.append(pooled_by(slab, factors))
            continue
        seen = slab.isfinite()
        if scan.mask is not None:
            seen &= scan.mask[start:stop]
        share = pooled_by(seen.float(), factors)
        # The mean over the seen part of each voxel, not over all of it.
        values.append(pooled_by(slab.where(seen, 0.0), factors) / share.clamp(min=1e-3))
        inside.append(share)
    return BoneImage(torch.cat(values), _coarser(scan.affine, factors), torch.cat(inside) if partial else None)
