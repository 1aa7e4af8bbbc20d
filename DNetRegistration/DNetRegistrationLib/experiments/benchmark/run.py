"""Runs the benchmark: pairs over processes, outcomes kept as they come, one table at the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import groupby

from ...core.errors import ScanError
from ...core.files import make_folder, staged
from ...core.processes import fresh_processes
from ...core.progress import Progress, say
from ...networks.weights import DEFAULT_WEIGHTS, available_weights
from .large import measure_large
from .parts import CALIBRATION_SEEDS, PARTS, SECTIONS, SEEDS_PER_PART, Outcome, Record, Task, measure
from .refinement import COMPARED, RefinementOutcome, measure_refinement
from .table import Results, format_table, lines, plot_reliability

REPEATED, TIMED = 10, 7


def run(options) -> bool:
    """Measures what is asked for and prints the table; returns whether all that was measured holds.

    Args:
        options: ``pairs``, ``accuracy_pairs``, ``fine_pairs``, ``only``, ``large``, ``seed``, ``jobs``, ``output``,
            ``verbose``: the options of the command.
    """
    if options.seed + (len(PARTS) + 2) * SEEDS_PER_PART > CALIBRATION_SEEDS:
        raise ScanError(f"--seed {options.seed}: pairs from there on served calibration; give a smaller one")
    folder = None if options.output is None else make_folder(options.output)
    record = Record(None if folder is None else folder / "pairs.csv")
    tasks = plan(options)
    large = None
    refinements: list[RefinementOutcome] = []
    try:
        with Progress(options.verbose) as progress:
            missing = [task for task in tasks if task.key not in record.outcomes]
            pairs = [list(group) for _, group in groupby(missing, lambda task: (task.part, task.number))]
            apart = [pair for pair in pairs if PARTS[pair[0].part].section != "speed"]
            with closing(over_processes(apart, options.jobs)) as measured:
                for done, outcomes in enumerate(measured, 1):
                    for outcome in outcomes:
                        record.add(outcome)
                    progress(done / len(pairs), f"{outcomes[0].part}, {done} of {len(pairs)} pairs")
            # Times are taken alone, with all the threads that users have.
            for pair in pairs:
                if PARTS[pair[0].part].section == "speed":
                    progress(0.99, "timing")
                    for outcome in measure(pair):
                        record.add(outcome)
            if "refinement" in (options.only or SECTIONS):
                for number in range(2 * COMPARED):
                    progress(0.99, "comparing refinements")
                    seed = options.seed + (len(PARTS) + 1) * SEEDS_PER_PART + number
                    refinements += measure_refinement(seed, contrast=number % 2 == 1)
            if options.large:
                progress(0.99, "timing a pair of 512^3 voxels")
                large = measure_large(options.seed + len(PARTS) * SEEDS_PER_PART)
    finally:
        # Also of an interrupted benchmark.
        results = Results(record.of(tasks), large, refinements)
        table = lines(results)
        text = format_table(table)
        say(text)
        if folder is not None and table:
            with staged() as staging:
                staging.path(folder / "table.md").write_text(text + "\n", encoding="utf-8")
                plot_reliability(results, staging, folder / "reliability.png")
    return all(line.holds is not False for line in table)


def plan(options) -> list[Task]:
    """The alignments to make."""
    counts = {
        "success": options.pairs,
        "80 um plain": options.accuracy_pairs,
        "80 um contrast": options.accuracy_pairs,
        "25 um plain": options.fine_pairs,
        "25 um contrast": options.fine_pairs,
        "impostors": options.pairs,
        "repeat": REPEATED,
        "speed": TIMED,
        "default speed": TIMED,
        "network whole": options.pairs,
        "network cut": options.pairs,
        "paper whole": options.pairs,
    }
    wanted = options.only or SECTIONS
    shipped = available_weights()
    return [
        Task(name, number, way, options.seed)
        for name, part in PARTS.items()
        if part.section in wanted
        for number in range(counts[name])
        for way, options_of_way in enumerate(part.ways)
        if options_of_way.get("hypotheses") != "dnet" or options_of_way.get("weights", DEFAULT_WEIGHTS) in shipped
    ]


def over_processes(pairs: list[list[Task]], jobs: int) -> Iterator[list[Outcome]]:
    """Outcomes of each pair's tasks as they come, from `jobs` processes of one thread each."""
    if not pairs:
        return
    try:
        with fresh_processes(min(jobs, len(pairs)), threads=1) as pool:
            for future in as_completed([pool.submit(measure, pair) for pair in pairs]):
                yield future.result()
    except BrokenProcessPool as error:
        raise ScanError("a process of the benchmark died, of too little memory perhaps; give fewer --jobs") from error
