"""``dnet-registration cartilage``."""

from __future__ import annotations

from ..cohort.measure_files import measure_files
from ..cohort.measuring import Measuring
from ..outputs.paths import CARTILAGE, OutputPaths
from ..version import PROGRAM
from .align import add_cartilage, add_measuring, add_scans, how_measured, scan_files
from .arguments import SPACING, Parser

_CARTILAGE = f"""\
Measures the cartilage of two scans that were aligned before: thickness, volume
and uptake of contrast agent, on the joint's surface, finer than a voxel.

FIXED and MOVING are the scans, as they were given to "{PROGRAM} align",
with the same options about them. The report of the alignment says whether it is
to be trusted, and that is checked against the scans. A transform without its
report counts as not accepted.

examples:
  {PROGRAM} cartilage plain.nrrd contrast.nrrd --report report.json \\
      --cartilage cartilage.csv --cartilage-picture cartilage.png
  {PROGRAM} cartilage plain.nrrd contrast.nrrd --transform aligned.tfm \\
      --report report.json --thickness thickness.vtp --medial 1.2 -0.4 3.0
"""

_CARTILAGE_END = """\
exit status:
  0    measured, on an alignment that is accepted
  1    the alignment is not accepted: nothing is written, or with --anyway all
       is written and marked; or no cartilage could be measured
  2    bad input or bad usage: nothing is written
  3    done and written, but the result could not be printed (a full disk)
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): nothing is half-written
"""

#: The outputs that it writes.
_OUTPUTS = (*CARTILAGE, "segmentation")


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser(
        "cartilage",
        help="measure cartilage of scans aligned before",
        description=_CARTILAGE,
        epilog=_CARTILAGE_END,
    )
    parser.set_defaults(run=run)
    parser.add_argument("fixed", metavar="FIXED", help="the scan that stayed")
    parser.add_argument("moving", metavar="MOVING", help="the scan that was carried onto it")
    before = parser.add_argument_group("the alignment")
    before.add_argument(
        "--transform", metavar="IN", help="of ITK or elastix, or a 4x4 matrix as text (LPS, mm): fixed to moving points"
    )
    before.add_argument("--report", metavar="IN", help="the report of it, .json; its transform, where none is given")
    before.add_argument(
        "--working-spacing", metavar="X", type=SPACING, help="its voxel size of the search in mm (as the report says)"
    )
    out = parser.add_argument_group("what to write (all of it, or on an error nothing)")
    add_cartilage(out)
    out.add_argument("--segmentation", metavar="OUT", help=".seg.nrrd: both cortices and the cartilage, for 3D Slicer")
    add_measuring(parser.add_argument_group("about the cartilage, and how to measure it"))
    add_scans(parser.add_argument_group("about the scans, as they were aligned"))
    return parser


def run(options) -> int:
    """Measures cartilage: 0 where the alignment is accepted and something was measured, else 1."""
    from ..core.progress import Progress, say
    from ..outputs.cartilage_table import cartilage_summary

    values = vars(options)
    outputs = OutputPaths(**{name: values[name] for name in _OUTPUTS})
    with Progress(options.verbose) as progress:
        done = measure_files(
            *scan_files(values),
            outputs,
            Measuring(**how_measured(values)),
            transform=options.transform,
            report=options.report,
            spacing=options.working_spacing,
            progress=progress,
        )
    say(f"{'verdict':<17} {done.alignment.verdict}")
    for warning in done.alignment.warnings:
        say(f"{'warning':<17} {warning}")
    say(f"{'Dice of cortices':<17} {done.alignment.dice:.3f} aligned")
    if done.cartilage is None:
        say(f"{'cartilage':<17} not measured, since the alignment is not accepted; where it is right, give --anyway")
        return 1
    say(cartilage_summary(done.cartilage))
    for path in done.outputs.wanted().values():
        say(f"{'written':<17} {path}")
    if not outputs.wanted():
        say(f"Nothing was saved: give --cartilage, --thickness or others (see {PROGRAM} cartilage --help).")
    return 0 if done.alignment.accepted and done.cartilage.found else 1
