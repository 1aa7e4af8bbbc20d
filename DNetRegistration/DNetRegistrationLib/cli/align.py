"""``dnet-registration align``."""

from __future__ import annotations

from pathlib import Path

from ..core.processes import keep_threads_from_spinning
from ..version import PROGRAM
from .arguments import STATUSES, Parser, triple

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

OUTPUTS = ("transform", "report", "overlay", "resampled", "segmentation", "subtraction")


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


def run(options) -> int:
    """``dnet-registration align``."""
    alignment = align_files(options)
    return 0 if alignment.accepted else 1


def align_files(options):
    """Reads, aligns, writes and says what came out; returns the `Alignment`."""
    keep_threads_from_spinning()
    from ..core.progress import Progress, say
    from ..geometry.transforms import read_transform
    from ..outputs.summary import summary
    from ..outputs.write import check_outputs, write_outputs

    outputs = {name: getattr(options, name) for name in OUTPUTS if getattr(options, name) is not None}
    given = (options.fixed, options.moving, options.fixed_mask, options.moving_mask, options.initial, options.weights)
    inputs = [path for one in given if one is not None for path in _members(one)]
    check_outputs(**outputs, contrast=options.contrast, inputs=inputs)
    with Progress(options.verbose) as progress:
        progress(0.0, "reading the fixed scan")
        fixed = _read_scan(options, "fixed")
        progress(0.05, "reading the moving scan")
        moving = _read_scan(options, "moving")
        masks = tuple(_read_mask(options, role, scan) for role, scan in (("fixed", fixed), ("moving", moving)))
        initial = None if options.initial is None else read_transform(options.initial)
        # Only now, since it brings torch with it: what is wrong with a file is told at once.
        from ..registration.align import align

        thresholds = (options.fixed_threshold, options.moving_threshold)
        alignment = align(
            fixed,
            moving,
            threshold=None if thresholds == (None, None) else thresholds,
            spacing=options.working_spacing,
            fixed_mask=masks[0],
            moving_mask=masks[1],
            initial=initial,
            device=options.device,
            weights=options.weights,
            hypotheses=options.hypotheses,
            refine=options.refine,
            progress=progress.part(0.1, 0.8),
        )
        write_outputs(
            alignment,
            fixed,
            moving,
            **outputs,
            contrast=options.contrast,
            masks=masks,
            progress=progress.part(0.8, 1.0),
        )
    say(summary(alignment, outputs.values()))
    if not outputs:
        say(f"Nothing was saved: give --transform, --overlay or others (see {PROGRAM} align --help).")
    return alignment


def _members(path) -> list[Path]:
    """The file itself, or the files of a folder."""
    path = Path(path)
    return [path, *path.iterdir()] if path.is_dir() else [path]


def _read_scan(options, role: str):
    from ..imaging.volume import read_volume

    path, spacing, series = (getattr(options, role + what) for what in ("", "_spacing", "_series"))
    return read_volume(path, spacing, series, name=path, role=role)


def _read_mask(options, role: str, scan):
    import numpy as np

    from ..core.errors import ScanError
    from ..imaging.volume import read_volume

    path = getattr(options, f"{role}_mask")
    if path is None:
        return None
    mask = read_volume(path, getattr(options, f"{role}_spacing"), name=path, role=role)
    tolerance = 1e-3 * scan.spacing.min()
    if not (np.array_equal(mask.size, scan.size) and np.allclose(mask.affine, scan.affine, atol=tolerance)):
        raise ScanError(f"{path}: the mask does not lie on the grid of {scan.name}; resample it to that grid")
    return mask.voxels > 0
