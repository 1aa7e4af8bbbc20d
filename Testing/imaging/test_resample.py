"""Averaging and resampling of scans and masks, against loops and functions that are known."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.imaging.resample import averaged, cast_like, interpolate, resample, resample_mask
from DNetRegistrationLib.imaging.volume import Volume
from grids import grid, positions
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()
FAR = np.array((130.0, -75.0, 2040.0))
MATRIX = np.eye(4)
MATRIX[:3, :3], MATRIX[:3, 3] = Rotation.from_rotvec((1.1, 0.4, -0.8)).as_matrix(), (3.0, -41.0, 17.0)


def test_averaging_is_the_mean_of_blocks_at_the_middle_of_the_block():
    generator = np.random.default_rng(1)
    voxels = generator.integers(0, 65535, (9, 10, 11)).astype(np.uint16)
    scan = Volume.from_geometry(voxels, (0.02, 0.03, 0.05), OBLIQUE @ np.diag((-1, 1, 1)), FAR)
    mask = np.ones(voxels.shape, bool)
    mask[4, 4, 4] = False
    means, affine = averaged(scan, 0.06, mask)
    assert means.shape == (9, 5, 3)
    for z, y, x in itertools.product(range(9), range(5), range(3)):
        block = (slice(z, z + 1), slice(2 * y, 2 * y + 2), slice(3 * x, 3 * x + 3))
        if mask[block].all():
            assert means[z, y, x] == pytest.approx(voxels[block].astype(float).mean(), rel=1e-6)
        else:
            assert np.isnan(means[z, y, x])
        corners = [scan.to_world((i, j, z)) for i in range(3 * x, 3 * x + 3) for j in range(2 * y, 2 * y + 2)]
        np.testing.assert_allclose((affine @ (x, y, z, 1))[:3], np.mean(corners, axis=0), atol=1e-9)
    assert np.isnan(means).sum() == 1


def waves(points):
    """A smooth function of the moving scan's world, in mm; its shortest wave is 0.5 mm."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 1000 + 300 * np.sin(2 * np.pi * x / 0.5) + 200 * np.cos(2 * np.pi * (y - z) / 0.9) + 50 * z


@pytest.fixture(scope="module")
def scans():
    moving = grid((40, 44, 36), (0.1, 0.09, 0.11), OBLIQUE @ np.diag((1, -1, 1)), np.array((130.0, -75.0, 2040.0)))
    middle = np.linalg.solve(MATRIX, (*moving.center, 1))[:3]
    fixed = grid((30, 26, 34), (0.12, 0.15, 0.1), OBLIQUE.T, middle)
    values = waves(positions(moving) - moving.center).astype(np.float32)
    return fixed, Volume(values, moving.affine, "moving scan")


def test_resampling_takes_the_values_of_the_function_to_a_hundredth_and_marks_what_was_not_seen(scans):
    fixed, moving = scans
    result = resample(moving, fixed, MATRIX)
    at = positions(fixed) @ MATRIX[:3, :3].T + MATRIX[:3, 3]
    index = moving.to_index(at)
    limit = moving.size - 1
    seen = ((index >= -0.5) & (index <= limit + 0.5)).all(-1)
    np.testing.assert_array_equal(np.isfinite(result.voxels), seen)
    assert 0.2 < seen.mean() < 0.99
    deep = ((index >= 4) & (index <= limit - 4)).all(-1)
    truth = waves(at - moving.center)
    error = result.voxels - truth
    linear = sitk.ResampleImageFilter()
    linear.SetReferenceImage(fixed.to_sitk())
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(MATRIX[:3, :3].ravel().tolist())
    transform.SetTranslation(MATRIX[:3, 3].tolist())
    linear.SetTransform(transform)
    linear_error = sitk.GetArrayFromImage(linear.Execute(moving.to_sitk())) - truth
    # Waves of five voxels: better than linear interpolation by an order of magnitude.
    assert np.sqrt(np.mean(error[deep] ** 2)) < 0.1 * np.sqrt(np.mean(linear_error[deep] ** 2))
    assert np.abs(error[deep]).max() < 10
    # And the same as SimpleITK's own cubic B-spline.
    linear.SetInterpolator(sitk.sitkBSpline3)
    spline = sitk.GetArrayFromImage(linear.Execute(moving.to_sitk()))
    np.testing.assert_allclose(result.voxels[deep], spline[deep], atol=0.02)


