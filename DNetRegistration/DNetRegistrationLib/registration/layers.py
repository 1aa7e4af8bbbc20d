"""A layer as bright as bone on the bone of one scan: contrast agent in a film, in soaked tissue, in the bath.

Nothing in its scan tells it from bone: it counts as bone there, leads the edges away, and speaks against every pose.
What lies inside the bone is the same in both scans. A pose that holds there, with bone beyond the surface in one scan
alone, is judged without the surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..bone.cortex import CorticalBone
from ..bone.prepare import PreparedScan
from ..geometry.rigid import apply, inverse
from ..imaging.tensors import grid_index, sample_linear
from .holders import ScanPair
from .verdict import Doubt

# A layer is at least this share of what counts as bone in its scan. In the other scan a smaller part of it is as much.
LEAST_LAYER, ONE_SIDED = 0.15, 1 / 3
# From this share of its bone on, something of it that the scan with the layer does not show is told of. A layer hides
# none: of 5 right pairs it is 0.007 at most. In two bones that moved on their own, largely in agent, it was 0.078.
LEAST_OTHER = 0.03
# Where less of a scan's bone stays, nothing can be told of it.
LEAST_LEFT = 0.05
# Less deep than so many working spacings counts as the surface, and more of it before a pose is known, since the layer
# is in it then. Depth is from the middle of the first voxel outside.
SURFACE, PEEL = 0.5, 1.0
# One of so many voxels along each axis is asked whether both scans show it as bone.
ASKED = 2
ROLES = "fixed", "moving"


def may_have_layer(bones: Sequence[CorticalBone]) -> bool:
    """Whether one scan shows so much more bone than the other that a layer may be part of it."""
    volumes = [np.count_nonzero(bone.whole) * abs(np.linalg.det(bone.affine[:3, :3])) for bone in bones]
    return min(volumes) < (1 - LEAST_LAYER) * max(volumes)


def peeled(pair: ScanPair) -> ScanPair:
    """The pair without the outer part of both bones, for a search before any pose is known."""
    depth = PEEL * pair.fixed.cube.spacing

    def inside(bone: CorticalBone) -> Callable[[Tensor], Tensor]:
        return lambda points: _depth(bone, points)[0] > depth

    return _restricted(pair, [inside(bone) for bone in pair.bones])


def without_layer(pair: ScanPair, pose: Tensor) -> tuple[ScanPair, tuple[Doubt, ...]] | None:
    """The pair without the surface of the bone and what lies beyond, and doubts that say so.

    Args:
        pair: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm.

    Returns:
        None where neither scan, or either of them, shows bone that the other one does not, and where hardly any bone
        would be left.
    """
    ways = pose, inverse(pose)
    alone = [_alone(pair.bones[k], pair.bones[1 - k], ways[k]) for k in range(2)]
    if max(alone) < LEAST_LAYER or min(alone) > ONE_SIDED * max(alone):
        return None
    depth = SURFACE * pair.fixed.cube.spacing

    def inside(own: CorticalBone, other: CorticalBone, way: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda points: torch.minimum(_depth(own, points)[0], _depth(other, apply(way, points))[0]) > depth

    kept = [inside(pair.bones[k], pair.bones[1 - k], ways[k]) for k in range(2)]
    bare = replace(_restricted(pair, kept), bare=True)
    left = (bare.fixed, pair.fixed), (bare.moving, pair.moving)
    if any(_shown(after) <= LEAST_LEFT * _shown(before) for after, before in left) or not bare.has_edges:
        return None
    return bare, _doubts(alone)


def _doubts(alone: Sequence[float]) -> tuple[Doubt, ...]:
    """What limits a pose that holds without the layer, by the share of either scan's bone that the other one lacks."""
    layered = int(np.argmax(alone))
    plain = 1 - layered
    layer = Doubt(
        "layer",
        f"The {ROLES[layered]} scan shows a layer on the bone that is as bright as bone, as contrast agent may be. It "
        "was left out: the result rests on what lies inside the bone.",
    )
    if alone[plain] < LEAST_OTHER:
        return (layer,)
    other = Doubt(
        "other bone",
        f"{100 * alone[plain]:.0f} % of the bone of the {ROLES[plain]} scan lies where the {ROLES[layered]} one shows "
        "none, although it shows a layer: another piece may have moved on its own.",
    )
    return other, layer


def _shown(scan: PreparedScan) -> float:
    """How much bone is in view."""
    level = scan.levels[-1]
    return float((level.values.clamp(min=0) * (1 if level.inside is None else level.inside)).sum())


def _alone(own: CorticalBone, other: CorticalBone, pose: Tensor) -> float:
    """The share of one bone that the other scan shows as none."""
    index = np.argwhere(own.whole[(slice(None, None, ASKED),) * 3])[:, ::-1] * ASKED
    points = apply(torch.tensor(own.affine), torch.from_numpy(index).double())
    depth, seen = _depth(other, apply(pose, points))
    # Depth rises by a voxel across the surface.
    return float((depth[seen] < 0.5 * other.spacing.mean()).double().mean()) if seen.any() else 0.0


def _depth(bone: CorticalBone, points: Tensor) -> tuple[Tensor, Tensor]:
    """The depth of world points ``(n, 3)`` below the bone's surface in mm, and which of them the scan shows."""
    known = torch.from_numpy(np.where(np.isfinite(bone.grey), bone.depth, np.float32(np.nan)))
    depth, seen = sample_linear(known, apply(torch.from_numpy(np.linalg.inv(bone.affine)), points).float())
    return depth, seen > 0.5


def _restricted(pair: ScanPair, kept: Sequence[Callable[[Tensor], Tensor]]) -> ScanPair:
    """The pair with less in view: of world points ``(n, 3)`` each scan's function says which stay."""
    both = zip((pair.fixed, pair.moving), pair.bones, kept, strict=True)
    (fixed, first), (moving, second) = (_only(scan, bone, stays) for scan, bone, stays in both)
    return ScanPair(fixed, moving, (first, second))


def _only(
    scan: PreparedScan, bone: CorticalBone, stays: Callable[[Tensor], Tensor]
) -> tuple[PreparedScan, CorticalBone]:
    def where(shape: Sequence[int], affine: np.ndarray) -> Tensor:
        return stays(grid_index(shape, torch.from_numpy(affine)).view(-1, 3)).view(tuple(shape))

    level = scan.levels[-1]
    inside = torch.ones_like(level.values) if level.inside is None else level.inside
    level = replace(level, inside=inside * where(level.shape, level.affine).to(inside))
    in_cube = where(scan.cube.image.shape, scan.cube.affine).to(scan.cube.inside)
    cube = replace(scan.cube, image=scan.cube.image * in_cube, inside=scan.cube.inside * in_cube)
    grey = np.where(where(bone.grey.shape, bone.affine).numpy(), bone.grey, np.float32(np.nan))
    # The surface stays where it was. Its depth takes long on large grids.
    kept = replace(bone, grey=grey)
    vars(kept)["depth"] = bone.depth
    return replace(scan, levels=[*scan.levels[:-1], level], cube=cube), kept
