"""Pairs of the contest: their errors by hand, what agent changes, and what they tell about the pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.experiments.refinement.kinds import KINDS, START_DEG, Kind, make
from DNetRegistrationLib.geometry.transforms import affine_matrix, rotation_error_deg
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.scanner import scan, white_noise
from scipy.spatial.transform import Rotation

SMALL = Kind(22, 0.1, crop=True)


@pytest.fixture(scope="module")
def pair():
    return make(SMALL, 3)


@pytest.fixture(scope="module")
def plain():
    return make(replace(SMALL, contrast=False), 3)


def test_errors_by_hand(pair):
    up = pair.poses[0][:3, 2]
    for along in (0.01, -0.02):
        moved = pair.matrix @ affine_matrix(np.eye(3), along * up)
        assert pair.errors_um(moved) == pytest.approx((abs(1000 * along), 1000 * along))
    sideways = pair.matrix @ affine_matrix(np.eye(3), 0.03 * pair.poses[0][:3, 0])
    assert pair.errors_um(sideways) == pytest.approx((30, 0), abs=1e-6)
    # Half a turn about a point: twice the distance from the axis through it.
    middle = pair.points.mean(0)
    half = np.diag((-1.0, -1, 1))
    turned = pair.matrix @ affine_matrix(half, middle - half @ middle)
    expected = sum(2000 * np.hypot(*(point - middle)[:2]) for point in pair.points) / len(pair.points)
    assert pair.errors_um(turned)[0] == pytest.approx(expected)


def test_the_start_is_a_voxel_and_two_degrees_off(pair):
    start, middle = pair.near_start(), pair.points.mean(0)
    assert rotation_error_deg(pair.matrix, start) == pytest.approx(START_DEG)
    off = (np.linalg.inv(pair.matrix) @ start @ (*middle, 1))[:3] - middle
    assert np.linalg.norm(off) == pytest.approx(0.1)


@pytest.mark.parametrize("agent", ["even", pytest.param("varied", marks=pytest.mark.slow)])
def test_what_agent_changes(agent, pair, plain):
    assert not any(changed.any() for changed in plain.changed)
    seen = pair if agent == "even" else make(replace(SMALL, agent="varied"), 5)
    assert seen.contrast and not plain.contrast
    removed = seen.agent_removed()
    apart = np.abs(seen.moving.voxels.astype(float) - removed.voxels)
    # Noise and rings are the same in both, so that they are apart only by agent and by the rounding of the scanner.
    assert apart[~seen.changed[1]].max() < 0.011 * seen.sessions[1].bone * seen.sessions[1].gain + 1
    assert apart[seen.changed[1]].min() > 0.009 * seen.sessions[1].bone * 0.9 - 1 > 0
    assert apart.max() > 100
    # In the fixed scan it is the same tissue: at the same place of the bone the moving scan is changed too.
    index = np.argwhere(seen.bone)[:, ::-1]
    there = seen.fixed.to_world(index) @ seen.matrix[:3, :3].T + seen.matrix[:3, 3]
    nearest = np.rint(seen.moving.to_index(there)).astype(int)
    inside = ((nearest >= 0) & (nearest < seen.moving.size)).all(1)
    alike = seen.changed[0][tuple(index[inside][:, ::-1].T)] == seen.changed[1][tuple(nearest[inside][:, ::-1].T)]
    assert 0.05 < seen.changed[0][seen.bone].mean() < 0.6 and alike.mean() > 0.85


@pytest.mark.slow
def test_information_is_that_of_a_bone_that_moves(plain):
    """Here the bone is moved in the scanner, one small motion after the other; there the image's gradient is used."""
    middle, step = plain.points.mean(0), 0.02
    for number, found in enumerate(plain.informations()):
        volume, session = (plain.fixed, plain.moving)[number], plain.sessions[number]
        alone = replace(
            session, scale="attenuation", gain=1.0, noise=0.0, rings=0.0, cupping=0.0, blur=0.0, soft=session.medium,
            cartilage=session.medium, muscle=-9.0, fragments=(), strands=(), surface=None, tube=None,
        )  # fmt: skip
        grid = Grid(tuple(int(n) for n in volume.size), volume.affine)

        def seen(motion, number=number, alone=alone, grid=grid):
            moved = motion @ plain.poses[0]
            pose = moved if number == 0 else plain.matrix @ moved
            return scan(plain.animal, alone, grid, pose).voxels.astype(float).ravel() / 0.45e-3

        columns = []
        for axis in np.eye(3):
            turns = (Rotation.from_rotvec(way * step * axis).as_matrix() for way in (1, -1))
            columns.append(np.subtract(*(seen(affine_matrix(t, middle - t @ middle)) for t in turns)) / (2 * step))
        for axis in np.eye(3):
            columns.append(
                np.subtract(*(seen(affine_matrix(np.eye(3), way * step * axis)) for way in (1, -1))) / (2 * step)
            )
        columns.append(seen(np.eye(4)) - 1000 - session.medium)
        jacobian = np.stack(columns, -1) / white_noise(session, volume.spacing)
        expected = np.linalg.inv(np.linalg.inv(jacobian.T @ jacobian)[:6, :6])
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        assert found / scale == pytest.approx(expected / scale, abs=0.1)


@pytest.mark.slow
def test_the_bound_grows_with_noise(plain):
    noisy = replace(plain, sessions=tuple(replace(s, noise=3 * s.noise) for s in plain.sessions))
    assert noisy.bound_um() == pytest.approx(3 * plain.bound_um(), rel=1e-6)


@pytest.mark.slow
def test_the_bound_grows_with_what_is_left_out(pair):
    silent = replace(pair, sessions=(pair.sessions[0], replace(pair.sessions[1], uptake=0.0, soaked=0.0)))
    assert pair.bound_um() > silent.bound_um() > 0


def test_kinds_are_what_they_say():
    assert {kind.spacing for kind in KINDS.values()} == {0.08, 0.04, 0.025, 0.01}
    changed = make(replace(SMALL, noise=4.0, uptake=1234.0, keep=0.5), 3)
    usual = make(SMALL, 3)
    assert [s.noise for s in changed.sessions] == [4 * s.noise for s in usual.sessions]
    assert [s.uptake for s in changed.sessions] == [0, 1234]
    assert min(changed.fixed.size) < 22 or min(changed.moving.size) < 22
    # A crop's middle is below the joint.
    joint = usual.poses[0] @ (0, 0, -0.8, 1)
    assert np.abs(joint[:3] - usual.fixed.center).max() <= 0.1
