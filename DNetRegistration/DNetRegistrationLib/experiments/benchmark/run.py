"""Runs the benchmark: pairs over processes, outcomes kept as they come, one table at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import closing
from itertools import groupby
from pathlib import Path

from ...core.errors import OptionError, Setting
from ...core.files import atomic_write, make_folder
from ...core.pictures import has_matplotlib
from ...core.processes import completed_calls
from ...core.progress import ProgressFunction, no_progress
from ...core.threads import available_processors
from ...networks.weights import DEFAULT_WEIGHTS, available_weights
from ..store import ResultStore
from ..tables import findings_table, markdown
from .large import measure_large
from .parts import CALIBRATION_SEEDS, PARTS, SECTIONS, SEEDS_PER_PART, Outcome, Trial, measure
from .table import Measurements, draw_reliability

#: In the folder of a benchmark.
RESULTS, TABLE, PICTURE = "pairs.csv", "table.md", "reliability.png"
REPEATED, TIMED = 10, 7


def benchmark(
    pairs: int = 100,
    accuracy_pairs: int = 40,
    fine_pairs: int = 8,
    only: Collection[str] | None = None,
    large: bool = False,
    seed: int = 0,
    jobs: int | None = None,
    output: str | os.PathLike | None = None,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> Measurements:
    """Measures success, accuracy, refusal of impostors, calibration, networks and speed on synthetic pairs.

    It starts processes, so a script calls it below ``if __name__ == "__main__":``.

    Args:
        pairs: how many pairs for success and for each network, and as many impostors.
        accuracy_pairs: how many pairs for accuracy at 0.08 mm, with and as many without contrast.
        fine_pairs: likewise at 0.025 mm.
        only: which of `SECTIONS`; None measures all.
        large: also measures time and memory at 512^3 voxels of 0.01 mm.
        seed: added to all seeds. Pairs of one seed are the same from run to run.
        jobs: processes of one thread each; one a processor by default. Times are measured alone, with all threads.
        output: a folder that gets a row for each alignment, the table and a plot of the confidence's reliability. What
            was measured into it before, by the same code, is not measured again.
        progress: called with the fraction done and a message.
        tell: called with the table as Markdown, also when the benchmark is interrupted.

    Returns:
        what was measured; `holds` of it says whether all of it is as required.

    Raises:
        OptionError: a section is unknown, or pairs of these seeds served calibration.
        FileError: the folder cannot be written, or holds results of other code.
        RunError: a process died.

    Example:
        >>> from DNetRegistrationLib.experiments.benchmark.run import benchmark
        >>> benchmark(pairs=20, only=["success"]).holds  # doctest: +SKIP
        True
    """
    if seed + (len(PARTS) + 1) * SEEDS_PER_PART > CALIBRATION_SEEDS:
        raise OptionError(f"seed {seed}: pairs from there on served calibration", "give a smaller one", Setting("seed"))
    folder = None if output is None else make_folder(output)
    store = ResultStore(None if folder is None else folder / RESULTS, Outcome)
    trials = plan(pairs, accuracy_pairs, fine_pairs, only, seed)
    large_pair = None
    try:
        _measure_missing(trials, store, jobs or available_processors(), progress)
        if large:
            progress(0.99, "timing a pair of 512^3 voxels")
            large_pair = measure_large(seed + len(PARTS) * SEEDS_PER_PART)
    finally:
        # An interrupted benchmark shows what there is.
        outcomes = [store.results[trial.key] for trial in trials if trial.key in store.results]
        found = Measurements(outcomes, large_pair)
        _show(found, folder, tell)
    return found


def plan(
    pairs: int, accuracy_pairs: int, fine_pairs: int, only: Collection[str] | None = None, seed: int = 0
) -> list[Trial]:
    """The alignments to make, without those of networks that have no weights. Arguments are those of `benchmark`."""
    for name in only or ():
        if name not in SECTIONS:
            raise OptionError(f"{name!r} is no part", f"choose from {', '.join(SECTIONS)}", Setting("only"))
    counts = {"accuracy": accuracy_pairs, "repeat": REPEATED, "speed": TIMED}
    counts = {name: counts.get(part.section, pairs) for name, part in PARTS.items()}
    counts |= {"25 um plain": fine_pairs, "25 um contrast": fine_pairs}
    shipped = available_weights()
    return [
        Trial(name, number, run, seed)
        for name, part in PARTS.items()
        if part.section in (only or SECTIONS)
        for number in range(counts[name])
        for run, way in enumerate(part.ways)
        if way.get("hypotheses") != "dnet" or way.get("weights", DEFAULT_WEIGHTS) in shipped
    ]


def _measure_missing(trials: list[Trial], store: ResultStore[Outcome], jobs: int, progress: ProgressFunction) -> None:
    missing = [trial for trial in trials if trial.key not in store.results]
    pairs = [list(group) for _, group in groupby(missing, lambda trial: (trial.part, trial.number))]
    timed = [pair for pair in pairs if PARTS[pair[0].part].section == "speed"]
    with closing(completed_calls(measure, [(pair,) for pair in pairs if pair not in timed], jobs)) as measured:
        for done, outcomes in enumerate(measured, 1):
            for outcome in outcomes:
                store.add(outcome)
            progress(done / len(pairs), f"{outcomes[0].part}, {done} of {len(pairs)} pairs")
    # Times are measured alone, with all the threads that users have.
    for pair in timed:
        progress(0.99, "timing")
        for outcome in measure(pair):
            store.add(outcome)


def _show(found: Measurements, folder: Path | None, tell: Callable[[str], None]) -> None:
    findings = found.findings()
    if not findings:
        return
    text = markdown(findings_table(findings))
    tell(text)
    if folder is not None:
        with atomic_write() as staging:
            staging.path(folder / TABLE).write_text(text + "\n", encoding="utf-8")
            if has_matplotlib() and found.judged:
                draw_reliability(found, staging.path(folder / PICTURE))
