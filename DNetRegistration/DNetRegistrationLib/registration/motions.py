"""The bones of two scans that moved on their own: consensus sets, found one after the other.

A pose is proposed, and the neighbourhoods for which it holds are taken away from both scans; what is left proposes the
next pose. What is left gets bone thresholds of its own: those of a dense bone would leave little of a thin-walled one.
So two motions are found without any segmentation, although bones touch in a joint. At the end every place goes to that
motion which explains best what lies around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import CanonicalCube
from ..bone.images import BoneImage
from ..bone.prepare import PreparedScan
from ..core.errors import ScanError
from ..geometry.rigid import inverse
from ..imaging.tensors import gaussian, grid_index, sample_linear
from .pieces import FACTOR, Neighbourhoods, centroid, compare
from .refinement import distance, gauss_newton
from .result import MOST_BONES
from .template import edge_template

# Neighbourhoods of this concordance and above belong to the bone of a pose, unless it is below their median by the
# second number. Where a pose is right, a hundredth of the bone is below 0.85. Of a condyle that rolled in its place by
# four voxels half is above 0.81.
HOLDS, SPREAD = 0.75, 0.1
# What is less of the bone in either scan is no bone of its own.
LEAST_BONE = 0.05
# A pose that holds for less of all bone than the first number is taken for a wrong one; for less than the second, it
# has to be accepted when it is aligned. Of what was left of bones that were found, wrong poses held for up to 0.048;
# right ones of tibiae for 0.045 and more, those of patellae for 0.04.
LEAST_AGREED, SURE = 0.03, 0.06
# Poses within so many working voxels are one motion. Motions are looked for so many times.
SAME, MOST_ROUNDS = 2.0, 6
# What tells of a place lies within Gaussians of these reaches about it, in working voxels. What is outside the other
# field of view, or belongs to no bone that was found, counts as unexplained by this share of its square.
REACHES, UNKNOWN = (1.0, 2.0, 4.0, 8.0), 0.5
# A pose is refined so many times, each on the neighbourhoods for which it holds by then, at so many points.
ROUNDS, POINTS = 4, 6000

Masks = Sequence[np.ndarray]
Prepare = Callable[[Masks | None, tuple[float, float] | None, float | None], tuple[PreparedScan, PreparedScan]]

Propose = Callable[[PreparedScan, PreparedScan], Tensor]


@dataclass(frozen=True)
class Motion:
    """A bone that moved on its own.

    Attributes:
        pose: ``(4, 4)`` float64, fixed to moving points, LPS mm, roughly.
        sure: whether it holds for so much of the bone that it is no chance.
        masks: ``(z, y, x)`` bool, the places of the bone on the voxels of the fixed and of the moving scan.
        share: of the bone in the fixed scan, 0 to 1.
        center: ``(3,)`` centroid of the bone in the fixed scan's world, mm.
    """

    pose: Tensor
    sure: bool
    masks: tuple[np.ndarray, np.ndarray]
    share: float
    center: np.ndarray


def find_motions(prepare: Prepare, propose: Propose) -> list[Motion]:
    """The bones that moved on their own, the largest first; none where no pose holds for enough of the bone.

    Args:
        prepare: both scans, of which only what lies in masks ``(z, y, x)`` counts, at a working spacing; None is all,
            and a spacing by the size of the bone. Their thresholds are found there, or given.
        propose: poses ``(h, 4, 4)`` for two scans, fixed to moving, LPS mm.

    Raises:
        ScanError: `prepare` raises it for the whole scans. For what is left of them it says that nothing is.
    """
    whole = scans = prepare(None, None, None)
    images = _images(whole)
    spacing, totals = whole[0].cube.spacing, [_mass(image) for image in images]
    left = [torch.ones_like(image.values) for image in images]
    poses: list[Tensor] = []
    sure: list[bool] = []
    thresholds = _thresholds(whole)
    for _ in range(MOST_ROUNDS):
        pose, agreed = _best(scans, propose, totals)
        if agreed < LEAST_AGREED:
            break
        # What is left of a bone that was found, since it changed or is noisy, proposes its motion once more.
        known = any(distance(pose, other, whole[0].place) < SAME * spacing for other in poses)
        if not known:
            poses.append(pose)
            sure.append(agreed >= SURE)
            thresholds = np.minimum(thresholds, _thresholds(scans))
        for number, view in enumerate(_views(pose, scans)):
            holds = _holds(view) if known else _held(view)
            left[number] *= 1 - _nearest(holds.float(), view.affine, images[number], 0.0)
        masses = [_mass(_within(image, mask)) for image, mask in zip(images, left, strict=True)]
        if len(poses) == MOST_BONES or any(m < LEAST_BONE * t for m, t in zip(masses, totals, strict=True)):
            break
        try:
            scans = prepare([_on_voxels(mask > 0, scan) for mask, scan in zip(left, whole, strict=True)], None, spacing)
        except ScanError:
            break
    # A place is given away by what both scans show there, so that all motions are judged by the lowest thresholds.
    if len(poses) > 1 and (thresholds < _thresholds(whole)).any():
        whole = prepare(None, tuple(thresholds), spacing)
    return _motions(whole, poses, sure) if poses else []


def _images(scans: Sequence[PreparedScan]) -> list[BoneImage]:
    return [scan.levels[-1] for scan in scans]


def _thresholds(scans: Sequence[PreparedScan]) -> np.ndarray:
    """``(2,)`` bone thresholds of both scans."""
    return np.array([scan.native.scale.threshold for scan in scans])


def _within(image: BoneImage, mask: Tensor) -> BoneImage:
    return BoneImage(image.values * mask, image.affine, image.inside)


def _views(pose: Tensor, scans: Sequence[PreparedScan]) -> tuple[Neighbourhoods, Neighbourhoods]:
    """The scans compared in a pose, each on its cube with the other's image."""
    first, second = scans
    return compare(first.cube, second.levels[-1], pose), compare(second.cube, first.levels[-1], inverse(pose))


