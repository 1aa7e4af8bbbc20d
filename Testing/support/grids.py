"""Scans of noise, and empty grids about a point of the world."""

import numpy as np
from DNetRegistrationLib.imaging.volume import Volume


def grid(size, spacing, direction, middle):
    """An empty scan of a size (x, y, z) about a world position."""
    volume = Volume.from_geometry(np.zeros(size[::-1], np.float32), spacing, direction)
    affine = volume.affine.copy()
    affine[:3, 3] = middle - affine[:3, :3] @ (np.array(size) - 1) / 2
    return Volume(volume.voxels, affine)


def positions(volume):
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.size), indexing="ij"), -1)
    return volume.to_world(index).transpose(2, 1, 0, 3)


def noise(*shape: int, dtype=np.uint16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
