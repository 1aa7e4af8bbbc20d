"""``dnet-registration align``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bone.scan_file import ABOUT_SCAN, ScanFile
from ..cohort.align_files import align_files
from ..cohort.measuring import Measuring
from ..core.files import temporary_folder
from ..core.progress import say, say_aside
from ..outputs.paths import ENDINGS, OutputPaths
from ..version import PROGRAM
from .arguments import REAL, STATUSES, Parser, add_threads, triple
from .wording import option_of

if TYPE_CHECKING:
    from ..registration.result import Alignment

#: The report that goes to standard output, while it is a file.
_REPORT = "report.json"

_ALIGN = f"""\
Finds the rigid transform between two scans of one bone in any orientation,
and says how sure it is.

FIXED and MOVING are scans: NRRD, NIfTI, MHA or TIFF files, or folders of DICOM,
TIFF, PNG or BMP slices. The moving scan is carried onto the fixed one. Lengths
are in mm, thresholds in the scan's own grey values.

examples:
  {PROGRAM} align before.nrrd after.nrrd --overlay overlay.png
  {PROGRAM} align plain/ contrast/ --fixed-spacing 0.01 \\
      --moving-spacing 0.01 --transform aligned.tfm --report report.json
  {PROGRAM} align plain.nii.gz contrast.nii.gz --contrast moving \\
      --subtraction cartilage.nrrd
"""

_ALIGN_END = f"""\
how to read the result:
  The verdict comes first. "confidence" is the calibrated probability that the
  mean error over the bone is below one voxel of the working spacing (0.08 mm
  for a mouse); "expected error" estimates that error. Look at the overlay: the
  two outlines of the cortex should lie on each other. Where bone is not found,
  or muscle is taken for it, give its threshold.

