"""Resampling and subtraction, against functions and lines that are known."""

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.subtraction import (
    GreyFit,
    as_scanned,
    fit_grey_values,
    match_grey_values,
    resample,
    subtract,
)
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()
MATRIX = np.eye(4)
MATRIX[:3, :3], MATRIX[:3, 3] = Rotation.from_rotvec((1.1, 0.4, -0.8)).as_matrix(), (3.0, -41.0, 17.0)


def waves(points):
    """A smooth function of the moving scan's world, in mm; its shortest wave is 0.5 mm."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 1000 + 300 * np.sin(2 * np.pi * x / 0.5) + 200 * np.cos(2 * np.pi * (y - z) / 0.9) + 50 * z


def grid(size, spacing, direction, middle):
    """An empty scan of a size (x, y, z) about a world position."""
    volume = Volume.from_geometry(np.zeros(size[::-1], np.float32), spacing, direction)
    affine = volume.affine.copy()
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(size) - 1) / 2
    return Volume(volume.voxels, affine)


def positions(volume):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.size), indexing="ij"), -1)
    return volume.to_world(index).transpose(2, 1, 0, 3)


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
    scanned = as_scanned(result, moving)
    assert scanned.voxels.dtype == np.uint8
    np.testing.assert_array_equal(scanned.voxels, [[[0, 13, 255, 7]]])
    wide = as_scanned(Volume(np.array([[[3e9, -3e9]]], np.float32)), Volume(np.array([[[5]]], np.int32)))
    np.testing.assert_array_equal(wide.voxels, [[[2**31 - 1, -(2**31)]]])
    floating = as_scanned(result, Volume(np.array([[[np.nan, -4.5]]], np.float32)))
    np.testing.assert_allclose(floating.voxels, [[[-3.2, 12.5001, 255.7, -4.5]]], rtol=1e-6)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.01, -3.0), (23.0, 5000.0), (1.3, -1024.0)])
def test_the_line_between_two_scanners_is_found_through_noise_and_contrast(slope, offset):
    generator = np.random.default_rng(7)
    truth = np.concatenate(
        (generator.normal(300, 30, 4000), generator.normal(2500, 200, 5000), generator.uniform(300, 2500, 3000))
    )
    plain = truth + generator.normal(0, 80, truth.size)
    agent = truth + generator.normal(0, 80, truth.size)
    agent[generator.random(truth.size) < 0.15] += 1500
    fit = fit_grey_values(plain, slope * agent + offset)
    assert fit.slope == pytest.approx(slope, rel=0.02)
    np.testing.assert_allclose(
        fit.slope * np.array((300, 2500)) + fit.offset, slope * np.array((300, 2500)) + offset, atol=40 * slope
    )
    assert fit.voxels == truth.size


def test_too_little_to_fit_leaves_the_values_as_they_are():
    assert fit_grey_values(np.arange(10.0), 2 * np.arange(10.0)) == GreyFit(1.0, 0.0, 10)
    assert fit_grey_values(np.ones(1000), np.arange(1000.0)) == GreyFit(1.0, 0.0, 1000)


@pytest.mark.parametrize("contrast", ["moving", "fixed"])
def test_subtraction_leaves_the_contrast_agent_in_the_units_of_its_scan(contrast):
    """A hollow ball with a layer of agent on it, in two scanners' units and two poses; NaN where one saw nothing."""
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = OBLIQUE, (0.1, -0.2, 0.15)

    def scene(points, agent):
        radius = np.linalg.norm(points, axis=-1)
        step = lambda d: 1 / (1 + np.exp(-d / 0.025))  # noqa: E731
        # Marrow is denser than what the bone lies in, so that the line has more than two points.
        bone = 2000 * step(1.0 - radius) * (1 - 0.7 * step(0.7 - radius))
        return 100 + bone + agent * 800 * step(1.16 - radius) * step(radius - 1.04)

    fixed = grid((44, 44, 44), (0.06, 0.06, 0.06), np.eye(3), np.zeros(3))
    moving = grid((36, 60, 50), (0.07, 0.05, 0.06), OBLIQUE @ np.diag((1, 1, -1)), np.array((0.1, -0.2, 0.55)))
    fixed_agent, moving_agent = (0.0, 1.0) if contrast == "moving" else (1.0, 0.0)
    fixed = Volume((2.0 * scene(positions(fixed), fixed_agent) - 500).astype(np.int16), fixed.affine)
    at = (positions(moving) - place[:3, 3]) @ place[:3, :3]
    moving = Volume((0.5 * scene(at, moving_agent) + 30).astype(np.uint16), moving.affine)
    bones = cortical_bone(fixed, 1500, 0.08), cortical_bone(moving, 530, 0.08)
    fit = match_grey_values(*bones, place, contrast)
    unit, offset = (0.25, 155.0) if contrast == "moving" else (4.0, -620.0)
    assert fit.slope == pytest.approx(unit, rel=0.02)
    assert fit.slope * 1500 + fit.offset == pytest.approx(unit * 1500 + offset, rel=0.02)
    result = subtract(resample(moving, fixed, place), fixed, fit, contrast)
    assert result.voxels.dtype == np.float32 and result.voxels.shape == fixed.voxels.shape
    np.testing.assert_array_equal(result.affine, fixed.affine)
    points = positions(fixed)
    scale = 0.5 if contrast == "moving" else 2.0
    expected = scale * (scene(points, 1.0) - scene(points, 0.0))
    seen = np.isfinite(result.voxels)
    index = moving.to_index(points @ place[:3, :3].T + place[:3, 3])
    np.testing.assert_array_equal(seen, ((index >= -0.5) & (index <= moving.size - 0.5)).all(-1))
    assert 0.3 < seen.mean() < 0.95
    error = (result.voxels - expected)[seen]
    assert np.sqrt(np.mean(error**2)) < 0.02 * scale * 2000
    assert expected.max() > 0.2 * scale * 2000
