"""``dnet-registration apply``."""

from __future__ import annotations

import argparse

from ..version import PROGRAM
from .arguments import Parser, triple

_APPLY = f"""\
Uses transforms that "{PROGRAM} align" or another program found: carries
another scan, a mask, labels, a segmentation, points or a mesh.

A transform belongs to a fixed and a moving scan, and maps fixed to moving
points (LPS, mm), as in ITK. With --transform it carries what lies in the moving
scan onto the fixed scan; with --inverse, what lies in the fixed scan onto the
moving one. Several are applied in the order in which they are given.

examples:
  {PROGRAM} apply third_scan.nrrd carried.nrrd --transform aligned.tfm \\
      --grid before.nrrd
  {PROGRAM} apply labels_before.nrrd labels_after.nrrd \\
      --inverse aligned.tfm --grid after.nrrd
  {PROGRAM} apply week4.fcsv week8.fcsv --transform week4.tfm \\
      --inverse week8.tfm
"""

_APPLY_END = """\
INPUT and OUTPUT:
  image         INPUT as "align" reads scans; OUTPUT .nrrd, .nii, .nii.gz, .mha,
                .tif for ImageJ
  segmentation  .seg.nrrd of 3D Slicer; its segments stay as they are
  points        .fcsv or .mrk.json of 3D Slicer; .csv with columns x, y, z (LPS)
  mesh          .vtp, .ply, .stl (they need VTK: pip install vtk)

A transform is used as it is: whether to trust it, the report of its alignment
says.

exit status:
  0    written
  2    bad input or bad usage: nothing is written
  3    written, but what was done could not be printed (a full disk)
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): nothing is half-written
"""


class _Step(argparse.Action):
    """Adds a transform, and whether it is inverted, to the list of both options."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        steps = getattr(namespace, "steps", None) or []
        namespace.steps = [*steps, (values, self.const)]


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("apply", help="use a transform on other files", description=_APPLY, epilog=_APPLY_END)
    parser.set_defaults(run=run, steps=None)
    parser.add_argument("input", metavar="INPUT", help="what to carry")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write")
    how = parser.add_argument_group("how to carry it")
    how.add_argument(
        "--transform", metavar="IN", action=_Step, const=False, help="from its moving to its fixed scan; repeatable"
    )
    how.add_argument(
        "--inverse", metavar="IN", action=_Step, const=True, help="from its fixed to its moving scan; repeatable"
    )
    how.add_argument(
        "--grid", metavar="SCAN", help="resample an image on this scan's voxels (keep its own, and turn their axes)"
    )
    how.add_argument(
        "--interpolation",
        choices=("auto", "spline", "nearest"),
        default="auto",
        help="spline: for grey values; nearest: for labels; auto: labels are whole numbers of at most 64 values (auto)",
    )
    about = parser.add_argument_group("about the images")
    for role, metavar in (("scan", "INPUT"), ("grid", "the grid")):
        about.add_argument(
            f"--{role}-spacing", metavar="X[,Y,Z]", type=triple, help=f"true voxel size of {metavar} in mm"
        )
        about.add_argument(f"--{role}-series", metavar="S", help=f"which scan of {metavar}: number, UID or name")
    about.add_argument(
        "--scan-flip",
        choices=("x", "y", "z"),
        help="INPUT lies on a scan that was aligned with this --fixed-flip or --moving-flip",
    )
    return parser


def run(options) -> int:
    """Carries what a file holds by transforms: 0."""
    from ..core.progress import say
    from ..outputs.apply import apply_to_file

    done = apply_to_file(
        options.input,
        options.output,
        options.steps or [],
        grid=options.grid,
        interpolation=options.interpolation,
        spacing=options.scan_spacing,
        series=options.scan_series,
        flip=options.scan_flip,
        grid_spacing=options.grid_spacing,
        grid_series=options.grid_series,
    )
    say(f"{'carried':<17} {done.what}")
    for warning in done.warnings:
        say(f"{'warning':<17} {warning}")
    say(f"{'written':<17} {options.output}")
    return 0
