"""Masks that are kept: in bits, within the box that holds them. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .morphology import box_around
from .volume import Volume


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask of a scan, in an eighth of its memory or less.

    Attributes:
        shape: of the scan, ``(z, y, x)``.
        affine: of the scan.
        box: what it lies in.
        bits: what it is there; eight voxels of a line are a byte.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    box: tuple[slice, ...]
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, scan: Volume) -> PackedMask:
        """A mask ``(z, y, x)``, bool, of a scan."""
        box = box_around(mask) or (slice(0),) * 3
        return cls(mask.shape, scan.affine, box, np.packbits(mask[box], axis=2))

    def on(self, scan: Volume) -> np.ndarray | None:
        """The mask; None on a scan of another grid."""
        if scan.voxels.shape != self.shape or not np.array_equal(scan.affine, self.affine):
            return None
        mask = np.zeros(self.shape, bool)
        part = mask[self.box]
        part[...] = np.unpackbits(self.bits, axis=2, count=part.shape[2])
        return mask
