"""Aligns the pairs of a cohort, and tells what came of them in tables and on a page."""

from __future__ import annotations

import datetime
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import DNetError, FileError, OptionError, Setting
from ..core.memory import available_memory
from ..core.progress import ProgressFunction, no_progress
from ..core.provenance import machine, versions
from ..core.threads import available_processors
from ..version import __version__
from .copies import with_copies
from .dask import done_by_dask
from .fingerprint import stamp, way_of_aligning
from .listing import pairs_of_list
from .loops import with_loops
from .naming import WORDS, pairs_by_name
from .options import CohortOptions
from .pairs import FoundPairs, Pair
from .reference import on_reference
from .result import CohortResult, PairResult
from .store import ResultsFolder, opened_results
from .survey import Survey, shown, survey
from .tables import PAGE, write_results
from .task import Done, PairTask, failed_pair, remedy_of
from .workers import done_by_processes

#: Of the memory that there is, what is left to others.
_SPARED = 0.15


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        result: of the pair that was just done.
        again: it was done by an earlier run.
        counts: of the pairs that are done, by their status.
        total: of all pairs.
        seconds_left: an estimate; None where nothing is known of it.
    """

    result: PairResult
    again: bool
    counts: Counter[str]
    total: int
    seconds_left: float | None

    @property
    def line(self) -> str:
        """For a reader."""
        counts = ", ".join(f"{self.counts[status]} {status}" for status in ("accepted", "refused", "failed"))
        left = "" if self.seconds_left is None else f"; {duration(self.seconds_left)} left"
        told = shown(self.result.verdict)
        first = "as before: " if self.again else ""
        return f"{self.counts.total()} of {self.total} ({counts}{left})  {shown(self.result.name)}: {first}{told}"


def find_pairs(
    scans: str | os.PathLike,
    pattern: str | None = None,
    words: tuple[str, str] = WORDS,
) -> FoundPairs:
    """The pairs of a folder, or of a list.

    Args:
        scans: a folder, see `naming.pairs_by_name`; or a CSV file, see `listing.pairs_of_list`.
        pattern, words: for a folder.

    Returns:
        FoundPairs: with absolute paths, since results are read from other places too.

    Raises:
        FileError: there is none, or no scan in it.
        OptionError: a pattern cannot be used, or is given for a list.
    """
    scans = os.path.abspath(scans)
    if not Path(scans).is_file():
        return pairs_by_name(scans, pattern, words)
    if pattern is not None:
        problem = f"{scans}: is a list, which names its scans itself"
        raise OptionError(problem, "give no pattern with it", Setting("pattern"))
    return pairs_of_list(scans)


def align_cohort(
    scans: str | os.PathLike,
    output: str | os.PathLike,
    options: CohortOptions | None = None,
    *,
    pattern: str | None = None,
    words: tuple[str, str] = WORDS,
    jobs: int | None = None,
    dask: str | None = None,
    progress: ProgressFunction = no_progress,
    tell: Callable[[State], None] | None = None,
    surveyed: Callable[[Survey], None] | None = None,
    command: str = "",
) -> CohortResult:
    """Aligns the pairs of a folder or a list. Those that an earlier run into the same folder did are not done again.

    A pair is done again when its files, its options or the program's way of aligning changed. Whatever goes wrong with
    one pair is its result, and does not stop the others.

    Args:
        scans: a folder or a CSV file; see `find_pairs`.
        output: the folder of results, which gets ``cohort.csv``, ``cohort.json``, ``cohort.html`` and a folder for each
            pair.
        options: how the pairs are aligned, and what is written of each.
        pattern, words: see `naming.pairs_by_name`.
        jobs: processes, of `options.threads` each; None for as many as there are processors for so many threads, and as
            memory allows.
        dask: the address of a Dask scheduler, or ``local``; see `dask.done_by_dask`.
        progress: called with a fraction and a message.
        tell: called after each pair.
        surveyed: called once, before anything is aligned, with what names, headers and the folder of results show.
        command: as typed, for the record.

    Raises:
        DNetError: the scans or the folder of results cannot be used.

    Example:
        >>> from DNetRegistrationLib import align_cohort  # doctest: +SKIP
        >>> if __name__ == "__main__":  # doctest: +SKIP
        ...     found = align_cohort("scans", "results")
        ...     print(found.counts)
    """
    from .page import write_page  # it needs jinja2, which Slicer has once torch is there; `find_pairs` does not

    options = (CohortOptions() if options is None else options).absolute()
    if Path(scans).is_dir() and os.path.realpath(scans) == os.path.realpath(output):
        raise FileError(f"{output}: holds the scans", "write the results to another folder", Setting("output"))
    if jobs is not None and jobs < 1:
        raise OptionError(f"{jobs} processes do no work", "give 1 or more", Setting("jobs"))
    found = find_pairs(scans, pattern, words)
    _require_outside(Path(output), found)
    with opened_results(output) as folder:
        looked = survey(found, options, lambda f, m: progress(0.05 * f, m))
        tried = [pair for pair in looked.pairs if pair.blocked is None]
        looked = replace(looked, dropped=folder.dropped(tried, options))
        if surveyed is not None:
            surveyed(looked)
        if not options.loops:
            folder.forget_loops()
        results, closing = _all_done(folder, looked, options, jobs, dask, progress, tell)
        all_told = with_loops(results, closing)
        results, closing = with_copies(all_told[: len(results)], looked.copies), all_told[len(results) :]
        results = on_reference(results, closing, looked.references, folder.place, options.outputs.get("transform"))
        told = CohortResult(
            scans=os.path.abspath(scans),
            pairs=results,
            problems=tuple(looked.problems),
            options=options.told() | ({} if pattern is None else {"pattern": pattern, "words": list(words)}),
            versions={"DNetRegistration": __version__, **versions(), "code": way_of_aligning()},
            machine=machine(),
            date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            command=command,
            closing=closing,
        )
        progress(1.0, "writing the tables and the page")
        write_results(told, folder.place)
        write_page(folder.place / PAGE, told)
    return told


def _require_outside(output: Path, found: FoundPairs) -> None:
    """Results within a folder of slices would be read as a part of the scan."""
    place = Path(os.path.realpath(output))
    for pair in found.pairs:
        for path in (scan.path for scan in (pair.fixed, pair.moving) if scan is not None):
            if Path(os.path.realpath(path)) in (place, *place.parents):
                raise FileError(f"{output}: lies in the scan {path}", "write elsewhere", Setting("output"))


def processes_for(memory: Sequence[float], jobs: int | None, threads: int = 1) -> int:
    """How many processes work at once: as many as have processors for their threads, and as the largest pair leaves
    memory for.

    Args:
        memory: bytes that each pair may take; 0 where its headers could not be read.
        jobs: what was asked for; None for as many as possible.
        threads: of each.
    """
    if jobs is not None:
        return jobs
    room = (1 - _SPARED) * available_memory() / max([*memory, 1.0])
    return max(1, int(min(len(memory), available_processors() // threads, room)))


def duration(seconds: float) -> str:
    """A time in words, as "40 s", "3 min" or "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _all_done(
    folder: ResultsFolder,
    looked: Survey,
    options: CohortOptions,
    jobs: int | None,
    dask: str | None,
    progress: ProgressFunction,
    tell: Callable[[State], None] | None,
) -> tuple[tuple[PairResult, ...], tuple[PairResult, ...]]:
    """The results of all pairs, and of those that close loops, in their order."""
    results: dict[tuple[str, bool], PairResult] = {}
    counts: Counter[str] = Counter()
    began = time.monotonic()
    under_way: dict[int, float] = {}
    tasks: list[PairTask] = []
    stamps: list[str] = []
    finished = 0

    def note(pair: Pair, result: PairResult, again: bool = False) -> None:
        results[pair.name, pair.closing] = result
        if pair.closing:
            return
        counts[result.status] += 1
        if tell is not None:
            units = finished + sum(under_way.values())
            left = (time.monotonic() - began) * (len(tasks) - units) / units if finished else None
            tell(State(result, again, counts, len(looked.pairs), left))

    def show(number: int, fraction: float, message: str) -> None:
        under_way[number] = fraction
        share = (finished + sum(under_way.values())) / len(tasks)
        progress(0.05 + 0.95 * share, f"{finished} of {len(tasks)} alignments")

    for pair in (*looked.pairs, *looked.closing):
        own = options.for_pair(pair.closing)
        if pair.blocked is not None:
            note(pair, failed_pair(pair, pair.blocked.problem, pair.blocked.remedy))
        elif (before := folder.done(pair, own)) is not None:
            note(pair, before, again=True)
        else:
            try:
                stamps.append(_stamp(pair, own))
                tasks.append(folder.task(pair, own))
            except DNetError as error:
                del stamps[len(tasks) :]
                note(pair, failed_pair(pair, error.problem, remedy_of(error)))
    # The largest first, so that no processor is left with one at the end.
    memory = [looked.memory.get(task.pair.name, 0.0) for task in tasks]
    order = sorted(range(len(tasks)), key=lambda number: -memory[number])
    tasks, stamps = [tasks[n] for n in order], [stamps[n] for n in order]
    for number, done in _work(tasks, processes_for(memory, jobs, options.threads), dask, show):
        under_way.pop(number, None)
        finished += 1
        folder.keep(tasks[number], done, stamps[number])
        note(tasks[number].pair, done.result)
        show(number, 0.0, "")
    asked, closing = (
        tuple(results[pair.name, pair.closing] for pair in pairs) for pairs in (looked.pairs, looked.closing)
    )
    return asked, closing


def _work(
    tasks: list[PairTask], processes: int, dask: str | None, show: Callable[[int, float, str], None]
) -> Iterator[tuple[int, Done]]:
    if not tasks:
        return iter(())
    return done_by_processes(tasks, processes, show) if dask is None else done_by_dask(tasks, dask, processes)


def _stamp(pair: Pair, options: CohortOptions) -> str:
    try:
        return stamp(pair, options)
    except OSError:  # the work itself says what is wrong with them
        return ""
