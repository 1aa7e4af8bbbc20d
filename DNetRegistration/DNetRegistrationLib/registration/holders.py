"""What lies still in both scans while the bone moved: the tube, the holder, the table that a bone is scanned in.

Where it is as bright as bone it counts as bone, and speaks against every pose of the bone but the one before it moved.
It is known by two signs: there the scans agree as they lie in the world, and do not agree in the pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone, cortical_bone, dice
from ..bone.cube import CanonicalCube, canonical_cube
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from ..geometry.rigid import apply, inverse
from ..imaging.tensors import dilate, grid_index, pooled_by, sample_linear
from ..imaging.volume import Volume
from .evidence import grey_image
from .pieces import AGREES, FACTOR, LEAST_PIECE, compare, neighbourhood_grid
from .template import shows_edges

# What lies as well together as a pose brings it, to within so much concordance, is told from it by nothing. What moves
# by less than so many working voxels lies nearly where it was.
SLACK, FAR = 0.02, 4.0


@dataclass(frozen=True)
class ScanPair:
    """Two scans that are ready to be aligned, with their cortical bone.

    Attributes:
        fixed, moving: the scans.
        bones: of either.
        bare: only what lies inside the bone in both scans is in view, since a layer on it was left out.
    """

    fixed: PreparedScan
    moving: PreparedScan
    bones: tuple[CorticalBone, CorticalBone]
    bare: bool = False

    @property
    def has_edges(self) -> bool:
        """Whether both scans show enough edges of bone to fix a pose."""
        return all(shows_edges(scan.levels[-1]) for scan in (self.fixed, self.moving))

    @cached_property
    def dice_before(self) -> float:
        """The overlap of the cortices as the scans lie in the world."""
        return dice(*self.bones, np.eye(4))

    def without_still(self, pose: Tensor) -> tuple[ScanPair, float] | None:
        """The pair with what lies still in both scans outside their fields of view.

        Args:
            pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm: of the bone.

        Returns:
            The pair, and the share, 0 to 1, of what is as bright as bone that lies still, in the scan in which that is
            more. None where it is little, where it is the bone, or where hardly any edge of bone would be left.
        """
        if self._most(self._agreed) < LEAST_PIECE:
            return None
        fits = self._fits(pose)
        still = [agreed & ~fit for agreed, fit in zip(self._agreed, fits, strict=True)]
        share = self._most(still)
        both = list(zip(self._bone, fits, self._agreed, strict=True))
        moved = min(_share(bone, fit & ~agreed) for bone, fit, agreed in both)
        # Where more of what fits lay still than moved, the bone itself did, and the pose fits by chance.
        if share < LEAST_PIECE or moved < max(LEAST_PIECE, *(_share(bone, fit & agreed) for bone, fit, agreed in both)):
            return None
        (fixed, first), (moving, second) = (
            _without(scan, bone, dilate((where & (there > 0)).float()))
            for scan, bone, where, there in zip((self.fixed, self.moving), self.bones, still, self._bone, strict=True)
        )
        kept = replace(self, fixed=fixed, moving=moving, bones=(first, second))
        return (kept, share) if kept.has_edges else None

    def fits_as_it_lay(self, pose: Tensor) -> bool:
        """Whether most of what a pose brings together lies together as well where the scans lie in the world.

        A holder that looks the same after half a turn fits in two poses; the one in which it stood still is its true
        one, and no pose of it is that of the bone.

        Args:
            pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.
        """
        still = torch.eye(4, dtype=torch.float64)
        led, lay = (compare(self.fixed.cube, self.moving.levels[-1], each) for each in (pose, still))
        shape = led.concordance.shape
        points = grid_index(shape, torch.tensor(led.affine))
        away = (apply(pose, points) - points).norm(dim=-1) > FAR * self.fixed.cube.spacing
        mass, fits = led.mass.sum(0), (led.concordance >= AGREES) & (led.seen > 0.5) & away.to(led.seen.device)
        same = fits & (lay.concordance >= led.concordance - SLACK) & (lay.seen > 0.5)
        return float((mass * same).sum()) > 0.5 * float((mass * fits).sum())

    def _most(self, where: list[Tensor]) -> float:
        """The share of the bone that is there, in the scan in which that is more."""
        return max(_share(*of_one) for of_one in zip(self._bone, where, strict=True))

    @cached_property
    def _greys(self) -> list[BoneImage]:
        """The scans below the bone threshold too: what is about as bright as it may be bone in one of them only."""
        return [grey_image(*view) for view in zip((self.fixed, self.moving), self.bones, strict=True)]

    @cached_property
    def _cubes(self) -> list[CanonicalCube]:
        scans = zip((self.fixed, self.moving), self._greys, strict=True)
        return [canonical_cube([grey], scan.place, scan.cube.spacing) for scan, grey in scans]

    @cached_property
    def _bone(self) -> list[Tensor]:
        """How much of each neighbourhood is as bright as bone, dense or not."""
        cubes = (scan.cube for scan in (self.fixed, self.moving))
        return [pooled_by((cube.image > 0) * cube.inside, (FACTOR,) * 3) for cube in cubes]

    @cached_property
    def _agreed(self) -> list[Tensor]:
        """Which neighbourhoods agree as the scans lie in the world."""
        return self._fits(torch.eye(4, dtype=torch.float64))

    def _fits(self, pose: Tensor) -> list[Tensor]:
        """Which neighbourhoods of either scan agree with what the other one shows there in a pose."""
        views = zip(self._cubes, reversed(self._greys), (pose, inverse(pose)), strict=True)
        return [(found.correlation >= AGREES) & (found.seen > 0.5) for found in (compare(*view) for view in views)]


def _share(bone: Tensor, where: Tensor) -> float:
    return float((bone * where).sum() / bone.sum().clamp(min=1e-6))


def _without(scan: PreparedScan, bone: CorticalBone, still: Tensor) -> tuple[PreparedScan, CorticalBone]:
    """A scan, and its cortical bone, with some neighbourhoods of its cube outside the field of view."""
    affine = scan.cube.affine @ neighbourhood_grid()

    def kept(shape: tuple[int, ...], grid: np.ndarray) -> Tensor:
        """``(z, y, x)`` 1 where a voxel of a grid stays, else 0."""
        index = grid_index(shape, torch.from_numpy(np.linalg.inv(affine) @ grid)).to(still)
        return (sample_linear(still, index.view(-1, 3), finite=True)[0] < 0.5).float().view(shape)

    level = scan.levels[-1]
    inside = torch.ones_like(level.values) if level.inside is None else level.inside
    level = replace(level, inside=inside * kept(level.shape, level.affine))
    cube = replace(scan.cube, inside=scan.cube.inside * kept(scan.cube.image.shape, scan.cube.affine))
    seen = kept(bone.grey.shape, bone.affine).cpu().numpy() > 0
    grey = Volume(np.where(seen, bone.grey, np.float32(np.nan)), bone.affine)
    bone = cortical_bone(grey, scan.native.scale.threshold, scan.cube.spacing)
    return replace(scan, levels=[*scan.levels[:-1], level], cube=cube), bone
