"""Synthetic pairs as files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.files import atomic_write
from ..core.words import counted
from ..geometry.transform_files import write_transform_at
from ..imaging.volume import Volume, write_image
from .pairs import SyntheticPair, make_pair

#: The masks of a pair.
MASKS = ("fixed_bone", "fixed_cartilage", "moving_bone", "moving_cartilage")


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
        write_transform_at(pair.matrix, staging.path(truth), truth)


def write_masks(pair: SyntheticPair, paths: dict[str, Path]) -> None:
    """Writes where bone and cartilage are in both scans: 1 in voxels that are at least half of it, else 0.

    Args:
        pair: what to write.
        paths: files, of the kinds that hold scans, for some of ``fixed_bone``, ``fixed_cartilage``, ``moving_bone`` and
            ``moving_cartilage``. They appear together or not at all.

    Raises:
        FileError: they cannot be written.
    """
    masks = {
        "fixed_bone": (pair.fixed, pair.fixed_bone),
        "moving_bone": (pair.moving, pair.moving_bone),
        "fixed_cartilage": (pair.fixed, pair.fixed_cartilage >= 128),
        "moving_cartilage": (pair.moving, pair.moving_cartilage >= 128),
    }
    with atomic_write() as staging:
        for name, path in paths.items():
            scan, mask = masks[name]
            image = Volume(mask.astype(np.uint8), scan.affine).to_sitk()
            write_image(image, staging.path(path), path, compress=True)


def synthesize(
    folder,
    count: int,
    seed: int = 0,
    *,
    truth: bool = False,
    progress: Callable[[float, str], None] | None = None,
    suffix: str = ".nrrd",
    **options,
) -> Path:
    """Writes pairs with their truth into a folder.

    Each pair has ``0001_fixed.nrrd``, ``0001_moving.nrrd`` and ``0001_truth.tfm`` (fixed to moving points, LPS mm).
    ``truth.csv`` has a row for each pair: the 16 numbers of the matrix by rows, and what was drawn. It is written once
    all pairs are there. A list has a column for each of its items, as ``shift_mm_1``; what is not known is empty.

    Args:
        folder: an existing one.
        count: how many pairs; they are those of seeds `seed`, `seed + 1`, ...
        seed: of the first pair.
        truth: also write masks of bone and cartilage, as ``0001_fixed_cartilage.nrrd``; see `write_masks`.
            ``medial_mm`` is then the middle of the medial joint surface of the fixed scan's bone, in or out of its
            view, LPS.
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
        if truth:
            write_masks(pair, {mask: folder / f"{name}_{mask}{suffix}" for mask in MASKS})
        row = {"pair": name, "same": pair.same, **entries, **_columns(pair.drawn)}
        if truth:
            joint = pair.cartilage
            medial = joint.points[joint.medial]
            row |= _columns({"medial_mm": medial.mean(0).tolist() if len(medial) else [None] * 3})
        rows.append(row)
    with atomic_write() as staging, open(staging.path(folder / "truth.csv"), "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0] if rows else ["pair"])
        writer.writeheader()
        writer.writerows(rows)
    if progress is not None:
        progress(1.0, f"{counted(count, 'pair')} written")
    return folder / "truth.csv"


def _columns(drawn: dict) -> dict[str, object]:
    """What was drawn as cells of a table: lists taken apart, nothing for None, other values as they are."""
    cells: dict[str, object] = {}
    for key, value in drawn.items():
        if isinstance(value, list | tuple):
            cells |= _columns({f"{key}_{number}": one for number, one in enumerate(value, 1)})
        else:
            cells[key] = "" if value is None else value
    return cells
