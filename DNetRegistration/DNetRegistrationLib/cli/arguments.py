"""The arguments of the command line, and its help."""

from __future__ import annotations

import argparse
import os

from ..core.errors import NAME
from ..training.recipes import DECAYS, KINDS, NETWORKS, OPTIMIZERS, PRECISIONS, RECIPES
from ..version import __version__
from .argument_kinds import COUNT, EVERY, SHARE, SIZE, SPACING, Parser, lazily, number, several, triple
from .compare_arguments import add_compare
from .evaluate_arguments import add_evaluate

_STATUSES = """\
exit status:
  0    aligned, and accepted: verification says that the result can be trusted
  1    aligned, but not accepted: outputs are written, and marked as such
  2    bad input or bad usage: nothing is written
  130  interrupted (Ctrl-C): nothing is half-written
"""

_ALIGN = f"""\
Finds the rigid transform between two scans of one bone, turned any way round,
and says how sure it is.

FIXED and MOVING are scans: NRRD, NIfTI, MHA or TIFF files, or folders of DICOM,
TIFF, PNG or BMP slices. The moving scan is carried onto the fixed one. Lengths
are in mm, thresholds in the scan's own grey values.

examples:
  {NAME} align before.nrrd after.nrrd --overlay overlay.png
  {NAME} align plain/ contrast/ --fixed-spacing 0.01 \\
      --moving-spacing 0.01 --transform aligned.tfm --report report.json
  {NAME} align plain.nii.gz contrast.nii.gz --contrast moving \\
      --subtraction cartilage.nrrd
"""

_ALIGN_END = f"""\
how to read the result:
  The verdict comes first. "confidence" is the calibrated probability that the
  mean error over the bone is below one voxel of the working spacing (0.08 mm
  for a mouse); "expected error" estimates that error. Look at the overlay: the
  two outlines of the cortex should lie on each other. Where bone is not found,
  or muscle is taken for it, give its threshold.

{_STATUSES}"""

_DEMO = f"""\
Makes two scans of a synthetic mouse tibia, the second turned and with contrast
agent in its cartilage, aligns them with "{NAME} align", and
compares with the truth. Everything is left in a folder: scans, transform,
report, picture, resampled scan, segmentation, subtraction.
"""

_SYNTHESIZE = f"""\
Writes synthetic pairs of scans of mouse tibiae with the true transform between
them: 0001_fixed.nrrd, 0001_moving.nrrd, 0001_truth.tfm (fixed to moving points,
LPS mm), ..., and truth.csv for all.

example:
  {NAME} synthesize pairs --count 10 --size 128 --spacing 0.04
"""

_BENCHMARK = f"""\
Measures on synthetic pairs how often and how closely scans are aligned, whether
impostors are refused, how well the confidence is calibrated and how long it
takes, and prints one table with what is required of it. The exit status is 0
when all of it holds.

With --output each pair's figures are kept: Ctrl-C loses nothing, the same
command carries on, and more --pairs add to what is there.

examples:
  {NAME} benchmark --pairs 20
  {NAME} benchmark --pairs 1000 --large --output dnet-benchmark
"""