def _best(scans: tuple[PreparedScan, PreparedScan], propose: Propose, totals: list[float]) -> tuple[Tensor, float]:
    """The pose that holds for most of the bone, refined, and the share of all bone for which it holds, 0 for none."""
    proposed = list(propose(*scans))
    if not proposed:
        return torch.eye(4, dtype=torch.float64), 0.0
    best = max(proposed, key=lambda pose: _agreed(pose, scans, totals))
    pose = _settled(scans[0].cube, scans[1].levels[-1], best)
    return pose, _agreed(pose, scans, totals)


def _mass(image: BoneImage) -> float:
    """Bone in an image, mm3 of dense bone."""
    values = image.values if image.inside is None else image.values * image.inside
    return float(values.sum()) * abs(float(np.linalg.det(image.affine[:3, :3])))


def _agreed(pose: Tensor, scans: Sequence[PreparedScan], totals: list[float]) -> float:
    """The share of all bone for which a pose holds, in the scan in which it is smaller."""
    cell = (FACTOR * scans[0].cube.spacing) ** 3
    return min(
        float((view.mass[0] * _held(view)).sum()) * cell / max(total, 1e-9)
        for view, total in zip(_views(pose, scans), totals, strict=True)
    )


def _settled(cube: CanonicalCube, image: BoneImage, pose: Tensor) -> Tensor:
    """A pose refined on the neighbourhoods for which it holds: these become more until they are all of a bone."""
    template = edge_template(cube.as_image, POINTS)
    at = template.index.long() // FACTOR
    for _ in range(ROUNDS):
        holds = _held(compare(cube, image, pose))
        keep = holds[at[:, 2], at[:, 1], at[:, 0]].float()
        pose = gauss_newton(template, image, pose[None], 6, keep, 0.02 * cube.spacing).transforms[0]
    return pose


def _motions(whole: tuple[PreparedScan, PreparedScan], poses: list[Tensor], sure: list[bool]) -> list[Motion]:
    """Gives every place to the motion that explains best what lies around it."""
    images = _images(whole)
    costs: tuple[list[Tensor], list[Tensor]] = [], []
    for pose in poses:
        for k, (view, way) in enumerate(zip(_views(pose, whole), (pose, inverse(pose)), strict=True)):
            costs[k].append(_cost(images[k], images[1 - k], way, view.gain))
    labels = []
    for image, each in zip(images, costs, strict=True):
        least, label = torch.stack(each).min(0)
        labels.append(label.where(least < _around(UNKNOWN * image.values.square()), -1))
    image, total, motions = images[0], _mass(images[0]), []
    for number, pose in enumerate(poses):
        mine = labels[0] == number
        part = _within(image, mine)
        share = _mass(part) / max(total, 1e-9)
        if share >= LEAST_BONE:
            masks = _on_voxels(mine, whole[0]), _on_voxels(labels[1] == number, whole[1])
            motions.append(Motion(pose, sure[number], masks, share, centroid(image.affine, part.values)))
    return sorted(motions, key=lambda motion: -motion.share)


def _holds(view: Neighbourhoods) -> Tensor:
    """Where a pose holds, be it by chance."""
    return (view.concordance >= HOLDS) & (view.mass.sum(0) > 0)


def _held(view: Neighbourhoods) -> Tensor:
    """Where a pose holds about as well as for most of the bone for which it does."""
    mass, holds = view.mass.sum(0), _holds(view)
    if not bool(holds.any()):
        return holds
    values, order = view.concordance[holds].sort()
    weights = mass[holds][order].cumsum(0)
    usual = values[torch.searchsorted(weights, weights[-1:] / 2)]
    return holds & (view.concordance >= usual - SPREAD)


def _cost(image: BoneImage, other: BoneImage, pose: Tensor, gain: float) -> Tensor:
    """``(z, y, x)`` what a pose leaves unexplained around each voxel of an image: squared differences of bone value.

    What lies outside the other field of view speaks neither for the pose nor against it.
    """
    to_other = torch.from_numpy(np.linalg.inv(other.affine) @ pose.numpy() @ image.affine)
    index = grid_index(image.values.shape, to_other).to(image.values)
    values, seen = sample_linear(other.values, index.view(-1, 3), other.inside, finite=True)
    values, seen = values.view_as(image.values), seen.view_as(image.values) > 0.999
    return _around((gain * values - image.values).square().where(seen, UNKNOWN * image.values.square()))


def _around(values: Tensor) -> Tensor:
    """Means of what lies around each voxel. What is near counts most, and far things where nothing near tells."""
    return torch.stack([gaussian(values, reach) for reach in REACHES]).sum(0)


def _nearest(values: Tensor, affine: np.ndarray, image: BoneImage, outside: float) -> Tensor:
    """Values ``(z, y, x)`` of a grid with an `affine`, index to world, at the nearest voxels of an image."""
    index = grid_index(image.shape, torch.from_numpy(np.linalg.inv(affine) @ image.affine)).round().long()
    index = index.to(values.device)
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
