"""Synthetic pairs: exact geometry, and what the options promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.pairs import (
    SHARED,
    make_pair,
    random_rotation,
    target_registration_error,
)
from DNetRegistrationLib.synthesis.tibia import Animal
from poses import pose_at, rotation
from scipy import ndimage


@pytest.fixture(scope="module")
def pair():
    return make_pair(11, size=48, spacing=0.1, scale="raw")


def test_same_seed_same_pair_other_seed_other_pair(pair):
    again = make_pair(11, size=48, spacing=0.1, scale="raw")
    assert np.array_equal(again.fixed.voxels, pair.fixed.voxels)
    assert np.array_equal(again.moving.voxels, pair.moving.voxels)
    assert np.array_equal(again.matrix, pair.matrix)
    other = make_pair(12, size=48, spacing=0.1, scale="raw")
    assert not np.array_equal(other.fixed.voxels, pair.fixed.voxels)
    assert np.abs(other.matrix - pair.matrix).max() > 0.01


def test_matrix_is_rigid_and_relates_the_poses(pair):
    turn = pair.matrix[:3, :3]
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    # A landmark of the animal, seen in both worlds.
    landmark = np.array([0.8, -0.2, 0.1, 1.0])
    np.testing.assert_allclose(pair.matrix @ (pair.fixed_pose @ landmark), pair.moving_pose @ landmark, atol=1e-12)
    assert pair.matrix.dtype == np.float64 and pair.same


@pytest.mark.parametrize(
    "grids",
    [
        (Grid.centered((40, 44, 36), (0.1, 0.09, 0.12)), Grid.centered(40, 0.1, center=(300.0, -80.0, 25.0))),
        (
            Grid.centered(40, 0.1, rotation(1), (-5.0, 3.0, 9.0)),
            # Left-handed: the index grid is mirrored, the bone is not.
            Grid.centered((38, 40, 46), (0.11, 0.1, 0.08), rotation(2) @ np.diag((1, 1, -1.0)), (1.0, 2.0, -70.0)),
        ),
    ],
    ids=["anisotropic, far", "oblique, left-handed"],
)
def test_moving_scan_shows_the_bone_where_the_matrix_says(grids):
    pair = make_pair(5, fixed_grid=grids[0], moving_grid=grids[1], clean=True, contrast=False, scale="attenuation")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grids[0].size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    world = pair.fixed.to_world(index) @ pair.matrix[:3, :3].T + pair.matrix[:3, 3]
    at = pair.moving.to_index(world)[..., ::-1]
    seen = np.all((at > 1) & (at < np.array(pair.moving.voxels.shape) - 2), axis=-1)
    moved = ndimage.map_coordinates(pair.moving.voxels, np.moveaxis(at, -1, 0), order=3)
    # Both blurred, so that what remains of the grids' different boxes is small.
    moved = np.where(seen, moved, pair.fixed.voxels)
    first, second = (ndimage.gaussian_filter(v, 1.5) for v in (pair.fixed.voxels, moved))
    well = ndimage.binary_erosion(seen, iterations=6)
    assert np.corrcoef(first[well], second[well])[0, 1] > 0.99
    # Boxes of two shapes and an interpolation blur differently: second derivatives take that up, apart from the shift.
    gradient = np.gradient(first)
    second_order = [d for g in gradient for d in np.gradient(g)]
    model = np.stack([term[well] for term in (*gradient, *second_order)], 1)
    off = np.linalg.lstsq(model, (second - first)[well], rcond=None)[0][:3] * pair.fixed.spacing[::-1]
    assert np.abs(off).max() < 0.001


def test_keep_cuts_the_same_scans_down_to_the_fraction():
    for seed in (1, 4):
        whole = make_pair(seed, size=32, spacing=0.16, scale="hu")
        cut = make_pair(seed, size=32, spacing=0.16, scale="hu", keep=0.5)
        assert np.array_equal(cut.matrix, whole.matrix)
        for role in ("fixed", "moving"):
            scanned, part = getattr(whole, role), getattr(cut, role)
            mask, kept = getattr(whole, f"{role}_bone"), getattr(cut, f"{role}_bone")
            assert kept.sum() >= 0.5 * mask.sum()
            assert kept.shape == part.voxels.shape
            # World positions settle where the part belongs.
            low = np.rint(scanned.to_index(part.origin)).astype(int)[::-1]
            block = tuple(slice(a, a + n) for a, n in zip(low, part.voxels.shape, strict=True))
            assert np.array_equal(scanned.voxels[block], part.voxels)
            assert np.array_equal(mask[block], kept)
        assert (cut.fixed.size != whole.fixed.size).any() or (cut.moving.size != whole.moving.size).any()
        points = cut.fixed.to_world(np.argwhere(cut.fixed_bone)[:, ::-1]) @ cut.matrix[:3, :3].T + cut.matrix[:3, 3]
        index = cut.moving.to_index(points)
        both = np.all((index >= 0) & (index <= cut.moving.size - 1), axis=1).sum()
        assert both / min(cut.fixed_bone.sum(), cut.moving_bone.sum()) > SHARED - 0.03


def test_shaft_leaves_the_field_of_view():
    for seed in range(4):
        bone = make_pair(seed, size=32, spacing=0.16).fixed_bone
        faces = [face for axis in range(3) for face in (bone.take(0, axis), bone.take(-1, axis))]
        assert any(face.any() for face in faces) and 0.02 < bone.mean() < 0.2


def test_translation_is_about_the_grid_centers():
    shifts = []
    for seed in range(6):
        pair = make_pair(seed, size=12, spacing=0.15, max_translation=0.3)
        center = pair.matrix[:3, :3] @ pair.fixed.center + pair.matrix[:3, 3]
        shifts.append(center - pair.moving.center)
        np.testing.assert_allclose(pair.drawn["shift_mm"], shifts[-1], atol=1e-12)
    assert 0.15 < np.abs(shifts).max() <= 0.3


def test_given_matrix_is_used():
    matrix = pose_at(4, (0.4, 0.4, 0.4), (0, 0, 0))
    pair = make_pair(2, size=24, spacing=0.2, matrix=matrix)
    assert np.array_equal(pair.matrix, matrix)
    angle = np.degrees(np.arccos((np.trace(matrix[:3, :3]) - 1) / 2))
    assert pair.drawn["rotation_deg"] == pytest.approx(angle)


def test_target_registration_error_is_the_mean_over_bone(pair):
    wrong = pose_at(1, (0.1, 0.0, -0.2), (0, 0, 0))
    distances = []
    for z, y, x in np.argwhere(pair.fixed_bone)[:200]:
        point = np.append(pair.fixed.to_world([x, y, z]), 1)
        distances.append(np.linalg.norm((wrong @ point - pair.matrix @ point)[:3]))
    few = np.zeros_like(pair.fixed_bone)
    few[tuple(np.argwhere(pair.fixed_bone)[:200].T)] = True
    assert target_registration_error(replace(pair, fixed_bone=few), wrong) == pytest.approx(np.mean(distances))
    assert target_registration_error(pair, pair.matrix) == 0
    moved = pair.matrix.copy()
    moved[:3, 3] += (0.03, 0.0, 0.04)
    assert target_registration_error(pair, moved) == pytest.approx(0.05)


def test_random_rotations_have_their_distributions():
    generator = np.random.default_rng(0)
    uniform = np.array([random_rotation(generator) for _ in range(4000)])
    assert np.abs(uniform @ uniform.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    np.testing.assert_allclose(np.linalg.det(uniform), 1)
    # Haar: the mean rotation is zero, and the angle's mean is pi/2 + 2/pi.
    assert np.abs(uniform.mean(0)).max() < 0.04
    angles = np.arccos(np.clip((uniform.trace(axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.04)
    paper = np.array([random_rotation(generator, "axis-angle") for _ in range(4000)])
    angles = np.arccos(np.clip((paper.trace(axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(np.pi / 2, abs=0.06)
    small = [random_rotation(generator, max_angle=0.5) for _ in range(200)]
    assert 0.4 < np.arccos((np.trace(small, axis1=1, axis2=2) - 1) / 2).max() <= 0.5


def test_relatives_are_nearer_than_strangers_and_not_the_same():
    for seed in range(3):
        animal = Animal.draw(seed)
        genes = animal.shape.mantle.radius
        near = np.abs(replace(animal.relative(seed, 0.2), left=animal.left).shape.mantle.radius - genes).mean()
        far = np.abs(Animal.draw(seed + 100).shape.mantle.radius - genes).mean()
        assert 0 < near < 0.6 * far
    assert make_pair(1, size=16, spacing=0.3, impostor="relative").same is False


@pytest.mark.parametrize(
    "options",
    [{"impostor": "cat"}, {"scale": "mm"}, {"keep": 0.0}, {"keep": 1.5}, {"rotations": "euler"}, {"background": "oil"}],
)
def test_bad_options_are_named(options):
    value = str(next(iter(options.values())))
    with pytest.raises(OptionError, match=value) as caught:
        make_pair(1, size=8, **options)
    assert caught.value.setting.quantity in options and caught.value.remedy


def test_options_that_are_none_are_refused():
    with pytest.raises(TypeError, match="colour"):
        make_pair(1, colour="red")
