"""Beam hardening: what is bright darkens what lies around it, in its slice above all."""

from __future__ import annotations

import numpy as np

from .fields import single
from .grid import Lattice
from .session import Session

# Edge in mm of the blocks that brightness is averaged over: half the least spread or less, as one evaluation each.
_BLOCK = 0.16
# Between slices it reaches less far: rays cross them at small angles only.
_ACROSS = 0.3


class Hardening:
    """The darkening of a scan, found on coarse blocks, since it is smooth.

    It is first order: a share of the mean HU of bone and agent under a Gaussian. Streaks between two bright things are
    of a higher order, and missing.
    """

    def __init__(self, session: Session, bone, lattice: Lattice) -> None:
        # Imported here: training, which needs torch and NumPy alone, draws no hardening.
        from scipy import ndimage

        self._block = np.maximum(1, np.round(_BLOCK / lattice.spacing)).astype(int)
        self._blocks = -(-lattice.size // self._block)
        self._padding = lattice.padding
        index = [
            (np.arange(n) + 0.5) * b - 0.5 - lattice.padding for n, b in zip(self._blocks, self._block, strict=True)
        ]
        x, y, z = (lattice.axis(axis, index[axis]) for axis in range(3))
        points = z[:, None, None] + y[:, None] + x + lattice.affine[:3, 3]
        edges = self._block * lattice.spacing
        tissue = bone.tissue(*single(points.reshape(-1, 3).T), float(edges.mean()))
        bright = tissue.density * session.bone + tissue.cartilage * session.uptake
        sigma = session.spread / edges * (1, 1, _ACROSS)
        mean = ndimage.gaussian_filter(bright.reshape(points.shape[:3]), sigma[::-1], mode="nearest")
        self._darkening = single(-session.hardening * mean)

    def add(self, slab: np.ndarray, low: int) -> None:
        """Adds it, in HU, to a slab ``(z, y, x)`` of the padded grid that begins with slice `low`."""
        starts = (low, -self._padding, -self._padding)
        # Index axes of an array run z, y, x.
        z, y, x = (self._weights(2 - axis, starts[axis] + np.arange(slab.shape[axis])) for axis in range(3))
        columns = np.ascontiguousarray(x.T)
        # Slice by slice, each of which fits a processor's cache.
        for part, blocks in zip(slab, np.tensordot(z, self._darkening, 1), strict=True):
            part += y @ blocks @ columns

    def _weights(self, axis: int, index: np.ndarray) -> np.ndarray:
        """``(n, blocks)`` of the linear interpolation between the middles of blocks."""
        position = (index + self._padding + 0.5) / self._block[axis] - 0.5
        apart = np.abs(np.clip(position, 0, self._blocks[axis] - 1)[:, None] - np.arange(self._blocks[axis]))
        return single(np.clip(1 - apart, 0, None))
