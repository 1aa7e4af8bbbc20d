"""The files of a synthetic pair: one process makes it, others align it, and none counts the memory of making it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..geometry.transforms import mean_point_error
from ..imaging.volume import Volume

if TYPE_CHECKING:
    from ..synthesis.pairs import SyntheticPair

# The mean error over this many points of the bone is that over all of it.
_MOST_POINTS = 1 << 18
_ROLES = ("fixed", "moving")


@dataclass(frozen=True)
class PairFiles:
    """A folder with the two scans of a pair, its true transform, and points of the fixed bone."""

    folder: Path

    def write(self, pair: SyntheticPair) -> None:
        """Writes a pair into the folder, which must exist."""
        self.write_scans(pair.fixed, pair.moving)
        flat = np.flatnonzero(pair.fixed_bone)
        flat = flat[:: max(1, flat.size // _MOST_POINTS)]
        index = np.stack(np.unravel_index(flat, pair.fixed_bone.shape)[::-1], -1)
        np.save(self.folder / "points.npy", pair.fixed.to_world(index))
        np.save(self.folder / "matrix.npy", pair.matrix)

    def write_scans(self, fixed: Volume, moving: Volume) -> None:
        """Writes two scans alone into the folder, which must exist."""
        for role, scan in zip(_ROLES, (fixed, moving), strict=True):
            np.save(self.folder / f"{role}.npy", scan.voxels)
            np.save(self.folder / f"{role}_affine.npy", scan.affine)

    def scans(self) -> tuple[Volume, Volume]:
        """The fixed and the moving scan."""
        fixed, moving = (
            Volume(np.load(self.folder / f"{role}.npy"), np.load(self.folder / f"{role}_affine.npy"), f"{role} scan")
            for role in _ROLES
        )
        return fixed, moving

    @property
    def matrix(self) -> np.ndarray:
        """The truth, ``(4, 4)`` float64, fixed to moving points, LPS mm."""
        return np.load(self.folder / "matrix.npy")

    @property
    def points(self) -> np.ndarray:
        """Points of the fixed scan's bone, ``(n, 3)``, LPS mm."""
        return np.load(self.folder / "points.npy")

    def target_error_um(self, matrix: np.ndarray) -> float:
        """Mean distance, in um, between where `matrix` and the truth put the points of the bone."""
        return 1000 * mean_point_error(matrix, self.matrix, self.points)

    def scans_gb(self) -> float:
        """Size of the two scans, in 1e9 bytes."""
        return sum((self.folder / f"{role}.npy").stat().st_size for role in _ROLES) / 1e9
