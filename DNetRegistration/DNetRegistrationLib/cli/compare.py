"""``dnet-registration compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.threads import available_processors
from ..experiments.methods import METHODS
from ..version import PROGRAM
from .arguments import COUNT, JOBS, SEED, SIZE, Parser, number, several, spell

_COMPARE = f"""\
Aligns the same synthetic pairs of scans, turned by 0 to 180 degrees, with this
project and with what one would otherwise take, and compares success, error,
time and memory, also as the volume grows. Tables and plots also show where
another method is better.

methods:
  full         "{PROGRAM} align" as it comes
  search       its search over all rotations alone
  equivariant, dnet
               one of its networks alone, nothing refined
  axes         the classical recipe for mouse bones (PLoS Biol 2015, e1002212):
               principal axes, flips, a search about the long axis, correlation
  simpleitk    from the moments of both images, by mutual information
  elastix      rigid, from the centre of gravity; pip install itk-elastix
  ants         a search over the full circle, then Rigid; pip install antspyx
Each is set as its documentation advises and may use as many threads. What is
not installed is left out, and the table tells so.

examples:
  {PROGRAM} compare --pairs 12 --growth none --output quick
  {PROGRAM} compare --methods full,elastix --growth 64,128,256 \\
      --output comparison
"""

_COMPARE_END = """\
how to read it:
  A pair is aligned when the mean error over the bone is below 0.08 mm. Nothing
  else should run meanwhile, or times mean little. "Before aligning" is what a
  process holds with its libraries and both scans read. "Wrong without a
  warning" counts bad results without an error or a warning of the method's own.

The folder of --output gets pairs.csv with a line for each alignment,
comparison.md, comparison.csv, success.png, errors.png and cost.png. Ctrl-C
loses nothing: the same command goes on, and with all done it draws anew.

exit status:
  0    done
  2    bad input or bad usage
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): the same command goes on
"""


def _sizes(text: str) -> tuple[int, ...]:
    return () if text.strip() == "none" else tuple(sorted({SIZE(part) for part in text.split(",")}))


def _limited(text: str) -> tuple[str, int]:
    key, _, count = text.partition("=")
    if key not in METHODS:
        raise argparse.ArgumentTypeError(f"{text!r} is not like ants=12, with one of {', '.join(METHODS)}")
    return key, COUNT(count)


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "compare", help="compare with other registration tools", description=_COMPARE, epilog=_COMPARE_END
    )
    parser.set_defaults(run=run)
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where all results go; made where missing")
    parser.add_argument("--methods", metavar="M[,M]", type=several(METHODS), default=tuple(METHODS), help="(all)")
    pairs = parser.add_argument_group("pairs over all angles")
    pairs.add_argument("--pairs", type=COUNT, default=60, help="in all, spread over six bins of angle (%(default)s)")
    pairs.add_argument(
        "--at-most",
        metavar="M=N",
        type=_limited,
        action="append",
        default=[("ants", 12)],
        help="only the first N pairs for a slow method; may be repeated (ants=12)",
    )
    pairs.add_argument("--size", type=SIZE, default=64, metavar="N", help="voxels along each axis (%(default)s)")
    pairs.add_argument(
        "--keep", type=number(float, 0.01, 1), default=1.0, help="cut scans to this share of their bone (%(default)s)"
    )
    pairs.add_argument("--no-contrast", action="store_true", help="both scans without contrast agent")
    pairs.add_argument("--seed", type=SEED, default=0, help="number of the first pair (%(default)s)")
    cost = parser.add_argument_group("cost")
    cost.add_argument(
        "--growth",
        metavar="N[,N]",
        type=_sizes,
        default=(64, 128, 256, 512),
        help="volumes to show how cost grows, or none (64,128,256,512)",
    )
    cost.add_argument(
        "--limit",
        type=number(float, 0.1, 1e6),
        default=600.0,
        metavar="S",
        help="seconds for an alignment; over it a method is ended, and spared larger volumes (%(default)g)",
    )
    cost.add_argument("--threads", type=JOBS, default=available_processors(), help="for every method (%(default)s)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Compares methods."""
    from ..core.progress import Progress, say
    from ..experiments.peers.run import ComparisonOptions, compare

    for key in options.methods:
        if why := METHODS[key].missing():
            say(f"left out: {METHODS[key].title}, {why}")
    wanted = ComparisonOptions(
        methods=options.methods,
        pairs=options.pairs,
        at_most=dict(options.at_most),
        size=options.size,
        keep=options.keep,
        contrast=not options.no_contrast,
        seed=options.seed,
        growth=options.growth,
        limit=options.limit,
        threads=options.threads,
    )
    with Progress(options.verbose) as progress:
        compare(options.output, wanted, [f"command: `{_command(options)}`"], progress, progress.tell)
    return 0


def _command(options: argparse.Namespace) -> str:
    """The command line that gives these results. Of the folder only the last part, since a report travels."""
    return spell(
        "compare",
        pairs=options.pairs,
        size=options.size,
        seed=options.seed,
        keep=f"{options.keep:g}",
        no_contrast=options.no_contrast,
        methods=tuple(options.methods),
        at_most=[f"{key}={count}" for key, count in dict(options.at_most).items()],
        growth=tuple(options.growth) or "none",
        limit=f"{options.limit:g}",
        threads=options.threads,
        output=Path(options.output).name,
    )
