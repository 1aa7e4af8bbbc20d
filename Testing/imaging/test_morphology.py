"""Dilation and components of masks, against loops and SciPy."""

import numpy as np
import pytest
from DNetRegistrationLib.imaging.morphology import MOST_LINES, dilate, dilate_ball, large_components
from scipy import ndimage


@pytest.mark.parametrize("times", [0, 1, 3])
def test_dilation_by_faces_is_that_of_scipy(times):
    mask = np.random.default_rng(3).random((6, 7, 8)) > 0.97
    expected = ndimage.binary_dilation(mask, iterations=times) if times else mask
    np.testing.assert_array_equal(dilate(mask, times), expected)


@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (0.3, 0.5, 0.9)])
def test_dilation_is_by_a_ball_in_mm(step):
    generator = np.random.default_rng(5)
    mask = generator.random((7, 8, 9)) > 0.985
    mask[3, 4, 4] = True
    radius = 1.5
    expected = np.zeros_like(mask)
    for voxel in np.ndindex(mask.shape):
        for other in np.argwhere(mask):
            if np.linalg.norm((np.array(voxel) - other) * step) <= radius:
                expected[voxel] = True
    np.testing.assert_array_equal(dilate_ball(mask, np.array(step), radius), expected)
    assert not dilate_ball(np.zeros_like(mask), np.array(step), radius).any()


@pytest.mark.parametrize("width", [8, 15, 16, 19])
def test_a_ball_that_reaches_over_the_end_of_a_line_does_not_reach_into_the_next(width):
    mask = np.zeros((3, 4, width), bool)
    mask[1, 1, -1] = mask[1, 2, 0] = mask[0, 0, width // 2] = True
    step, radius = np.array((1.0, 1.0, 0.13)), 1.2  # nine voxels along x, one across
    distance = ndimage.distance_transform_edt(~mask, step)
    np.testing.assert_array_equal(dilate_ball(mask, step, radius), distance <= 1.001 * radius)


def test_a_ball_of_many_voxels_is_the_same_by_a_distance_transform():
    mask = np.zeros((27, 25, 23), bool)
    mask[13, 12, 11] = mask[2, 2, 2] = True
    radius = 9.0
    assert (2 * int(radius) + 1) ** 2 > MOST_LINES
    distance = ndimage.distance_transform_edt(~mask)
    np.testing.assert_array_equal(dilate_ball(mask, np.ones(3), radius), distance <= 1.001 * radius)


def test_small_components_go_and_corners_connect_where_they_are_told_to():
    mask = np.zeros((8, 8, 8), bool)
    mask[:3, :3, :3] = True  # 27 voxels
    mask[3, 3, 3] = True  # touches by a corner
    mask[6:, 6:, 4:7] = True  # 12 voxels
    kept = large_components(mask, 0.4)
    assert kept.sum() == 39 and not kept[3, 3, 3]
    assert large_components(mask, 0.4, corners=True).sum() == 40
    assert large_components(mask, 1.0).sum() == 27
    assert not large_components(np.zeros_like(mask), 0.5).any()
