"""The pairs that all methods of the comparison align, made once and kept in files, so that each method only reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...imaging.volume import Volume

#: Neither those of the benchmark nor those that the confidence was calibrated on.
FIRST_SEED = 500_000
#: From here on the numbers of pairs whose volume grows.
GROWING = 100_000
#: Edges, in degrees, of the bins of rotation angle.
BINS = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0)
#: The field of view in mm, of whatever number of voxels: the paper's 64 of 0.08 mm.
FIELD = 5.12
# The mean error over this many points of the bone is that over all of it.
MOST_POINTS = 1 << 18


@dataclass(frozen=True)
class ComparedPair:
    """One synthetic pair; equal ones are the same pair.

    Attributes:
        number: of the pair; its animal and its scans are drawn from `FIRST_SEED` and this.
        size: voxels along each axis of the uncut scans; their field of view is `FIELD` whatever the size.
        bin: which of `BINS` the rotation angle is drawn from.
        keep: scans are cut down to a fraction U(keep, 1) of their bone.
        contrast: the moving scan is with contrast agent.
    """

    number: int
    size: int
    bin: int
    keep: float = 1.0
    contrast: bool = True

    @property
    def name(self) -> str:
        """Short and unlike that of any other pair of a comparison."""
        return f"{self.size}-{self.number}"

    @property
    def matrix(self) -> np.ndarray:
        """``(4, 4)`` float64, fixed to moving points, LPS mm: the truth.

        The angle is U(low, high) of its bin, the axis uniform on the sphere, and the bone moves by U(-0.64, 0.64) mm
        along each axis. Angles are spread evenly, which uniform rotations are not: four in five of those are beyond 90
        degrees.
        """
        generator = np.random.default_rng([FIRST_SEED + self.number, 21])
        angle = np.radians(generator.uniform(*BINS[self.bin : self.bin + 2]))
        axis = generator.standard_normal(3)
        x, y, z = axis / np.linalg.norm(axis)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix = np.eye(4)
        matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        matrix[:3, 3] = generator.uniform(-0.64, 0.64, 3)
        return matrix


def plan(count: int, size: int, keep: float, contrast: bool, first: int = 0) -> list[ComparedPair]:
    """So many pairs from the number `first` on, the bins of angle in turn: the first few cover them all as all do."""
    bins = len(BINS) - 1
    numbers = range(first, first + count)
    return [ComparedPair(number, size, number % bins, float(keep), bool(contrast)) for number in numbers]


def growing(sizes: Iterable[int], keep: float, contrast: bool, first: int = 0) -> list[ComparedPair]:
    """One pair of each size: the same animal, turn (60 to 90 degrees) and field of view, of ever smaller voxels."""
    number = first + GROWING
    return [ComparedPair(number, size, 2, float(keep), bool(contrast)) for size in sorted(set(sizes))]


def write_pair(pair: ComparedPair, folder: str) -> None:
    """Makes a pair and writes its scans and its truth into an existing folder."""
    from ...synthesis.pairs import make_pair

    # The grids lie about the world's origin, about which the matrix turns.
    made = make_pair(
        FIRST_SEED + pair.number,
        size=pair.size,
        spacing=FIELD / pair.size,
        matrix=pair.matrix,
        keep=pair.keep,
        contrast=pair.contrast,
    )
    for role in ("fixed", "moving"):
        scan = getattr(made, role)
        np.save(Path(folder, f"{role}.npy"), scan.voxels)
        np.save(Path(folder, f"{role}_affine.npy"), scan.affine)
    flat = np.flatnonzero(made.fixed_bone)
    flat = flat[:: max(1, flat.size // MOST_POINTS)]
    index = np.stack(np.unravel_index(flat, made.fixed_bone.shape)[::-1], -1)
    np.save(Path(folder, "points.npy"), made.fixed.to_world(index))


def read_scans(folder: str) -> tuple[Volume, Volume]:
    """The fixed and the moving scan that `write_pair` wrote."""
    fixed, moving = (
        Volume(np.load(Path(folder, f"{role}.npy")), np.load(Path(folder, f"{role}_affine.npy")), f"{role} scan")
        for role in ("fixed", "moving")
    )
    return fixed, moving


def target_error_um(pair: ComparedPair, folder: str, matrix) -> float:
    """Mean distance, over the fixed scan's bone, of where a ``(4, 4)`` matrix puts its voxels and where they are."""
    points = np.load(Path(folder, "points.npy"))
    difference = np.asarray(matrix, float) - pair.matrix
    return 1000 * float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())
