"""A scan with noise that goes together in neighbouring voxels, as where a scanner has smoothed it."""

from __future__ import annotations

import numpy as np
from DNetRegistrationLib.imaging.volume import Volume
from scipy import ndimage


def with_noise(scan: Volume, generator: np.random.Generator) -> Volume:
    """A scan with noise of 5 % of its range that a Gaussian of 0.4 voxels has smoothed."""
    noise = ndimage.gaussian_filter(generator.normal(size=scan.voxels.shape), 0.4)
    noise *= 0.05 * np.ptp(scan.voxels) / noise.std()
    return Volume((scan.voxels + noise).astype(np.float32), scan.affine)
