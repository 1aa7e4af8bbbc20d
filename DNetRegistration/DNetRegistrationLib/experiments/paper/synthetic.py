"""Made-up bones to evaluate on, written as a user's own scans would lie in two folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...core.files import make_folder
from ...synthesis.dataset import write_pair
from ...synthesis.pairs import make_pair
from .plan import FOLDS

#: Seeds from here on are neither the benchmark's nor the calibration's.
FIRST_SEED = 5_000_000
SEEDS_PER_EVALUATION = 10_000
# One scanner for all, which counts as the paper's does: water at 1000.
_SCALE = "raw"


def write_bones(
    folder: Path,
    animals: int,
    seed: int,
    size: int,
    spacing: float,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> list[Path]:
    """Writes scans of tibiae without and with contrast agent into ``A`` and ``B``, and the transforms between them.

    An animal, one tibia each, is scanned twice in any pose. What is there already is kept: files of one bone appear
    together or not at all.

    Args:
        folder: where the two folders shall be.
        animals: in both together.
        seed: of the evaluation.
        size, spacing: of the scans, voxels along each axis and mm.
        progress: called with the fraction done and a message.

    Returns:
        The two folders.

    Raises:
        ScanError: they cannot be written.
    """
    folders = [make_folder(folder / fold, parents=True) for fold in FOLDS]
    for number in range(animals):
        name, there = f"mouse{number + 1:03d}", folders[number % 2]
        paths = [there / f"{name}_pre.nrrd", there / f"{name}_post.nrrd", there / f"{name}.tfm"]
        if all(path.is_file() for path in paths):
            continue
        progress(number / animals, f"scanning {name}")
        pair = make_pair(
            FIRST_SEED + seed * SEEDS_PER_EVALUATION + number, size=size, spacing=spacing, scale=_SCALE, contrast=True
        )
        write_pair(pair, *paths)
    return folders
