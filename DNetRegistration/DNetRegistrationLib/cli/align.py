"""``dnet-registration align``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import OptionError, Setting
from ..outputs.paths import ENDINGS, OutputPaths, check_grid, check_outputs
from ..version import PROGRAM
from .arguments import STATUSES, Parser, add_threads, triple
from .wording import option_of

if TYPE_CHECKING:
    import numpy as np

    from ..imaging.volume import Volume
    from ..registration.result import Alignment

_ALIGN = f"""\
Finds the rigid transform between two scans of one bone, turned any way round,
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
    out.add_argument("--report", metavar="OUT", help=".json: matrix, verdict, confidence, Dice, times, ...")
    out.add_argument("--overlay", metavar="OUT", help=".png, .pdf or .svg: slices before and after, cortices outlined")
    out.add_argument(
        "--before", metavar="OUT", help=".webp, .png: slices of MOVING as it lies, FIXED outlined, and ..."
    )
    out.add_argument("--after", metavar="OUT", help="... the same slices aligned, to flicker between")
    out.add_argument("--resampled", metavar="OUT", help=".nrrd, .nii, .nii.gz, .mha: MOVING on the grid of FIXED")
    out.add_argument("--segmentation", metavar="OUT", help=".seg.nrrd: both cortices, for 3D Slicer")
    out.add_argument("--subtraction", metavar="OUT", help=".nrrd, ...: scan with contrast agent minus the one without")
    out.add_argument("--cartilage", metavar="OUT", help=".csv or .json: cartilage of each compartment: um, mm3, mm2")
    out.add_argument("--thickness", metavar="OUT", help=".vtp or .ply: bone surface with cartilage thickness at points")
    out.add_argument("--thickness-volume", metavar="OUT", help=".nrrd, ...: cartilage thickness in um on FIXED's grid")
    out.add_argument("--cartilage-picture", metavar="OUT", help=".png, .pdf or .svg: thickness seen from above, slices")
    out.add_argument(
        "--anyway", action="store_true", help="measure cartilage although the alignment is not accepted, and mark it"
    )
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
    how = parser.add_argument_group("how to align")
    how.add_argument(
        "--working-spacing", metavar="X", type=float, help="voxel size of the search in mm (0.08 for mice)"
    )
    how.add_argument(
        "--initial",
        metavar="IN",
        help="start from this transform: of ITK or elastix, or a 4x4 matrix as text (LPS, mm)",
    )
    how.add_argument(
        "--bone",
        choices=("largest", "each"),
        help="where bones moved on their own, as in a knee: align the largest, or each, with a file for each "
        "(OUT_1, OUT_2, ...: the largest first)",
    )
    how.add_argument("--device", metavar="D", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
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
    return parser


def run(options) -> int:
    """Aligns two scans: 0 where the alignment is accepted, else 1."""
    values = vars(options)
    fixed, moving = (
        ScanFile(
            values[role],
            spacing=values[f"{role}_spacing"],
            series=values[f"{role}_series"],
            threshold=values[f"{role}_threshold"],
            mask=values[f"{role}_mask"],
            segment=values[f"{role}_segment"],
            flip=values[f"{role}_flip"],
        )
        for role in ("fixed", "moving")
    )
    alignments = align_files(
        fixed,
        moving,
        OutputPaths(**{name: values[name] for name in ENDINGS}),
        contrast=options.contrast,
        anyway=options.anyway,
        initial=options.initial,
        weights=options.weights,
        verbose=options.verbose,
        spacing=options.working_spacing,
        device=options.device,
        hypotheses=options.hypotheses,
        refine=options.refine,
        bone=options.bone,
        threads=options.threads,
    )
    from ..core.progress import say
    from ..registration.verdict import SETTINGS

    for alignment in alignments:
        setting = SETTINGS.get(alignment.doubts[0]) if alignment.doubts else None
        if setting is not None and (option := option_of(setting, values)):
            say(f"{'remedy':<17} {option}")
    return 0 if all(alignment.accepted for alignment in alignments) else 1


@dataclass(frozen=True)
class ScanFile:
    """A scan to align, and what its file does not say.

    Attributes:
        path: the file, or the folder of slices.
        spacing: voxel size in mm, one number or three (x, y, z), in place of the file's own.
        series: which scan of a folder or file that holds several.
        threshold: grey value above which it is bone; None to find it.
        mask: file of an image or a segmentation; bone is looked for only where it is above 0.
        segment: the segment or the label of the mask that counts; None for all.
        flip: index axis, x, y or z, along which the voxels lie in reverse order.
    """

    path: str
    spacing: tuple[float, ...] | None = None
    series: str | None = None
    threshold: float | None = None
    mask: str | None = None
    segment: str | None = None
    flip: str | None = None

    def read(self, role: str) -> Volume:
        """The scan, as the "fixed" or the "moving" one."""
        from ..imaging.volume import read_volume

        return read_volume(self.path, self.spacing, self.series, name=self.path, role=role, flip=self.flip)

    def read_mask(self, role: str, scan: Volume) -> np.ndarray | None:
        """The mask as a boolean array of the scan's shape; None where there is none.

        Raises:
            ScanError: it cannot be read, or holds nothing of the scan.
            OptionError: a segment is chosen of no mask.
        """
        if self.mask is None:
            if self.segment is not None:
                problem = f"{scan.name}: the segment {self.segment} is of no mask"
                raise OptionError(problem, "give the file of the mask too", Setting("mask", role))
            return None
        from ..imaging.masks import mask_on, read_mask

        return mask_on(read_mask(self.mask, scan, self.segment, role), scan, role)


def align_files(
    fixed: ScanFile,
    moving: ScanFile,
    outputs: OutputPaths,
    *,
    contrast: str = "moving",
    anyway: bool = False,
    initial: str | None = None,
    weights: str | None = None,
    verbose: bool = False,
    bone: str | None = None,
    **options,
) -> list[Alignment]:
    """Reads two scans, aligns them, writes the outputs and prints what came out.

    Args:
        fixed, moving: the scans.
        outputs: the files to write.
        contrast: which scan has the contrast agent.
        anyway: measure cartilage although the alignment was not accepted; else its outputs are left out then.
        initial: file of a transform to start from.
        weights: the name of weights that ship, or a file; None for the default.
        verbose: a line for each stage, also without a terminal.
        bone: "largest" or "each" where bones moved on their own; of "each" the outputs are numbered.
        options: further ones of `registration.align.align`.

    Returns:
        The alignment; or one of each bone.

    Raises:
        DNetError: an input or an output cannot be used; nothing is written then.
    """
    from ..core.progress import Progress, part, say
    from ..geometry.transform_files import read_transform
    from ..outputs.cartilage_table import cartilage_summary
    from ..outputs.summary import summary
    from ..outputs.write import write_outputs
    from ..registration.result import MOST_BONES

    given = (fixed.path, moving.path, fixed.mask, moving.mask, initial, weights)
    inputs = [path for one in given if one is not None for path in _members(one)]
    if bone == "each" and outputs.of_cartilage:
        raise OptionError("cartilage is measured on one bone", "align the largest", Setting("bone", value="largest"))
    several = [outputs.numbered(number + 1) for number in range(MOST_BONES)] if bone == "each" else [outputs]
    for paths in several:
        check_outputs(paths, contrast=contrast, inputs=inputs)
    with Progress(verbose) as progress:
        progress(0.0, "reading the fixed scan")
        fixed_scan = fixed.read("fixed")
        check_grid(outputs, fixed_scan)
        progress(0.05, "reading the moving scan")
        moving_scan = moving.read("moving")
        masks = fixed.read_mask("fixed", fixed_scan), moving.read_mask("moving", moving_scan)
        start = None if initial is None else read_transform(initial)
        # Imported last, since it loads torch: what is wrong with a file is told at once.
        from ..registration.align import align

        thresholds = fixed.threshold, moving.threshold
        found = align(
            fixed_scan,
            moving_scan,
            threshold=None if thresholds == (None, None) else thresholds,
            fixed_mask=masks[0],
            moving_mask=masks[1],
            initial=start,
            weights=weights,
            bone=bone,
            progress=part(progress, 0.1, 0.8),
            **options,
        )
        cartilage = None
        asked = bool(outputs.of_cartilage)
        if asked and (found.accepted or anyway):
            from ..cartilage.measure import measure_cartilage

            scans = (fixed_scan, moving_scan) if contrast == "moving" else (moving_scan, fixed_scan)
            measuring = part(progress, 0.8, 0.9)
            cartilage = measure_cartilage(found, *scans, agent_in=contrast, anyway=anyway, progress=measuring)
        elif asked:
            outputs = outputs.without_cartilage()
            several = [outputs]
        write_outputs(
            found,
            fixed_scan,
            moving_scan,
            outputs,
            contrast=contrast,
            masks=masks,
            measurement=cartilage,
            progress=part(progress, 0.9 if asked else 0.8, 1.0),
        )
    alignments = found if bone == "each" else [found]
    for alignment, paths in zip(alignments, several, strict=False):
        say(summary(alignment, paths.wanted().values()))
    if cartilage is not None:
        say(cartilage_summary(cartilage))
    elif asked:
        say(f"{'cartilage':<17} not measured, since the alignment is not accepted; where it is right, give --anyway")
    elif not outputs.wanted():
        say(f"Nothing was saved: give --transform, --overlay or others (see {PROGRAM} align --help).")
    return alignments


def _members(path: str) -> list[Path]:
    """The file itself, or the folder and its files."""
    path = Path(path)
    return [path, *path.iterdir()] if path.is_dir() else [path]
