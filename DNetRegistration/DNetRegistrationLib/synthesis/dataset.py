"""Synthetic pairs as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from ..core.files import atomic_write
from ..geometry.transform_files import write_transform
from ..imaging.volume import write_image
from .pairs import SyntheticPair, make_pair


def write_pair(pair: SyntheticPair, fixed: Path, moving: Path, truth: Path) -> None:
    """Writes both scans and the transform between them; the three files appear together or not at all.

    Args:
        pair: what to write.
        fixed, moving: files of the scans, ``.nrrd``, ``.nii``, ``.nii.gz`` or ``.mha``; they are compressed.
        truth: file of the transform, ``.tfm``, ``.h5`` or ``.mat``: fixed to moving points, LPS mm.

    Raises:
        FileError: they cannot be written.
    """
    with atomic_write() as staging:
        for scan, path in ((pair.fixed, fixed), (pair.moving, moving)):
            write_image(scan.to_sitk(), staging.path(path), path, compress=True)
        write_transform(pair.matrix, staging.path(truth))


def synthesize(
    folder,
    count: int,
    seed: int = 0,
    *,
    progress: Callable[[float, str], None] | None = None,
    suffix: str = ".nrrd",
    **options,
) -> Path:
    """Writes pairs with their truth into a folder.

    Each pair has ``0001_fixed.nrrd``, ``0001_moving.nrrd`` and ``0001_truth.tfm`` (fixed to moving points, LPS mm).
    ``truth.csv`` has a row for each pair: the 16 numbers of the matrix by rows, and what was drawn. It is written once
    all pairs are there.

    Args:
        folder: an existing one.
        count: how many pairs; they are those of seeds `seed`, `seed + 1`, ...
        seed: of the first pair.
        progress: called with the fraction done and a message.
        suffix: kind of the scans' files: ".nrrd", ".nii", ".nii.gz" or ".mha".
        options: to `make_pair`.

    Returns:
        The path of ``truth.csv``.

    Raises:
        OptionError: an option has a value that it cannot have.
        FileError: a file cannot be written.
    """
    folder, rows = Path(folder), []
    for number in range(1, count + 1):
        if progress is not None:
            progress((number - 1) / count, f"pair {number} of {count}")
        pair = make_pair(seed + number - 1, **options)
        name = f"{number:04d}"
        files = (f"{name}_{part}" for part in (f"fixed{suffix}", f"moving{suffix}", "truth.tfm"))
        write_pair(pair, *(folder / file for file in files))
        entries = {f"m{row}{column}": repr(float(pair.matrix[row, column])) for row in range(4) for column in range(4)}
        drawn = {key: json.dumps(value) for key, value in pair.drawn.items()}
        rows.append({"pair": name, "same": pair.same, **entries, **drawn})
    with atomic_write() as staging, open(staging.path(folder / "truth.csv"), "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0] if rows else ["pair"])
        writer.writeheader()
        writer.writerows(rows)
    if progress is not None:
        progress(1.0, f"{count} pairs written")
    return folder / "truth.csv"
