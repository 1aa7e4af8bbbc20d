"""``dnet-registration evaluate``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from ..core.progress import Progress, say
from ..experiments.paper.plan import METHODS, STEPS, STRATEGIES, TESTS
from ..experiments.paper.settings import DEFAULTS, SYNTHETIC_SCANS, EvaluationOptions
from ..networks.weights import SHIPPED
from ..training.recipes import PRECISIONS, RECIPES
from ..version import PROGRAM
from .arguments import ITERATIONS, JOBS, MANY, SEED, SIZE, SPACING, Parser, number, several, spell, triple
from .wording import explain

_EVALUATE = f"""\
Runs the experiments of the paper (Sec. 2.4 to 3): trains its networks on one
half of the animals and tests them on the other, beside SimpleITK as the paper
sets it and this project's own ways. Writes its Table 1, its figures 3 to 5,
analyses of variance and one report in HTML.

SCANS is
  two folders       A and B, the two halves, of scans without and with contrast
                    agent: NAME_pre.nrrd and NAME_post.nrrd (or any kind of file
                    or folder that align reads), one NAME a bone. Pairs of
                    "{PROGRAM} synthesize", NAME_fixed and NAME_moving,
                    will do. NAME.tfm or NAME_truth.tfm beside them is the true
                    transform, fixed (pre) to moving points. Masks that are
                    called after a scan, NAME_pre_mask.nrrd, are passed over
  one folder        of the same, which is split in halves at random
  one CSV file      with columns name, pre, post and, where wanted, animal, fold
                    (A or B), transform, and pre_spacing, post_mask and others
                    of each scan; its paths begin in its own folder
  nothing           bones are synthetic

examples:
  {PROGRAM} evaluate --quick --output quick
  {PROGRAM} evaluate A/ B/ --iterations 2000 --output evaluation
  {PROGRAM} evaluate --weights dnet=dnet --output shipped \\
      --methods sitk,dnet,dnet-turned,full
  {PROGRAM} evaluate --report-only --output evaluation
"""

_EVALUATE_END = f"""\
strategies:
  S1  train on all scans of A, test on B      S2  the reverse
  S3  train on scans of A without contrast agent, test on all of B
  S4  the reverse of S3

tests, with the image's centre as origin and lengths in the world:
  rotation     each scan turned by {STEPS} angles from -180 to 180 degrees about
               (1,1,1) and moved by (0.4, 0.4, 0.4) mm
  translation  each scan turned by 90 degrees about (1,1,1) and moved by {STEPS}
               steps from -0.87 to 0.87 mm along it
  real         the scan without against the one with contrast agent

methods:
  unmoved                                 nothing: the errors to start from
  sitk                                    SimpleITK, as in Sec. 2.5
  me, se, sed, snl-sed, dnet, equivariant networks alone, one budget for all,
                                          asked once
  dnet-turned                             the median of what dnet says of 8
                                          turns of the pair, in both directions
  dnet-shipped, dnet-shipped-turned       the same by the weights that ship
  equivariant-own                         its own, smaller budget
  search, full                            "{PROGRAM} align", by its
                                          search alone, and as it comes

The folder of --output gets report.html, table1.md and table1.csv, summary.csv,
anova.csv, figure*.png, pairs.csv with a line for each pair and method,
evaluation.json with all settings, and training/ with the networks. Ctrl-C loses
nothing: the same command goes on, and --report-only shows what is there.

