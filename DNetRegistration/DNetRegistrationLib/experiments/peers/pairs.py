"""The pairs that all methods align: made once and kept in files, so that each method only reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ...core.constants import FIELD_OF_VIEW
from ...core.files import temporary_folder
from ...core.processes import completed_calls
from ...geometry.transforms import affine_matrix
from ..pair_files import PairFiles

#: Neither those of the benchmark nor those that the confidence was calibrated on.
FIRST_SEED = 500_000
#: Pairs whose volume grows have numbers from here on.
GROWING = 100_000
#: Edges, in degrees, of the bins of rotation angle.
BINS = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0)
#: Such as "30-60".
BIN_NAMES = tuple(f"{low:g}-{high:g}" for low, high in pairwise(BINS))
#: Fewer pairs than this, two in each bin, are a trial of the program: they tell no methods apart.
FEW = 2 * len(BIN_NAMES)


@dataclass(frozen=True)
class ComparedPair:
    """One synthetic pair. Equal ones are the same pair.

    Attributes:
        number: of the pair. Its animal and its scans are drawn from `FIRST_SEED` and this.
        size: voxels along each axis of the uncut scans. Their field of view is the paper's whatever the size.
        angle_bin: which of `BINS` the rotation angle is drawn from.
        keep: scans are cut down to a fraction U(keep, 1) of their bone.
        contrast: the moving scan is with contrast agent.
    """

    number: int
    size: int
    angle_bin: int
    keep: float = 1.0
    contrast: bool = True

    @property
    def name(self) -> str:
        """Short and unlike that of any other pair of a comparison."""
        return f"{self.size}-{self.number}"

    @property
    def matrix(self) -> np.ndarray:
        """``(4, 4)`` float64, fixed to moving points, LPS mm: the truth.

        The angle is U(low, high) of its bin, the axis is uniform on the sphere, and the bone moves by U(-0.64, 0.64) mm
        along each axis. Angles are spread evenly. Of uniform rotations four in five would be beyond 90 degrees.
        """
        generator = np.random.default_rng([FIRST_SEED + self.number, 21])
        angle = generator.uniform(BINS[self.angle_bin], BINS[self.angle_bin + 1])
        rotation = _about(generator.standard_normal(3), angle)
        return affine_matrix(rotation, generator.uniform(-0.64, 0.64, 3))


def _about(axis: np.ndarray, degrees: float) -> np.ndarray:
    return Rotation.from_rotvec(degrees * axis / np.linalg.norm(axis), degrees=True).as_matrix()


def turned_pairs(count: int, size: int, keep: float, contrast: bool, first: int = 0) -> list[ComparedPair]:
    """Pairs from the number `first` on, the bins of angle in turn: the first few of them cover all bins too."""
    return [
        ComparedPair(number, size, number % (len(BINS) - 1), float(keep), bool(contrast))
        for number in range(first, first + count)
    ]


def growing_pairs(sizes: Iterable[int], keep: float, contrast: bool, first: int = 0) -> list[ComparedPair]:
    """One pair of each size: the same animal, rotation (60 to 90 degrees) and field of view, of ever smaller voxels."""
    return [ComparedPair(first + GROWING, size, 2, float(keep), bool(contrast)) for size in sorted(set(sizes))]


def make_files(pair: ComparedPair, files: PairFiles) -> None:
    """Makes a pair and writes its files."""
    from ...synthesis.pairs import make_pair

    # The grids lie about the world's origin, about which the matrix turns.
    files.write(
        make_pair(
            FIRST_SEED + pair.number,
            size=pair.size,
            spacing=FIELD_OF_VIEW / pair.size,
            matrix=pair.matrix,
            keep=pair.keep,
            contrast=pair.contrast,
        )
    )


class PairFolders:
    """Files of pairs, made when first asked for and removed at the end of the context.

    Args:
        folder: where there is room for them; they get a folder of their own in it.
    """

    def __init__(self, folder: Path) -> None:
        self._made = temporary_folder(folder)

    def __enter__(self) -> PairFolders:
        self._home = self._made.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        self._made.__exit__(*exception)

    def files(self, pair: ComparedPair) -> PairFiles:
        """The files of a pair."""
        place = self._home / pair.name
        if not place.exists():
            making = self._home / f"{pair.name}.part"
            making.mkdir(exist_ok=True)
            # Another process makes the pair, because that takes much more memory than the pair has.
            list(completed_calls(make_files, [(pair, PairFiles(making))], 1, threads=None))
            making.rename(place)
        return PairFiles(place)
