"""From a scan to what is aligned: bone images after T (Eq. 5), native to working resolution, and the canonical cube."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..core.constants import CUBE_SIZE, PAPER_SPACING
from ..imaging.tensors import sample_linear

if TYPE_CHECKING:
    from ..imaging.volume import Volume
    from .threshold import BoneScale

# Bone that reaches further from its centroid than this share of half the cube's edge makes the working spacing grow. A
# mouse tibia of the paper, cut by its field of view of 5.12 mm, reaches to about one.
CUBE_REACH = 1.2
# Voxels worked on at a time when a native scan is passed through: on a CPU, what its cache holds.
SLAB_VOXELS = {"cpu": 1 << 19}
LARGE_SLAB_VOXELS = 1 << 25


@dataclass(frozen=True)
class BoneImage:
    """T of a scan on a grid that is its own, or a coarser one with the same axes.

    Attributes:
        values: ``(z, y, x)`` float32, 0 outside bone and around 1 in dense bone; the mean over each voxel.
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
        inside: ``(z, y, x)`` float32 share of each voxel that lies in the field of view, or None where all of it does.
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
        return sample_linear(self.values, index, self.inside, finite=True)


@dataclass(frozen=True)
class NativeScan:
    """A scan's own voxels, left in memory as they are, and what turns them into bone values on access.

    Attributes:
        raw: ``(z, y, x)`` tensor; uint16 is held as the bits of int16, which is what torch can index.
        unsigned: whether `raw` holds such bits.
        scale: T of this scan.
        affine: ``(4, 4)`` float64, index (x, y, z) to world LPS mm.
        mask: ``(z, y, x)`` bool tensor of where to look, or None.
    """

    raw: Tensor
    unsigned: bool
    scale: BoneScale
    affine: np.ndarray
    mask: Tensor | None = None

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def bone(self, raw: Tensor) -> Tensor:
        """Raw values of any shape to float32 bone values; NaN outside the field of view."""
        raw = raw.view(torch.uint16) if self.unsigned else raw
        values = raw.to(torch.float32, copy=True)
        # In place: memory bandwidth is what a pass through a scan is limited by.
        return values.sub_(self.scale.threshold).clamp_(min=0).mul_(1 / (self.scale.maximum - self.scale.threshold))

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


@dataclass(frozen=True)
class CanonicalCube:
    """What a network sees of a scan: 64^3 voxels along the world's axes, placed on the bone.

    Attributes:
        image: ``(64, 64, 64)`` float32 bone values, indexed (z, y, x).
        inside: ``(64, 64, 64)`` float32, the share of each voxel that lies in the scan's field of view.
        center: ``(3,)`` float64, world position of the cube's centre in mm.
        spacing: working spacing in mm.
    """

    image: Tensor
    inside: Tensor
    center: np.ndarray
    spacing: float

    @property
    def affine(self) -> np.ndarray:
        """``(4, 4)`` float64, index (x, y, z) to world LPS mm."""
        affine = np.diag((self.spacing, self.spacing, self.spacing, 1.0))
        affine[:3, 3] = self.center - self.spacing * (self.image.shape[0] - 1) / 2
        return affine


@dataclass(frozen=True)
class PreparedScan:
    """A scan, ready to be aligned.

    Attributes:
        native: its voxels.
        levels: its bone images, finest first; the last is near the working spacing.
        place: where its bone is.
        cube: its canonical cube.
    """

    native: NativeScan
    levels: list[BoneImage]
    place: BonePlace
    cube: CanonicalCube

    @property
    def images(self) -> list[BoneImage | NativeScan]:
        """Every resolution there is, finest first."""
        pooled = not np.array_equal(self.levels[0].affine, self.native.affine)
        return [self.native, *self.levels] if pooled else list(self.levels)

    def image_near(self, spacing: float) -> BoneImage | NativeScan:
        """The image whose voxel size comes closest to `spacing` mm."""
        return min(self.images, key=lambda image: abs(np.log(image.spacing.mean() / spacing)))

    @property
    def has_outline(self) -> bool:
        """Whether bone ends somewhere in the field of view, rather than filling it to the border on every side."""
        values = self.levels[-1].values
        faces = [values.select(axis, side) for axis in range(3) for side in (0, -1)]
        return min(float(face.mean()) for face in faces) < 0.5 * float(values.mean())

    def mirrored(self) -> PreparedScan:
        """The scan as it would be of the mirror image of its bone (x reversed)."""
        flip = np.diag((-1.0, 1.0, 1.0, 1.0))
        levels = [replace(level, affine=flip @ level.affine) for level in self.levels]
        cube = replace(
            self.cube,
            image=self.cube.image.flip(-1),
            inside=self.cube.inside.flip(-1),
            center=self.cube.center * flip.diagonal()[:3],
        )
        place = replace(self.place, center=cube.center)
        return PreparedScan(replace(self.native, affine=flip @ self.native.affine), levels, place, cube)


