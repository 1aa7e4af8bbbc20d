"""Similarity of bone images against sums worked out voxel by voxel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.similarity import Similarity, _trabecular, band_passed, overlap_correlation
from DNetRegistrationLib.registration.similarity import similarity as similarity_with
from scipy import ndimage


def image(values, inside=None, spacing=0.1, origin=(0, 0, 0)) -> BoneImage:
    affine = np.diag((spacing, spacing, spacing, 1.0))
    affine[:3, 3] = origin
    return BoneImage(
        torch.tensor(values, dtype=torch.float32), affine, None if inside is None else torch.tensor(inside).float()
    )


def blobs(seed=0, shape=(20, 22, 24)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return np.maximum(noise / noise.std() - 0.5, 0)


def shifted(x, y, z) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor((x, y, z))
    return pose


def bone_of(one: BoneImage, whole=None) -> CorticalBone:
    """No cortex, and all of the image, or `whole`, within the bone."""
    grey = one.values.numpy()
    whole = np.ones(grey.shape, bool) if whole is None else whole
    return CorticalBone(np.zeros(grey.shape, bool), whole, grey, one.affine)


def similarity(fixed: BoneImage, moving: BoneImage, pose: torch.Tensor) -> Similarity:
    return similarity_with(fixed, moving, pose, (bone_of(fixed), bone_of(moving)), (fixed, moving))


def test_trabeculae_are_compared_below_the_surface():
    """One half of the grid is bone; there, and a voxel in, the images are alike, elsewhere they are strangers."""
    first, second = blobs(), blobs(1)
    whole = np.zeros(first.shape, bool)
    whole[:, :, :12] = True
    second[:, :, :11] = first[:, :, :11] + 0.3 * blobs(2)[:, :, :11]
    first[:, :, 16:] = second[:, :, 16:] = 0
    deep = ndimage.distance_transform_edt(np.pad(whole, 1))[1:-1, 1:-1, 1:-1] > 1
    expected = np.corrcoef(first[deep], second[deep])[0, 1]
    one, other = image(first), image(second)
    bones = bone_of(one, whole), bone_of(other, whole)
    found = similarity_with(one, other, torch.eye(4, dtype=torch.float64), bones, (one, other))
    assert found.trabecular_correlation == pytest.approx(expected, abs=1e-4)
    assert found.trabecular_correlation > 0.8 > found.edge_correlation


@pytest.mark.parametrize(("noise", "made_up"), [(0.1, True), (0.2, True), (0.5, False)])
def test_noise_does_not_speak_against_trabeculae(noise, made_up):
    """It is as strong beside the bone. More of it than half of what is seen is not made up for, but for a half."""
    generator, shape = np.random.default_rng(3), (30, 32, 60)
    whole = np.zeros(shape, bool)
    whole[:, :, :30] = True
    structure = ndimage.gaussian_filter(generator.normal(size=shape), 1.0)
    structure *= 0.3 / structure.std() * whole
    seen = [structure + generator.normal(0, noise, shape) for _ in range(2)]
    deep = ndimage.distance_transform_edt(np.pad(whole, 1))[1:-1, 1:-1, 1:-1] > 1
    raw = np.corrcoef(seen[0][deep], seen[1][deep])[0, 1]
    views = [image(one) for one in seen]
    bones = [bone_of(one, whole) for one in views]
    found = similarity_with(*views, torch.eye(4, dtype=torch.float64), bones, views).trabecular_correlation
    expected = 1 if made_up else raw / 0.5
    assert found == pytest.approx(expected, abs=0.03) and raw == pytest.approx(0.09 / (0.09 + noise**2), abs=0.03)


def test_noise_alone_says_nothing_of_trabeculae():
    generator, shape = np.random.default_rng(3), (30, 32, 60)
    whole = np.zeros(shape, bool)
    whole[:, :, :30] = True
    views = [image(generator.normal(0, 0.2, shape)) for _ in range(2)]
    bones = [bone_of(one, whole) for one in views]
    found = similarity_with(*views, torch.eye(4, dtype=torch.float64), bones, views)
    assert np.isnan(found.trabecular_correlation)


def test_without_marrow_nothing_is_said_of_trabeculae():
    one = image(blobs())
    nothing = bone_of(one, np.zeros(one.shape, bool))
    found = similarity_with(one, one, torch.eye(4, dtype=torch.float64), (nothing, nothing), (one, one))
    assert found.edge_correlation > 0.99 and np.isnan(found.trabecular_correlation)


def test_a_callus_does_not_speak_against_the_trabeculae_beside_it():
    """A block of the marrow is solid in one scan, and cortex there. Elsewhere the scans are the same."""
    first, second = blobs(), blobs()
    block = (slice(4, 12), slice(6, 16), slice(8, 18))
    second[block] = 3
    one, other = image(first), image(second)
    plain, grown = bone_of(one), bone_of(other)
    grown.cortex[block] = True
    still = torch.eye(4, dtype=torch.float64)
    for fixed, moving, bones in ((one, other, (plain, grown)), (other, one, (grown, plain))):
        found = similarity_with(fixed, moving, still, bones, (fixed, moving)).trabecular_correlation
        assert found > 0.9 > 0.7 > similarity(fixed, moving, still).trabecular_correlation


def test_marrow_beside_two_cortices_that_misfit_by_a_voxel_is_compared():
    """In the moving scan the cortex is a voxel thicker all around, and stranger values are there."""
    first, second = blobs(), blobs()
    block = (slice(4, 12), slice(6, 16), slice(8, 18))
    own = np.zeros(first.shape, bool)
    own[block] = True
    thicker = ndimage.binary_dilation(own)
    second[thicker & ~own] = blobs(1)[thicker & ~own] + 2
    one, other = image(first), image(second)
    bones = [replace(bone_of(view), cortex=cortex) for view, cortex in ((one, own), (other, thicker))]
    alike = [bones[0], replace(bones[1], cortex=own)]
    still = torch.eye(4, dtype=torch.float64)
    found, expected = (_trabecular((one, other), still, of_both) for of_both in (bones, alike))
    assert found == expected < 0.9


@pytest.mark.parametrize(("width", "left_out"), [(6, True), (14, False)])
def test_marrow_that_touches_the_cortex_of_a_slender_bone_is_left_out(width, left_out):
    """A square canal, whose walls are strangers in the two scans: in the narrow one most of the marrow touches them."""
    shape = (20, width + 2, width + 2)
    cortex = np.ones(shape, bool)
    cortex[:, 1:-1, 1:-1] = False
    marrow, touching = ~cortex, ndimage.binary_dilation(cortex) & ~cortex
    first, second = blobs(0, shape), blobs(0, shape) + 0.2 * blobs(2, shape)
    second[touching] = blobs(1, shape)[touching]
    one, other = image(first), image(second)
    bones = [replace(bone_of(view), cortex=cortex) for view in (one, other)]
    deep = ndimage.distance_transform_edt(np.pad(np.ones(shape), 1))[1:-1, 1:-1, 1:-1] > 1
    looked_at = marrow & deep & ~(touching & left_out)
    found = _trabecular((one, other), torch.eye(4, dtype=torch.float64), bones)
    assert found == pytest.approx(np.corrcoef(first[looked_at], second[looked_at])[0, 1], abs=1e-3)
    assert (found > 0.9) == left_out


def test_trabeculae_are_compared_below_the_bone_threshold_too():
    """Of one scan, which is blurred, they hardly reach it."""
    grey = blobs() - 0.6
    faint = grey - 1.2
    assert (faint > 0).mean() < 0.1
    first, second = (image(np.maximum(one, 0)) for one in (grey, faint))
    bones = bone_of(first), bone_of(second)
    still = torch.eye(4, dtype=torch.float64)
    found = similarity_with(first, second, still, bones, (image(grey), image(faint)))
    above = similarity_with(first, second, still, bones, (first, second))
    assert found.trabecular_correlation == pytest.approx(1, abs=1e-4)
    assert not above.trabecular_correlation > 0.9
    assert found.edge_correlation == above.edge_correlation


def test_an_image_is_wholly_similar_to_itself():
    found = similarity(image(blobs()), image(blobs()), torch.eye(4, dtype=torch.float64))
    assert found.correlation == pytest.approx(1, abs=1e-5)
    assert found.edge_correlation == pytest.approx(1, abs=1e-5)
    assert found.share == pytest.approx(1, abs=1e-6)


def test_gain_does_not_matter_and_strangers_are_less_alike():
    identity = torch.eye(4, dtype=torch.float64)
    same = similarity(image(blobs()), image(3 * blobs()), identity)
    other = similarity(image(blobs()), image(blobs(1)), identity)
    assert same.correlation == pytest.approx(1, abs=1e-5)
    assert abs(other.correlation) < 0.3 and abs(other.edge_correlation) < 0.3


def test_correlation_is_that_of_the_voxels_near_bone():
    first, second = blobs(), blobs() + 0.5 * blobs(3)
    found = similarity(image(first), image(second), torch.eye(4, dtype=torch.float64))
    expected = 0
    for one in (first, second):
        near = ndimage.binary_dilation(one > 0.05, np.ones((3, 3, 3)))
        expected += np.corrcoef(first[near], second[near])[0, 1] / 2
    assert found.correlation == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("steps", [0, 4, 10, 24])
def test_share_is_the_bone_in_the_others_field_of_view(steps):
    """Moved by whole voxels along x, so that the share is a sum of columns."""
    values = blobs()
    found = similarity(image(values), image(values), shifted(0.1 * steps, 0, 0))
    kept = values[:, :, : values.shape[2] - steps].sum() / values.sum()
    other = values[:, :, steps:].sum() / values.sum()
    assert found.share == pytest.approx(min(kept, other), abs=2e-3)
    assert found.larger_share == pytest.approx(max(kept, other), abs=2e-3)


def test_half_a_field_of_view_costs_share_but_not_correlation():
    values = blobs()
    inside = np.ones(values.shape)
    inside[:10] = 0
    half = image(np.where(inside > 0, values, 0), inside)
    found = similarity(image(values), half, torch.eye(4, dtype=torch.float64))
    assert found.share == pytest.approx(values[10:].sum() / values.sum(), abs=1e-5)
    assert found.correlation == pytest.approx(1, abs=1e-4)
    assert found.edge_correlation > 0.99


def test_a_sliver_of_overlap_scores_below_a_whole_one():
    values = blobs()
    poses = torch.stack([torch.eye(4, dtype=torch.float64), shifted(2.2, 0, 0), shifted(9, 0, 0)])
    scores = overlap_correlation(image(values), image(values), poses)
    assert scores.dtype == torch.float64 and scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[1] < 0.6 and scores[2] == 0


def test_nothing_there_is_no_error():
    found = similarity(image(np.zeros((8, 8, 8))), image(blobs()), torch.eye(4, dtype=torch.float64))
    assert found.share == 0 and found.correlation == 0


def test_band_pass_is_value_less_local_mean_inside():
    values, inside = blobs(), (blobs(4) < 1).astype(float)
    found = band_passed(image(values, inside)).values.numpy()
    local = ndimage.gaussian_filter(values * inside, 1.0, mode="constant", radius=3)
    weight = ndimage.gaussian_filter(inside, 1.0, mode="constant", radius=3)
    np.testing.assert_allclose(found, (values - local / np.maximum(weight, 1e-3)) * inside, atol=1e-4)


def test_a_pose_takes_points_of_the_fixed_scan_to_the_moving_one_and_its_inverse_back():
    """The same voxels, which lie elsewhere in the world."""
    values, apart = blobs(), (0.4, -0.2, 0.1)
    fixed, moving = image(values), image(values, origin=apart)
    found = similarity(fixed, moving, shifted(*apart))
    for one in (found.correlation, found.edge_correlation, found.trabecular_correlation, found.share):
        assert one == pytest.approx(1, abs=1e-4)
    assert float(overlap_correlation(fixed, moving, shifted(*apart)[None])) == pytest.approx(1, abs=1e-4)