exit status:
  0    done
  2    bad input or bad usage; all that is wrong with the scans is in one list
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): the same command goes on
"""


def _weights(text: str) -> tuple[str, str | Path]:
    name, _, path = text.partition("=")
    strategy, _, method = name.rpartition("/")
    trained = [method.name for method in METHODS.values() if method.by_strategy and not method.asks]
    if not path or method not in trained or (strategy and strategy not in STRATEGIES):
        raise argparse.ArgumentTypeError(f"{text!r} is not like dnet=FILE or S1/dnet=FILE, of {', '.join(trained)}")
    return name, path if path in SHIPPED else Path(path)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _usual(name: str) -> str:
    """What an option is where it is not given, for its help."""
    usual, quick = DEFAULTS[name]
    return f"({usual}; quick: {quick})"


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "evaluate", help="run the paper's experiments", description=_EVALUATE, epilog=_EVALUATE_END
    )
    default = {one.name: one.default for one in fields(EvaluationOptions)}
    parser.set_defaults(run=run)
    parser.add_argument(
        "scans", metavar="SCANS", nargs="*", default=(), help="two folders, one folder, a CSV file, or nothing"
    )
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where all results go; made where missing")
    parser.add_argument("--quick", action="store_true", help="a small setting that shows everything in some minutes")
    parser.add_argument("--report-only", action="store_true", help="only tables, figures and report of what is there")
    parser.add_argument("--train-only", action="store_true", help="stop when the networks are trained")
    parser.add_argument(
        "--seed", type=SEED, default=default["seed"], help="of synthetic bones, split and training (%(default)s)"
    )
    scans = parser.add_argument_group("about the scans")
    scans.add_argument("--scan-spacing", metavar="X[,Y,Z]", type=triple, help="voxel size in mm, where files lack it")
    scans.add_argument(
        "--animals", type=number(int, 2, 10_000), metavar="N", help=f"synthetic ones, one bone each {_usual('animals')}"
    )
    scans.add_argument("--size", type=SIZE, metavar="N", help=f"of synthetic scans, voxels {_usual('size')}")
    scans.add_argument("--spacing", type=SPACING, metavar="MM", help=f"of synthetic scans {_usual('spacing')}")
    what = parser.add_argument_group("what to evaluate")
    what.add_argument("--strategies", metavar="S[,S]", type=several(STRATEGIES), help="(all; quick: S1,S3)")
    what.add_argument("--methods", metavar="M[,M]", type=several(METHODS), default=default["methods"], help="(all)")
    what.add_argument("--tests", metavar="T[,T]", type=several(TESTS), default=default["tests"], help="(all)")
    what.add_argument(
        "--steps", type=number(int, 2, 1001), metavar="N", help=f"angles and shifts of a test {_usual('steps')}"
    )
    what.add_argument("--subjects", metavar="NAME[,NAME]", type=_names, help="bones shown in figure 5 (two)")
    train = parser.add_argument_group("how to train (the same for all networks)")
    train.add_argument(
        "--recipe", choices=RECIPES, default=default["recipe"], help='of "train", %(default)s or as published'
    )
    train.add_argument("--iterations", type=ITERATIONS, metavar="N", help=f"of training {_usual('iterations')}")
    train.add_argument("--batch", type=MANY, metavar="N", help=f"pairs of an iteration {_usual('batch')}")
    train.add_argument(
        "--processor-minutes",
        type=number(float, 0.001, 1e6),
        metavar="X",
        help="train each for so much processor time instead",
    )
    train.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=default["precision"],
        help="auto: bfloat16 on GPUs that have it (%(default)s)",
    )
    train.add_argument(
        "--own-iterations", type=ITERATIONS, metavar="N", help=f"of equivariant-own {_usual('own_iterations')}"
    )
    train.add_argument("--own-batch", type=MANY, metavar="N", help=f"its pairs {_usual('own_batch')}")
    train.add_argument(
        "--weights",
        metavar="[S/]M=FILE",
        action="append",
        type=_weights,
        default=[],
        help="do not train this network, as dnet or S1/dnet, but take these weights, a file or a name that ships; "
        "may be repeated",
    )
    train.add_argument(
        "--device", metavar="D", default=default["device"], help="to train on: auto, cpu, cuda (%(default)s)"
    )
    parser.add_argument("--jobs", type=JOBS, default=default["jobs"], help="processes that align (%(default)s)")
    return parser


def run(options) -> int:
    """Runs the paper's experiments, or only writes the report of what has been measured."""
    from ..experiments.paper.cohort import CohortError
    from ..experiments.paper.run import evaluate, write_report

    with Progress(options.verbose) as progress:
        try:
            if options.report_only:
                report = write_report(options.output, options.subjects, progress)
            else:
                wanted = evaluation_options(options)
                report = evaluate(wanted, progress=progress, tell=progress.tell, spell=command_line)
        except CohortError as error:
            for problem in error.problems:
                progress.tell(f"- {explain(problem, vars(options))}")
            raise
    if report is not None:
        say(f"tables, figures and report are in {report.parent}; open {report}")
    return 0


def evaluation_options(options) -> EvaluationOptions:
    """The options of the command line as `EvaluationOptions`."""
    given = {one.name: getattr(options, one.name) for one in fields(EvaluationOptions)}
    return EvaluationOptions(**{**given, "weights": dict(options.weights)})


def command_line(options: EvaluationOptions) -> str:
    """The command of resolved options. Of paths it has the last part, since a report travels."""
    names = (*DEFAULTS, "processor_minutes", "seed", "recipe", "precision", "scan_spacing")
    given = {name: getattr(options, name) for name in names}
    for name, known in (("strategies", STRATEGIES), ("methods", METHODS), ("tests", TESTS)):
        chosen = tuple(getattr(options, name))
        given[name] = chosen if len(chosen) < len(known) else None
    if options.scans:
        given |= dict.fromkeys(SYNTHETIC_SCANS)
    weights = [f"{name}={Path(path).name}" for name, path in options.weights.items()]
    scans = (Path(path).name for path in options.scans)
    return spell("evaluate", *scans, **given, weights=weights, output=Path(options.output).name)
