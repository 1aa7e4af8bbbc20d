"""Profiles on oblique grids, against functions known everywhere."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.profiles import Sampler, along, edge_blur, half_height
from DNetRegistrationLib.imaging.volume import Volume
from scipy.special import ndtr

HEIGHTS = np.arange(-0.1, 0.2, 0.005)


def _scan(function, shape=(40, 36, 44)):
    turn, _ = np.linalg.qr(np.random.default_rng(8).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0.02, 0.004, 0], [0, 0.025, 0], [0, 0, 0.015]])
    affine[:3, 3] = (50, -20, 7)
    z, y, x = np.indices(shape)
    points = np.stack((x, y, z), -1) @ affine[:3, :3].T + affine[:3, 3]
    return Volume(function(points).astype(np.float32), affine), points


def _wave(points):
    return 100 * np.sin((points - (50, -20, 7)) @ (20.0, 9.0, -12.0))


def test_a_scan_is_interpolated_at_its_place_in_another_world():
    scan, points = _scan(_wave)
    matrix = np.eye(4)
    matrix[:3, 3] = (1.0, 2.0, -3.0)
    inside = points[10:-10:7, 10:-10:7, 10:-10:7].reshape(-1, 3) + 0.006
    found = Sampler(scan, matrix, inside - matrix[:3, 3], 0.02)(inside - matrix[:3, 3])
    assert found == pytest.approx(_wave(inside), abs=0.7)


def test_many_points_are_interpolated_in_pieces_as_few_are(monkeypatch):
    scan = Volume(np.random.default_rng(3).integers(0, 999, (9, 8, 7)).astype(np.int16), np.eye(4))
    points = np.random.default_rng(4).uniform(-1, 9, (40, 5, 3))
    sampler = Sampler(scan, np.eye(4), points.reshape(-1, 3), 0.0)
    whole = sampler(points)
    monkeypatch.setattr("DNetRegistrationLib.cartilage.profiles._AT_ONCE", 33)
    np.testing.assert_array_equal(sampler(points), whole)
    assert np.isnan(whole).any() and np.isfinite(whole).any() and whole.shape == (40, 5)


def test_outside_the_field_of_view_there_are_no_values():
    scan, points = _scan(_wave)
    scan.voxels[:, :, :10] = np.nan
    middle = points[20, 18, 22]
    far = scan.to_world((-5, 18, 20)), scan.to_world((5, 18, 20)), scan.to_world((50, 18, 20))
    asked = np.array([middle, *far])
    seen = np.isfinite(Sampler(scan, np.eye(4), asked, 0.02)(asked))
    assert seen.tolist() == [True, False, False, False]


def test_heights_run_along_normals():
    points = along(np.array([[1.0, 2, 3]]), np.array([[0.0, 0, 1]]), np.array([-0.5, 0, 2]))
    assert points.tolist() == [[[1, 2, 2.5], [1, 2, 3], [1, 2, 5]]]


def test_the_edge_is_where_bone_has_half_its_height_over_what_lies_on_it():
    shifts = np.array([-0.012, 0.0, 0.003, 0.011])
    levels = np.array([[3000, 100], [2500, -1000], [3000, 600], [200, 20]])
    profiles = levels[:, 1:] + (levels[:, :1] - levels[:, 1:]) * ndtr((shifts[:, None] - HEIGHTS) / 0.008)
    found = half_height(profiles, HEIGHTS, 0.03, 0.06, 0.03)
    assert found == pytest.approx(shifts, abs=0.0006)
    assert np.isnan(half_height(np.zeros((1, len(HEIGHTS))), HEIGHTS, 0.03, 0.06, 0.03)[0])


@pytest.mark.parametrize("blur", [0.005, 0.009, 0.014])
def test_the_blur_is_that_of_the_edge(blur):
    generator = np.random.default_rng(2)
    profiles = 3000 * ndtr(-HEIGHTS / blur) + 100 + 60 * generator.standard_normal((300, len(HEIGHTS)))
    assert edge_blur(profiles, HEIGHTS, 0.02) == pytest.approx(blur, rel=0.08)
