"""The bones of two scans that moved on their own: consensus sets, found one after the other.

A pose is proposed, and the neighbourhoods for which it holds are taken away from both scans; what is left proposes the
next pose. So two motions are found without any segmentation, although bones touch in a joint. At the end every place
goes to that motion which holds best around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import BonePlace, CanonicalCube, canonical_cube, place_of_bone
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from ..geometry.rigid import inverse
from ..imaging.tensors import gaussian
from .pieces import FACTOR, Neighbourhoods, centroid, compare
from .refinement import gauss_newton
from .result import MOST_BONES
from .search import cube_image
from .template import edge_template

# Neighbourhoods of this concordance and above belong to the bone of a pose. Where a pose is right, a hundredth of the
# bone is below 0.85.
HOLDS = 0.75
# What is less of the bone in either scan is no bone of its own.
LEAST_BONE = 0.05
# A pose that holds for less of the bone is a wrong one. Wrong poses hold for less than a thousandth.
LEAST_AGREED = 0.02
# Places go to the motion that holds best in a Gaussian of so many points of the grid of neighbourhoods about them, and
# to none where the mean concordance is below this: around a right pose it is above 0.9, around a wrong one below 0.2.
REACH, LEAST_CONCORDANCE = 2.5, 0.35
# A pose is refined so many times, each on the neighbourhoods for which it holds by then, at so many points.
ROUNDS, POINTS = 4, 6000


@dataclass(frozen=True)
class Motion:
    """A bone that moved on its own.

    Attributes:
        pose: ``(4, 4)`` float64, fixed to moving points, LPS mm, roughly.
        masks: ``(z, y, x)`` bool, the places of the bone on the voxels of the fixed and of the moving scan.
        share: of the bone in the fixed scan, 0 to 1.
        center: ``(3,)`` centroid of the bone in the fixed scan's world, mm.
    """

    pose: Tensor
    masks: tuple[np.ndarray, np.ndarray]
    share: float
    center: np.ndarray


def find_motions(
    fixed: PreparedScan,
    moving: PreparedScan,
    propose: Callable[[CanonicalCube, CanonicalCube], Tensor],
) -> list[Motion]:
    """The bones that moved on their own, the largest first; none where no pose holds for enough of the bone.

    Args:
        fixed, moving: the scans.
        propose: poses ``(h, 4, 4)`` for two cubes, fixed to moving, LPS mm.
    """
    images = fixed.levels[-1], moving.levels[-1]
    spacing, totals = fixed.cube.spacing, [_mass(image) for image in images]
    poses: list[Tensor] = []
    left: tuple[BoneImage, BoneImage] = images
    while len(poses) < MOST_BONES and all(_mass(i) > LEAST_BONE * t for i, t in zip(left, totals, strict=True)):
        first, second = (canonical_cube([image], place_of_bone(image), spacing) for image in left)
        found = [(_agreed(pose, first, second, left, totals), pose) for pose in propose(first, second)]
        if not found:
            break
        pose = _settled(first, left[1], max(found, key=lambda one: one[0])[1])
        if _agreed(pose, first, second, left, totals) < LEAST_AGREED:
            break
        poses.append(pose)
        left = (
            _without(left[0], compare(first, left[1], pose)),
            _without(left[1], compare(second, left[0], inverse(pose))),
        )
    return _motions(fixed, moving, poses) if poses else []


def _mass(image: BoneImage) -> float:
    """Bone in an image, mm3 of dense bone."""
    values = image.values if image.inside is None else image.values * image.inside
    return float(values.sum()) * abs(float(np.linalg.det(image.affine[:3, :3])))


def _agreed(
    pose: Tensor,
    first: CanonicalCube,
    second: CanonicalCube,
    images: tuple[BoneImage, BoneImage],
    totals: list[float],
) -> float:
    """The share of all bone for which a pose holds, in the scan in which it is smaller."""
    views = compare(first, images[1], pose), compare(second, images[0], inverse(pose))
    cell = (FACTOR * first.spacing) ** 3
    return min(
        float((view.mass[0] * (view.concordance >= HOLDS)).sum()) * cell / max(total, 1e-9)
        for view, total in zip(views, totals, strict=True)
    )


def _settled(cube: CanonicalCube, image: BoneImage, pose: Tensor) -> Tensor:
    """A pose refined on the neighbourhoods for which it holds: these become more until they are all of a bone."""
    template = edge_template(cube_image(cube), POINTS)
    at = template.index.long() // FACTOR
    for _ in range(ROUNDS):
        holds = compare(cube, image, pose).concordance >= HOLDS
        keep = holds[at[:, 2], at[:, 1], at[:, 0]].float()
        pose = gauss_newton(template, image, pose[None], 6, keep, 0.02 * cube.spacing).transforms[0]
    return pose


def _without(image: BoneImage, view: Neighbourhoods) -> BoneImage:
    """An image with those neighbourhoods outside the field of view for which a pose holds."""
    holds = (view.concordance >= HOLDS) & (view.mass.sum(0) > 0)
    keep = 1 - _nearest(holds.float(), view.affine, image, 0.0)
    inside = torch.ones_like(image.values) if image.inside is None else image.inside
    return BoneImage(image.values * keep, image.affine, inside * keep)


def _motions(fixed: PreparedScan, moving: PreparedScan, poses: list[Tensor]) -> list[Motion]:
    """Gives every place to the motion that holds best around it."""
    images = fixed.levels[-1], moving.levels[-1]
    scores: tuple[list[Tensor], list[Tensor]] = [], []
    for pose in poses:
        first, second = fixed.cube, moving.cube
        # Placed on what the pose holds for, the cubes show the whole bone.
        for _ in range(2):
            views = compare(first, images[1], pose), compare(second, images[0], inverse(pose))
            first, second = (
                canonical_cube([image], BonePlace(centroid(view.affine, _held(view)), 0.0), first.spacing)
                for view, image in zip(views, images, strict=True)
            )
        views = compare(first, images[1], pose), compare(second, images[0], inverse(pose))
        for one, view, image in zip(scores, views, images, strict=True):
            mass = view.mass.sum(0)
            weight = gaussian(mass, REACH)
            score = gaussian(mass * view.concordance, REACH) / weight.clamp(min=1e-6)
            one.append(_nearest(score.where(weight > 1e-6, -1.0), view.affine, image, -1.0))
    labels = []
    for one in scores:
        best, label = torch.stack(one).max(0)
        labels.append(label.where(best >= LEAST_CONCORDANCE, -1))
    image, total, motions = images[0], _mass(images[0]), []
    for number, pose in enumerate(poses):
        mine = labels[0] == number
        part = BoneImage(image.values * mine, image.affine, image.inside)
        share = _mass(part) / max(total, 1e-9)
        if share >= LEAST_BONE:
            masks = _on_voxels(mine, fixed), _on_voxels(labels[1] == number, moving)
            motions.append(Motion(pose, masks, share, centroid(image.affine, part.values)))
    return sorted(motions, key=lambda motion: -motion.share)


def _held(view: Neighbourhoods) -> Tensor:
    """The bone for which a pose holds, at each point of the grid."""
    mass = view.mass.sum(0)
    held = mass * (view.concordance >= HOLDS)
    return held if bool(held.any()) else mass + 1e-9


def _nearest(values: Tensor, affine: np.ndarray, image: BoneImage, outside: float) -> Tensor:
    """Values ``(z, y, x)`` of a grid with an `affine`, index to world, at the nearest voxels of an image."""
    depth, height, width = image.shape
    to_grid = torch.from_numpy(np.linalg.inv(affine) @ image.affine)
    axes = [torch.arange(n, dtype=torch.float64)[:, None] for n in (width, height, depth)]
    x, y, z = (axis * to_grid[:3, column] for column, axis in enumerate(axes))
    index = ((z + to_grid[:3, 3])[:, None, None] + y[:, None] + x).round().long().to(values.device)
    last = torch.tensor(values.shape[::-1], device=values.device) - 1
    within = ((index >= 0) & (index <= last)).all(-1)
    i, j, k = torch.minimum(index.clamp(min=0), last).unbind(-1)
    return values[k, j, i].where(within, outside)


def _on_voxels(mask: Tensor, scan: PreparedScan) -> np.ndarray:
    """A mask of the coarsest image on the voxels of the scan."""
    voxels, image = scan.native, scan.levels[-1]
    result = mask.cpu().numpy()
    factors = np.rint(image.spacing / voxels.spacing).astype(int)[::-1]
    for axis, (factor, size) in enumerate(zip(factors, voxels.shape, strict=True)):
        # Blocks that are not whole were left off.
        at = np.minimum(np.arange(size) // factor, result.shape[axis] - 1)
        result = result.take(at, axis)
    return result
