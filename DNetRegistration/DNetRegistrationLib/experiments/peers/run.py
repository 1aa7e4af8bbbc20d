"""Runs a comparison: the same pairs through every method, results kept as they come, one report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...core.constants import FIELD_OF_VIEW
from ...core.errors import OptionError, PackageError, Setting
from ...core.files import atomic_write, make_folder
from ...core.pictures import has_matplotlib
from ...core.progress import ProgressFunction, no_progress
from ...core.provenance import machine
from ...core.threads import available_processors
from ..method_process import MethodProcess
from ..methods import METHODS, ComparedMethod
from ..store import ResultStore
from ..tables import write_csv
from .pairs import ComparedPair, PairFolders, growing_pairs, turned_pairs
from .report import numbers, report
from .results import Conditions, MethodResult, PeerResults, measured

#: In the folder of a comparison.
RESULTS, TABLE, NUMBERS = "pairs.csv", "comparison.md", "comparison.csv"


@dataclass(frozen=True)
class ComparisonOptions:
    """What is compared.

    Attributes:
        methods: keys of `METHODS`. One that cannot be run here is left out, and the report says so.
        pairs: how many pairs over all angles, as many in each bin of angles.
        at_most: by method, how many of these pairs at most, for slow ones.
        size: voxels along each axis of a scan.
        keep: scans are cut to a share U(keep, 1) of their bone.
        contrast: the moving scan is with contrast agent.
        seed: number of the first pair.
        growth: sizes of volumes that show how cost grows.
        limit: seconds for an alignment. A method over it is ended, and is not tried on larger volumes.
        threads: how many each method may use; one a processor by default.
    """

    methods: Sequence[str] = tuple(METHODS)
    pairs: int = 60
    at_most: Mapping[str, int] = field(default_factory=lambda: {"ants": 12})
    size: int = 64
    keep: float = 1.0
    contrast: bool = True
    seed: int = 0
    growth: Sequence[int] = (64, 128, 256, 512)
    limit: float = 600.0
    threads: int = available_processors()


def compare(
    output: str | os.PathLike,
    options: ComparisonOptions | None = None,
    notes: Sequence[str] = (),
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> PeerResults:
    """Aligns the same synthetic pairs with this project and with other tools.

    Compares success, error, time and memory. Each method runs in a process of its own, one alignment at a time. So a
    script calls it below ``if __name__ == "__main__":``.

    Args:
        output: a folder, made where it is missing. It gets a row for each alignment (pairs.csv), the report
            (comparison.md), its numbers (comparison.csv) and pictures. What was measured into it before is not measured
            again.
        options: what is compared.
        notes: lines for the head of the report.
        progress: called with the fraction done and a message.
        tell: called with the report and the names of the files, also when the comparison is interrupted.

    Returns:
        the results, also those of an earlier run into the folder.

    Raises:
        OptionError: a method is unknown.
        PackageError: none of the methods can be run here.
        FileError: the folder cannot be written, or holds results of other code.

    Example:
        >>> from DNetRegistrationLib.experiments.peers.run import ComparisonOptions, compare
        >>> compare("quick", ComparisonOptions(methods=["full", "elastix"], pairs=12, growth=()))  # doctest: +SKIP
    """
    options = options or ComparisonOptions()
    methods, skipped = _available(options.methods)
    folder = make_folder(output, parents=True)
    store = ResultStore(folder / RESULTS, MethodResult)
    conditions = Conditions(options.threads, options.limit, machine())
    drawn = options.keep, options.contrast, options.seed
    turned, growing = turned_pairs(options.pairs, options.size, *drawn), growing_pairs(options.growth, *drawn)
    work = (
        [(method, turned[: options.at_most.get(method.key)]) for method in methods],
        [(method, growing) for method in methods],
    )
    try:
        with PairFolders(folder) as folders:
            align_all([one for part in work for one in part], folders, store, conditions, progress)
    finally:
        # An interrupted comparison shows what there is.
        turned_results, growing_results = (
            [store.results[key] for method, pairs in part for pair in pairs
             if (key := conditions.key(method, pair)) in store.results]
            for part in work
        )  # fmt: skip
        found = PeerResults(turned_results, growing_results, skipped)
        if len(found.table):
            show(found, [*about(options, methods, conditions), *notes], folder, tell)
    return found


def _available(keys: Sequence[str]) -> tuple[list[ComparedMethod], dict[str, str]]:
    """Methods that can be run here, and why the others cannot."""
    for key in keys:
        if key not in METHODS:
            raise OptionError(f"{key!r} is no method", f"choose from {', '.join(METHODS)}", Setting("methods"))
    why = {key: METHODS[key].missing() for key in keys}
    skipped = {key: reason for key, reason in why.items() if reason is not None}
    if len(skipped) == len(why):
        reasons = "; ".join(skipped.values()) or "none was chosen"
        raise PackageError(f"no method can be run here ({reasons})", "install or choose one", Setting("methods"))
    return [METHODS[key] for key in keys if key not in skipped], skipped


def align_all(
    work: Sequence[tuple[ComparedMethod, Sequence[ComparedPair]]],
    folders: PairFolders,
    store: ResultStore[MethodResult],
    conditions: Conditions,
    progress: ProgressFunction,
) -> None:
    """Runs every method on its pairs, without those in the store. Nothing else runs meanwhile, for the times' sake.

    A method that was over the limit on a volume is not tried on larger ones.
    """
    left = [
        (method, [pair for pair in pairs if not _is_done(method, pair, store, conditions)]) for method, pairs in work
    ]
    total, done = sum(len(pairs) for _, pairs in left), 0
    for method, pairs in left:
        with MethodProcess(method, conditions.threads) as process:
            for number, pair in enumerate(pairs, 1):
                progress(done / total, f"{method.title}, {pair.size}^3, {number} of {len(pairs)}")
                done += 1
                if not _is_too_large(method, pair, store, conditions):
                    files = folders.files(pair)
                    run = process.align(files, conditions.limit)
                    store.add(measured(method, pair, files, run, conditions))


def _is_done(
    method: ComparedMethod, pair: ComparedPair, store: ResultStore[MethodResult], conditions: Conditions
) -> bool:
    """Whether there is a result that a longer limit would not change."""
    result = store.results.get(conditions.key(method, pair))
    return result is not None and not (result.late and result.limit_s < conditions.limit)


def _is_too_large(
    method: ComparedMethod, pair: ComparedPair, store: ResultStore[MethodResult], conditions: Conditions
) -> bool:
    return any(
        result.late and result.limit_s >= conditions.limit and result.size < pair.size
        for result in store.results.values()
        if (result.method, result.version, result.threads, result.machine)
        == (method.key, method.version, conditions.threads, conditions.machine)
    )


def show(found: PeerResults, lines: Sequence[str], folder: Path, tell: Callable[[str], None]) -> None:
    """Writes the report, its numbers and, where matplotlib is installed, pictures; tells the report and the files."""
    text = report(found, lines)
    written = [TABLE, NUMBERS]
    with atomic_write() as staging:
        staging.path(folder / TABLE).write_text(text + "\n", encoding="utf-8")
        write_csv(numbers(found), staging.path(folder / NUMBERS))
        if has_matplotlib():
            from .figures import draw_cost, draw_errors, draw_success

            pictures = {
                "success.png": (draw_success, found.turned),
                "errors.png": (draw_errors, found.turned),
                "cost.png": (draw_cost, found.growing),
            }
            for name, (draw, results) in pictures.items():
                if results:
                    draw(found, staging.path(folder / name))
                    written.append(name)
    tell(f"{text}\n\nwritten: {', '.join(str(folder / name) for name in written)}")
    if not has_matplotlib():
        tell('No pictures were drawn, for them install matplotlib: pip install "dnet-registration[pictures]"')


def about(options: ComparisonOptions, methods: Sequence[ComparedMethod], conditions: Conditions) -> list[str]:
    """What was measured, how and on what, a line each."""
    few = [
        f"{METHODS[key].title} {count}"
        for key, count in options.at_most.items()
        if count < options.pairs and key in options.methods
    ]
    voxel_um = 1000 * FIELD_OF_VIEW / options.size
    views = "whole" if options.keep == 1 else f"cut down to {100 * options.keep:g} % of their bone or more"
    return [
        f"pairs: synthetic mouse tibiae, {options.size}^3 voxels of {voxel_um:g} um, views {views}, "
        f"{'contrast agent in the moving scan' if options.contrast else 'no contrast agent'}",
        "rotations: 0 to 180 degrees about any axis, as many in each bin; the same pairs for all methods"
        + (f", but only the first of them: {', '.join(few)}" if few else ""),
        f"each method: a process of its own, one alignment at a time, up to {conditions.threads} threads, at most "
        f"{conditions.limit:g} s an alignment; time is from scans in memory to the transform",
        f"machine: {conditions.machine}",
        "versions: " + "; ".join(f"{method.title}: {method.version}" for method in methods),
    ]
