"""The blur of two scans is made alike, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib import align
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.blur import VOXEL_VARIANCE, blurred, match_blur, without_coarse
from DNetRegistrationLib.registration.similarity import agreement, similarity
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at
from scipy import ndimage

SHAPE = (24, 40, 48)
# The blobs' own deviation in mm.
SIZE = 0.12
# A grid whose axes are not at right angles.
SHEAR = np.array(((1.0, 0.3, 0), (0, 1, -0.2), (0, 0, 1)))


def grid(linear, middle, shape=SHAPE) -> np.ndarray:
    """The affine of a grid with the voxel edges that the columns of ``(3, 3)`` are."""
    affine = np.eye(4)
    affine[:3, :3] = linear
    affine[:3, 3] = np.array(middle) - linear @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


def blobs(covariance, affine: np.ndarray, pose: np.ndarray, shape=SHAPE, seed=0) -> BoneImage:
    """Gaussian blobs about a pose through a Gaussian of a covariance ``(3, 3)`` in mm2 of the world, in closed form."""
    generator = np.random.default_rng(seed)
    centers, heights = generator.uniform(-1.6, 1.6, (40, 3)), generator.uniform(0.3, 0.6, 40)
    index = np.indices(shape).reshape(3, -1)[::-1].T
    points = index @ affine[:3, :3].T + affine[:3, 3]
    total = SIZE**2 * np.eye(3) + covariance
    height = (SIZE**6 / np.linalg.det(total)) ** 0.5
    values = np.zeros(len(points))
    for center, own in zip(centers @ pose[:3, :3].T + pose[:3, 3], heights, strict=True):
        away = points - center
        values += own * height * np.exp(-np.einsum("ni,ij,nj->n", away, np.linalg.inv(total), away) / 2)
    return BoneImage(torch.tensor(values.reshape(shape), dtype=torch.float32), affine)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.0, 0.15), (0.12, 0.0), (0.06, 0.16)])
def test_the_sharper_image_is_blurred_by_what_the_other_is(first, second):
    """Oblique and mirrored grids off the origin, with voxels of one size; variances of Gaussians add up."""
    poses = pose_at(TURNS[1], (50, -30, 7)), pose_at(TURNS[2], (-8, 3, 40))
    affines = grid(0.11 * TURNS[0], (50, -30, 7)), grid(0.11 * TURNS[3] @ np.diag((1.0, -1, 1)), (-8, 3, 40))
    blurs = [deviation**2 * np.eye(3) for deviation in (first, second)]
    images = [blobs(*of_one) for of_one in zip(blurs, affines, poses, strict=True)]
    pose = torch.as_tensor(poses[1] @ np.linalg.inv(poses[0]))
    found = match_blur(*images, pose)
    for one, expected in zip(found, (second**2 - first**2, first**2 - second**2), strict=True):
        np.testing.assert_allclose(one, one[0, 0] * np.eye(3), atol=1e-12)
        # A step is a quarter of a voxel of 0.11 mm.
        assert np.sqrt(one[0, 0]) == pytest.approx(np.sqrt(max(0.0, expected)), abs=0.06)
    alike = agreement(*[blurred(*of_one) for of_one in zip(images, found, strict=True)], pose)
    assert alike >= agreement(*images, pose) and alike > 0.98


@pytest.mark.parametrize("shear", [np.eye(3), SHEAR], ids=["thick", "thick, sheared"])
def test_each_image_is_blurred_by_what_its_voxels_lack_of_the_other_s(shear):
    """Slices three times as thick as voxels are wide, along other axes of the bone. Each image shows blobs through its
    own voxels; at the end both are through the same blur, and no more than it takes."""
    poses = pose_at(TURNS[1], (50, -30, 7)), pose_at(TURNS[2], (-8, 3, 40))
    edges = TURNS[0] @ shear @ np.diag((0.08, 0.09, 0.26)), TURNS[3] @ np.diag((0.24, -0.08, 0.08))
    voxels = [VOXEL_VARIANCE * one @ one.T for one in edges]
    shapes = (18, 40, 48), (48, 48, 18)
    affines = [grid(*of_one) for of_one in zip(edges, ((50, -30, 7), (-8, 3, 40)), shapes, strict=True)]
    images = [blobs(*of_one) for of_one in zip(voxels, affines, poses, shapes, strict=True)]
    pose = poses[1] @ np.linalg.inv(poses[0])
    found = match_blur(*images, torch.as_tensor(pose))
    turn = pose[:3, :3]
    first, second = (voxel + more for voxel, more in zip(voxels, found, strict=True))
    np.testing.assert_allclose(turn @ first @ turn.T, second, atol=1e-9)
    for one in found:
        assert np.linalg.eigvalsh(one)[0] > -1e-12
    np.testing.assert_allclose(turn @ found[0] @ turn.T @ found[1], 0, atol=1e-9)
    alike = agreement(*[blurred(*of_one) for of_one in zip(images, found, strict=True)], torch.as_tensor(pose))
    assert alike > 0.97 and 1 - alike < 0.5 * (1 - agreement(*images, torch.as_tensor(pose)))


def test_a_blur_is_a_gaussian_in_mm_within_the_field_of_view():
    values = np.random.default_rng(1).random((20, 22, 24))
    inside = np.ones(values.shape)
    inside[:, :8] = 0
    spacing = np.array((0.08, 0.1, 0.16))
    image = BoneImage(
        torch.tensor(values).float(),
        grid(TURNS[0] * spacing, (1, 2, 3), values.shape),
        torch.tensor(inside).float(),
    )
    # Much finer steps than voxels make a sampled Gaussian as wide as the true one.
    sigma = 0.2 / spacing[::-1]
    total, weight = (
        ndimage.gaussian_filter(one, sigma, mode="constant", truncate=6) for one in (values * inside, inside)
    )
    found = blurred(image, 0.04 * np.eye(3)).values.numpy()
    seen = weight > 0.05
    np.testing.assert_allclose(found[seen], (total / weight)[seen], atol=2e-3)
    assert blurred(image, np.zeros((3, 3))) is image


@pytest.mark.parametrize("inside", [None, torch.ones(7, 11, 13)], ids=["no mask", "a mask of ones"])
def test_a_blur_is_the_weighted_mean_of_all_voxels_also_where_the_grid_ends(inside):
    """Prime numbers of voxels, of three edges; a sum over all pairs of voxels in float64."""
    edges, deviation = np.array((0.05, 0.06, 0.07)), 0.12
    values = np.random.default_rng(3).normal(size=(7, 11, 13))
    image = BoneImage(torch.from_numpy(values.astype(np.float32)), np.diag((*edges, 1.0)), inside)
    found = blurred(image, deviation**2 * np.eye(3)).values.numpy()
    lines = [np.arange(size) * edge for size, edge in zip(values.shape, edges[::-1], strict=True)]
    weights = [np.exp(-((line[:, None] - line) ** 2) / (2 * deviation**2)) for line in lines]
    total = np.einsum("ai,bj,ck,ijk->abc", *weights, values)
    np.testing.assert_allclose(found, total / np.einsum("ai,bj,ck->abc", *weights), atol=5e-3)


@pytest.mark.parametrize("deviations", [(0.02, 0.02, 0.22), (0.0, 0.1, 0.2)])
def test_a_blur_oblique_to_a_sheared_grid_is_as_wide_as_it_says(deviations):
    """Blobs through a Gaussian are blobs in closed form, also through one that is narrower than a voxel."""
    affine, pose = grid(TURNS[0] @ SHEAR @ np.diag((0.08, 0.1, 0.12)), (5, -3, 2)), pose_at(TURNS[1], (5, -3, 2))
    covariance = TURNS[2] @ np.diag(np.square(deviations)) @ TURNS[2].T
    sharp, soft = (blobs(one, affine, pose).values for one in (np.zeros((3, 3)), covariance))
    found = blurred(BoneImage(sharp, affine), covariance).values
    inner = (slice(8, -8),) * 3
    assert float((found - soft)[inner].abs().max()) < 0.01 * float(soft.max())


def test_fine_structure_is_what_a_mean_about_each_voxel_leaves():
    affine, pose = grid(0.1 * TURNS[0], (5, -3, 2)), pose_at(TURNS[1], (5, -3, 2))
    sharp, soft = (blobs(deviation**2 * np.eye(3), affine, pose) for deviation in (0.0, 0.15))
    fine = without_coarse(replace(sharp, values=sharp.values + 7), 0.15).values
    inner = (slice(6, -6),) * 3
    np.testing.assert_allclose(fine[inner], (sharp.values - soft.values)[inner], atol=0.01)


def test_trabeculae_agree_through_thick_slices():
    """Slices four times as thick, along x in one scan and along y in the other, each the mean of what it holds."""
    fine = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 48, 48)), 1.5)
    fine /= fine.std()
    affines = [np.diag((4.0, 1, 1, 1)), np.diag((1.0, 4, 1, 1))]
    for affine, axis in zip(affines, (0, 1), strict=True):
        affine[axis, 3] = 1.5
    thick = fine.reshape(24, 48, 12, 4).mean(3), fine.reshape(24, 12, 4, 48).mean(2)
    images = [BoneImage(torch.tensor(v, dtype=torch.float32), a) for v, a in zip(thick, affines, strict=True)]
    whole = np.ones(fine.shape, bool)
    bone = CorticalBone(~whole, whole, fine, np.eye(4))
    still = torch.eye(4, dtype=torch.float64)

    def found(pair):
        return similarity(*images, still, (bone, bone), [without_coarse(one, 4.0) for one in pair])

    alike = [blurred(*of_one) for of_one in zip(images, match_blur(*images, still), strict=True)]
    assert found(alike).trabecular_correlation > 0.9 > 0.8 > found(images).trabecular_correlation


@pytest.mark.parametrize("seed", [900_009, *(pytest.param(n, marks=pytest.mark.slow) for n in (900_001, 900_015))])
def test_scans_of_different_blur_are_accepted(seed):
    case = make_adversarial(seed, "kernel")
    result = align(case.fixed, case.moving)
    assert result.accepted and case.error_mm(result.matrix) < 0.08


@pytest.mark.parametrize("seed", [900_548, *(pytest.param(n, marks=pytest.mark.slow) for n in (900_316, 900_867))])
def test_scans_whose_slices_are_thick_along_other_axes_are_accepted(seed):
    case = make_adversarial(seed, "thick")
    result = align(case.fixed, case.moving)
    assert result.accepted and case.error_mm(result.matrix) < 0.08
