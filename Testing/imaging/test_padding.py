"""What was added around a scan, and is no data: planes of one grey value, and fill brighter than bone."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.imaging.padding import bright_fill, content, with_data
from DNetRegistrationLib.imaging.volume import Volume

NOISE = np.random.default_rng(0).integers(0, 1000, (12, 14, 16)).astype(np.uint16)


@pytest.mark.parametrize("value", [0, 500, 65535])
@pytest.mark.parametrize("widths", [((3, 0), (0, 2), (5, 1)), ((4, 4), (4, 4), (4, 4)), ((0, 0), (0, 0), (0, 7))])
def test_planes_of_one_value_are_left_off(value, widths):
    padded = np.pad(NOISE, widths, constant_values=value)
    np.testing.assert_array_equal(padded[content(Volume(padded))], NOISE)


def test_the_background_of_a_scan_without_noise_is_kept():
    voxels = np.zeros((20, 20, 20))
    voxels[np.linalg.norm(np.indices(voxels.shape) - 9.5, axis=0) < 6] = 3000
    assert content(Volume(voxels)) == (slice(0, 20),) * 3
    assert content(Volume(np.zeros((9, 9, 9)))) == (slice(0, 9),) * 3


def test_fill_brighter_than_the_scan_is_no_data():
    padded = np.pad(NOISE, ((0, 0), (0, 4), (0, 0)), constant_values=65535)
    mask = np.ones(padded.shape, bool)
    mask[:2] = False
    np.testing.assert_array_equal(with_data(Volume(padded), None), padded != 65535)
    np.testing.assert_array_equal(with_data(Volume(padded), mask), mask & (padded != 65535))
    circle = NOISE.copy()
    _, y, x = np.indices(NOISE.shape)
    circle[((y - 6.5) / 7.5) ** 2 + ((x - 7.5) / 8.5) ** 2 > 1] = 63536  # -2000, read as unsigned
    assert bright_fill(Volume(circle)) is None  # the corners of so small a circle are no cubes of three voxels
    circle = np.kron(circle, np.ones((2, 2, 2), np.uint16))
    assert bright_fill(Volume(circle)) == 63536


@pytest.mark.parametrize("value", [0, 200])
def test_fill_as_dark_as_the_scan_is_left_to_it(value):
    assert bright_fill(Volume(np.pad(NOISE, 4, constant_values=value))) is None
    assert with_data(Volume(NOISE), None) is None
