"""Pairs that are found by the names of their files and folders."""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..bone.scan_file import ScanFile
from ..core.errors import FileError, OptionError, Setting
from ..imaging.foreign import foreign_kind
from ..imaging.scan_folders import SCAN_SUFFIXES
from ..imaging.stacks import natural
from .pairs import FoundPairs, Pair
from .result import Problem
from .store import is_results

#: The rule where no other is given: NAME_pre and NAME_post.
PATTERN = "{id}_{scan}"
#: What `{scan}` stands for: the word of the fixed scan and that of the moving one.
WORDS = ("pre", "post")
#: Other ways to name two scans, of which one is proposed where the rule that was given fits to nothing.
_OTHER_PATTERNS = (
    PATTERN, "{id} {scan}", "{id}-{scan}", "{id}.{scan}", "{id}{scan}", "{scan}_{id}", "{scan} {id}", "{scan}-{id}",
    "{id}/{scan}", "{id}/*{scan}", "{id}/{scan}*",
)  # fmt: skip
#: Kinds of file that hold a scan; of DICOM, an enhanced file does.
_SUFFIXES = (*SCAN_SUFFIXES, ".dcm")


def pairs_by_name(
    folder: str | os.PathLike,
    pattern: str | None = None,
    words: tuple[str, str] = WORDS,
) -> FoundPairs:
    """Finds the pairs of a folder. Two scans are a pair if their names differ in the word of the scan alone.

    Args:
        folder: where scans lie: files, folders of slices, or folders of DICOM. What is hidden is passed over,
            and so are results of earlier runs.
        pattern: the names of the scans below the folder, without their endings, with parts in braces. ``{scan}`` stands
            for one of `words`, in any case of letters, ``{id}`` and others for any text within a name, ``*`` too. It
            has a slash for each folder, as in ``{group}/{id}_{time}/{scan}``. The parts are columns of the results,
            and joined they name the pair.
        words: of the fixed and the moving scan.

    Raises:
        FileError: there is no such folder, or no scan in it.
        OptionError: the pattern has no ``{id}`` or ``{scan}``, or one part twice; or the words are not two.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: there is no such folder of scans, nor a list of them", "check the path")
    pattern = PATTERN if pattern is None else pattern
    rule = _rule(pattern, words)
    found: dict[tuple[str, ...], dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    odd: list[Path] = []
    foreign: list[tuple[Path, tuple[str, str]]] = []
    stems: set[str] = set()
    for path in _candidates(folder, pattern.count("/")):
        relative = path.relative_to(folder).as_posix()
        ending = _ending(path)
        match = rule.fullmatch(relative[: len(relative) - len(ending)]) or rule.fullmatch(relative)
        if path.is_file() and not ending:
            kind = foreign_kind(path)
            if kind is not None and rule.fullmatch(relative[: len(relative) - len(path.suffix)]):
                foreign.append((path, kind))
        elif match is None:
            if path.is_file() or _visible(path):
                odd.append(path)
        else:
            stems.add(relative[: len(relative) - len(ending)])
            key = tuple(text for name, text in match.groupdict().items() if name != "scan")
            role = [word.lower() for word in words].index(match["scan"].lower())
            found[key][role].append(path)
    # The voxels of a header beside them are no scan by themselves.
    foreign = [one for one in foreign if one[0].relative_to(folder).with_suffix("").as_posix() not in stems]
    if not found and not odd and not foreign:
        kinds = ", ".join(_SUFFIXES)
        raise FileError(f"{folder}: holds no scans ({kinds}, or folders of slices)", "check the path")
    names = [name for name in rule.groupindex if name != "scan"]
    pairs, hints = [], {_stem(path): path.name for path in odd}
    for key in sorted(found, key=lambda one: natural(Path("_".join(one)))):
        columns = dict(zip(names, key, strict=True))
        pairs.append(_pair("_".join(key), columns, found[key], words, hints))
    problems = [pair.blocked for pair in pairs if pair.blocked is not None]
    plain = "NAME_{scan}" if pattern == PATTERN else pattern
    shown = " and ".join(plain.replace("{scan}", word) for word in words)
    remedy = f"name the two scans of a pair {shown}, give other words or another pattern, or list the pairs"
    if not found and (other := _fitting(folder, words)):
        remedy = f"if {' and '.join(words)} tell the two scans of a pair, give the pattern {other}"
    elif not found and "/" not in pattern and (two := _two_kinds(odd)):
        remedy = f"if they hold a scan of each pair, give the pattern {{scan}}/{{id}} and the words {' and '.join(two)}"
    if odd:
        fit = "its name fits" if len(odd) == 1 else "their names fit"
        problems.append(_of_files("name", odd, folder, f"{fit} to no pair", remedy))
    alike = defaultdict(list)
    for path, kind in foreign:
        alike[kind].append(path)
    for (what, way_out), paths in alike.items():
        each = "" if len(paths) == 1 else "each "
        problems.append(_of_files("unreadable", paths, folder, f"{each}is {what}, which is not read", way_out))
    return FoundPairs(pairs, problems)


def _of_files(kind: str, paths: list[Path], folder: Path, what: str, remedy: str) -> Problem:
    """What is wrong with files that belong to no pair, told once for all of them."""
    names = ", ".join([str(paths[0]), *(path.relative_to(folder).as_posix() for path in paths[1:])])
    return Problem(kind=kind, files=tuple(map(str, paths)), problem=f"{names}: {what}", remedy=remedy)


def _pair(
    name: str, columns: dict[str, str], scans: dict[int, list[Path]], words: tuple[str, str], hints: dict[str, str]
) -> Pair:
    blocked = None
    for there in (scans[0], scans[1]):
        if len(there) > 1:
            problem = f"{there[0]}: {', '.join(path.name for path in there[1:])} has the same name"
            files = tuple(str(path) for path in there)
            blocked = Problem(kind="duplicate", pair=name, files=files, problem=problem, remedy="keep one of them")
    for role, word in enumerate(words):
        if not scans[role]:
            (other, *_) = scans[1 - role]
            wanted = _stem(other)
            wanted = re.sub(rf"(?i){re.escape(words[1 - role])}(?!.*{re.escape(words[1 - role])})", word, wanted)
            near = difflib.get_close_matches(wanted, hints, 1, 0.75)
            remedy = "add it, or take its partner away" + (f"; is it {hints[near[0]]}?" if near else "")
            problem = f"{other}: its partner is missing (the scan {word!r} of {name})"
            blocked = Problem(kind="partner", pair=name, files=(str(other),), problem=problem, remedy=remedy)
    fixed, moving = (ScanFile(str(scans[role][0])) if scans[role] else None for role in (0, 1))
    bone = tuple(text for part, text in columns.items() if part != "time")
    return Pair(name=name, fixed=fixed, moving=moving, columns=columns, blocked=blocked, bone=bone)


def _rule(pattern: str, words: tuple[str, str]) -> re.Pattern[str]:
    """The pattern as a regular expression with a named group for each part."""
    setting = Setting("pattern")
    parts = re.split(r"(\{[^{}]*\}|\*)", pattern)
    names = [part[1:-1] for part in parts if part.startswith("{") and part.endswith("}")]
    if not {"id", "scan"} <= set(names) or len(set(names)) < len(names) or not all(n.isidentifier() for n in names):
        problem = f"the pattern {pattern!r} does not name the parts of a pair"
        raise OptionError(problem, "give {id} and {scan} and further parts once each, as {id}_{time}_{scan}", setting)
    if len(words) != 2 or not all(words) or words[0].lower() == words[1].lower():
        problem = f"{', '.join(words)}: are not the words for two scans"
        raise OptionError(problem, "give that of the fixed and that of the moving one", Setting("words"))
    text = ""
    for part in parts:
        if part == "{scan}":
            # The longer word first, since one may begin with the other.
            text += f"(?P<scan>(?i:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))}))"
        elif part == "*":
            text += "[^/]*"
        else:
            text += f"(?P<{part[1:-1]}>[^/]+?)" if part[:1] == "{" and part[-1:] == "}" else re.escape(part)
    return re.compile(text, re.DOTALL)


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    """The files and folders so many folders down, in the order of their names."""
    try:
        inside = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise FileError(f"{folder}: cannot be looked into ({error.strerror})", "check its permissions") from error
    for path in inside:
        if path.name.startswith(".") or is_results(path):
            continue
        if depth == 0:
            yield path
        elif path.is_dir():
            yield from _candidates(path, depth - 1)


def _fitting(folder: Path, words: tuple[str, str]) -> str | None:
    """The pattern of `_OTHER_PATTERNS` by which most scans of a folder are pairs; None where none makes a pair."""
    best, most = None, 0
    for pattern in _OTHER_PATTERNS:
        rule = _rule(pattern, words)
        roles = defaultdict(set)
        for path in _candidates(folder, pattern.count("/")):
            name = path.relative_to(folder).as_posix()
            if (match := rule.fullmatch(name[: len(name) - len(_ending(path))])) and (path.is_dir() or _ending(path)):
                roles[match["id"]].add(match["scan"].lower())
        count = sum(len(one) == 2 for one in roles.values())
        if count > most:
            best, most = pattern, count
    return best


def _two_kinds(paths: list[Path]) -> list[str]:
    """The names of two folders that hold scans of the same names, where these are all there is."""
    if len(paths) != 2 or not all(path.is_dir() for path in paths):
        return []
    first, second = ({_stem(one) for one in _visible(path)} for path in paths)
    return [path.name for path in paths] if first & second else []


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden; nothing where it cannot be looked into."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(_ending(path))]


def _ending(path: Path) -> str:
    """The ending of a scan file, as it is written; "" of folders and other files."""
    name = path.name.lower()
    length = max((len(one) for one in _SUFFIXES if name.endswith(one)), default=0)
    return path.name[len(path.name) - length :] if length and path.is_file() else ""
