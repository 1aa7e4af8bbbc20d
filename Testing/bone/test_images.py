"""Bone images, pyramids and canonical cubes against loops and SimpleITK."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from DNetRegistrationLib.bone.cube import BonePlace, canonical_cube, place_of_bone, working_spacing
from DNetRegistrationLib.bone.images import BoneImage, bone_pyramid, extended, native_scan, pool_image
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import BoneScale, find_bone_scale
from DNetRegistrationLib.core.constants import CUBE_SIZE
from DNetRegistrationLib.geometry.transforms import to_sitk
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.synthesis.pairs import make_pair, random_rotation

CPU = torch.device("cpu")
OBLIQUE = random_rotation(np.random.default_rng(3))
GRIDS = {
    "plain": (np.eye(3), (0.02, 0.02, 0.02), (0, 0, 0)),
    "oblique far": (OBLIQUE, (0.02, 0.02, 0.02), (4000, -900, 7000)),
    "left-handed": (OBLIQUE @ np.diag((1.0, -1, 1)), (0.02, 0.02, 0.02), (1, 2, 3)),
    "anisotropic": (OBLIQUE, (0.01, 0.02, 0.04), (-30, 2, 3)),
}


def scan_of(voxels, grid="plain", threshold=1000.0, maximum=3000.0, mask=None):
    direction, spacing, origin = GRIDS[grid]
    volume = Volume.from_geometry(voxels, spacing, direction, origin)
    return native_scan(volume, BoneScale(threshold, maximum), mask, CPU)


def test_read_only_voxels_are_shared_and_no_filter_of_warnings_is_set(monkeypatch):
    """Filters are those of all threads, and two scans are looked at at once."""
    voxels = np.random.default_rng(2).integers(0, 4000, (5, 6, 7), dtype=np.int16)
    voxels.flags.writeable = False
    taken, filters, plain = [], list(warnings.filters), torch.from_numpy

    def watched(array):
        taken.append(list(warnings.filters))
        return plain(array)

    monkeypatch.setattr(torch, "from_numpy", watched)
    with warnings.catch_warnings(record=True) as told:
        found = scan_of(voxels, mask=voxels > 100)
    assert taken == [filters, filters] and not told
    assert found.raw.data_ptr() == voxels.ctypes.data and (found.raw.numpy() == voxels).all()


def bone_of(voxels) -> np.ndarray:
    return np.clip((voxels.astype(float) - 1000) / 2000, 0, 1.5)


def box(image: np.ndarray, factors, affine, wanted: BoneImage, seen=None):
    """Means over blocks by an explicit loop over the voxels of `wanted`, and the world position of their middles."""
    fx, fy, fz = factors
    for z, y, x in np.ndindex(*wanted.values.shape):
        block = (slice(z * fz, z * fz + fz), slice(y * fy, y * fy + fy), slice(x * fx, x * fx + fx))
        if seen is None:
            assert float(wanted.values[z, y, x]) == pytest.approx(image[block].mean(), abs=1e-5)
        else:
            assert float(wanted.inside[z, y, x]) == pytest.approx(seen[block].mean(), abs=1e-6)
            mean = image[block][seen[block]].mean() if seen[block].any() else 0
            assert float(wanted.values[z, y, x]) == pytest.approx(mean, abs=1e-5)
        middle = np.mean([np.array((i, j, k)) for k in range(z * fz, z * fz + fz)
                          for j in range(y * fy, y * fy + fy) for i in range(x * fx, x * fx + fx)], axis=0)  # fmt: skip
        np.testing.assert_allclose(wanted.affine @ (x, y, z, 1), affine @ np.append(middle, 1), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(16, 8, 8), (9, 11, 13), (17, 10, 8)])
def test_levels_are_block_means_at_the_middle_of_their_blocks(grid, shape):
    voxels = np.random.default_rng(0).integers(0, 4500, shape).astype(np.uint16)
    scan = scan_of(voxels, grid)
    levels = bone_pyramid(scan, 0.08)
    assert len(levels) >= 2
    for level in levels:
        factors = np.rint(level.spacing / scan.spacing).astype(int)
        assert (level.spacing <= 0.0801).all() and factors.max() > 1
        assert level.values.shape == tuple(n // f for n, f in zip(shape, factors[::-1], strict=True))
        box(bone_of(voxels), factors, scan.affine, level)
    assert levels[-1].spacing.min() > 0.04 / 1.001


@pytest.mark.parametrize("depth", [8, 9, 10, 13, 17])
def test_slabs_change_nothing(monkeypatch, depth):
    """Odd numbers of slices, with a slab that would end on a single one."""
    from DNetRegistrationLib.bone import images as preprocessing

    voxels = np.random.default_rng(1).integers(0, 3000, (depth, 8, 8)).astype(np.int16)
    whole = bone_pyramid(scan_of(voxels), 0.04)[0]
    monkeypatch.setattr(preprocessing, "SLAB_VOXELS", 4 * 64)
    slabs = bone_pyramid(scan_of(voxels), 0.04)[0]
    assert whole.values.shape == (depth // 2, 4, 4)
    assert torch.equal(whole.values, slabs.values)


def test_masked_and_nan_voxels_do_not_count():
    generator = np.random.default_rng(2)
    voxels = generator.uniform(0, 4000, (9, 8, 10)).astype(np.float32)
    voxels[generator.random(voxels.shape) < 0.3] = np.nan
    voxels[:2, :2, :2] = np.nan
    mask = generator.random(voxels.shape) < 0.8
    level = bone_pyramid(scan_of(voxels, mask=mask), 0.04)[0]
    seen = mask & np.isfinite(voxels)
    box(bone_of(np.nan_to_num(voxels)), (2, 2, 2), scan_of(voxels).affine, level, seen)


def test_a_scan_at_the_working_spacing_is_its_own_level():
    voxels = np.random.default_rng(0).integers(0, 3000, (8, 9, 10)).astype(np.int16)
    (level,) = bone_pyramid(scan_of(voxels), 0.02)
    np.testing.assert_allclose(level.values, bone_of(voxels), atol=1e-6)
    np.testing.assert_array_equal(level.affine, scan_of(voxels).affine)


def test_pooling_an_anisotropic_image_brings_its_voxels_closer_to_cubes():
    image = BoneImage(torch.rand(8, 64, 64), np.diag((0.08, 0.08, 0.8, 1)))
    pooled = pool_image(image, 2)
    np.testing.assert_allclose(pooled.spacing, (0.16, 0.16, 0.8))
    assert pooled.values.shape == (8, 32, 32)
    np.testing.assert_allclose(pooled.values[3, 5, 7], image.values[3, 10:12, 14:16].mean(), rtol=1e-6)
    assert pool_image(image, 1) is image


def test_what_is_made_of_an_image_is_kept_with_it_and_with_no_other():
    image = BoneImage(torch.rand(4, 4, 4), np.eye(4))
    pooled = pool_image(image, 2)
    assert pool_image(image, 2) is pooled and pool_image(image, 4) is not pooled
    assert pool_image(replace(image), 2) is not pooled


@pytest.mark.parametrize("grid", GRIDS)
def test_cube_is_the_bone_image_resampled_by_simpleitk(grid):
    direction, _, origin = GRIDS[grid]
    generator = np.random.default_rng(4)
    values = generator.random((30, 32, 34)).astype(np.float32)
    spacing = np.array((0.08, 0.08, 0.08)) if grid != "anisotropic" else np.array((0.06, 0.08, 0.07))
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin([float(v) for v in origin])
    volume = Volume.from_sitk(image)
    center = volume.center + np.array((0.11, -0.19, 0.31))
    cube = canonical_cube([BoneImage(torch.from_numpy(values), volume.affine)], BonePlace(center, 1.0), 0.08)
    grid_image = sitk.Image([CUBE_SIZE] * 3, sitk.sitkFloat32)
    grid_image.SetSpacing([0.08] * 3)
    grid_image.SetOrigin((center - 0.08 * 31.5).tolist())
    expected = sitk.GetArrayFromImage(sitk.Resample(image, grid_image, to_sitk(np.eye(4)), sitk.sitkLinear, -1.0))
    known = expected >= 0  # SimpleITK ends half a voxel further out too, but may round otherwise on the rim itself
    assert known.sum() > 20000
    np.testing.assert_allclose(cube.image.numpy()[known], expected[known], atol=2e-4)
    assert (cube.inside.numpy()[known] > 0.999).mean() > 0.999
    assert (cube.inside.numpy()[~known] < 0.001).mean() > 0.999
    np.testing.assert_allclose(cube.affine @ (31.5, 31.5, 31.5, 1), np.append(center, 1), atol=1e-9)


def test_the_cube_of_a_fine_scan_shows_no_noise_of_single_voxels():
    """Anti-aliasing: a cube voxel is a mean of 8^3 native ones, so noise falls by their root."""
    voxels = np.random.default_rng(5).normal(3000, 500, (128, 128, 128)).astype(np.float32)
    volume = Volume.from_geometry(voxels, 0.01)
    levels = bone_pyramid(native_scan(volume, BoneScale(0.0, 3000.0), None, CPU), 0.08)
    cube = canonical_cube(levels, BonePlace(volume.center, 0.3), 0.08)
    seen = cube.image[cube.inside > 0.99]
    assert 1000 < len(seen) and float(seen.std()) < 1.2 * 500 / 3000 / np.sqrt(512)


def test_place_of_bone_by_hand():
    values = torch.zeros(8, 8, 8)
    values[4, 4, 1:4] = torch.tensor((1.0, 2.0, 1.0))
    place = place_of_bone(BoneImage(values, np.diag((2.0, 3.0, 4.0, 1.0))))
    np.testing.assert_allclose(place.center, (4, 12, 16))
    assert place.radius == pytest.approx(2)


def test_place_of_bone_turns_with_the_bone():
    pair = make_pair(6, contrast=False, clean=True, scale="hu")
    places = [
        place_of_bone(bone_pyramid(native_scan(scan, BoneScale(1000, 3000), None, CPU), 0.08)[-1])
        for scan in (pair.fixed, pair.moving)
    ]
    # What leaves the field of view with the turn is all that differs.
    carried = pair.matrix[:3, :3] @ places[0].center + pair.matrix[:3, 3]
    assert np.linalg.norm(carried - places[1].center) < 0.5
    assert places[1].radius == pytest.approx(places[0].radius, rel=0.15)


def test_place_of_bone_does_not_depend_on_the_axes():
    values = torch.rand(10, 12, 14, generator=torch.Generator().manual_seed(0))
    affine = np.diag((0.1, 0.1, 0.1, 1.0))
    affine[:3, :3] = OBLIQUE * 0.1
    flipped = affine @ np.array([[-1, 0, 0, 13], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    first, second = place_of_bone(BoneImage(values, affine)), place_of_bone(BoneImage(values.flip(2), flipped))
    np.testing.assert_allclose(first.center, second.center, atol=1e-9)
    assert first.radius == pytest.approx(second.radius)


@pytest.mark.parametrize("factor", [1, 4, 15])
def test_working_spacing_grows_with_the_bone(factor):
    """A rat's, a human's: the same voxels, larger."""
    pair = make_pair(7, size=48)
    scales = [find_bone_scale(scan) for scan in (pair.fixed, pair.moving)]
    natives = [
        native_scan(Volume(scan.voxels, np.diag((factor,) * 3 + (1,)) @ scan.affine), scale, None, CPU)
        for scan, scale in zip((pair.fixed, pair.moving), scales, strict=True)
    ]
    fixed, moving = prepare(*natives)
    assert fixed.cube.spacing == moving.cube.spacing
    if factor == 1:
        assert fixed.cube.spacing == 0.08
    else:
        assert fixed.cube.spacing > 0.08
        # In canonical voxels the bone's size is what it is for a mouse, at the largest.
        assert max(fixed.place.radius, moving.place.radius) / fixed.cube.spacing == pytest.approx(1.2 * 32, rel=1e-6)
    assert prepare(*natives, spacing=0.5 * factor)[0].cube.spacing == 0.5 * factor
    assert working_spacing(BonePlace(np.zeros(3), 1.0), BonePlace(np.zeros(3), 50.0)) == pytest.approx(50 / 38.4)


def test_a_scans_memory_is_shared_and_uint16_not_converted():
    voxels = np.zeros((8, 8, 8), np.uint16)
    scan = scan_of(voxels)
    assert scan.raw.data_ptr() == voxels.ctypes.data
    mask = np.ones((8, 8, 8), bool)
    assert scan_of(voxels, mask=mask).mask.data_ptr() == mask.ctypes.data


def test_the_mirror_image_is_of_the_bone_not_of_the_grid(small_pair):
    native = native_scan(small_pair.fixed, find_bone_scale(small_pair.fixed), None, CPU)
    scan, _ = prepare(native, native)
    mirror = scan.mirrored()
    point = np.random.default_rng(0).uniform(0, 31, (50, 3))
    flip = np.diag((-1.0, 1, 1, 1))
    world = point @ scan.cube.affine[:3, :3].T + scan.cube.affine[:3, 3]
    index = (world * (-1, 1, 1) - mirror.cube.affine[:3, 3]) / mirror.cube.spacing
    cubes = [BoneImage(cube.image, cube.affine) for cube in (scan.cube, mirror.cube)]
    first, _ = cubes[0].sample(torch.tensor(point, dtype=torch.float32))
    second, _ = cubes[1].sample(torch.tensor(index, dtype=torch.float32))
    np.testing.assert_allclose(first, second, atol=1e-4)
    np.testing.assert_allclose(mirror.levels[-1].affine, flip @ scan.levels[-1].affine)


def test_a_cube_on_the_centre_of_the_scan(small_pair):
    """Also of the mirror image, whose centre is the mirrored one."""
    native = native_scan(small_pair.fixed, find_bone_scale(small_pair.fixed), None, CPU)
    scan, _ = prepare(native, native)
    assert scan.cube_on("bone") is scan.cube
    cube, mirrored = scan.cube_on("center"), scan.mirrored().cube_on("center")
    np.testing.assert_allclose(cube.center, small_pair.fixed.center)
    assert np.linalg.norm(cube.center - scan.cube.center) > 0.1 and cube.spacing == scan.cube.spacing
    np.testing.assert_allclose(mirrored.center, cube.center * (-1, 1, 1))
    torch.testing.assert_close(mirrored.image.flip(-1), cube.image, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored.inside.flip(-1), cube.inside, atol=1e-4, rtol=0)


def test_levels_go_on_to_a_coarser_spacing():
    voxels = np.random.default_rng(0).integers(0, 3000, (32, 32, 32)).astype(np.int16)
    levels = extended(bone_pyramid(scan_of(voxels), 0.04), 0.16)
    np.testing.assert_allclose([level.spacing[0] for level in levels], (0.04, 0.08, 0.16))
    box(bone_of(voxels), (8, 8, 8), scan_of(voxels).affine, levels[-1])
