"""``dnet-registration demo``."""

from __future__ import annotations

import shlex
import time

from ..bone.scan_file import ScanFile
from ..core.files import make_folder
from ..core.pictures import has_matplotlib
from ..core.progress import say
from ..outputs.paths import OutputPaths
from ..version import PROGRAM
from .align import align_and_tell
from .arguments import SEED, SIZE, SPACING, STATUSES, Parser, add_threads

_DEMO = f"""\
Makes two scans of a synthetic mouse tibia, the second turned and with contrast
agent in its cartilage, aligns them with "{PROGRAM} align", and
compares with the truth. Everything is left in a folder: scans, transform,
report, picture, resampled scan, segmentation, subtraction.
"""

#: The outputs that it writes, by their options.
_FILES = {
    "transform": "transform.tfm",
    "report": "report.json",
    "overlay": "overlay.png",
    "resampled": "resampled.nrrd",
    "segmentation": "segmentation.seg.nrrd",
    "subtraction": "subtraction.nrrd",
}


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "demo", help="align a synthetic pair of known truth", description=_DEMO, epilog=STATUSES
    )
    parser.set_defaults(run=run)
    parser.add_argument("--output", metavar="FOLDER", default="dnet-demo", help="where the files go (%(default)s)")
    parser.add_argument("--seed", type=SEED, default=0, help="another seed is another animal (%(default)s)")
    parser.add_argument("--size", type=SIZE, default=128, help="voxels along each axis (%(default)s)")
    parser.add_argument("--spacing", type=SPACING, default=0.04, metavar="MM", help="voxel size (%(default)s)")
    add_threads(parser)
    return parser


def run(options) -> int:
    """Aligns a synthetic pair: 0 where the alignment is accepted, else 1."""
    from ..geometry.transforms import rotation_error_deg
    from ..synthesis.dataset import write_pair
    from ..synthesis.pairs import make_pair, target_registration_error

    began = time.perf_counter()
    folder = make_folder(options.output)
    pair = make_pair(options.seed, size=options.size, spacing=options.spacing)
    write_pair(pair, folder / "fixed.nrrd", folder / "moving.nrrd", folder / "truth.tfm")
    voxels = " x ".join(str(n) for n in pair.fixed.size)
    say(
        f"Two scans of a synthetic mouse tibia, {voxels} voxels of {1000 * options.spacing:g} um, the first in\n"
        f"{pair.fixed_session.background}, the second in {pair.moving_session.background} with contrast agent and "
        f"turned by {pair.drawn['rotation_deg']:.1f} degrees, are\nin {folder}. This command aligns them:\n"
    )
    pictures = has_matplotlib()
    files = {name: str(folder / file) for name, file in _FILES.items() if pictures or name != "overlay"}
    fixed, moving = (str(folder / f"{role}.nrrd") for role in ("fixed", "moving"))
    words = ["align", fixed, moving, *(word for name, file in files.items() for word in (f"--{name}", file))]
    say(f"  {PROGRAM} {shlex.join(words)}\n")
    (alignment,) = align_and_tell(
        ScanFile(fixed), ScanFile(moving), OutputPaths(**files), options.verbose, threads=options.threads
    )

    error = 1000 * target_registration_error(pair, alignment.matrix)
    angle = rotation_error_deg(pair.matrix, alignment.matrix)
    say(f"{'true error':<17} {error:.2f} um, mean over the bone; {angle:.4f} degrees of rotation")
    say(f"{'all of the demo':<17} {time.perf_counter() - began:.1f} s")
    if not pictures:
        say('No picture was drawn, for that install matplotlib: pip install "dnet-registration[pictures]"')
    return 0 if alignment.accepted else 1
