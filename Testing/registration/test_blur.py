"""The blur of two scans is made alike, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib import align
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.blur import blurred, match_blur
from DNetRegistrationLib.registration.similarity import agreement
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at
from scipy import ndimage

SPACING = np.array((0.08, 0.1, 0.16))


def grid(turn, middle, spacing=SPACING, shape=(24, 40, 48)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


def blobs(blur: float, affine: np.ndarray, pose: np.ndarray, shape=(24, 40, 48), seed=0) -> BoneImage:
    """Gaussian blobs of a deviation of 0.12 mm through a Gaussian of the deviation `blur` in mm, in closed form."""
    generator = np.random.default_rng(seed)
    centers, heights = generator.uniform(-1.6, 1.6, (40, 3)), generator.uniform(0.5, 1.0, 40)
    index = np.indices(shape).reshape(3, -1)[::-1].T
    to_body = np.linalg.inv(pose) @ affine
    points = index @ to_body[:3, :3].T + to_body[:3, 3]
    variance = 0.12**2 + blur**2
    values = np.zeros(len(points))
    for center, height in zip(centers, heights, strict=True):
        squares = ((points - center) ** 2).sum(1)
        values += height * (0.12**2 / variance) ** 1.5 * np.exp(-squares / (2 * variance))
    return BoneImage(torch.tensor(values.reshape(shape), dtype=torch.float32), affine)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.0, 0.15), (0.12, 0.0), (0.06, 0.16)])
def test_the_sharper_image_is_blurred_by_what_the_other_is(first, second):
    """Oblique, mirrored and unequal grids off the origin; variances of Gaussians add up."""
    poses = pose_at(TURNS[1], (50, -30, 7)), pose_at(TURNS[2], (-8, 3, 40))
    affines = grid(TURNS[0], (50, -30, 7)), grid(TURNS[3] @ np.diag((1.0, -1, 1)), (-8, 3, 40))
    images = [blobs(*of_one) for of_one in zip((first, second), affines, poses, strict=True)]
    pose = torch.as_tensor(poses[1] @ np.linalg.inv(poses[0]))
    found = match_blur(*images, pose)
    expected = np.sqrt(max(0.0, second**2 - first**2)), np.sqrt(max(0.0, first**2 - second**2))
    # A step is a quarter of a voxel of 0.113 mm.
    np.testing.assert_allclose(found, expected, atol=0.06)
    alike = agreement(*[blurred(*of_one) for of_one in zip(images, found, strict=True)], pose)
    assert alike >= agreement(*images, pose) and alike > 0.98


def test_a_blur_is_a_gaussian_in_mm_within_the_field_of_view():
    values = np.random.default_rng(1).random((20, 22, 24))
    inside = np.ones(values.shape)
    inside[:, :8] = 0
    image = BoneImage(
        torch.tensor(values).float(), grid(TURNS[0], (1, 2, 3), shape=values.shape), torch.tensor(inside).float()
    )
    sigma = 0.1 / SPACING[::-1]
    total, weight = (
        ndimage.gaussian_filter(one, sigma, mode="constant", radius=[max(1, int(3 * s + 0.5)) for s in sigma])
        for one in (values * inside, inside)
    )
    np.testing.assert_allclose(blurred(image, 0.1).values.numpy(), total / np.maximum(weight, 1e-3), atol=1e-5)
    assert blurred(image, 0.0) is image


@pytest.mark.parametrize("seed", [900_009, *(pytest.param(n, marks=pytest.mark.slow) for n in (900_001, 900_015))])
def test_scans_of_different_blur_are_accepted(seed):
    case = make_adversarial(seed, "kernel")
    result = align(case.fixed, case.moving)
    assert result.accepted and case.error_mm(result.matrix) < 0.08
