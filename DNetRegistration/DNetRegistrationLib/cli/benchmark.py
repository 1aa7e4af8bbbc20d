"""``dnet-registration benchmark``."""

from __future__ import annotations

import argparse

from ..core.errors import OptionError, Setting
from ..core.threads import available_processors
from ..version import PROGRAM
from .arguments import COUNT, JOBS, SEED, Parser, number, several

_BENCHMARK = f"""\
Measures on synthetic pairs how often and how closely scans are aligned, whether
impostors are refused, how well the confidence is calibrated and how long it
takes, and prints one table with what is required of it. The exit status is 0
when all of it holds.

With --output each pair's figures are kept: Ctrl-C loses nothing, the same
command carries on, and more --pairs add to what is there.

Refinement is measured only when asked for: how close this project ends from
starts near the truth, beside elastix, ANTs, SimpleITK and neuroreg, as far as
they are installed, and beside the least error that noise allows. So is
cartilage: its thickness beside that of the bones' surfaces; and are loops: what
the transforms between three scans leave, beside their true errors.

examples:
  {PROGRAM} benchmark --pairs 20
  {PROGRAM} benchmark --pairs 1000 --large --output dnet-benchmark
  {PROGRAM} benchmark --only adversarial --pairs 3000 --output hard
  {PROGRAM} benchmark --only refinement --kinds "80 um contrast"
  {PROGRAM} benchmark --only cartilage --kinds "10 um"
"""

_BENCHMARK_END = """\
kinds of pairs for refinement:
  80 um plain, contrast, faint, bright, varied, cut, noisy
  40 um contrast
  25 um plain, contrast, varied
  10 um plain, contrast

kinds of pairs for cartilage:
  20 um, 20 um again (the same animals in other scans), 20 um varied
  10 um, 10 um varied
  20 um without (agent in either scan)
  edges (of bare bone in subtractions)

methods for refinement, by tool, measure and mask:
  refine, oracle (this project, and had there been no agent)
  elastix-correlation-all, -dilated, -eroded, -shrunk
  elastix-information-all, -dilated, -eroded, -shrunk
  simpleitk-correlation-dilated, -eroded
  simpleitk-information-dilated, -eroded
  simpleitk-neighbourhood-dilated, -eroded
  ants-information-all, -dilated, -eroded
  ants-correlation-dilated, -eroded
  neuroreg-all, -dilated, -eroded
"""

#: Parts that are measured only when asked for.
REFINEMENT, CARTILAGE, LOOPS = "refinement", "cartilage", "loops"


def _sections(text: str) -> tuple[str, ...]:
    from ..experiments.benchmark.parts import SECTIONS

    return several((*SECTIONS, REFINEMENT, CARTILAGE, LOOPS))(text)


def _kinds(text: str) -> tuple[str, ...]:
    return several([kind for kinds in _known_kinds().values() for kind in kinds])(text)


def _known_kinds() -> dict[str, list[str]]:
    """Of each part that has kinds of pairs."""
    from ..experiments.benchmark import cartilage
    from ..experiments.refinement import kinds

    return {REFINEMENT: list(kinds.KINDS), CARTILAGE: [*cartilage.KINDS, cartilage.EDGES]}


def _methods(text: str) -> tuple[str, ...]:
    from ..experiments.refinement.results import CONTESTANTS

    return several(CONTESTANTS)(text)


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "benchmark",
        help="measure success, accuracy and speed",
        description=_BENCHMARK,
        epilog=_BENCHMARK_END,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--pairs",
        type=COUNT,
        help="pairs, and as many impostors (100); of each kind for refinement (12) and cartilage (20); triplets for "
        "loops (30)",
    )
    parser.add_argument("--accuracy-pairs", type=COUNT, default=40, help="for accuracy at 0.08 mm (%(default)s)")
    parser.add_argument("--fine-pairs", type=COUNT, default=8, help="for accuracy at 0.025 mm (%(default)s)")
    parser.add_argument("--large", action="store_true", help="also time and memory at 512^3 voxels of 0.01 mm")
    parser.add_argument(
        "--only",
        metavar="PART[,PART]",
        type=_sections,
        help="success, accuracy, impostors, network (the default one), paper (D-net), repeat, speed, coverage (of the "
        "true error by the expected one), adversarial (pairs that invite a wrong answer); and refinement, "
        "cartilage and loops, which are measured only when named",
    )
    parser.add_argument(
        "--kinds",
        metavar="KIND[,KIND]",
        type=_kinds,
        help='for refinement, as "25 um plain", and for cartilage, as "10 um" (all)',
    )
    parser.add_argument("--methods", metavar="M[,M]", type=_methods, help='for refinement, as "refine,oracle" (all)')
    parser.add_argument(
        "--limit", type=number(float, 0.1, 1e6), default=300.0, metavar="S",
        help="seconds that a tool may take to refine a pair (%(default)g)",
    )  # fmt: skip
    parser.add_argument("--seed", type=SEED, default=0, help="shift of all seeds (%(default)s)")
    parser.add_argument(
        "--jobs", type=JOBS, default=available_processors(), help="processes, one thread each (%(default)s)"
    )
    parser.add_argument("--output", metavar="FOLDER", help="keep each pair's figures, the table and a reliability plot")
    return parser


def _chosen_of(part: str, known: list[str], options: argparse.Namespace, named: tuple[str, ...]) -> list[str] | None:
    """The kinds of a part that were asked for; None for all.

    Raises:
        OptionError: the part is to be measured, and none of them is of it.
    """
    if options.kinds is None:
        return None
    chosen = [kind for kind in options.kinds if kind in known]
    if part in named and not chosen:
        remedy = f"choose from {', '.join(known)}"
        raise OptionError(f"none of the kinds is one of {part}", remedy, Setting("kinds"))
    return chosen


def run(options: argparse.Namespace) -> int:
    """Runs the benchmark; returns 0 when everything measured holds, 1 when something does not."""
    from ..core.progress import Progress
    from ..experiments.benchmark.cartilage import benchmark_cartilage
    from ..experiments.benchmark.loops import benchmark_loops
    from ..experiments.benchmark.run import benchmark
    from ..experiments.refinement.run import contest

    named = () if options.only is None else options.only
    sections = None if not named else tuple(name for name in named if name not in (REFINEMENT, CARTILAGE, LOOPS))
    count = {} if options.pairs is None else {"pairs": options.pairs}
    kinds = {part: _chosen_of(part, known, options, named) for part, known in _known_kinds().items()}
    holds = []
    with Progress(options.verbose) as progress:
        shared = {"seed": options.seed, "output": options.output, "progress": progress, "tell": progress.tell, **count}
        if sections is None or sections:
            found = benchmark(
                accuracy_pairs=options.accuracy_pairs,
                fine_pairs=options.fine_pairs,
                only=sections,
                large=options.large,
                jobs=options.jobs,
                **shared,
            )
            holds.append(found.holds)
        if REFINEMENT in named:
            holds.append(contest(kinds=kinds[REFINEMENT], methods=options.methods, limit=options.limit, **shared).holds)
        if CARTILAGE in named:
            holds.append(benchmark_cartilage(jobs=options.jobs, kinds=kinds[CARTILAGE], **shared).holds)
        if LOOPS in named:
            holds.append(benchmark_loops(jobs=options.jobs, **shared).holds)
    return 0 if all(holds) else 1
