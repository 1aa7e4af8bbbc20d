"""Reads a folder of numbered slices: TIFF, PNG, BMP or JPEG, one file each."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..core.errors import ScanError
from .itk_reader import READERS, FoundImage, blank, read_file, stack_slices
from .series import Series, choose
from .skyscan import SkyScanLog, read_log
from .tiff import read_tiff_slice, stated_pixel

#: Kinds of file that hold slices but not the distance between them.
SLICE_SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".jpg", ".jpeg")


def natural(path: Path) -> list:
    """A sort key that puts slice 10 after slice 9."""
    # Text and numbers alternate, so that text is compared with text and a number with a number.
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", path.name.lower())]


def read_stack(
    folder: Path, files: list[Path], series: str | int | None, role: str | None, header_only: bool = False
) -> FoundImage:
    """Reads one stack of the slices of a folder.

    Args:
        folder: the folder that messages name.
        files: its slices, in their natural order.
        series: which stack, where there are several: its number or its name pattern.
        role: "fixed" or "moving" where the scan is one of a pair.
        header_only: read the first slice alone, and give `blank` voxels of its kind.

    Raises:
        ScanError: there is one slice only, one is missing, or they do not go together.
    """
    log = read_log(folder, files)
    stacks = _stacks(files if log is None else log.keep(files))
    if len(stacks) > 1 and series is None:
        # Pictures that stand alone beside a stack are previews, logs or masks, not slices.
        several = {pattern: members for pattern, members in stacks.items() if len(members) > 1}
        stacks = several or {"all": {file: None for file in files}}
    listed = [Series(pattern, "slices", f"{len(group)} files", list(group)) for pattern, group in stacks.items()]
    chosen = choose(folder, listed, series, role)
    numbers = stacks[chosen.uid]
    members = list(chosen.members)
    if len(members) == 1:
        remedy = f"put all slices there, or give {members[0]} if it is 3D"
        raise ScanError(f"{folder}: the folder holds one image", remedy)
    step = _even_step(folder, numbers)
    if header_only:
        first = _read_slice(members[0])
        voxels = blank((len(members), *first.shape[-2:]), first.dtype)
    else:
        voxels = stack_slices(members, folder, _read_slice)
    spacing, lacks = _voxel_size(members, voxels.shape, log, step)
    return FoundImage(voxels, np.diag((*spacing, 1.0)), lacks, placed=False)


def _stacks(files: list[Path]) -> dict[str, dict[Path, int | None]]:
    """Parts files into stacks by their names: the number that varies counts the slices.

    scan_rec0001.bmp and scan_rec0002.bmp are one stack, scan_001_80um.tif and scan_002_80um.tif as well;
    scan_rec_spr.bmp, a preview, belongs to neither. Where several numbers vary, the last one counts, and the others
    tell stacks apart, unless every file would be a stack of its own.

    Returns:
        dict: the number of each slice, or None, by file, by the pattern of the names.
    """
    alike: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        alike[re.sub(r"[0-9]+", "#", file.stem) + file.suffix.lower()].append(file)
    stacks: dict[str, dict[Path, int | None]] = defaultdict(dict)
    for group in alike.values():
        numbers = {file: re.findall(r"[0-9]+", file.stem) for file in group}
        counter = _counting(list(numbers.values()))
        for file, found in numbers.items():
            texts = re.split(r"[0-9]+", file.stem)
            own = ["#" if index == counter[0] or index in counter[1:] else text for index, text in enumerate(found)]
            pattern = "".join(a + b for a, b in zip(texts, [*own, ""], strict=True)) + file.suffix.lower()
            stacks[pattern][file] = int(found[counter[0]]) if found else None
    return stacks


def _counting(names: list[list[str]]) -> list[int]:
    """Which number of names counts the slices, followed by those that run along with it."""
    columns = range(len(names[0]))
    varying = [column for column in columns if len({int(name[column]) for name in names}) > 1]
    for column in reversed(varying):
        stacks = Counter(tuple(name[other] for other in columns if other != column) for name in names)
        if min(stacks.values()) > 1 or len(varying) == 1:
            return [column]
    # Every name has numbers of its own, as a slice and the time of its acquisition.
    unique = [c for c in varying if len({int(name[c]) for name in names}) == len(names)]
    even = [c for c in unique if len(set(np.diff(sorted(int(name[c]) for name in names)))) == 1]
    if even or unique:
        return [(even or unique)[0], *varying]
    return [len(names[0]) - 1] if names[0] else [0]


def _even_step(folder: Path, numbers: dict[Path, int | None]) -> int:
    """Checks that no slice is missing from a stack, which would shift all that follow; by how much numbers rise."""
    counted = [(file, number) for file, number in numbers.items() if number is not None]
    if len(counted) < len(numbers):
        return 1
    steps = [after[1] - before[1] for before, after in pairwise(counted)]
    step = Counter(steps).most_common(1)[0][0]
    for (file, _), taken in zip(counted, steps, strict=False):
        if taken != step:
            raise ScanError(
                f"{folder}: the numbers of the slices jump by {taken} after {file.name}, elsewhere by {step}",
                "add the missing slices, or keep only the slices of one scan in the folder",
            )
    return step


def _read_slice(file: Path) -> np.ndarray:
    return read_tiff_slice(file) if _is_tiff(file) else read_file(file, file, READERS[file.suffix.lower()])[0]


def _is_tiff(file: Path) -> bool:
    return file.suffix.lower() in (".tif", ".tiff")


def _voxel_size(
    files: list[Path], shape: tuple[int, ...], log: SkyScanLog | None, step: int
) -> tuple[tuple[float, float, float], str]:
    """The voxel size in mm, 1 where it is not stated, and what is not stated of it."""
    if log is not None and (pixel := log.pixel(shape)):
        return (pixel, pixel, pixel * max(step, log.step)), ""
    x, y = stated_pixel(files[0]) if _is_tiff(files[0]) else (0.0, 0.0)
    hint = f" (in the slices: {x:.6g} x {y:.6g} mm, but not between them)" if x and y else ""
    return (x or 1.0, y or 1.0, 1.0), f"its kind of file does not store the voxel size{hint}"
