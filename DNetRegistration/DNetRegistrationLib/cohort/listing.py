"""Pairs that a CSV file lists, a row each."""

from __future__ import annotations

import csv
import difflib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import FileError, one_line
from ..core.spreadsheet import Sheet, read_sheet, with_point
from ..core.words import choice
from .pairs import ROLES, FoundPairs, Pair
from .result import Problem
from .scan_file import ABOUT_SCAN, ScanFile

_NEEDED = ("id", *ROLES)
#: Columns that say how a pair is aligned. All others travel into the results.
COLUMNS = (*_NEEDED, *(f"{role}_{name}" for role in ROLES for name in ABOUT_SCAN), "initial", "contrast")
_LONGEST = 1 << 24


def _numbers(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.replace(",", " ").split())
    if len(values) not in (1, 3) or not all(0 < value < 1e30 for value in values):
        raise ValueError("not one or three voxel sizes in mm, as 0.01 or 0.01 0.01 0.02")
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("not a number, as 1200.5") from None


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"not {choice(words)}")
        return text

    return convert


_CONVERT: dict[str, Callable[[str], Any]] = {
    "spacing": _numbers,
    "threshold": _number,
    "flip": _one_of("x", "y", "z"),
    "contrast": _one_of("fixed", "moving"),
}


def pairs_of_list(path: str | os.PathLike) -> FoundPairs:
    """Reads a list of pairs.

    Args:
        path: a CSV file whose first row names its columns, parted by commas, semicolons or tabs. ``id``, ``fixed`` and
            ``moving`` are needed; paths are taken from the folder of the list. ``fixed_spacing``, ``moving_threshold``
            and others like it (see `ScanFile`), ``initial`` and ``contrast`` say how a pair is aligned. All other
            columns, such as ``time`` and ``group``, travel into the results. With ``time``, one ``id`` may have several
            rows.

    Raises:
        FileError: it cannot be read, has no rows, or lacks a column.
    """
    path = Path(path)
    sheet = _sheet(path)
    header = [cell.strip() for cell in sheet.rows[0][1]]
    lower = [name.lower() for name in header]
    names = [low if low in (*COLUMNS, "time") else name for low, name in zip(lower, header, strict=True)]
    missing = [name for name in _NEEDED if name not in names]
    if missing or len(set(names)) < len(names):
        what = f"has no column {missing[0]!r}" if missing else "has two columns of one name"
        raise FileError(f"{path}: {what}", "name the columns in the first row: id, fixed, moving, and others once each")
    pairs: list[Pair] = []
    problems = _odd_columns(path, names)
    for line, cells in sheet.rows[1:]:
        values = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        if sheet.delimiter != ",":
            values |= {name: with_point(values[name]) for name in values if name.endswith(("_spacing", "_threshold"))}
        pairs.append(_pair(path, line, len(cells) > len(names), values))
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


def _sheet(path: Path) -> Sheet:
    try:
        if path.stat().st_size > _LONGEST:
            raise FileError(f"{path}: is too long for a list of pairs", "give a CSV file with a row for each pair")
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({one_line(error)})", "check the path") from error
    try:
        sheet = read_sheet(content)
    except csv.Error as error:
        raise FileError(f"{path}: cannot be read ({error})", "save it as CSV again") from error
    if len(sheet.rows) < 2:
        raise FileError(f"{path}: lists no pairs", "give a row for each pair below the names of the columns")
    return sheet


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
    read: dict[str, Any] = {}
    for column in COLUMNS:
        text = values.get(column, "")
        if not text or column in _NEEDED:
            continue
        kind = column.split("_", 1)[-1]
        try:
            # Paths count from the folder of the list.
            read[column] = str(path.parent / text) if kind in ("mask", "initial") else _CONVERT.get(kind, str)(text)
        except ValueError as error:
            wrong.append(f"has {text!r} as {column}, {error}")
    scans = {
        role: ScanFile(str(path.parent / values[role]), **{n: read.get(f"{role}_{n}") for n in ABOUT_SCAN})
        if values.get(role)
        else None
        for role in ROLES
    }
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
        initial=read.get("initial"),
        contrast=read.get("contrast"),
        blocked=blocked,
        bone=(values["id"],) if values.get("id") else (),
    )
