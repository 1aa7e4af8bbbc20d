"""Subtraction, against lines and layers that are known."""

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.imaging.resample import resample
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.outputs.subtraction import GreyFit, fit_grey_values, match_grey_values, subtract
from grids import grid, positions
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()


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


def test_no_difference_is_infinite():
    """Where a scan has no finite value, the difference is not known."""
    moving, fixed = (Volume(np.full((1, 1, 3), 2, np.float32), np.eye(4)) for _ in range(2))
    fixed.voxels[0, 0] = np.inf, np.nan, 1
    assert np.array_equal(subtract(moving, fixed, GreyFit(1, 0, 0), "moving").voxels, [[[np.nan, np.nan, 1]]], True)
