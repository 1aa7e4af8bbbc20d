"""The scans of an evaluation: synthetic, or found in folders or a table; checked, and split in halves by animal.

All that is wrong with them is gathered before anything runs: a list of errors, each with its scan, cause and remedy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...bone.scan_file import ABOUT_SCAN, NUMBERS, ScanFile, scan_of_cells
from ...bone.threshold import find_bone_scale
from ...core.errors import DNetError, FileError, ScanError
from ...core.files import make_folder
from ...core.progress import ProgressFunction, no_progress
from ...core.spreadsheet import read_list
from ...geometry.transform_files import read_transform
from ...imaging.scan_folders import find_scans
from ...imaging.volume import Volume, check_pair_spacing
from ...synthesis.dataset import write_pair
from ...synthesis.pairs import make_pair
from ...training.scanned_bones import AS_OF_PAIRS
from .plan import FOLDS, ScannedBone

#: Seeds from here on are neither the benchmark's nor the calibration's.
FIRST_SEED = 5_000_000
SEEDS_PER_EVALUATION = 10_000
#: The columns that a table needs, as they are called in a list of pairs, and usually here.
_NEEDED = {"id": "name", "moving": "post", "fixed": "pre"}
_OPTIONAL = ("animal", "fold", "transform")
_COLUMNS = (*_NEEDED, *_OPTIONAL, *(f"{role}_{name}" for role in ("fixed", "moving") for name in ABOUT_SCAN))


@dataclass(frozen=True)
class Cohort:
    """Bones, and what is wrong with their scans."""

    bones: list[ScannedBone]
    problems: list[DNetError]


class CohortError(ScanError):
    """Scans of a cohort cannot be used. `problems` are all that is wrong, one error each."""

    def __init__(self, problems: Sequence[DNetError]) -> None:
        several = len(problems) > 1
        count = f"{len(problems)} problem{'s' if several else ''} with the scans"
        super().__init__(count, f"correct {'them' if several else 'it'} first")
        self.problems = list(problems)


def write_bones(
    folder: Path,
    animals: int,
    seed: int,
    size: int,
    spacing: float,
    progress: ProgressFunction = no_progress,
) -> list[Path]:
    """Writes synthetic scans, and the transforms between them, as a user's own would lie in two folders.

    An animal has one tibia, scanned without and with contrast agent, in any pose. Files that exist are kept; those of
    one bone appear together or not at all.

    Args:
        folder: gets the two folders, ``A`` and ``B``.
        animals: in both together.
        seed: of the evaluation.
        size, spacing: of the scans, voxels along each axis and mm.
        progress: called with the fraction done and a message.

    Returns:
        The two folders.

    Raises:
        FileError: they cannot be written.
    """
    folders = [make_folder(folder / fold, parents=True) for fold in FOLDS]
    for number in range(animals):
        name, there = f"mouse{number + 1:03d}", folders[number % 2]
        paths = [there / f"{name}_pre.nrrd", there / f"{name}_post.nrrd", there / f"{name}.tfm"]
        if all(path.is_file() for path in paths):
            continue
        progress(number / animals, f"scanning {name}")
        drawn_with = FIRST_SEED + seed * SEEDS_PER_EVALUATION + number
        # "raw" is the scale of the paper's scanner: water is 1000.
        pair = make_pair(drawn_with, size=size, spacing=spacing, scale="raw", contrast=True)
        write_pair(pair, *paths)
    return folders


def find_bones(paths: Sequence[str | os.PathLike], seed: int = 0, least: int = 1) -> Cohort:
    """Finds the bones of two folders (the halves A and B), of one folder or of a CSV file.

    Scans in folders are ``NAME_pre`` and ``NAME_post`` (or ``NAME_fixed`` and ``NAME_moving``), the true transform
    beside them ``NAME.tfm`` or ``NAME_truth.tfm``; masks, called after a scan, are passed over. A table has columns
    name, pre, post, and may have animal, fold, transform, and what else is to be said of each scan, as pre_spacing and
    post_mask, see `ScanFile`; or they are called as in a list of pairs: id, fixed, moving, moving_mask. Its paths are
    relative to its own folder.

    Args:
        paths: one or two.
        seed: of the split, where the halves are not given.
        least: bones that each half must have.

    Raises:
        FileError: a path does not exist, there are more than two, or the table cannot be read.
    """
    paths = [Path(path) for path in paths]
    if len(paths) > 2:
        raise FileError(f"{paths[2]}: is one too many", "give two folders, one folder or one CSV file")
    for path in paths:
        if not path.is_dir() and (len(paths) == 2 or not path.is_file()):
            raise FileError(f"{path}: there is no such folder of scans", "check the path")
    if len(paths) == 2:
        parts = [_in_folder(path, fold) for path, fold in zip(paths, FOLDS, strict=True)]
    else:
        parts = [_in_folder(paths[0], "") if paths[0].is_dir() else _in_table(paths[0])]
    bones = [bone for part in parts for bone in part.bones]
    problems = [problem for part in parts for problem in part.problems]
    problems += _repeated(bones)
    if not problems:
        bones = _split(bones, seed)
        counts = Counter(bone.fold for bone in bones)
        few = [f"{fold} ({counts[fold]})" for fold in FOLDS if counts[fold] < least]
        if few:
            problem = f"{paths[0]}: too few bones in {' and '.join(few)}"
            problems.append(ScanError(problem, f"give at least {least} in each half"))
    return Cohort(sorted(bones, key=lambda bone: bone.name), problems)


def check_bones(
    bones: Sequence[ScannedBone],
    spacing: Sequence[float] | None = None,
    progress: ProgressFunction = no_progress,
) -> tuple[list[DNetError], str]:
    """Reads every scan, and gathers what is wrong: unreadable, without bone, the same as another scan.

    Args:
        bones: see `find_bones`.
        spacing: the true voxel size of all scans, in mm, where files lack it and their table does not say it.
        progress: called with the fraction done and a message.

    Returns:
        The problems, and a fingerprint of all scans: hex digits that change with any voxel.
    """
    problems: list[DNetError] = []
    seen: dict[str, str] = {}
    everything = hashlib.sha256()
    for number, bone in enumerate(bones):
        progress(number / len(bones), f"reading {bone.name}")
        pair: list[Volume] = []
        for scan in (bone.pre, bone.post):
            with _gathered(problems):
                volume = scan.with_spacing(spacing).read(None)
                mask = scan.read_mask(None, volume)
                find_bone_scale(volume, scan.threshold, mask)
                pair.append(volume)
                digest = _digest(volume.voxels)
                everything.update(f"{bone.name} {bone.fold} {digest}\n".encode("utf-8", "surrogateescape"))
                if scan.about:  # wherever its mask lies
                    said = {**scan.about, "mask": None if mask is None else _digest(mask)}
                    everything.update(json.dumps(said, sort_keys=True).encode("utf-8", "surrogateescape"))
                # Masks may part several bones of one scan.
                digest += "" if mask is None else _digest(mask)
                if digest in seen:
                    raise ScanError(f"{scan.path}: holds the same voxels as {seen[digest]}", "put the right scan there")
                seen[digest] = scan.path
        with _gathered(problems):
            if len(pair) == 2:
                check_pair_spacing(*pair)
        with _gathered(problems):
            if bone.transform is not None:
                everything.update(read_transform(bone.transform).tobytes())
    return problems, everything.hexdigest()


@contextmanager
def _gathered(problems: list[DNetError]) -> Iterator[None]:
    """Adds the error that ends the block to `problems`."""
    try:
        yield
    except DNetError as error:
        problems.append(error)


def _digest(voxels: np.ndarray) -> str:
    voxels = np.ascontiguousarray(voxels)
    return hashlib.sha256(voxels.view(np.uint8).reshape(-1).data).hexdigest()


def _in_folder(folder: Path, fold: str) -> Cohort:
    try:
        scans = find_scans(folder)
    except FileError as error:
        return Cohort([], [error])
    problems: list[DNetError] = list(scans.problems)
    for path in scans.singles.values():
        remedy = "rename it, or move it away if it is no scan"
        problems.append(ScanError(f"{path}: is neither NAME_pre nor NAME_post", remedy))
    for path, partner in scans.unpaired.items():
        problems.append(ScanError(f"{path}: its partner {partner}.* is missing", "add it, or move this away"))
    bones = [
        ScannedBone(pair.name, pair.name, fold, ScanFile(str(pair.pre)), ScanFile(str(pair.post)), pair.transform)
        for pair in sorted(scans.pairs, key=lambda pair: pair.name)
    ]
    return Cohort(bones, problems)


def _in_table(path: Path) -> Cohort:
    sheet = read_list(path)
    header = [name.lower() for name in sheet.header]
    names = [AS_OF_PAIRS.get(name, name) for name in header]
    called = _NEEDED | dict(zip(names, header, strict=True))
    lines = list(sheet.lines(names, tuple(f"_{name}" for name in NUMBERS)))
    if not lines or not set(names) >= _NEEDED.keys():
        missing = ", ".join(usual for name, usual in _NEEDED.items() if name not in names) or "lines"
        raise FileError(f"{path}: lacks {missing}", "give columns name, pre, post, and one line a bone")
    for name in filter(None, set(names)):
        if names.count(name) > 1:
            raise FileError(f"{path}: has two columns that mean {called[name]}", "keep one of them")
    bones: list[ScannedBone] = []
    problems: list[DNetError] = []
    unknown = sorted(set(names).difference(_COLUMNS, {""}))
    if unknown:
        remedy = f"name it one of {', '.join(_OPTIONAL)}, or as pre_mask, post_spacing and others of a scan"
        problems.append(FileError(f"{path}: column {', '.join(unknown)} is unknown", remedy))
    for number, too_long, cells in lines:
        where = f"{path}: line {number}"
        if too_long:
            remedy = "put quotes about a cell with commas in it, or part cells by semicolons"
            problems.append(FileError(f"{where} has more cells than there are columns", remedy))
        empty = [called[column] for column in _NEEDED if not cells.get(column)]
        if empty:
            problems.append(FileError(f"{where} has no {' and no '.join(empty)}", "fill it in, or remove the line"))
            continue
        (pre, wrong), (post, more) = (scan_of_cells(role, cells, path.parent, called) for role in ("fixed", "moving"))
        problems += [FileError(f"{where} {one}", "correct it") for one in (*wrong, *more)]
        assert pre is not None and post is not None
        fold = cells.get("fold", "")
        if fold not in ("", *FOLDS):
            problems.append(FileError(f"{where} has the fold {fold!r}", "give A, B, or nothing in all lines"))
        transform = path.parent / cells["transform"] if cells.get("transform") else None
        files = [*map(Path, (*pre.paths, *post.paths)), *([] if transform is None else [transform])]
        absent = [file for file in files if not file.exists()]
        problems += [FileError(f"{file}: there is no such file ({where})", "correct the path") for file in absent]
        bones.append(ScannedBone(cells["id"], cells.get("animal") or cells["id"], fold, pre, post, transform))
    if {bone.fold for bone in bones} > {""}:
        problems.append(FileError(f"{path}: only some lines have a fold", "give all of them one, or none"))
    return Cohort(bones, problems)


def _repeated(bones: Sequence[ScannedBone]) -> Iterator[ScanError]:
    """Finds names and files that occur twice, and animals in both halves."""
    names = Counter(bone.name for bone in bones)
    for name in (name for name, count in names.items() if count > 1):
        where = " and ".join(bone.pre.path for bone in bones if bone.name == name)
        yield ScanError(f"{name}: there are {names[name]} bones of this name ({where})", "give each its own name")
    scans = [scan for bone in bones for scan in (bone.pre, bone.post)]
    counts = Counter(scan.identity for scan in scans)
    for identity, path in {scan.identity: scan.path for scan in scans}.items():
        if counts[identity] > 1:
            yield ScanError(f"{path}: is given {counts[identity]} times", "give each scan once")
    folds = defaultdict(set)
    for bone in bones:
        folds[bone.animal].add(bone.fold)
    for animal, its in folds.items():
        if len(its - {""}) > 1 and names.get(animal, 0) < 2:
            yield ScanError(f"{animal}: the animal has bones in both halves, A and B", "put them in one")


def _split(bones: Sequence[ScannedBone], seed: int) -> list[ScannedBone]:
    """Puts each bone in a half, the given one or a drawn one, an animal's bones together, the halves of equal size."""
    if all(bone.fold for bone in bones):
        return list(bones)
    animals = sorted({bone.animal for bone in bones})
    order = np.random.default_rng([seed, 13]).permutation(len(animals))
    fold = {animals[at]: FOLDS[rank % 2] for rank, at in enumerate(order)}
    return [replace(bone, fold=fold[bone.animal]) for bone in bones]
