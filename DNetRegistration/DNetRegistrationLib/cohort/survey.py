"""What headers show of the pairs of a cohort, before the work: their sizes, and every problem, in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..bone.scan_file import ScanFile
from ..core.errors import DNetError, Setting, known_error, one_line
from ..core.files import is_unicode
from ..core.progress import ProgressFunction, no_progress
from ..core.words import counted
from ..geometry.transform_files import read_transform
from ..networks.weights import require_weights
from ..outputs.paths import check_grid
from .closing import closing_pairs, references
from .copies import same_files
from .measuring import Measuring
from .options import CohortOptions
from .pairs import ABOUT_CARTILAGE, ROLES, FoundPairs, Pair
from .result import KINDS, Problem, told_once
from .task import remedy_of

if TYPE_CHECKING:
    from ..imaging.volume import Volume

#: Bytes that a process takes before it reads a scan; and those for each voxel of both scans beside the voxels
#: themselves, with all outputs. Peaks measured at 128^3 (0.77 GB) and 256^3 (1.06 GB of single precision).
_BASE, _PER_VOXEL = 0.8e9, 8
#: Kinds of problems, by the setting that mends them.
_SETTING_KINDS = {
    "spacing": "spacing",
    **dict.fromkeys(("mask", "segment", "initial", *ABOUT_CARTILAGE), "given"),
}


@dataclass(frozen=True)
class Survey:
    """The pairs of a cohort, and what is wrong with them.

    Attributes:
        pairs: those that were found.
        problems: of their names, rows and headers, and of files that belong to no pair.
        settings: what would mend a problem, where that is known, by the number of the problem.
        sizes: of each pair whose headers could be read: the sizes of both scans, for a person.
        memory: of each of them, bytes that its alignment may take.
        closing: pairs to align besides, to close loops; `memory` holds them too.
        copies: those of the problems that tell of copies in pairs that are aligned all the same.
        references: the scan that all of a bone are carried onto, by the name of each pair.
        dropped: the names of outputs of an earlier run that nobody asks for now, and that are removed; where it is
            known into which folder the results go.
    """

    pairs: list[Pair]
    problems: list[Problem]
    settings: dict[int, Setting]
    sizes: dict[str, str]
    memory: dict[str, float]
    closing: list[Pair] = field(default_factory=list)
    references: dict[str, ScanFile] = field(default_factory=dict)
    copies: list[Problem] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


def survey(
    found: FoundPairs,
    options: CohortOptions | None = None,
    progress: ProgressFunction = no_progress,
    masks: bool = False,
) -> Survey:
    """Reads the headers of all scans and masks, all transforms to start from, and of files of one length so much as
    tells copies.

    Args:
        found: the pairs.
        options: how they will be aligned. With its `loops`, pairs that close loops are found among those without a
            problem.
        progress: called with a fraction and a message.
        masks: read masks and regions whole, and tell of those that mark nothing; it takes up to some seconds each.

    Raises:
        DNetError: there are no such weights, which no pair could be aligned with.
    """
    options = CohortOptions() if options is None else options
    if options.weights is not None and options.hypotheses != "search":
        require_weights(options.weights)
    pairs = [_of_two(pair.with_scans(options.scans)) for pair in found.pairs]
    before = {pair.name for pair in found.pairs if pair.blocked is not None}
    problems = [*found.problems, *(p.blocked for p in pairs if p.blocked is not None and p.name not in before)]
    copies = same_files(pairs)
    problems += copies
    pairs = [_of_two_files(pair, copies) for pair in pairs]
    settings: dict[int, Setting] = {}
    sizes: dict[str, str] = {}
    memory: dict[str, float] = {}
    taken: dict[tuple, float] = {}
    for number, pair in enumerate(pairs):
        progress(number / len(pairs), f"looking at {shown(pair.name)}")
        headers: dict[str, Volume] = {}
        for role in ROLES:
            try:
                if getattr(pair, role) is not None:
                    headers[role] = getattr(pair, role).read_header(role)
            except Exception as error:  # whatever is wrong with one pair, the others are looked at
                _note(problems, settings, pair, (getattr(pair, role).path,), error)
        if len(headers) == 2:
            for check in (_check_both, _check_sizes, _check_masks, _check_measuring, _check_initial):
                try:
                    check(pair, headers, options, masks)
                except Exception as error:
                    _note(problems, settings, pair, (pair.fixed.path, pair.moving.path), error)  # type: ignore[union-attr]
            sizes[pair.name] = ", ".join(dict.fromkeys(_size(scan) for scan in headers.values()))
            for role, scan in headers.items():
                voxel = scan.voxels.dtype.itemsize + _PER_VOXEL
                taken[getattr(pair, role).image] = scan.voxels.size * voxel
            memory[pair.name] = _memory(pair, taken)
    wrong = {one.pair for one in problems}
    good = [pair for pair in pairs if pair.name not in wrong]
    closing = closing_pairs(good) if options.loops else []
    memory |= {pair.name: _memory(pair, taken) for pair in closing}
    blocked = [pair.blocked for pair in pairs if pair.blocked is not None]
    copies = [one for one in copies if one not in blocked]
    return Survey(pairs, problems, settings, sizes, memory, closing, references(good), copies)


def _of_two(pair: Pair) -> Pair:
    """The pair, blocked where both of its scans are the same."""
    if pair.blocked is not None or pair.fixed is None or pair.moving is None or pair.fixed.image != pair.moving.image:
        return pair
    files = tuple(dict.fromkeys((pair.fixed.path, pair.moving.path)))
    problem = f"{' and '.join(files)}: both scans of {pair.name} are the same"
    remedy = "correct one of them"
    return replace(pair, blocked=Problem(kind="duplicate", pair=pair.name, files=files, problem=problem, remedy=remedy))


def _of_two_files(pair: Pair, copies: Iterable[Problem]) -> Pair:
    """The pair, blocked where one of its scans is a copy of the other."""
    if pair.blocked is not None or pair.fixed is None or pair.moving is None:
        return pair
    both = {pair.fixed.path, pair.moving.path}
    own = next((one for one in copies if one.pair == pair.name and both <= set(one.files)), None)
    return pair if own is None else replace(pair, blocked=own)


def _memory(pair: Pair, taken: Mapping[tuple, float]) -> float:
    return _BASE + sum(taken[getattr(pair, role).image] for role in ROLES)


def _check_both(pair: Pair, headers: dict[str, Volume], options: CohortOptions, masks: bool) -> None:
    from ..imaging.volume import check_pair_spacing

    check_pair_spacing(headers["fixed"], headers["moving"])
    check_grid(options.paths(Path(pair.name)), headers["fixed"])


def _check_sizes(pair: Pair, headers: dict[str, Volume], options: CohortOptions, masks: bool) -> None:
    from ..imaging.volume import check_micrometres, too_large

    # Of one alone the check of both tells.
    if all(too_large(scan) for scan in headers.values()):
        check_micrometres(headers["fixed"], "fixed")


def _check_masks(pair: Pair, headers: dict[str, Volume], options: CohortOptions, masks: bool) -> None:
    for role in ROLES:
        scan: ScanFile = getattr(pair, role)
        (scan.read_mask if masks else scan.check_mask)(role, headers[role])


def _check_measuring(pair: Pair, headers: dict[str, Volume], options: CohortOptions, masks: bool) -> None:
    contrast = pair.contrast or options.contrast
    measuring = Measuring(contrast, options.anyway, pair.region, pair.region_segment, pair.medial)
    wanted = bool(options.paths(Path(pair.name)).of_cartilage)
    measuring.check_headers(headers["fixed"], headers["moving"], wanted, masks)


def _check_initial(pair: Pair, headers: dict[str, Volume], options: CohortOptions, masks: bool) -> None:
    if pair.initial is not None:
        read_transform(pair.initial)


def _note(
    problems: list[Problem], settings: dict[int, Setting], pair: Pair, files: tuple[str, ...], error: Exception
) -> None:
    known = error if isinstance(error, DNetError) else known_error(error)
    setting = None if known is None else known.setting
    if not all(is_unicode(path) for path in files):
        kind = "name"
    else:
        kind = "unreadable" if setting is None else _SETTING_KINDS.get(setting.quantity, "unreadable")
    problem = f"{files[0]}: cannot be read ({one_line(error)})" if known is None else known.problem
    remedy = "" if known is None else remedy_of(known)
    if setting is not None:
        settings[len(problems)] = setting
    problems.append(Problem(kind=kind, pair=pair.name, files=files, problem=problem, remedy=remedy))


def _size(scan: Volume) -> str:
    from ..imaging.volume import overruled_spacing, times

    stated = overruled_spacing(scan)
    given = "" if stated is None else f" (given; the file states {stated})"
    return f"{' x '.join(str(n) for n in scan.size)} of {times(scan)} mm{given}"


def rows(found: Survey, remedies: Mapping[int, str] | None = None) -> list[tuple[str, str, str, str, str]]:
    """The pairs and all problems: pair, fixed, moving, voxels, and what is wrong and what to do; "-" for nothing.

    A pair with several problems has a row for each, in which the first four are empty but for the first.

    Args:
        found: the survey.
        remedies: words to add to a problem, by its number.
    """
    told = [
        shown(f"{KINDS[one.kind]}: {one.problem}{f'; {remedy}' if remedy else ''}")
        for one, remedy in zip(found.problems, told_once(found.problems, remedies), strict=True)
    ]
    made = []
    for pair in found.pairs:
        own = [text for text, one in zip(told, found.problems, strict=True) if one.pair == pair.name]
        scans = ["-" if (scan := getattr(pair, role)) is None else shown(Path(scan.path).name) for role in ROLES]
        made.append((shown(pair.name), scans[0], scans[1], found.sizes.get(pair.name, "-"), own[0] if own else "-"))
        made += [("", "", "", "", text) for text in own[1:]]
    return made + [("-", "-", "-", "-", text) for text, one in zip(told, found.problems, strict=True) if not one.pair]


def table(found: Survey, remedies: Mapping[int, str] | None = None) -> str:
    """The pairs and all problems as lines of text; see `rows`."""
    lines = [("pair", "fixed", "moving", "voxels", "problem"), *rows(found, remedies)]
    widths = [max(len(row[column]) for row in lines) for column in range(4)]
    texts = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in lines
    ]
    return "\n".join([*texts, summary(found)])


def summary(found: Survey) -> str:
    """How many pairs and problems there are, in a line."""
    good = len(found.pairs) - len({one.pair for one in found.problems if one.pair})
    closing = f"; and {counted(len(found.closing), 'alignment')} to close loops" if found.closing else ""
    pairs, problems = counted(len(found.pairs), "pair"), counted(len(found.problems), "problem")
    return f"{pairs}, {good} of them without a problem; {problems}{closing}"


def shown(text: str) -> str:
    """Text of one line: what cannot be printed, as a line break in a name, stands as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
