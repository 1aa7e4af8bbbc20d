"""A scan blurred as interpolation blurs another one, against waves that are shifted and a ball that is known."""

import numpy as np
import pytest
from DNetRegistrationLib.imaging.equal_blur import blurred_slices, interpolation_blur
from DNetRegistrationLib.imaging.resample import resample
from DNetRegistrationLib.imaging.volume import Volume
from grids import grid, positions
from scipy import ndimage
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()


def test_what_is_not_moved_is_not_blurred():
    scan = grid((20, 22, 24), (0.1, 0.12, 0.09), OBLIQUE @ np.diag((1, -1, 1)), np.array((30.0, -5.0, 400.0)))
    for weights in interpolation_blur(scan, scan, np.eye(4)):
        assert weights[len(weights) // 2] == pytest.approx(1, abs=1e-6)
        assert np.abs(np.delete(weights, len(weights) // 2)).max() < 1e-6


@pytest.mark.parametrize("wavelength", [4, 6, 10])
def test_waves_lose_what_a_shift_by_half_a_voxel_takes_from_them(wavelength):
    scan = grid((20, 22, 24), (0.1, 0.1, 0.1), np.eye(3), np.zeros(3))
    shift = np.eye(4)
    shift[1, 3] = 0.05
    x, y, z = interpolation_blur(scan, scan, shift)
    assert len(x) == len(z) and np.abs(x - z).max() < 1e-9
    wave = np.cos(2 * np.pi * np.arange(400) / wavelength)
    shifted = ndimage.shift(wave, 0.5, order=3, mode="mirror")[50:-50]
    left = shifted.std() / wave[50:-50].std()
    at = np.arange(len(y)) - len(y) // 2
    assert (y * np.cos(2 * np.pi * at / wavelength)).sum() == pytest.approx(left, abs=0.03)


@pytest.mark.parametrize("spacing", [(0.06, 0.06, 0.06), (0.05, 0.08, 0.06)])
def test_a_ball_seen_in_two_poses_leaves_half_the_edge(spacing):
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = OBLIQUE, (0.1, -0.2, 0.15)

    def scene(points):
        return 2000 / (1 + np.exp((np.linalg.norm(points, axis=-1) - 0.9) / 0.016))

    fixed = grid((40, 40, 40), (0.06, 0.06, 0.06), np.eye(3), np.zeros(3))
    turned = OBLIQUE @ Rotation.from_rotvec((0.3, 0.2, -0.6)).as_matrix() @ np.diag((1, 1, -1))
    moving = grid((56, 50, 52), spacing, turned, place[:3, 3] + 0.02)
    fixed = Volume(scene(positions(fixed)).astype(np.float32), fixed.affine)
    moving = Volume(scene((positions(moving) - place[:3, 3]) @ place[:3, :3]).astype(np.float32), moving.affine)
    carried = resample(moving, fixed, place).voxels
    blurred = np.stack(list(blurred_slices(fixed, interpolation_blur(moving, fixed, place))))
    radius = np.linalg.norm(positions(fixed), axis=-1)
    before, after = carried - fixed.voxels, carried - blurred
    near = np.abs(radius - 0.9) < 0.12
    assert after[near].std() < 0.85 * before[near].std()
    for part in ((radius > 0.9) & (radius < 0.96), (radius < 0.9) & (radius > 0.84)):
        assert abs(after[part].mean()) < 0.5 * abs(before[part].mean())
    assert np.abs(after[radius < 0.6]).max() < 5


def test_slices_are_those_of_the_whole_scan_and_what_is_not_known_stays_so():
    voxels = np.random.default_rng(1).integers(0, 60000, (70, 11, 13)).astype(np.uint16)
    kernels = [np.array(one) / np.sum(one) for one in ((1, 6, 1), (-0.2, 1, 5, 1, -0.2), (2, 3, 9, 3, 2))]
    expected = voxels.astype(float)
    for axis, kernel in zip((2, 1, 0), kernels, strict=True):
        expected = ndimage.correlate1d(expected, kernel, axis, mode="mirror")
    found = np.stack(list(blurred_slices(Volume(voxels), kernels)))
    np.testing.assert_allclose(found, expected, atol=0.05)
    holed = voxels.astype(np.float32)
    holed[33, 2:5, 6] = np.nan, np.inf, np.nan
    again = np.stack(list(blurred_slices(Volume(holed), kernels)))
    np.testing.assert_array_equal(np.isnan(again), ~np.isfinite(holed))
    np.testing.assert_allclose(again[:30], expected[:30], atol=0.05)
