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
osteoarthritis: 0 (none) to 1; left: a left leg; medial_mm, with --truth:
the middle of the medial joint surface in the fixed scan (x, y, z, LPS).
docs/experiments.md has all.

examples:
  {PROGRAM} synthesize pairs --count 10 --size 128 --spacing 0.04
  {PROGRAM} synthesize joints --joint --count 2 --truth
"""

# Voxels along each axis, voxel size and largest shift, mm: of views of the whole bone, and of the joint, whose
# cartilage they show.
_WHOLE, _JOINT = (64, 0.08, 0.64), (128, 0.02, 0.1)


def _defaults(which: int) -> str:
    return f"{_WHOLE[which]:g}; with --joint {_JOINT[which]:g}"


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("synthesize", help="write synthetic pairs with their truth", description=_SYNTHESIZE)
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="FOLDER", help="where to write; made where it is missing")
    parser.add_argument("--count", type=COUNT, default=10, help="how many pairs (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="of the first pair, then counting up (%(default)s)")
    parser.add_argument("--size", type=SIZE, help=f"voxels along each axis ({_defaults(0)})")
    parser.add_argument("--spacing", type=SPACING, metavar="MM", help=f"voxel size ({_defaults(1)})")
    parser.add_argument(
        "--joint",
        action="store_true",
        help="scan the joint from near, with its plateau in the middle, to measure cartilage",
    )
    parser.add_argument(
        "--keep",
        type=number(float, 0.01, 1),
        default=1.0,
        help="cut scans down to this share of their bone (%(default)s)",
    )
    parser.add_argument(
        "--max-translation",
        type=number(float, 0, 10),
        metavar="MM",
        help=f"largest shift along an axis ({_defaults(2)})",
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
    from ..synthesis.pairs import JOINT
    from ..synthesis.tibia import CENTER

    given = options.size, options.spacing, options.max_translation
    usual = _JOINT if options.joint else _WHOLE
    size, spacing, shift = (other if one is None else one for one, other in zip(given, usual, strict=True))
    folder = make_folder(options.folder)
    with Progress(options.verbose) as progress:
        table = synthesize(
            folder,
            options.count,
            options.seed,
            truth=options.truth,
            progress=progress,
            suffix=options.format,
            size=size,
            spacing=spacing,
            keep=options.keep,
            max_translation=shift,
            focus=JOINT if options.joint else tuple(CENTER),
            max_angle=math.radians(options.max_angle),
            contrast=not options.no_contrast,
            agent=options.agent,
            clean=options.clean,
            impostor=options.impostor,
        )
    say(f"{counted(options.count, 'pair')} and {table} written")
    return 0