{STATUSES}"""


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("align", help="align two scans", description=_ALIGN, epilog=_ALIGN_END)
    parser.set_defaults(run=run)
    parser.add_argument("fixed", metavar="FIXED", help="the scan that stays")
    parser.add_argument("moving", metavar="MOVING", help="the scan that is carried onto it")
    out = parser.add_argument_group("what to write (all of it, or on an error nothing)")
    out.add_argument("--transform", metavar="OUT", help=".tfm, .h5 or .mat: fixed to moving points, LPS, as in ITK")
    out.add_argument(
        "--report",
        metavar="OUT",
        help=".json: matrix, verdict, Dice, versions, ...; - prints it, all else on stderr",
    )
    out.add_argument("--overlay", metavar="OUT", help=".png, .pdf or .svg: slices before and after, cortices outlined")
    out.add_argument(
        "--before", metavar="OUT", help=".webp, .png: slices of MOVING as it lies, FIXED outlined, and ..."
    )
    out.add_argument("--after", metavar="OUT", help="... the same slices aligned, to flicker between")
    out.add_argument("--resampled", metavar="OUT", help=".nrrd, .nii, .nii.gz, .mha, .tif: MOVING on the grid of FIXED")
    out.add_argument("--segmentation", metavar="OUT", help=".seg.nrrd: both cortices, for 3D Slicer")
    out.add_argument("--subtraction", metavar="OUT", help=".nrrd, ...: scan with contrast agent minus the one without")
    add_cartilage(out)
    add_measuring(parser.add_argument_group("about the cartilage, and how to measure it"))
    add_scans(parser.add_argument_group("about the scans"))
    add_how(parser.add_argument_group("how to align"))
    return parser


def add_cartilage(out) -> None:
    """Adds the outputs that cartilage is measured for to a group of options."""
    out.add_argument("--cartilage", metavar="OUT", help=".csv or .json: cartilage of each compartment: um, mm3, mm2")
    out.add_argument("--thickness", metavar="OUT", help=".vtp or .ply: bone surface with cartilage thickness at points")
    out.add_argument(
        "--thickness-volume",
        metavar="OUT",
        help=".nrrd, ...: cartilage thickness in um on FIXED's grid, 0 for none or not measured",
    )
    out.add_argument("--cartilage-picture", metavar="OUT", help=".png, .pdf or .svg: thickness seen from above, slices")


def add_measuring(how) -> None:
    """Adds how cartilage is measured, the attributes of `Measuring`, to a group of options."""
    how.add_argument(
        "--contrast", choices=("moving", "fixed"), default="moving", help="the scan with contrast agent (%(default)s)"
    )
    how.add_argument(
        "--anyway", action="store_true", help="measure although the alignment is not accepted, and mark it"
    )
    how.add_argument(
        "--region",
        metavar="FILE",
        help="the joint's surface is where this is above 0: an image or .seg.nrrd of the scan without agent (found)",
    )
    how.add_argument(
        "--region-segment", metavar="S", help="which segment of the region: name, or number of its label (all)"
    )
    how.add_argument(
        "--medial",
        metavar=("X", "Y", "Z"),
        type=REAL,
        nargs=3,
        help="a point on the medial side of the joint, in the scan without agent, LPS, mm (the fibula tells)",
    )


def add_scans(scans) -> None:
    """Adds what is said of both scans to a group of options."""
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-threshold", metavar="X", type=REAL, help="grey value above which it is bone (automatic)"
        )
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-spacing", metavar="X[,Y,Z]", type=triple, help="true voxel size in mm, whatever the file says"
        )
    for role in ("fixed", "moving"):
        scans.add_argument(f"--{role}-series", metavar="S", help="which scan of a folder or file: number, UID or name")
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-mask",
            metavar="FILE",
            help="look for bone only where this is above 0: an image or .seg.nrrd on any grid",
        )
    for role in ("fixed", "moving"):
        scans.add_argument(
            f"--{role}-segment", metavar="S", help="which segment of the mask: name, or number of its label (all)"
        )
    for role, short in (("fixed", ()), ("moving", ("--flip",))):
        scans.add_argument(
            f"--{role}-flip", *short, choices=("x", "y", "z"), help="its voxels lie in reverse order along this axis"
        )


def add_how(how, one: bool = True) -> None:
    """Adds how to align to a group of options.

    Args:
        how: the group.
        one: they are for one pair, which may be started from a transform, and of which each bone may be aligned.
    """
    how.add_argument("--working-spacing", metavar="X", type=REAL, help="voxel size of the search in mm (0.08 for mice)")
    if one:
        how.add_argument(
            "--initial",
            metavar="IN",
            help="start from this transform: of ITK or elastix, or a 4x4 matrix as text (LPS, mm)",
        )
    how.add_argument(
        "--bone",
        choices=("largest", "each") if one else ("largest",),
        help="where bones moved on their own, as in a knee: align the largest"
        + (", or each, with a file for each (OUT_1, OUT_2, ...: the largest first)" if one else ""),
    )
    how.add_argument(
        "--check",
        action="store_true",
        help="turn MOVING three times, align again, and tell how far the answers differ (takes five times as long)",
    )
    how.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    if one:
        add_threads(how)
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


def run(options) -> int:
    """Aligns two scans: 0 where the alignment is accepted, else 1."""
    values = vars(options)
    with temporary_folder() if options.report == "-" else nullcontext() as folder:
        if folder is not None:
            values = {**values, "report": folder / _REPORT}
        return _align(options, values, folder)


def _align(options, values: dict, aside: Path | None) -> int:
    alignments = align_and_tell(
        *scan_files(values),
        OutputPaths(**{name: values[name] for name in ENDINGS}),
        options.verbose,
        aside,
        **how_measured(values),
        initial=options.initial,
        weights=options.weights,
        spacing=options.working_spacing,
        device=options.device,
        hypotheses=options.hypotheses,
        refine=options.refine,
        bone=options.bone,
        check=options.check,
        threads=options.threads,
    )
    from ..registration.verdict import SETTINGS

    tell = say if aside is None else say_aside
    if aside is not None:
        texts = [path.read_text("utf-8").rstrip() for path in sorted(aside.glob("*.json"))]
        say(texts[0] if len(texts) == 1 else "[\n" + ",\n".join(texts) + "\n]")

    for alignment in alignments:
        refused = alignment.doubts and not alignment.accepted
        setting = SETTINGS.get(alignment.doubts[0]) if refused else None
        if setting is not None and (option := option_of(setting, values)):
            tell(f"{'remedy':<17} {option}")
    return 0 if all(alignment.accepted for alignment in alignments) else 1


def scan_files(values: Mapping[str, Any]) -> list[ScanFile]:
    """The fixed and the moving scan, of the values of options."""
    return [
        ScanFile(values[role], **{name: values[f"{role}_{name}"] for name in ABOUT_SCAN})
        for role in ("fixed", "moving")
    ]


def how_measured(values: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of `Measuring`, of the values of options."""
    medial = None if values["medial"] is None else tuple(values["medial"])
    return {**{one.name: values[one.name] for one in fields(Measuring)}, "medial": medial}


def align_and_tell(
    fixed: ScanFile, moving: ScanFile, outputs: OutputPaths, verbose: bool, aside: Path | None = None, **options
) -> list[Alignment]:
    """Aligns two scans as `align_files` does with these options, and prints what came out.

    Args:
        fixed, moving, outputs: see `align_files`.
        verbose: a line for each stage, also without a terminal.
        aside: print to standard error, and leave out the files in this folder; None for standard output.
        options: further ones of `align_files`.

    Returns:
        The alignment; or one of each bone.
    """
    from ..core.progress import Progress
    from ..outputs.cartilage_table import cartilage_summary
    from ..outputs.summary import summary

    tell = say if aside is None else say_aside
    with Progress(verbose) as progress:
        done = align_files(fixed, moving, outputs, progress=progress, **options)
    for alignment, paths in zip(done.alignments, done.outputs, strict=True):
        tell(summary(alignment, (path for path in paths.wanted().values() if aside is None or path.parent != aside)))
    if done.cartilage is not None:
        tell(cartilage_summary(done.cartilage))
    elif outputs.of_cartilage:
        tell(f"{'cartilage':<17} not measured, since the alignment is not accepted; where it is right, give --anyway")
    elif not outputs.wanted():
        tell(f"Nothing was saved: give --transform, --overlay or others (see {PROGRAM} align --help).")
    return done.alignments
