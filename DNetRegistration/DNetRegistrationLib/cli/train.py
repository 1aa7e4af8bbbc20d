"""``dnet-registration train``."""

from __future__ import annotations

import argparse
from dataclasses import fields

from ..core.progress import Progress, say
from ..core.threads import available_processors
from ..training.recipes import DATA, NETWORKS, RECIPES, Option, recipe_options
from ..version import PROGRAM
from .arguments import (
    ITERATIONS,
    JOBS,
    MANY,
    SEED,
    SHARE,
    Parser,
    add_threads,
    number,
    option_name,
    several,
    spell,
    triple,
)

_TRAIN = f"""\
Trains a network on pairs of scans that are made as it goes, of synthetic bones
or of your own scans, in random orientations that are known.

examples:
  {PROGRAM} train --network equivariant --output runs/equivariant
  {PROGRAM} train --network dnet --recipe paper --output runs/paper
  {PROGRAM} train --network dnet --start dnet --scans my-scans/ \\
      --learning-rate 1e-4 --iterations 5000 --output runs/mine
  torchrun --nproc-per-node 4 -m DNetRegistrationLib -- train --network dnet \\
      --output runs/dnet

The folder of --output gets checkpoint.pt, weights.pt with its model card
weights.json, log.csv, validation.csv and, with --plot, curves.png. The same
command goes on from the checkpoint, to the same result as without a break. Once
iterations have begun, Ctrl-C writes checkpoint and weights first. More
--iterations train on, unless they are shared out among stages; then give the
weights to --start.

With the recipe fast, se, sed, snl-sed and dnet learn the pose of each scan and
then the motion, on cubes that become finer; me begins with small rotations.
With --start all begin with the motion, any rotation and whole cubes.
"""

_TRAIN_END = """\
how to read what it says:
  RE and TE are the mean errors of rotation and translation. They begin at 126
  degrees, what guessing gives over all rotations (a curriculum begins with
  less), and validation counts: bones that were never trained on, any rotation.
  "Whole" views show all of the bone that fits, "cut" ones down to half of it.
  "Making pairs" is time the network waited for them.

exit status:
  0    all iterations made, or --minutes are up: weights are written
  2    bad input or bad usage, or training failed
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): once iterations have begun,
       checkpoint and weights are written
"""

# Options of earlier versions, each for one share of the resolution schedule.
_SCHEDULE = {
    "coarsest": "the first of them: at 1/8 of the resolution up to here",
    "coarser": "the second: at 1/4 up to here",
    "coarse": "the third: at half up to here",
}


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "train", help="train a network, on synthetic bones or on your scans", description=_TRAIN, epilog=_TRAIN_END
    )
    parser.set_defaults(run=run)
    parser.add_argument("--network", choices=NETWORKS, required=True, help="equivariant, or one of the paper's five")
    parser.add_argument("--recipe", choices=RECIPES, default="fast", help="paper: as published (%(default)s)")
    parser.add_argument("--output", metavar="FOLDER", required=True, help="where the run lives; made where missing")
    parser.add_argument("--start", metavar="W", help="begin with these weights: a file, or a name that ships")
    parser.add_argument("--seed", type=SEED, default=0, help="of weights, bones and pairs (%(default)s)")
    data = parser.add_argument_group("what to train on")
    data.add_argument("--scans", metavar="SCANS", help="your scans, not synthetic bones: a folder, or a .csv")
    data.add_argument(
        "--scan-spacing", metavar="X[,Y,Z]", type=triple, help="their voxel size in mm, where files lack it"
    )
    data.add_argument("--dataset", "--bank", metavar="FILE", help="keep the bones in this file, or take them from it")
    how = parser.add_argument_group("instead of the recipe's")
    for name, option in recipe_options().items():
        _add_option(data if option.about == DATA else how, name, option)
    when = parser.add_argument_group("when and where")
    when.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    when.add_argument("--jobs", type=JOBS, default=available_processors(), help="processes to make bones (%(default)s)")
    add_threads(when)
    when.add_argument("--minutes", type=number(float, 0, 1e6), metavar="X", help="stop then; the same command goes on")
    when.add_argument("--log-every", type=ITERATIONS, default=20, metavar="N", help="iterations a line (%(default)s)")
    when.add_argument("--validate-every", type=ITERATIONS, metavar="N", help="iterations (at most 40 times)")
    when.add_argument("--validation-pairs", type=MANY, default=128, metavar="N", help="of a kind (%(default)s)")
    when.add_argument(
        "--checkpoint-minutes", type=number(float, 0, 1e6), default=5.0, metavar="X", help="(%(default)s)"
    )
    when.add_argument("--half", action="store_true", help="write weights in half precision, half the size")
    when.add_argument("--plot", action="store_true", help="draw the curves too; needs matplotlib")
    return parser


def run(options) -> int:
    """Trains a network."""
    from ..training.session import train

    with Progress(options.verbose) as progress:
        result = train(training_options(options), progress=progress, report=progress.tell, spell=command_line)
    if result.rank == 0:
        say(f"weights and model card are in {result.weights}; use them with {PROGRAM} align --weights")
    return 0


def training_options(options):
    """The options of the command line as `training.session.TrainingOptions`."""
    from ..training.session import TrainingOptions

    given = vars(options)
    changes = {name: given[name] for name in recipe_options() if given.get(name) is not None}
    shares = tuple(given[name] for name in _SCHEDULE)
    if shares != (None, None, None):
        changes["resolution_schedule"] = shares
    names = (one.name for one in fields(TrainingOptions) if one.name in given)
    return TrainingOptions(**{name: given[name] for name in names}, changes=changes)


def command_line(options) -> str:
    """The command that trains by these `training.session.TrainingOptions`, less what changes no result."""
    given = {"network": options.network, "recipe": options.recipe, **options.changes}
    given |= {name: getattr(options, name) for name in ("seed", "scan_spacing", "scans", "dataset", "start", "output")}
    return spell("train", **given)


def _add_option(group, name: str, option: Option) -> None:
    names = [option_name(name)]
    if option.old is not None:
        names.append(option_name(option.old))
    if name == "resolution_schedule":
        group.add_argument(*names, type=_shares, metavar="X,X,X", help=option.help)
        for step, help in _SCHEDULE.items():
            group.add_argument(option_name(step), type=SHARE, metavar="X", help=help)
    elif name == "kinds":
        known = f"{option.help}: {', '.join(option.choices)} (all of them)"
        group.add_argument(*names, type=several(option.choices), metavar="KIND[,KIND]", help=known)
    elif option.choices is not None:
        group.add_argument(*names, dest=name, choices=option.choices, help=option.help)
    else:
        convert = number(option.kind, option.low, option.high)
        metavar = "DEG" if name.endswith("angle") else "N" if option.kind is int else "X"
        group.add_argument(*names, dest=name, type=convert, metavar=metavar, help=option.help)


def _shares(text: str) -> tuple[float, ...]:
    shares = tuple(SHARE(share) for share in text.split(","))
    if len(shares) != len(_SCHEDULE):
        raise argparse.ArgumentTypeError(f"{text!r} is not three shares as in 0.2,0.6,0.7")
    return shares
