"""Pairs that a CSV file lists, a row each."""

from __future__ import annotations

import difflib
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..bone.scan_file import ABOUT_SCAN, NUMBERS, one_of, scan_of_cells
from ..core.errors import FileError
from ..core.spreadsheet import read_list, with_point
from .pairs import ABOUT_CARTILAGE, ROLES, FoundPairs, Pair
from .result import Problem

_NEEDED = ("id", *ROLES)
#: Columns that say how a pair is aligned. All others travel into the results.
COLUMNS = (
    *_NEEDED, *(f"{role}_{name}" for role in ROLES for name in ABOUT_SCAN),
    "initial", "contrast", *ABOUT_CARTILAGE,
)  # fmt: skip


def _point(text: str) -> tuple[float, ...]:
    try:
        # Where spaces part the numbers, a comma within one is a decimal one.
        parts = text.split() if len(text.split()) > 1 else text.split(",")
        values = tuple(float(with_point(part.rstrip(","))) for part in parts)
    except ValueError:
        values = ()
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError("not three numbers in mm, as 1.2 -0.4 3.0")
    return values


_CELLS: dict[str, Callable[[str], Any]] = {"contrast": one_of(*ROLES), "medial": _point}


def pairs_of_list(path: str | os.PathLike) -> FoundPairs:
    """Reads a list of pairs.

    Args:
        path: a CSV file whose first row names its columns, parted by commas, semicolons or tabs. ``id``, ``fixed`` and
            ``moving`` are needed; paths are taken from the folder of the list. ``fixed_spacing``, ``moving_threshold``
            and others like it (see `ScanFile`), ``initial`` and ``contrast`` say how a pair is aligned, ``region``,
            ``region_segment`` and ``medial`` where its cartilage is measured (see `Measuring`). All other columns, such
            as ``time`` and ``group``, travel into the results. With ``time``, one ``id`` may have several rows.

    Raises:
        FileError: it cannot be read, has no rows, or lacks a column.
    """
    path = Path(path)
    sheet = read_list(path)
    if len(sheet.rows) < 2:
        raise FileError(f"{path}: lists no pairs", "give a row for each pair below the names of the columns")
    header = sheet.header
    lower = [name.lower() for name in header]
    names = [low if low in (*COLUMNS, "time") else name for low, name in zip(lower, header, strict=True)]
    missing = [name for name in _NEEDED if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"has no column {missing[0]!r}" if missing else "has two columns of one name"
        raise FileError(f"{path}: {what}", "name the columns in the first row: id, fixed, moving, and others once each")
    pairs: list[Pair] = []
    problems = _odd_columns(path, names)
    for line, too_long, values in sheet.lines(names, tuple(f"_{name}" for name in NUMBERS)):
        pairs.append(_pair(path, line, too_long, values))
    problems += [pair.blocked for pair in pairs if pair.blocked is not None]
    counts = Counter(pair.name for pair in pairs)
    seen: Counter[str] = Counter()
    for index, pair in enumerate(pairs):
        seen[pair.name] += 1
        if counts[pair.name] > 1:
            own = pair.name if seen[pair.name] == 1 else f"{pair.name} ({seen[pair.name]})"
            problem = f"{path}: lists {pair.name!r} {counts[pair.name]} times"
            told = Problem(
                kind="duplicate",
                pair=own,
                files=(str(path),),
                problem=problem,
                remedy="give each row its id, or a time",
            )
            problems = [replace(one, pair=own) if one is pair.blocked else one for one in problems]
            problems.append(told)
            pairs[index] = replace(pair, name=own, blocked=told)
    return FoundPairs(pairs, problems)


def _odd_columns(path: Path, names: list[str]) -> list[Problem]:
    """Columns that look like a misspelled one, which would be carried along and not heeded."""
    found = []
    for name in names:
        near = difflib.get_close_matches(name.lower().replace(" ", "_"), COLUMNS, 1, 0.85)
        if near and name not in COLUMNS:
            problem = f"{path}: the column {name!r} does not say how to align"
            found.append(
                Problem(kind="list", files=(str(path),), problem=problem, remedy=f"call it {near[0]}, if it should")
            )
    return found


def _pair(path: Path, line: int, too_long: bool, values: dict[str, str]) -> Pair:
    name = "_".join(part for part in (values.get("id", ""), values.get("time", "")) if part)
    wrong = [] if not too_long else ["has more cells than there are columns"]
    if not values.get("id"):
        name = f"line {line}"
        wrong.append("has no id")
    scans = {}
    for role in ROLES:
        scans[role], its = scan_of_cells(role, values, path.parent)
        wrong += its
    own: dict[str, Any] = {}
    for column, convert in _CELLS.items():
        try:
            own[column] = convert(values[column]) if values.get(column) else None
        except ValueError as error:
            wrong.append(f"has {values[column]!r} as {column}, {error}")
    for column in ("initial", "region"):
        own[column] = str(path.parent / values[column]) if values.get(column) else None
    blocked = None
    files = tuple(scan.path for scan in scans.values() if scan is not None)
    lacks = [role for role in ROLES if scans[role] is None]
    if lacks:
        problem = f"{path}: the {' and the '.join(lacks)} scan of {name} is missing"
        blocked = Problem(kind="partner", pair=name, files=files, problem=problem, remedy="fill its cell in")
    if wrong:
        problem = f"{path}: line {line} {' and '.join(wrong)}"
        blocked = Problem(kind="list", pair=name, files=(str(path),), problem=problem, remedy="correct it")
    columns = {column: text for column, text in values.items() if column == "id" or column not in COLUMNS}
    return Pair(
        name=name,
        fixed=scans["fixed"],
        moving=scans["moving"],
        columns=columns,
        region_segment=values.get("region_segment") or None,
        **own,
        blocked=blocked,
        bone=(values["id"],) if values.get("id") else (),
    )
