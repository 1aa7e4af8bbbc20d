"""Runs the contest: the same pairs and starts through every method, results kept as they come, one table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.files import atomic_write, make_folder, temporary_folder
from ...core.progress import ProgressFunction, no_progress
from ...geometry.transforms import require_rigid
from ..method_process import MethodProcess, MethodRun
from ..methods import ComparedMethod
from ..pair_files import PairFiles
from ..store import ResultStore, chosen
from .kinds import KINDS, ContestPair, make
from .results import BOUND, CONTESTANTS, ORACLE, PROPOSALS, START, STARTS, RefinementResult
from .table import Contest

#: In the folder of a contest.
RESULTS, TABLE = "refinement.csv", "refinement.md"


def contest(
    pairs: int = 12,
    kinds: Collection[str] | None = None,
    methods: Collection[str] | None = None,
    seed: int = 0,
    limit: float = 300.0,
    output: str | os.PathLike | None = None,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> Contest:
    """Measures how close this project and its peers end from the same starts, beside the least error possible.

    It starts processes, so a script calls it below ``if __name__ == "__main__":``. Each method has one thread.

    Args:
        pairs: of each kind.
        kinds: keys of `KINDS`; None takes all.
        methods: keys of `CONTESTANTS`; None takes all. Those that are not installed are named in the table.
        seed: number of the first pair.
        limit: seconds for a refinement. A method over it is ended, and not tried again on as many voxels.
        output: a folder that gets a row for each refinement and the table. What was measured into it before, by the
            same code, is not measured again.
        progress: called with the fraction done and a message.
        tell: called with the table as Markdown, also when the contest is interrupted.

    Returns:
        what was measured; `holds` of it says whether all of it is as required.

    Raises:
        OptionError: a kind or a method is unknown.
        FileError: the folder cannot be written, or holds results of other code.
    """
    places = [(name, number) for name in chosen(kinds, KINDS, "kinds") for number in range(seed, seed + pairs)]
    wanted = chosen(methods, CONTESTANTS, "methods")
    folder = None if output is None else make_folder(output)
    store = ResultStore(None if folder is None else folder / RESULTS, RefinementResult)
    skipped = {key: why for key in wanted if (why := CONTESTANTS[key].missing())}
    there = [CONTESTANTS[key] for key in wanted if key not in skipped]
    try:
        with temporary_folder(folder) as home:
            _measure_missing(places, there, _Pairs(home), store, limit, progress)
    finally:
        # An interrupted contest shows what there is.
        found = Contest([r for r in store.results.values() if (r.kind, r.seed) in set(places)], skipped)
        if found.results:
            text = found.report()
            tell(text)
            if folder is not None:
                with atomic_write() as staging:
                    staging.path(folder / TABLE).write_text(text + "\n", encoding="utf-8")
    return found


def _starts(number: int) -> tuple[str, ...]:
    return STARTS if number % PROPOSALS == 0 else STARTS[:1]


class _Pairs:
    """Pairs and their files, made when first asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.last: tuple[tuple[str, int], ContestPair] | None = None

    def pair(self, place: tuple[str, int]) -> ContestPair:
        if self.last is None or self.last[0] != place:
            self.last = place, make(KINDS[place[0]], place[1])
        return self.last[1]

    def files(self, place: tuple[str, int], oracle: bool) -> PairFiles:
        """The files of a pair; for the oracle without contrast agent."""
        files = PairFiles(self.home / f"{place[0]} {place[1]}{' oracle' * oracle}")
        if not files.folder.exists():
            files.folder.mkdir()
            pair = self.pair(place)
            files.write_scans(pair.fixed, pair.agent_removed() if oracle else pair.moving)
        return files


def _measure_missing(
    places: Sequence[tuple[str, int]],
    methods: Sequence[ComparedMethod],
    pairs: _Pairs,
    store: ResultStore[RefinementResult],
    limit: float,
    progress: ProgressFunction,
) -> None:
    for number, place in enumerate(places):
        progress(0.2 * number / len(places), f"{place[0]}, pair {place[1]}: start and bound")
        _prepare(place, pairs, store)
    total, done = len(places) * len(methods), 0
    for method in methods:
        with MethodProcess(method, 1) as process:
            for place in places:
                progress(0.2 + 0.8 * done / total, f"{method.title}, {place[0]}, pair {place[1]}")
                done += 1
                if method.key == ORACLE and not KINDS[place[0]].contrast:
                    continue
                for start in _starts(place[1]):
                    wanted = RefinementResult(*place, start, method.key, method.version)
                    if wanted.key not in store.results and not _is_too_large(wanted, store, limit):
                        began = np.reshape(_start(place, start, store).matrix, (4, 4))
                        files = pairs.files(place, method.key == ORACLE)
                        run = process.align(files, limit, began)
                        store.add(_measured(wanted, pairs.pair(place), run, limit))


def _prepare(place: tuple[str, int], pairs: _Pairs, store: ResultStore[RefinementResult]) -> None:
    """Keeps the bound and the starts of a pair."""
    from ...registration.align import align

    bound = RefinementResult(*place, STARTS[0], BOUND)
    if bound.key not in store.results:
        store.add(replace(bound, error_um=pairs.pair(place).bound_um()))
    for start in _starts(place[1]):
        wanted = RefinementResult(*place, start, START)
        if wanted.key not in store.results:
            pair = pairs.pair(place)
            if start == "near":
                matrix = pair.near_start()
            else:
                matrix = align(pair.fixed, pair.moving, refine="none", device="cpu").matrix
            error, bias = pair.errors_um(matrix)
            store.add(replace(wanted, error_um=error, bias_um=bias, matrix=tuple(matrix.ravel().tolist())))


def _start(place: tuple[str, int], start: str, store: ResultStore[RefinementResult]) -> RefinementResult:
    return store.results[RefinementResult(*place, start, START).key]


def _measured(wanted: RefinementResult, pair: ContestPair, run: MethodRun, limit: float) -> RefinementResult:
    """The result of a run. A transform that is not rigid is a failure."""
    result = replace(wanted, seconds=run.seconds, failure=run.failure, late=run.late, limit_s=limit, matrix=run.matrix)
    if not run.matrix:
        return result
    try:
        matrix = require_rigid(np.reshape(run.matrix, (4, 4)), "the transform")
    except ValueError as wrong:
        return replace(result, failure=str(wrong))
    error, bias = pair.errors_um(matrix)
    return replace(result, error_um=error, bias_um=bias)


def _is_too_large(wanted: RefinementResult, store: ResultStore[RefinementResult], limit: float) -> bool:
    size = KINDS[wanted.kind].size
    return any(
        result.late and result.limit_s >= limit and KINDS[result.kind].size <= size
        for result in store.results.values()
        if (result.method, result.version) == (wanted.method, wanted.version)
    )
