"""Cubic B-splines against SciPy's in float64, and against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.imaging.splines import Spline
from scipy import ndimage


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(14, 17, 23))


def test_samples_are_those_of_scipy_up_to_the_border(image):
    index = np.random.default_rng(1).uniform(0, 1, (400, 3)) * np.array(image.shape[::-1]) - 0.5
    index = np.vstack((index.clip(0, np.array(image.shape[::-1]) - 1), np.zeros(3), np.array(image.shape[::-1]) - 1.0))
    expected = ndimage.map_coordinates(image, index[:, ::-1].T, order=3, mode="mirror")
    found = Spline.through(torch.from_numpy(image)).sample(torch.from_numpy(index).float())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_passes_through_the_voxels(image):
    index = np.argwhere(np.isfinite(image))[:, ::-1].copy()
    found = Spline.through(torch.from_numpy(image)).sample(torch.from_numpy(index).float())
    np.testing.assert_allclose(found, image.ravel(), atol=1e-4)


def test_derivatives_are_those_of_differences(image):
    index = np.argwhere(np.isfinite(image[1:-1, 1:-1, 1:-1])) + 1
    step = 1e-3
    slope, curvature = np.empty((2, len(index), 3))
    for axis in range(3):
        before, here, after = (
            ndimage.map_coordinates(image, (index + way * step * np.eye(3)[2 - axis]).T, order=3, mode="mirror")
            for way in (-1, 0, 1)
        )
        slope[:, axis] = (after - before) / (2 * step)
        curvature[:, axis] = (after - 2 * here + before) / step**2
    at = torch.from_numpy(np.ravel_multi_index(index.T, image.shape))
    found = Spline.through(torch.from_numpy(image)).derivatives(at)
    np.testing.assert_allclose(found[0], slope, atol=1e-3)
    np.testing.assert_allclose(found[1], curvature, atol=2e-2)


def test_an_image_of_one_slice_is_sampled_in_its_plane():
    image = np.random.default_rng(2).normal(size=(1, 9, 8))
    index = np.array([(1.3, 2.6, 0.0), (6.9, 7.2, 0.0)])
    expected = ndimage.map_coordinates(image[0], index[:, 1::-1].T, order=3, mode="mirror")
    found = Spline.through(torch.from_numpy(image)).sample(torch.from_numpy(index).float())
    np.testing.assert_allclose(found, expected, atol=1e-4)
