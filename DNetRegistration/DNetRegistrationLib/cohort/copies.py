"""Copies among the scans of a cohort: files of the same bytes before the work, the same voxels after it."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..bone.scan_file import ScanFile, files_of
from ..core.files import blocks_of
from ..core.words import sentence
from .pairs import ROLES, Pair
from .result import PairResult, Problem

#: Bytes at both ends of a file that tell nearly all other files of its length.
_ENDS = 1 << 16
#: So many other scans are named in a sentence.
_NAMED = 3


class _Place(NamedTuple):
    """Where a scan stands in a cohort."""

    number: int  # of its pair
    role: str
    pair: str
    path: str

    @property
    def words(self) -> str:
        return f"the {self.role} scan of {self.pair}"


def same_files(pairs: Sequence[Pair]) -> list[Problem]:
    """A problem for each pair whose scan is a copy of another one, byte by byte, in this pair or in another.

    A scan that lies in several places as the fixed one, or as the moving one, of the same bone is no problem. A path
    that stands in several pairs is none either: these pairs share a scan; unless they share both, under two names.

    Args:
        pairs: of the cohort. What cannot be read is passed over.
    """
    seen: dict[str | None, list[_Place]] = defaultdict(list)
    scans: dict[_Place, ScanFile] = {}
    for number, pair in enumerate(pairs):
        for role in ROLES:
            scan = getattr(pair, role)
            if scan is not None:
                place = _Place(number, role, pair.name, scan.path)
                scans[place] = scan
                # Two series of one folder are no two scans of the same bytes. Masks differ from scan to scan.
                seen[scan.image[1]].append(place)
    found = list(_given_twice(pairs))
    for places in seen.values():
        for group in _copies(places):
            found += _told(pairs, group, scans)
    order = {pair.name: number for number, pair in enumerate(pairs)}
    return sorted(found, key=lambda one: order[one.pair])


def with_copies(pairs: Sequence[PairResult], files: Iterable[Problem] = ()) -> tuple[PairResult, ...]:
    """The pairs, each with a warning where another pair has a scan of the same voxels, in whatever kind of file.

    That both scans of one pair have them, its own alignment says.

    Args:
        pairs: of the cohort.
        files: what `same_files` found, since one of the pairs may not have been read to its end; without what blocks
            a pair.
    """
    warnings: dict[int, list[str]] = defaultdict(list)
    for place, others in _shared(pairs):
        warnings[place.number].append(
            f"The {place.role} scan holds the same voxels as {_listed(others)}: one is a copy of the other, or was "
            "given for it. Check which animal and which time it is of."
        )
    by_files: dict[str, list[str]] = defaultdict(list)
    for one in files:
        by_files[one.pair].append(sentence(one.problem))
    for number, pair in enumerate(pairs):
        if number not in warnings and pair.name in by_files:
            warnings[number] = by_files[pair.name]
    return tuple(
        replace(pair, warnings=(*pair.warnings, *warnings[number])) if number in warnings else pair
        for number, pair in enumerate(pairs)
    )


def with_shared_voxels(pairs: Sequence[PairResult]) -> int:
    """How many pairs have a scan of the same voxels as another file in another pair."""
    return len({place.number for place, _ in _shared(pairs)})


def _shared(pairs: Sequence[PairResult]) -> Iterator[tuple[_Place, list[_Place]]]:
    """Each scan whose voxels other files of other pairs hold too, and where these stand."""
    seen: dict[str, list[_Place]] = defaultdict(list)
    for number, pair in enumerate(pairs):
        for role, mark in zip(ROLES, pair.marks, strict=True):
            if mark:
                seen[mark].append(_Place(number, role, pair.name, getattr(pair, role)))
    for places in seen.values():
        for place in places:
            others = [one for one in places if one.number != place.number and not _one_file(one, place)]
            if others:
                yield place, others


def _given_twice(pairs: Sequence[Pair]) -> Iterator[Problem]:
    """A problem for each pair that has both scans of another one."""
    same: dict[frozenset[str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.fixed is not None and pair.moving is not None and pair.fixed.image != pair.moving.image:
            same[frozenset(pair.identities)].append(pair)
    for group in same.values():
        for pair in group:
            others = [one.name for one in group if one is not pair]
            if others:
                paths = pair.fixed.path, pair.moving.path  # type: ignore[union-attr]
                yield Problem(
                    kind="duplicate",
                    pair=pair.name,
                    files=paths[:1],
                    problem=f"{paths[0]} and {paths[1]}: are both scans of {', '.join(others[:_NAMED])} too",
                    remedy="correct one of them, or take it away",
                )


def _told(pairs: Sequence[Pair], group: list[_Place], scans: dict[_Place, ScanFile]) -> Iterator[Problem]:
    for place in group:
        others = [one for one in group if scans[one].image != scans[place].image]
        bone = pairs[place.number].bone
        others = [one for one in others if one.role != place.role or not bone or pairs[one.number].bone != bone]
        # Of a pair whose scans are copies of each other, once is enough.
        if others and (place.role == ROLES[0] or any(one.number != place.number for one in others)):
            yield Problem(
                kind="duplicate",
                pair=place.pair,
                files=(place.path, *(one.path for one in others)),
                problem=f"{place.path}: holds the same bytes as {_listed(others)} ({others[0].path})",
                remedy="give each pair its own scans, or list one path for both where one scan is meant",
            )


def _listed(places: Sequence[_Place]) -> str:
    words = [one.words for one in places]
    more = len(words) - _NAMED
    return ", ".join(words) if more <= 0 else f"{', '.join(words[:_NAMED])} and {more} more"


def _one_file(one: _Place, other: _Place) -> bool:
    return os.path.realpath(one.path) == os.path.realpath(other.path)


def _copies(places: Iterable[_Place]) -> list[list[_Place]]:
    """Groups of scans of the same bytes. Lengths are compared first, then the ends of files, at last all of them."""
    groups = [list(places)]
    for key in (_lengths, _ends, _whole):
        groups = [part for group in groups for part in _parted(group, key)]
    return groups


def _parted(places: list[_Place], key: Callable[[list[Path]], Hashable]) -> Iterator[list[_Place]]:
    by_path: dict[str, Hashable] = {}
    parts: dict[Hashable, list[_Place]] = defaultdict(list)
    for place in places:
        real = os.path.realpath(place.path)
        try:
            if real not in by_path:
                files = [file for _, file in files_of(real)]
                if not any(file.stat().st_size for file in files):
                    continue
                by_path[real] = key(files)
        except OSError:
            continue
        parts[by_path[real]].append(place)
    for part in parts.values():
        if len({os.path.realpath(one.path) for one in part}) > 1:
            yield part


def _lengths(files: list[Path]) -> Hashable:
    return tuple(file.stat().st_size for file in files)


def _ends(files: list[Path]) -> Hashable:
    told = hashlib.sha256()
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        with open(file, "rb") as stream:
            told.update(stream.read(_ENDS))
            stream.seek(max(file.stat().st_size - _ENDS, 0))
            told.update(stream.read(_ENDS))
    return told.hexdigest()


def _whole(files: list[Path]) -> Hashable:
    told = hashlib.sha256()
    for file in files:
        for block in blocks_of(file):
            told.update(block)
    return told.hexdigest()
