"""Rivals: poses apart from the one that was found, which may fit as well.

A box can be turned by half a turn, a gear by a tooth, a lattice shifted by a cell. Of such a body no pose can be told
from the others, and a good agreement says nothing. A turn that takes a body to itself leaves its inertia as it is, so
that few need to be tried: half turns about the principal axes; where two moments of inertia are about equal, all turns
about the third axis; where all three are, all turns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bone.cube import points_of_bone
from ..bone.images import BoneImage, pool_image
from ..bone.prepare import PreparedScan
from ..geometry.rigid import apply, inverse, rotation_from_axis_angle, spiral_rotations
from ..imaging.tensors import sample_linear
from .refinement import gauss_newton
from .search import SearchPlan, correlate_rotations, distinct_indices
from .settling import rested
from .similarity import overlap_scores
from .template import edge_template

# Extents along two principal axes (root mean squares) within this factor count as equal. A cut that both scans share
# changes them.
ALIKE = 1.25
# So many turns about an axis, or over all of SO(3), that refinement finds what lies between.
TURNS, PLAN = 24, SearchPlan(rotations=576, factor=4, grid=24, candidates=8, finalists=3)
# A pose is another one from so many working voxels on, root mean square distance over the bone.
APART = 1.0
# What slides along a shaft comes to rest where the found pose does by its edges alone, if these lead that no farther.
# Right ones were led by up to 1.3; of two littermates' one rested at 2.1 and fitted better.
LED = 1.5
# Steps until it rests, of half a voxel at most each: one came back by 4 voxels.
SLIDES = 24
# Voxels that are averaged along each axis, points, and steps of refinement at most. A pose that comes back is no rival:
# along a piece of shaft it comes slowly, and after ten steps was still 2 to 3.5 voxels away, after sixty one 1.6.
PASSES = ((2, 1500, 10), (1, 4000, 60))
# What a rival leaves unexplained, in multiples of what the found pose does: 0.9 to 1.1 by symmetric solids, up to 1.35
# by what can be turned or shifted, 2.5 and more by most bones, 1.39 by one that had changed. At half the resolution a
# rival beyond the second limit is given up.
DISTINCT, HOPELESS = 1.4, 3.0
# Interpolation and noise alone leave as much unexplained: a ball left 0.009 in the pose that was found and 0.014 in
# another.
LEAST_UNEXPLAINED = 0.015


@dataclass(frozen=True)
class Rival:
    """The pose that fits best of all that are apart from the one that was found.

    Attributes:
        pose: ``(4, 4)`` float64, fixed to moving, LPS mm.
        distinctness: what it leaves unexplained, in multiples of what the found pose does: 1 where both fit equally.
    """

    pose: Tensor
    distinctness: float

    @property
    def fits_equally(self) -> bool:
        """Whether the pose that was found is one of several that fit equally."""
        return self.distinctness < DISTINCT


def distinctness(fixed: BoneImage, moving: BoneImage, pose: Tensor, others: Tensor) -> Tensor:
    """``(h,)`` what other poses ``(h, 4, 4)`` leave unexplained, in multiples of what a pose ``(4, 4)`` does.

    By the scores, which favour a large overlap, or by the correlations over the overlap, whichever tells them apart
    better: of two symmetric poses neither does.
    """
    measures = overlap_scores(fixed, moving, torch.cat((pose[None], others)))
    unexplained = (1 - torch.stack([one.double() for one in measures])).clamp(min=LEAST_UNEXPLAINED)
    return (unexplained[:, 1:] / unexplained[:, :1]).max(0).values


def find_rival(
    fixed: PreparedScan, moving: PreparedScan, pose: Tensor, check: Callable[[], None] = lambda: None
) -> Rival | None:
    """The best pose apart from one that was found; None where none comes near it.

    Args:
        fixed, moving: the scans.
        pose: ``(4, 4)`` float64 on the CPU, fixed to moving, LPS mm, refined at the working spacing or beyond.
        check: called between steps; an exception from it ends the work.
    """
    spacing = fixed.cube.spacing
    points, weights = bone_of_both(fixed.levels[-1], moving.levels[-1], pose)
    poses = _candidates(fixed, moving, pose[:3, :3] @ turns_onto_itself(points, weights), check)
    some = torch.from_numpy(points[:: max(1, len(points) // 500)])

    def away(poses: Tensor, one: Tensor = pose) -> Tensor:
        return (apply(poses, some) - apply(one, some)).square().sum(-1).mean(-1).sqrt() / spacing

    def apart(poses: Tensor) -> Tensor:
        return poses[away(poses) > APART]

    def slides_back(rival: Tensor) -> bool:
        """Whether a pose comes to rest where the found one does: the steps above are too short along a shaft."""
        rests = rested(first, second, rival, SLIDES)
        if away(rests) <= APART:
            return True
        home = rested(first, second, pose)
        return bool(away(home) <= LED and away(rests, home) <= APART)

    for factor, count, steps in PASSES:
        first, second = (pool_image(scan.cube.as_image, factor) for scan in (fixed, moving))
        template, poses = edge_template(first, count), apart(poses)
        if len(poses):
            tolerance = 0.01 * spacing * factor
            poses = apart(gauss_newton(template, second, poses, steps, tolerance=tolerance, check=check).transforms)
        told = distinctness(first, second, pose, poses)
        poses, told = poses[told < HOPELESS], told[told < HOPELESS]
        if len(poses) == 0:
            return None
        best = distinct_indices(poses, -told, PLAN.finalists, fixed.place.center, shift=spacing)
        poses, told = poses[best], told[best]
    for one, distinct in zip(poses, told.tolist(), strict=True):
        if distinct >= DISTINCT or not slides_back(one):
            return Rival(one, distinct)
    return None


def _candidates(fixed: PreparedScan, moving: PreparedScan, rotations: Tensor, check: Callable[[], None]) -> Tensor:
    """Poses that correlate most: with the first rotation at several translations, with each other one at its best."""
    shifted = correlate_rotations(fixed.cube, moving.cube, rotations[:1], PLAN, peaks=PLAN.candidates)
    turned = correlate_rotations(fixed.cube, moving.cube, rotations[1:], PLAN, lambda _: check())
    return torch.cat((shifted, turned))


def turns_onto_itself(points: np.ndarray, weights: np.ndarray) -> Tensor:
    """``(n, 3, 3)`` float64 turns that may take a body to itself, as far as its inertia tells; the first is none.

    Args:
        points: ``(m, 3)`` of the body, in mm.
        weights: ``(m,)`` masses.
    """
    away = points - np.average(points, axis=0, weights=weights)
    # Eigenvalues ascend; they are mean squares along the axes.
    squares, columns = np.linalg.eigh((weights[:, None] * away).T @ away / weights.sum())
    axes, extents = torch.from_numpy(columns.T.copy()), np.sqrt(np.maximum(squares, 0))
    alike = extents[1:] <= ALIKE * extents[:-1]
    none, half_turns = torch.eye(3, dtype=torch.float64)[None], rotation_from_axis_angle(axes, torch.full((3,), np.pi))
    if alike.all():
        return torch.cat((none, spiral_rotations(PLAN.rotations)))
    if not alike.any():
        return torch.cat((none, half_turns))
    single, other = (2, 0) if alike[0] else (0, 2)
    angles = torch.arange(TURNS, dtype=torch.float64) * (2 * np.pi / TURNS)
    about = rotation_from_axis_angle(axes[single].expand(TURNS, 3), angles)
    return torch.cat((about, about @ half_turns[other]))


def bone_of_both(fixed: BoneImage, moving: BoneImage, pose: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(n, 3)`` in mm, in the space of the fixed scan, and masses ``(n,)`` of all bone that the scans show.

    The moving scan adds what lies outside the field of view of the fixed one.
    """
    points, weights = points_of_bone(fixed)
    added, more = points_of_bone(moving)
    added = apply(inverse(pose), torch.from_numpy(added)).numpy()
    index = (added - fixed.affine[:3, 3]) @ np.linalg.inv(fixed.affine[:3, :3]).T
    _, inside = sample_linear(fixed.values, torch.from_numpy(index).to(fixed.values), fixed.inside, finite=True)
    unseen = inside.cpu().numpy() < 0.5
    volumes = [abs(np.linalg.det(image.affine[:3, :3])) for image in (fixed, moving)]
    return np.concatenate((points, added[unseen])), np.concatenate((weights * volumes[0], more[unseen] * volumes[1]))
