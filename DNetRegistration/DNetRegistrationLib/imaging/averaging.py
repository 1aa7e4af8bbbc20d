"""Scans averaged over blocks of their voxels."""

from __future__ import annotations

import numpy as np

from .volume import Volume


def averaged(volume: Volume, resolution: float, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A scan averaged over whole blocks of voxels, along its own axes, to voxels of about `resolution` mm.

    Blocks that are not complete, at the far borders, are left off; blocks that lie partly outside the field of view
    (NaN, or outside `mask`) are outside.

    Returns:
        ``(z, y, x)`` float32 means, NaN outside the field of view, and their ``(4, 4)`` index-to-world affine.
    """
    factors = np.maximum(1, np.rint(resolution / volume.spacing)).astype(int)
    return block_means(volume, np.minimum(factors, volume.size), mask)


def block_means(volume: Volume, factors: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The same for blocks of ``(3,)`` whole `factors` along x, y, z."""
    fx, fy, fz = (int(f) for f in factors)
    nx, ny, nz = (int(n) for n in volume.size // factors)
    out = np.empty((nz, ny, nx), np.float32)
    for z in range(nz):
        rows = slice(z * fz, (z + 1) * fz), slice(0, ny * fy), slice(0, nx * fx)
        slab = volume.voxels[rows]
        if mask is not None:
            slab = np.where(mask[rows], slab, np.float32(np.nan))
        slab = np.add.reduce(slab, 0, dtype=np.float32 if fz * fy * fx > 1 else None)
        slab = np.add.reduce(slab.reshape(ny, fy, nx * fx), 1)
        out[z] = sum(slab[:, x::fx] for x in range(fx))
    out /= fx * fy * fz
    out[~np.isfinite(out)] = np.nan
    grid = np.diag((fx, fy, fz, 1.0))
    grid[:3, 3] = ((fx - 1) / 2, (fy - 1) / 2, (fz - 1) / 2)
    return out, volume.affine @ grid
