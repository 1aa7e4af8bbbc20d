"""``dnet-registration synthesize``."""

from __future__ import annotations

import math

from ..core.files import make_folder
from ..core.progress import Progress, say
from ..core.words import counted
from ..version import PROGRAM
from .arguments import COUNT, SEED, SIZE, SPACING, Parser, number

_SYNTHESIZE = f"""\
Writes synthetic pairs of scans of mouse tibiae with the true transform between
them: 0001_fixed.nrrd, 0001_moving.nrrd, 0001_truth.tfm (fixed to moving points,
LPS mm), ..., and truth.csv for all. In it, numbers at the end of a name are of
the fixed (_1) and the moving scan (_2), in shift_mm of x, y, z; same: one bone;
shared: the share of the bone that both scans show; scale: grey values;
osteoarthritis: 0 (none) to 1; left: a left leg. docs/experiments.md has all.

example:
  {PROGRAM} synthesize pairs --count 10 --size 128 --spacing 0.04
"""


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("synthesize", help="write synthetic pairs with their truth", description=_SYNTHESIZE)
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="FOLDER", help="where to write; made where it is missing")
    parser.add_argument("--count", type=COUNT, default=10, help="how many pairs (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the first pair, then counting up (%(default)s)")
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
    parser.add_argument(
        "--agent",
        choices=("even", "varied"),
        default="even",
        help="how contrast agent, soft tissue and joint surfaces vary: little, or as widely as they may (%(default)s)",
    )
    parser.add_argument("--truth", action="store_true", help="write masks of bone and cartilage in both scans too")
    parser.add_argument("--clean", action="store_true", help="bone only: no noise, no artefacts, nothing else")
    parser.add_argument("--impostor", choices=("animal", "relative", "mirror"), help="scan another bone")
    parser.add_argument("--format", choices=(".nrrd", ".nii.gz", ".mha"), default=".nrrd", help="of the scans")
    return parser


def run(options) -> int:
    """Writes synthetic pairs: 0."""
    from ..synthesis.dataset import synthesize

    folder = make_folder(options.folder)
    with Progress(options.verbose) as progress:
        table = synthesize(
            folder,
            options.count,
            options.seed,
            truth=options.truth,
            progress=progress,
            suffix=options.format,
            size=options.size,
            spacing=options.spacing,
            keep=options.keep,
            max_translation=options.max_translation,
            max_angle=math.radians(options.max_angle),
            contrast=not options.no_contrast,
            agent=options.agent,
            clean=options.clean,
            impostor=options.impostor,
        )
    say(f"{counted(options.count, 'pair')} and {table} written")
    return 0
