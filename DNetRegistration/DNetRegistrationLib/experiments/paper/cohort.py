"""The scans of an evaluation: found in folders or a table, checked as a whole, split in two halves by animal.

Whatever is wrong is gathered in one list of sentences, each of which names the scan, the cause and the remedy.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...bone.threshold import find_bone_scale
from ...core.errors import FileError, ScanError, one_line
from ...imaging.scan_folders import find_scans
from ...imaging.volume import Volume, check_pair_spacing, read_volume
from .plan import FOLDS

# What the names of a bone's two scans end in, without and with contrast agent; the second way is that of `synthesize`.
_WORDS = (("pre", "post"), ("fixed", "moving"))
_COLUMNS, _OPTIONAL = {"name", "pre", "post"}, {"animal", "fold", "transform"}


@dataclass(frozen=True)
class Bone:
    """One bone, scanned without (`pre`) and with (`post`) contrast agent.

    Attributes:
        name: of the bone.
        animal: whose bone it is; bones of one animal are in one half.
        fold: "A" or "B", or "" before the split.
        pre, post: its scans.
        transform: file of the true transform, pre to post points, LPS mm; None where it is not known.
    """

    name: str
    animal: str
    fold: str
    pre: Path
    post: Path
    transform: Path | None = None

    def scan(self, which: str) -> Path:
        """The path of "pre" or "post"."""
        return self.pre if which == "pre" else self.post


@dataclass(frozen=True)
class Found:
    """Bones, and what is wrong with their scans."""

    bones: list[Bone]
    problems: list[str]


def find_bones(paths: Sequence[str | Path], seed: int = 0, least: int = 1) -> Found:
    """The bones of two folders (the halves A and B), of one folder or of a CSV file; see ``evaluate --help``.

    Args:
        paths: one or two.
        seed: of the split, where the halves are not given.
        least: bones that each half must have.

    Raises:
        ScanError: a path is not there, or there are more than two.
    """
    paths = [Path(path) for path in paths]
    if len(paths) > 2:
        raise ScanError(f"{paths[2]}: is one too many; give two folders, one folder or one CSV file")
    for path in paths:
        if not path.is_dir() and (len(paths) == 2 or not path.is_file()):
            raise ScanError(f"{path}: there is no such folder of scans; check the path")
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
            problems.append(f"{paths[0]}: too few bones in {' and '.join(few)}; give at least {least} in each half")
    return Found(sorted(bones, key=lambda bone: bone.name), problems)


def check_bones(
    bones: Sequence[Bone], spacing=None, progress: Callable[[float, str], None] = lambda fraction, message: None
) -> tuple[list[str], str]:
    """Reads every scan, and tells what is wrong with any: unreadable, without bone, the same as another one.

    Args:
        bones: see `find_bones`.
        spacing: the true voxel size of all scans, in mm, where files lack it.

    Returns:
        The problems, and a fingerprint of all scans: hex digits that change when a voxel of any does.
    """
    problems: list[str] = []
    seen: dict[str, Path] = {}
    everything = hashlib.sha256()
    for number, bone in enumerate(bones):
        progress(number / len(bones), f"reading {bone.name}")
        pair: list[Volume] = []
        for path in (bone.pre, bone.post):
            try:
                volume = read_volume(path, spacing, name=str(path))
                find_bone_scale(volume)
            except ScanError as error:
                problems.append(" ".join(str(error).split()))
                continue
            pair.append(volume)
            digest = _digest(volume)
            if digest in seen:
                problems.append(f"{path}: holds the same voxels as {seen[digest]}; put the right scan there")
            seen.setdefault(digest, path)
            everything.update(f"{bone.name} {bone.fold} {digest}\n".encode("utf-8", "surrogateescape"))
        problems += _wrong_together(bone, pair, everything)
    return problems, everything.hexdigest()


def _wrong_together(bone: Bone, pair: list[Volume], everything) -> Iterator[str]:
    if len(pair) == 2:
        try:
            check_pair_spacing(*pair)
        except ScanError as error:
            yield str(error)
    if bone.transform is not None:
        from ...geometry.transforms import read_transform

        try:
            everything.update(read_transform(bone.transform).tobytes())
        except ScanError as error:
            yield str(error)


def _digest(volume: Volume) -> str:
    voxels = np.ascontiguousarray(volume.voxels)
    return hashlib.sha256(voxels.view(np.uint8).reshape(-1).data).hexdigest()


def _in_folder(folder: Path, fold: str) -> Found:
    try:
        scans = find_scans(folder, _WORDS)
    except FileError as error:
        return Found([], [str(error)])
    problems = [str(problem) for problem in scans.problems]
    problems += [
        f"{path}: is neither NAME_pre nor NAME_post; rename it, or move it away if it is no scan"
        for path in scans.singles.values()
    ]
    problems += [
        f"{path}: its partner {partner}.* is missing; add it, or move this away"
        for path, partner in scans.unpaired.items()
    ]
    bones = [
        Bone(pair.name, pair.name, fold, pair.pre, pair.post, _transform_beside(pair.pre, pair.name))
        for pair in sorted(scans.pairs, key=lambda pair: pair.name)
    ]
    return Found(bones, problems)


def _transform_beside(scan: Path, name: str) -> Path | None:
    paths = (scan.with_name(f"{name}.tfm"), scan.with_name(f"{name}_truth.tfm"))
    return next((path for path in paths if path.is_file()), None)


def _in_table(path: Path) -> Found:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScanError(f"{path}: cannot be read as CSV ({one_line(error)}); save it as CSV in UTF-8") from error
    columns = set(lines[0]) if lines else set()
    if not lines or not columns >= _COLUMNS:
        missing = ", ".join(sorted(_COLUMNS - columns)) or "lines"
        raise ScanError(f"{path}: lacks {missing}; a table of scans has columns name, pre, post, and one line a bone")
    bones, problems = [], []
    unknown = sorted(str(column) for column in columns - _COLUMNS - _OPTIONAL)
    if unknown:
        problems.append(
            f"{path}: column {', '.join(unknown)} is unknown; name it one of {', '.join(sorted(_OPTIONAL))}"
        )
    for number, line in enumerate(lines, 2):
        cells = {key: (value or "").strip() for key, value in line.items() if isinstance(key, str)}
        where = f"{path}: line {number}"
        empty = [column for column in sorted(_COLUMNS) if not cells[column]]
        if empty:
            problems.append(f"{where} has no {' and no '.join(empty)}; fill it in, or remove the line")
            continue
        fold = cells.get("fold", "")
        if fold not in ("", *FOLDS):
            problems.append(f"{where} has the fold {fold!r}; give A, B, or nothing in all lines")
        files = {key: path.parent / cells[key] for key in ("pre", "post", "transform") if cells.get(key)}
        absent = [file for file in files.values() if not file.exists()]
        problems += [f"{file}: there is no such file ({where}); correct the path" for file in absent]
        bones.append(Bone(cells["name"], cells.get("animal") or cells["name"], fold, **files))
    if {bone.fold for bone in bones} > {""}:
        problems.append(f"{path}: only some lines have a fold; give all of them one, or none")
    return Found(bones, problems)


def _repeated(bones: Sequence[Bone]) -> Iterator[str]:
    """What is there twice: names, files, and animals in both halves."""
    names = Counter(bone.name for bone in bones)
    for name in (name for name, count in names.items() if count > 1):
        where = " and ".join(str(bone.pre) for bone in bones if bone.name == name)
        yield f"{name}: there are {names[name]} bones of this name ({where}); give each bone a name of its own"
    files = Counter(path.resolve() for bone in bones for path in (bone.pre, bone.post))
    for path in (path for path, count in files.items() if count > 1):
        yield f"{path}: is given {files[path]} times; give each scan once"
    folds = defaultdict(set)
    for bone in bones:
        folds[bone.animal].add(bone.fold)
    for animal, its in folds.items():
        if len(its - {""}) > 1 and names.get(animal, 0) < 2:
            yield f"{animal}: the animal has bones in both halves, A and B; put them in one"


def _split(bones: Sequence[Bone], seed: int) -> list[Bone]:
    """Bones with their half: the given one, or one drawn for each animal such that halves are as equal as can be."""
    if all(bone.fold for bone in bones):
        return list(bones)
    animals = sorted({bone.animal for bone in bones})
    order = np.random.default_rng([seed, 13]).permutation(len(animals))
    fold = {animals[at]: FOLDS[rank % 2] for rank, at in enumerate(order)}
    return [replace(bone, fold=fold[bone.animal]) for bone in bones]