_TRAIN = f"""\
Trains a network on pairs of scans that are made as it goes, of synthetic bones
or of your own scans, turned any way round with the truth known.

examples:
  {NAME} train --network equivariant --output runs/equivariant
  {NAME} train --network dnet --recipe paper --output runs/paper
  {NAME} train --network dnet --start dnet --scans my-scans/ \\
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


def _names(text: str) -> tuple[str, ...]:
    from ..experiments.benchmark.parts import SECTIONS

    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is no part; choose from {', '.join(SECTIONS)}")
    return names


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = Parser(
        prog=NAME,
        description="Aligns two micro-CT scans of the same bone, turned any way round, and says\nwhether to trust it.",
        epilog=f'Start with "{NAME} demo", then "{NAME} align --help".\n\n{_STATUSES}',
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for add in (_add_align, _add_demo, _add_synthesize, _add_benchmark, _add_train, add_evaluate, add_compare):
        group = add(commands).add_argument_group("messages")
        group.add_argument("--verbose", action="store_true", help="a line for each stage, also without a terminal")
        group.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser


def _add_align(commands) -> Parser:
    parser = commands.add_parser("align", help="align two scans", description=_ALIGN, epilog=_ALIGN_END)
    parser.set_defaults(run=lazily("cli.commands", "run_align"))
    parser.add_argument("fixed", metavar="FIXED", help="the scan that stays")
    parser.add_argument("moving", metavar="MOVING", help="the scan that is carried onto it")
    out = parser.add_argument_group("what to write (all of it, or on an error nothing)")
    out.add_argument("--transform", metavar="OUT", help=".tfm, .h5 or .mat: fixed to moving points, LPS, as in ITK")
    out.add_argument("--report", metavar="OUT", help=".json: matrix, verdict, confidence, Dice, times, ...")
    out.add_argument("--overlay", metavar="OUT", help=".png, .pdf or .svg: slices before and after, cortices outlined")
    out.add_argument("--resampled", metavar="OUT", help=".nrrd, .nii, .nii.gz, .mha: MOVING on the grid of FIXED")
    out.add_argument("--segmentation", metavar="OUT", help=".seg.nrrd: both cortices, for 3D Slicer")
    out.add_argument("--subtraction", metavar="OUT", help=".nrrd, ...: scan with contrast agent minus the one without")
    out.add_argument(
        "--contrast", choices=("moving", "fixed"), default="moving", help="the scan with contrast agent (%(default)s)"
    )
    scans = parser.add_argument_group("about the scans")
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-threshold", metavar="X", type=float, help="grey value above which it is bone (automatic)"
        )
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-spacing", metavar="X[,Y,Z]", type=triple, help="true voxel size in mm, where the file lacks it"
        )
    for role in ("fixed", "moving"):
        scans.add_argument(f"--{role}-series", metavar="S", help="which scan of a folder: number, UID or description")
    for role in ("fixed", "moving"):
        scans.add_argument(f"--{role}-mask", metavar="FILE", help="look for bone only where this image is above 0")
    how = parser.add_argument_group("how to align")
    how.add_argument(
        "--working-spacing", metavar="X", type=float, help="voxel size of the search in mm (0.08 for mice)"
    )
    how.add_argument("--initial", metavar="IN", help="start from this transform, of the kind of --transform")
    how.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    how.add_argument(
        "--weights",
        metavar="W",
        help="a weights file, or the name of weights that ship: equivariant, dnet (equivariant)",
    )
    how.add_argument(
        "--hypotheses",
        choices=("auto", "dnet", "search"),
        default="auto",
        help="dnet: the network; search: over all rotations; auto: the one, then, where it fails, the other (auto)",
    )
    how.add_argument(
        "--refine", choices=("native", "working", "none"), default="native", help="to which resolution (%(default)s)"
    )
    return parser


def _add_demo(commands) -> Parser:
    parser = commands.add_parser(
        "demo", help="align a synthetic pair of known truth", description=_DEMO, epilog=_STATUSES
    )
    parser.set_defaults(run=lazily("cli.commands", "run_demo"))
    parser.add_argument("--output", metavar="FOLDER", default="dnet-demo", help="where the files go (%(default)s)")
    parser.add_argument("--seed", type=COUNT, default=0, help="another seed is another animal (%(default)s)")
    parser.add_argument("--size", type=SIZE, default=128, help="voxels along each axis (%(default)s)")
    parser.add_argument("--spacing", type=SPACING, default=0.04, metavar="MM", help="voxel size (%(default)s)")
    return parser


def _add_synthesize(commands) -> Parser:
    parser = commands.add_parser("synthesize", help="write synthetic pairs with their truth", description=_SYNTHESIZE)
    parser.set_defaults(run=lazily("cli.commands", "run_synthesize"))
    parser.add_argument("folder", metavar="FOLDER", help="where to write; made where it is missing")
    parser.add_argument("--count", type=COUNT, default=10, help="how many pairs (%(default)s)")
    parser.add_argument("--seed", type=COUNT, default=0, help="of the first pair, then counting up (%(default)s)")
    parser.add_argument("--size", type=SIZE, default=64, help="voxels along each axis (%(default)s)")
    parser.add_argument("--spacing", type=SPACING, default=0.08, metavar="MM", help="voxel size (%(default)s)")
    parser.add_argument(
        "--keep",
        type=number(float, 0.01, 1),
        default=1.0,
        help="cut scans down to this share of their bone (%(default)s)",
    )
    parser.add_argument(
        "--max-translation",
        type=number(float, 0, 10),
        default=0.64,
        metavar="MM",
        help="largest shift along an axis (%(default)s)",
    )
    parser.add_argument(
        "--max-angle",
        type=number(float, 0, 180),
        default=180.0,
        metavar="DEG",
        help="largest turn (%(default)s, all rotations)",
    )
    parser.add_argument("--no-contrast", action="store_true", help="both scans without contrast agent")
    parser.add_argument("--clean", action="store_true", help="bone only: no noise, no artefacts, nothing else")
    parser.add_argument("--impostor", choices=("animal", "relative", "mirror"), help="scan another bone")
    parser.add_argument("--format", choices=(".nrrd", ".nii.gz", ".mha"), default=".nrrd", help="of the scans")
    return parser


def _add_benchmark(commands) -> Parser:
    parser = commands.add_parser("benchmark", help="measure success, accuracy and speed", description=_BENCHMARK)
    parser.set_defaults(run=lazily("cli.commands", "run_benchmark"))
    parser.add_argument("--pairs", type=COUNT, default=100, help="pairs, and as many impostors (%(default)s)")
    parser.add_argument("--accuracy-pairs", type=COUNT, default=40, help="for accuracy at 0.08 mm (%(default)s)")
    parser.add_argument("--fine-pairs", type=COUNT, default=8, help="for accuracy at 0.025 mm (%(default)s)")
    parser.add_argument("--large", action="store_true", help="also time and memory at 512^3 voxels of 0.01 mm")
    parser.add_argument(
        "--only",
        metavar="PART[,PART]",
        type=_names,
        help="success, accuracy, impostors, network (the default one), paper (D-net), repeat, refinement, speed",
    )
    parser.add_argument("--seed", type=COUNT, default=0, help="shift of all seeds (%(default)s)")
    parser.add_argument(
        "--jobs", type=number(int, 1, 1024), default=os.cpu_count(), help="processes, one thread each (%(default)s)"
    )
    parser.add_argument("--output", metavar="FOLDER", help="keep each pair's figures, the table and a reliability plot")
    return parser


def _kinds(text: str) -> str:
    return ",".join(several(KINDS)(text))


def _add_train(commands) -> Parser:
    parser = commands.add_parser(
        "train", help="train a network, on synthetic bones or on your scans", description=_TRAIN, epilog=_TRAIN_END
    )
    parser.set_defaults(run=lazily("training.command", "run_train"))
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
