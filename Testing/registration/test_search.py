"""The full-range search: known poses found, also where centroids do not correspond."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.geometry.rigid import geodesic_angle, rigid, rotation_from_axis_angle, spiral_rotations
from DNetRegistrationLib.registration.search import (
    FAST,
    FINE,
    FINER,
    SearchPlan,
    _axis,
    _finer,
    _turned,
    correlate_rotations,
    distinct_indices,
    search,
)
from DNetRegistrationLib.registration.similarity import overlap_correlation
from DNetRegistrationLib.synthesis.pairs import make_pair, target_registration_error
from scipy.ndimage import gaussian_filter


def prepared(pair):
    scans = (pair.fixed, pair.moving)
    return prepare(*[native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in scans])


def nearest(pair, poses) -> float:
    """Smallest target registration error among the poses, in mm; poses at random are off by some 3 mm."""
    return min(target_registration_error(pair, pose.numpy()) for pose in poses)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whole_bones_are_found_by_the_first_plan(seed):
    pair = make_pair(seed)
    cubes = [scan.cube for scan in prepared(pair)]
    poses = search(*cubes, FAST)
    scores = overlap_correlation(*[cube.as_image for cube in cubes], poses)
    assert poses.dtype == torch.float64 and len(poses) <= FAST.finalists
    assert (scores[:-1] >= scores[1:]).all()
    assert target_registration_error(pair, poses[0].numpy()) < 0.04


@pytest.mark.parametrize("seed", [25, *(pytest.param(n, marks=pytest.mark.slow) for n in (34, 49))])
def test_the_true_pose_is_a_candidate_although_the_centroids_are_far_apart(seed):
    """Each scan has lost another part of the bone: what all centroid methods cannot do."""
    pair = make_pair(seed, keep=0.5)
    fixed, moving = prepared(pair)
    carried = pair.matrix[:3, :3] @ fixed.place.center + pair.matrix[:3, 3]
    assert np.linalg.norm(carried - moving.place.center) > 1.2
    poses = correlate_rotations(fixed.cube, moving.cube, spiral_rotations(FAST.rotations), FAST)
    assert nearest(pair, poses) < 0.8


def test_candidates_are_rigid_and_apart(pair):
    fixed, moving = prepared(pair)
    poses = correlate_rotations(fixed.cube, moving.cube, spiral_rotations(256), SearchPlan(256, 4, 24, 12, 2))
    assert len(poses) == 12
    eye = torch.eye(3).double()
    assert (poses[:, :3, :3].transpose(1, 2) @ poses[:, :3, :3] - eye).abs().max() < 1e-12
    for i in range(12):
        for j in range(i):
            angle = float(geodesic_angle(poses[i, :3, :3], poses[j, :3, :3]))
            center = torch.tensor(np.append(fixed.cube.center, 1.0))
            assert angle >= 0.12 or float(((poses[i] - poses[j]) @ center).norm()) >= 0.16


def test_the_fine_plan_takes_twice_the_resolution(pair):
    fixed, moving = prepared(pair)
    # A tenth of the rotations, for time: the nearest is then 10 to 20 degrees off.
    plan = SearchPlan(480, FINE.factor, FINE.grid, 24, 4)
    assert nearest(pair, correlate_rotations(fixed.cube, moving.cube, spiral_rotations(plan.rotations), plan)) < 0.5


def linear(image: np.ndarray, point: np.ndarray) -> float:
    """Linear interpolation at a position (x, y, z) in voxels about the middle; zero beyond the image."""
    value = 0.0
    start = np.floor(point + (len(image) - 1) / 2).astype(int)
    share = point + (len(image) - 1) / 2 - start
    for corner in np.ndindex(2, 2, 2):
        at = start + corner
        if (at >= 0).all() and (at < len(image)).all():
            value += np.prod(np.where(corner, share, 1 - share)) * image[tuple(at[::-1])]
    return value


def test_turned_copies_show_the_image_where_the_turn_puts_each_voxel():
    """Exact where voxels fall on voxels; elsewhere within a sixth of a voxel along each axis."""
    generator = np.random.default_rng(7)
    image = gaussian_filter(generator.normal(size=(9, 9, 9)), 1.5)
    quarter = rotation_from_axis_angle(torch.tensor((0.0, 0, 1)).double(), torch.tensor(np.pi / 2).double())
    oblique = rotation_from_axis_angle(torch.tensor((0.6, 0, 0.8)).double(), torch.tensor(0.7).double())
    rotations = torch.stack((torch.eye(3).double(), quarter, oblique)).float()
    finer = _finer(torch.tensor(image, dtype=torch.float32))
    copies = _turned(finer, FINER * _axis(13, 1.0, torch.device("cpu")), rotations).numpy()
    steepest = max(np.abs(np.diff(np.pad(image, 1), axis=axis)).max() for axis in range(3))
    for number, rotation in enumerate(rotations.double().numpy()):
        allowed = 1e-5 if number < 2 else 3 * steepest / 6
        for z, y, x in np.ndindex(13, 13, 13):
            expected = linear(image, rotation @ (np.array((x, y, z)) - 6.0))
            assert abs(copies[number, z, y, x] - expected) <= allowed, (number, x, y, z)


def test_distinct_indices_by_hand():
    def pose(angle, shift):
        turn = rotation_from_axis_angle(torch.tensor((0.0, 0, 1)).double(), torch.tensor(float(angle)).double())
        return rigid(turn, torch.tensor((shift, 0.0, 0.0)).double())

    poses = torch.stack([pose(0, 0), pose(0.1, 0.1), pose(0.1, 0.3), pose(0.5, 0), pose(0.6, 0.1)])
    scores = torch.tensor([0.5, 0.9, 0.3, 0.7, 0.8])
    # 1 first; 4 is far from it; 3 is near 4, 0 near 1; 2 is 0.2 mm from 1.
    assert distinct_indices(poses, scores, 5, np.zeros(3), shift=0.2) == [1, 4, 2]
    assert distinct_indices(poses, scores, 1, np.zeros(3), shift=0.2) == [1]
    # The same turn moves a centre 10 mm off by another millimetre.
    assert distinct_indices(poses, scores, 5, np.array((0.0, 10.0, 0.0)), shift=0.2) == [1, 4, 3, 0, 2]


def test_same_search_twice_and_progress_rises(pair):
    fixed, moving = prepared(pair)
    told = []
    plan = SearchPlan(256, 4, 24, 8, 2)
    first = search(fixed.cube, moving.cube, plan, told.append)
    second = search(fixed.cube, moving.cube, plan)
    assert torch.equal(first, second)
    assert told == sorted(told) and told[0] == 0 and 0.8 < told[-1] <= 1


def test_whatever_check_raises_ends_the_search(pair):
    fixed, moving = prepared(pair)

    def check(fraction):
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(fixed.cube, moving.cube, FAST, check)