def prepare(
    fixed: NativeScan, moving: NativeScan, spacing: float | None = None, check: Callable[[], None] = lambda: None
) -> tuple[PreparedScan, PreparedScan]:
    """Both scans with their bone images and cubes, at one working spacing (mm; None lets the bones decide)."""
    pyramids = [bone_pyramid(scan, spacing or PAPER_SPACING, check) for scan in (fixed, moving)]
    places = [place_of_bone(_preview(levels[-1])) for levels in pyramids]
    working = spacing or working_spacing(*places)
    prepared = []
    for scan, levels, place in zip((fixed, moving), pyramids, places, strict=True):
        check()
        levels = extended(levels, working)
        prepared.append(PreparedScan(scan, levels, place, canonical_cube(levels, place, working)))
    return prepared[0], prepared[1]


def native_scan(volume: Volume, scale: BoneScale, mask: np.ndarray | None, device: torch.device) -> NativeScan:
    """The scan as a tensor, which shares the volume's memory where its dtype allows."""
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


def _tensor(array: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # SimpleITK's views are read-only, and torch warns of that; nothing here writes to them.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.ascontiguousarray(array))


def bone_pyramid(scan: NativeScan, working: float, check: Callable[[], None] = lambda: None) -> list[BoneImage]:
    """Box-averaged bone images, finest first, each with voxels about twice the last one's, none above `working` mm.

    T comes before averaging, as in the paper (Sec. 2.3). The finest is averaged once from the native voxels (unless
    they already are at the working spacing): the native scan itself is never copied as a whole.

    Args:
        scan: the native scan.
        working: the coarsest voxel size in mm.
        check: called between slabs; whatever it raises ends the work.
    """
    return extended([_first_level(scan, _factors(scan.spacing, working), check)], working)


def extended(levels: list[BoneImage], working: float) -> list[BoneImage]:
    """The levels and all further ones up to `working` mm."""
    levels = list(levels)
    while max(factors := _factors(levels[-1].spacing, working)) > 1:
        levels.append(_pooled(levels[-1], factors))
    return levels


def _factors(spacing: np.ndarray, working: float) -> tuple[int, int, int]:
    """1 or 2 for each of x, y, z: what brings voxels closer to twice the finest size, and stays within `working`."""
    target = 2 * spacing.min()
    if target > working * 1.001:
        return (1, 1, 1)
    return tuple(2 if 2 * s <= 1.5 * target and 2 * s <= working * 1.001 else 1 for s in spacing)


def _coarser(affine: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    grid = np.diag((*factors, 1.0))
    grid[:3, 3] = (np.array(factors) - 1) / 2
    return affine @ grid


def _pool(values: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Means over blocks of (x, y, z) `factors`; what does not fill a block is left off."""
    for axis, factor in zip((2, 1, 0), factors, strict=True):
        if factor == 2 and values.shape[axis] > 1:
            even = values.shape[axis] // 2 * 2
            values = values.narrow(axis, 0, even).unflatten(axis, (even // 2, 2))
            values = (values.select(axis + 1, 0) + values.select(axis + 1, 1)) * 0.5
    return values


def _pooled(image: BoneImage, factors: tuple[int, int, int]) -> BoneImage:
    affine = _coarser(image.affine, factors)
    if image.inside is None:
        return BoneImage(_pool(image.values, factors), affine)
    # The mean over what lies inside, as on every level.
    inside = _pool(image.inside, factors)
    return BoneImage(_pool(image.values * image.inside, factors) / inside.clamp(min=1e-3), affine, inside)


def pool_image(image: BoneImage, factor: int) -> BoneImage:
    """Means over blocks of `factor` (a power of two) voxels an axis."""
    return extended([image], float(image.spacing.min()) * factor)[-1] if factor > 1 else image


def _first_level(scan: NativeScan, factors: tuple[int, int, int], check: Callable[[], None]) -> BoneImage:
    partial = scan.mask is not None or (scan.raw.is_floating_point() and not bool(scan.raw.sum().isfinite()))
    most = SLAB_VOXELS.get(scan.raw.device.type, LARGE_SLAB_VOXELS)
    step = max(2, most // (scan.raw.shape[1] * scan.raw.shape[2]) // 2 * 2)
    depth = scan.raw.shape[0] // factors[2] * factors[2]
    values, inside = [], []
    for start in range(0, depth, step):
        check()
        stop = min(start + step, depth)
        slab = scan.bone(scan.raw[start:stop])
        if not partial:
            values.append(_pool(slab, factors))
            continue
        seen = slab.isfinite()
        if scan.mask is not None:
            seen &= scan.mask[start:stop]
        share = _pool(seen.float(), factors)
        # The mean over the seen part of each voxel, not over all of it.
        values.append(_pool(slab.where(seen, 0.0), factors) / share.clamp(min=1e-3))
        inside.append(share)
    return BoneImage(torch.cat(values), _coarser(scan.affine, factors), torch.cat(inside) if partial else None)


@dataclass(frozen=True)
class BonePlace:
    """Where a scan's bone is: world centroid (3,) in mm, and the radius about it that holds 95 % of the bone, in mm."""

    center: np.ndarray
    radius: float


def _preview(image: BoneImage) -> BoneImage:
    """The image at 128 voxels an axis or fewer: enough to say where bone is, whatever the voxels' size."""
    while max(image.shape) > 128:
        image = _pooled(image, tuple(2 if size > 64 else 1 for size in image.shape[::-1]))
    return image


def points_of_bone(image: BoneImage) -> tuple[np.ndarray, np.ndarray]:
    """World positions ``(n, 3)`` in mm of the voxels that hold bone, and their values ``(n,)``; float64."""
    index = image.values.nonzero()
    weight = image.values[tuple(index.T)].cpu().double().numpy()
    return index.flip(-1).cpu().double().numpy() @ image.affine[:3, :3].T + image.affine[:3, 3], weight


def place_of_bone(image: BoneImage) -> BonePlace:
    """Centroid and radius of the bone in an image, by its values; the middle of the grid where there is none."""
    points, weight = points_of_bone(image)
    if len(points) == 0:
        middle = (np.array(image.values.shape[::-1]) - 1) / 2
        return BonePlace(image.affine[:3, :3] @ middle + image.affine[:3, 3], 0.0)
    center = np.average(points, axis=0, weights=weight)
    distance = np.linalg.norm(points - center, axis=1)
    order = np.argsort(distance, kind="stable")
    mass = np.cumsum(weight[order])
    return BonePlace(center, float(distance[order[np.searchsorted(mass, 0.95 * mass[-1])]]))


def working_spacing(fixed: BonePlace, moving: BonePlace) -> float:
    """The paper's 0.08 mm, or what lets the larger of two larger bones (rat, human) fill the cube; in mm, for both."""
    reach = max(fixed.radius, moving.radius) / (CUBE_REACH * CUBE_SIZE / 2)
    return max(PAPER_SPACING, reach)


def canonical_cube(levels: list[BoneImage], place: BonePlace, spacing: float) -> CanonicalCube:
    """The cube of 64^3 voxels of `spacing` mm on the bone, from the level whose voxels come closest to that size.

    The level's voxels are means already, no larger than the cube's, so linear interpolation does not alias.
    """
    device = levels[0].values.device
    fine = [level for level in levels if level.spacing.min() <= spacing * 1.001]
    level = max(fine, key=lambda level: level.spacing.min(), default=levels[0])
    cube = CanonicalCube(torch.empty(CUBE_SIZE, CUBE_SIZE, CUBE_SIZE), torch.empty(0), place.center, spacing)
    to_index = np.linalg.inv(level.affine) @ cube.affine
    # Shares of each index axis, summed over the grid.
    axis = torch.arange(CUBE_SIZE, dtype=torch.float64)[:, None]
    x, y, z = (axis * column for column in torch.from_numpy(to_index[:3, :3].T.copy()))
    index = (z + torch.from_numpy(to_index[:3, 3]))[:, None, None] + y[:, None] + x
    index = index.view(-1, 3)
    values, inside = sample_linear(level.values, index.float().to(device), level.inside, finite=True)
    shape = (CUBE_SIZE,) * 3
    return CanonicalCube(values.view(shape), inside.view(shape), place.center, spacing)
