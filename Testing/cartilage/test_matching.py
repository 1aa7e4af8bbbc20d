"""Two images of one random structure, with a known motion, gain, offset and blur between them."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.matching import match_bone
from DNetRegistrationLib.cartilage.profiles import Sampler
from DNetRegistrationLib.imaging.volume import Volume
from scipy import ndimage

STEP = 0.02


@pytest.mark.parametrize("gain", [0.0003, 1.3, 10.0])
def test_shift_gain_offset_and_blur_are_found_again(gain):
    generator = np.random.default_rng(4)
    structure = 1000 * ndimage.gaussian_filter(generator.standard_normal((60, 60, 60)), 2.0, mode="wrap") * 20
    # The scan with agent: shifted by fractions of a voxel along x, y, z, wider by 0.4 voxels^2, in units of its own.
    shift = np.array((0.13, -0.07, 0.21))
    waves = np.stack(np.meshgrid(*[2 * np.pi * np.fft.fftfreq(60)] * 3, indexing="ij"), -1)[..., ::-1]
    spectrum = np.fft.fftn(structure) * np.exp(-1j * waves @ shift - 0.2 * (waves**2).sum(-1))
    moved = np.fft.ifftn(spectrum).real
    affine = np.diag((STEP, STEP, STEP, 1.0))
    affine[:3, 3] = (10, -5, 3)
    points = generator.uniform(20, 40, (6000, 3)) * STEP + affine[:3, 3]
    noise = [5 * generator.standard_normal(structure.shape) for _ in range(2)]
    plain = Sampler(Volume(structure + noise[0], affine), np.eye(4), points, 0.1)
    agent = Sampler(Volume(gain * (moved + noise[1]) + 50, affine), np.eye(4), points, 0.1)
    match = match_bone(plain, agent, points, np.eye(4), STEP, np.array((0.0, 0.0, 1.0)))
    assert match.shift == pytest.approx(shift * STEP, abs=0.02 * STEP)
    assert match.slope == pytest.approx(gain, rel=0.01)
    assert match.offset == pytest.approx(50, abs=3 * gain)
    # Differences over a voxel tell too little of the curvature of short waves, so that this is too much of it.
    assert match.blur_mm2 == pytest.approx(0.4 * STEP**2, rel=0.3)
    middle = points.mean(0)
    assert match.matrix[:3, :3] @ middle + match.matrix[:3, 3] == pytest.approx(middle + match.shift, abs=1e-6)
    assert 0 < match.error_mm < 0.001


def test_too_little_bone_changes_nothing():
    points = np.random.default_rng(1).uniform(0, 1, (100, 3))
    scan = Volume(np.random.default_rng(2).standard_normal((20, 20, 20)), np.diag((0.05, 0.05, 0.05, 1.0)))
    sampler = Sampler(scan, np.eye(4), points, 0.1)
    match = match_bone(sampler, sampler, points, np.eye(4), 0.05, np.array((0.0, 0.0, 1.0)))
    assert np.array_equal(match.matrix, np.eye(4)) and np.isnan(match.error_mm)
