"""``dnet-registration train``."""

from __future__ import annotations

import os

from ..training.recipes import DECAYS, KINDS, NETWORKS, OPTIMIZERS, PRECISIONS, RECIPES
from ..version import PROGRAM
from .arguments import COUNT, EVERY, SHARE, Parser, number, several, triple

_TRAIN = f"""\
Trains a network on pairs of scans that are made as it goes, of synthetic bones
or of your own scans, turned any way round with the truth known.

examples:
  {PROGRAM} train --network equivariant --output runs/equivariant
  {PROGRAM} train --network dnet --recipe paper --output runs/paper
  {PROGRAM} train --network dnet --start dnet --scans my-scans/ \\
      --learning-rate 1e-4 --iterations 5000 --output runs/mine
  torchrun --nproc-per-node 4 -m DNetRegistrationLib -- train --network dnet \\
      --output runs/dnet

The folder of --output gets checkpoint.pt, weights.pt with its model card
weights.json, log.csv, validation.csv and, with --plot, curves.png. The same
command goes on from the checkpoint, to the same result as without a break.
Ctrl-C writes checkpoint and weights first. More --iterations train on, unless
they are shared out among stages; then give the weights to --start.

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
  "% of the device's limit" compares the operations of the network with those
  of a plain product of matrices; "making pairs" is time the network waited.

exit status:
  0    all iterations made, or --minutes are up: weights are written
  2    bad input or bad usage, or training failed
  130  interrupted (Ctrl-C): checkpoint and weights are written
"""


def _kinds(text: str) -> str:
    return ",".join(several(KINDS)(text))


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
    parser.add_argument("--seed", type=COUNT, default=0, help="of weights, bones and pairs (%(default)s)")
    data = parser.add_argument_group("what to train on")
    data.add_argument("--scans", metavar="FOLDER", help="your scans instead of synthetic bones")
    data.add_argument(
        "--scan-spacing", metavar="X[,Y,Z]", type=triple, help="their voxel size in mm, where files lack it"
    )
    data.add_argument(
        "--kinds", metavar="KIND[,KIND]", type=_kinds, help=f"of synthetic bones: {', '.join(KINDS)} (all of them)"
    )
    data.add_argument("--bones", type=number(int, 2, 100_000), metavar="N", help="synthetic bones, 1/8 to validate")
    data.add_argument("--bank", metavar="FILE", help="keep the bones in this file, or take them from it")
    data.add_argument("--rotations", choices=("uniform", "axis-angle"), help="over SO(3), or as the paper draws them")
    data.add_argument("--placement", choices=("bone", "center"), help="cubes on the bone, or on the image's centre")
    data.add_argument("--cut-share", type=SHARE, metavar="X", help="share of the pairs with cut fields of view,")
    data.add_argument("--keep", type=number(float, 0.01, 1), metavar="X", help="down to this share of their bone")
    data.add_argument("--contrast", type=SHARE, metavar="X", help="share of the pairs with contrast agent in one scan")
    how = parser.add_argument_group("instead of the recipe's")
    how.add_argument("--iterations", type=number(int, 1, 10**9), metavar="N", help="steps of the optimizer")
    how.add_argument("--batch", type=number(int, 1, 100_000), metavar="N", help="pairs of a step, of all processes")
    how.add_argument("--part", type=number(int, 1, 100_000), metavar="N", help="pairs at once, less takes less memory")
    how.add_argument("--learning-rate", type=number(float, 1e-9, 10), metavar="X", help="the largest")
    how.add_argument("--loss", choices=("paper", "points", "geodesic"), help="Eq. 6, displaced points, or angles")
    how.add_argument("--optimizer", choices=OPTIMIZERS, help="sgd has a momentum of 0.9")
    how.add_argument("--decay", choices=DECAYS, help="how the learning rate falls")
    how.add_argument("--weight-decay", type=number(float, 0, 1), metavar="X", help="not for sgd")
    how.add_argument("--clip", type=number(float, 0, 1e9), metavar="X", help="largest norm of the gradient; 0: any")
    how.add_argument(
        "--average", type=number(float, 0, 0.999999), metavar="X", help="decay of averaged weights; 0: none"
    )
    how.add_argument("--precision", choices=PRECISIONS, help="auto: bfloat16 on GPUs that have it")
    how.add_argument("--first-angle", type=number(float, 1, 180), metavar="DEG", help="largest rotation at the start,")
    how.add_argument("--widening", type=SHARE, metavar="X", help="all of them after this share of the iterations")
    how.add_argument(
        "--linked-voxels", type=number(int, 0, 4096), metavar="N", help="that a link looks at; 0: all, as when used"
    )
    how.add_argument("--posing", type=SHARE, metavar="X", help="share of iterations for the pose of each scan alone")
    how.add_argument("--coarsest", type=SHARE, metavar="X", help="share of iterations at 1/8 of the resolution;")
    how.add_argument("--coarser", type=SHARE, metavar="X", help="share after which none is at 1/4 of it")
    how.add_argument("--coarse", type=SHARE, metavar="X", help="up to this share at half of it; then whole")
    when = parser.add_argument_group("when and where")
    when.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    when.add_argument(
        "--jobs", type=number(int, 1, 1024), default=os.cpu_count(), help="processes to make bones (%(default)s)"
    )
    when.add_argument("--minutes", type=number(float, 0, 1e6), metavar="X", help="stop then; the same command goes on")
    when.add_argument("--log-every", type=EVERY, default=20, metavar="N", help="iterations a line (%(default)s)")
    when.add_argument("--validate-every", type=EVERY, metavar="N", help="iterations (40 times in all)")
    when.add_argument(
        "--validation-pairs", type=number(int, 1, 100_000), default=128, metavar="N", help="of a kind (%(default)s)"
    )
    when.add_argument(
        "--checkpoint-minutes", type=number(float, 0, 1e6), default=5.0, metavar="X", help="(%(default)s)"
    )
    when.add_argument("--half", action="store_true", help="write weights in half precision, half the size")
    when.add_argument("--plot", action="store_true", help="draw the curves too; needs matplotlib")
    return parser


def run(options) -> int:
    """Trains a network."""
    from ..training.command import run_train

    return run_train(options)
