"""``dnet-registration benchmark``."""

from __future__ import annotations

import argparse
import os

from ..version import PROGRAM
from .arguments import COUNT, JOBS, Parser, number, several

_BENCHMARK = f"""\
Measures on synthetic pairs how often and how closely scans are aligned, whether
impostors are refused, how well the confidence is calibrated and how long it
takes, and prints one table with what is required of it. The exit status is 0
when all of it holds.

With --output each pair's figures are kept: Ctrl-C loses nothing, the same
command carries on, and more --pairs add to what is there.

examples:
  {PROGRAM} benchmark --pairs 20
  {PROGRAM} benchmark --pairs 1000 --large --output dnet-benchmark
  {PROGRAM} benchmark --only adversarial --pairs 3000 --output hard
"""


def _sections(text: str) -> tuple[str, ...]:
    from ..experiments.benchmark.parts import SECTIONS

    if "refinement" in text.split(","):
        command = f"{PROGRAM} compare --methods refine,refine-correlation,refine-information"
        raise argparse.ArgumentTypeError(f"refinement is measured beside that of others: {command}")
    return several(SECTIONS)(text)


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("benchmark", help="measure success, accuracy and speed", description=_BENCHMARK)
    parser.set_defaults(run=run)
    parser.add_argument("--pairs", type=COUNT, default=100, help="pairs, and as many impostors (%(default)s)")
    parser.add_argument("--accuracy-pairs", type=COUNT, default=40, help="for accuracy at 0.08 mm (%(default)s)")
    parser.add_argument("--fine-pairs", type=COUNT, default=8, help="for accuracy at 0.025 mm (%(default)s)")
    parser.add_argument("--large", action="store_true", help="also time and memory at 512^3 voxels of 0.01 mm")
    parser.add_argument(
        "--only",
        metavar="PART[,PART]",
        type=_sections,
        help="success, accuracy, impostors, network (the default one), paper (D-net), repeat, speed, coverage (of the "
        "true error by the expected one), adversarial (pairs that invite a wrong answer)",
    )
    parser.add_argument("--seed", type=number(int, 0, 10**6), default=0, help="shift of all seeds (%(default)s)")
    parser.add_argument("--jobs", type=JOBS, default=os.cpu_count(), help="processes, one thread each (%(default)s)")
    parser.add_argument("--output", metavar="FOLDER", help="keep each pair's figures, the table and a reliability plot")
    return parser


def run(options: argparse.Namespace) -> int:
    """Runs the benchmark; returns 0 when everything measured holds, 1 when something does not."""
    from ..core.progress import Progress
    from ..experiments.benchmark.run import benchmark

    with Progress(options.verbose) as progress:
        found = benchmark(
            pairs=options.pairs,
            accuracy_pairs=options.accuracy_pairs,
            fine_pairs=options.fine_pairs,
            only=options.only,
            large=options.large,
            seed=options.seed,
            jobs=options.jobs,
            output=options.output,
            progress=progress,
            tell=progress.tell,
        )
    return 0 if found.holds else 1