def test_without_a_move_nothing_changes_up_to_the_border(scans):
    _, moving = scans
    result = resample(moving, moving, np.eye(4))
    np.testing.assert_allclose(result.voxels, moving.voxels, atol=0.01)


def test_right_angles_keep_every_voxel(scans):
    _, moving = scans
    quarter = np.eye(4)
    quarter[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    cube = Volume.from_geometry(moving.voxels[:30, :30, :30], 0.1, None, (-1.45, -1.45, -1.45))
    result = resample(cube, cube, quarter)
    # x' = -y, y' = x: the value at (x, y) is that at (-y, x).
    np.testing.assert_allclose(result.voxels, np.rot90(cube.voxels, 1, (1, 2)), atol=0.01)


def test_nan_neither_spreads_nor_rings(scans):
    fixed, moving = scans
    holed = Volume(moving.voxels.copy(), moving.affine)
    holed.voxels[10:20, 12:22, 14:24] = np.nan
    whole, result = resample(moving, fixed, MATRIX).voxels, resample(holed, fixed, MATRIX).voxels
    index = moving.to_index(positions(fixed) @ MATRIX[:3, :3].T + MATRIX[:3, 3])
    inside = ((index >= (14, 12, 10)) & (index <= (23, 21, 19))).all(-1)
    touched = ((index > (13, 11, 9)) & (index < (24, 22, 20))).all(-1)
    assert inside.any() and np.isnan(result[inside]).all()
    clear = ~touched & np.isfinite(whole)
    assert np.isfinite(result[clear]).all()
    assert np.abs(result - whole)[clear].max() < 100
    away = ~((index > (9, 7, 5)) & (index < (28, 26, 24))).all(-1) & np.isfinite(whole)
    assert np.abs(result - whole)[away].max() < 1


def test_a_finer_scan_is_averaged_before_it_is_sampled():
    generator = np.random.default_rng(3)
    fine = Volume.from_geometry(generator.normal(100, 10, (80, 80, 80)), 0.02, None, (0.01, 0.01, 0.01))
    coarse = Volume.from_geometry(np.zeros((20, 20, 20)), 0.08, None, (0.04, 0.04, 0.04))
    result = resample(fine, coarse, np.eye(4)).voxels
    # Blocks of three voxels leave two of eighty over.
    assert np.isfinite(result[:-1, :-1, :-1]).all()
    assert np.nanmean(result) == pytest.approx(100, abs=0.3)
    assert np.nanstd(result) < 4  # 10 where single voxels are picked


def test_in_its_own_dtype_a_scan_is_rounded_clipped_and_padded_with_its_lowest_value():
    moving = Volume(np.array([[[7, 200]]], np.uint8))
    result = Volume(np.array([[[-3.2, 12.5001, 255.7, np.nan]]], np.float32))
    scanned = cast_like(result, moving)
    assert scanned.voxels.dtype == np.uint8
    np.testing.assert_array_equal(scanned.voxels, [[[0, 13, 255, 7]]])
    wide = cast_like(Volume(np.array([[[3e9, -3e9]]], np.float32)), Volume(np.array([[[5]]], np.int32)))
    np.testing.assert_array_equal(wide.voxels, [[[2**31 - 1, -(2**31)]]])
    floating = cast_like(result, Volume(np.array([[[np.nan, -4.5]]], np.float32)))
    np.testing.assert_allclose(floating.voxels, [[[-3.2, 12.5001, 255.7, -4.5]]], rtol=1e-6)


def test_a_mask_is_resampled_as_a_loop_over_points_does():
    generator = np.random.default_rng(2)
    mask = generator.random((6, 7, 8)) > 0.5
    own = Volume.from_geometry(mask, (0.5, 0.6, 0.7), OBLIQUE @ np.diag((1, 1, -1)), FAR).affine
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec((0.2, 1.3, -0.4)).as_matrix(), (3.0, 1.0, -2.0)
    shape = (9, 5, 7)
    # A grid on the other side of the matrix, about the middle of the mask.
    middle = np.linalg.solve(matrix, own @ (3.5, 3, 2.5, 1))[:3]
    other = Volume.from_geometry(np.zeros(shape), (0.45, 0.8, 0.55), OBLIQUE.T)
    affine = other.affine.copy()
    affine[:3, 3] = middle - other.affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    linear = resample_mask(mask, own, affine, shape, matrix)
    nearest = resample_mask(np.ones_like(mask), own, affine, shape, matrix, whole_voxels=True)
    checked = 0
    for z, y, x in np.ndindex(shape):
        index = (np.linalg.inv(own) @ matrix @ affine @ (x, y, z, 1))[:3]
        limit = np.array(mask.shape[::-1]) - 1
        assert nearest[z, y, x] == bool(((index >= -0.5) & (index <= limit + 0.5)).all())
        if (index < 0).any() or (index > limit).any():
            continue
        low = np.minimum(np.floor(index).astype(int), limit - 1)
        share = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            weight = np.prod(np.where(corner, index - low, 1 - (index - low)))
            share += weight * mask[tuple((low + corner)[::-1])]
        if abs(share - 0.5) > 0.01:
            assert linear[z, y, x] == (share > 0.5)
            checked += 1
    assert checked > 50
    assert 0 < nearest.mean() < 1


def test_a_thin_sheet_keeps_its_volume_when_it_is_turned():
    affine = Volume.from_geometry(np.zeros((60, 60, 60)), 0.04, None, (-1.18, -1.18, -1.18)).affine
    sheet = np.zeros((60, 60, 60), bool)
    sheet[28:32] = True  # 0.16 mm
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec((0.3, 0.2, 0.1)).as_matrix()
    carried = resample_mask(sheet, affine, affine, sheet.shape, turn)
    core = (slice(20, 40),) * 3
    points = np.argwhere(np.ones_like(sheet))[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    height = (points @ turn[:3, :3].T)[:, 2].reshape(sheet.shape)
    exact = np.abs(height) < 0.08
    assert carried[core].sum() == pytest.approx(exact[core].sum(), rel=0.06)


def test_between_voxels_an_image_is_linear_and_off_the_grid_it_is_nan():
    z, y, x = np.indices((4, 5, 6))
    scan = Volume.from_geometry(3.0 * x - 2.0 * y + 0.5 * z, (0.5, 0.6, 0.7), OBLIQUE @ np.diag((1, -1, 1)), FAR)
    index = np.random.default_rng(4).uniform(0, (5, 4, 3), (2, 20, 3))
    values = interpolate(scan.voxels, scan.affine, scan.to_world(index))
    assert values.dtype == np.float32 and values.shape == (2, 20)
    np.testing.assert_allclose(values, index @ (3.0, -2.0, 0.5), atol=1e-4)
    assert np.isnan(interpolate(scan.voxels, scan.affine, scan.to_world([(-0.1, 0, 0), (0, 4.1, 0)]))).all()


@pytest.mark.filterwarnings("error")
def test_a_mask_that_lies_out_of_reach_leaves_nothing_and_no_warning():
    """Its place overflowed whole numbers."""
    mask, far = np.ones((4, 5, 6), bool), np.eye(4)
    far[:3, 3] = 1e20, -1e20, 0
    assert not resample_mask(mask, np.eye(4), np.eye(4), mask.shape, far).any()


def test_a_shape_may_be_numpy_integers():
    mask = np.arange(120).reshape(4, 5, 6) % 7 == 0
    carried = resample_mask(mask, np.eye(4), np.eye(4), tuple(np.array(mask.shape)), np.eye(4))
    np.testing.assert_array_equal(carried, mask)
