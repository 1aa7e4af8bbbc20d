"""``dnet-registration cohort``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..bone.scan_file import ABOUT_SCAN
from ..cohort.options import CohortOptions, usual_outputs
from ..cohort.pairs import ABOUT_CARTILAGE, ROLES
from ..cohort.result import looked_at, told_once
from ..core.errors import OptionError, Setting
from ..core.pictures import how_to_install
from ..core.words import counted
from ..outputs.paths import ENDINGS
from ..version import PROGRAM
from .align import add_how, add_scans
from .arguments import JOBS, Parser, option_name, spell
from .wording import option_of

_COHORT = f"""\
Aligns many pairs of scans: it finds them, says what is wrong before it starts,
works on all processors, goes on where it was stopped, and leaves one table, and
one page on which to check them all.

SCANS is a folder with NAME_pre and NAME_post for each pair: files (NRRD, NIfTI,
MHA, TIFF, ...), folders of slices, or folders of DICOM. NAME_post is carried
onto NAME_pre. Other names are told by a pattern. Or SCANS is a list: a CSV file
with the columns id, fixed, moving; and, if wanted, time, group and others,
which travel into the results, and fixed_spacing, moving_threshold, medial and
others for one pair, called as the options of align.

examples:
  {PROGRAM} cohort scans/ --dry-run
  {PROGRAM} cohort scans/ --output results/
  {PROGRAM} cohort study/ --output results/ \\
      --words plain,contrast --pattern "{{group}}/{{id}}_{{time}}_{{scan}}"
  {PROGRAM} cohort pairs.csv --output results/ --cartilage
"""

_COHORT_END = """\
RESULTS gets cohort.html to look at, cohort.csv with a row for each pair,
cohort-dictionary.csv that says what its columns mean, cohort.json with all, and
pairs/NAME/ with the outputs of each pair. The same command again does what is
missing, or what changed: files, options, or the program.

exit status:
  0    all pairs are accepted; of a dry run: there is no problem
  1    some are refused or failed, or their cartilage was asked for and could
       not be measured; of a dry run: there are problems
  2    bad input or bad usage
  3    all is done and written, but could not be printed (a full disk)
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the same again goes on from there
"""

# What `align` takes as options, and a cohort in its list alone, beside what is about cartilage.
_COLUMNS_ALONE = ("initial",)


def add_parser(commands) -> Parser:
    """Adds the command."""
    parser = commands.add_parser("cohort", help="align many pairs", description=_COHORT, epilog=_COHORT_END)
    parser.set_defaults(run=run)
    parser.columns = (*_COLUMNS_ALONE, *ABOUT_CARTILAGE)
    parser.add_argument("scans", metavar="SCANS", help="a folder of scans, or a list of pairs")
    parser.add_argument("--output", metavar="RESULTS", help="the folder of results; it is made")
    parser.add_argument("--dry-run", action="store_true", help="list the pairs and all problems, by headers and masks")
    names = parser.add_argument_group("which scans are a pair")
    names.add_argument(
        "--pattern", metavar="P", help="names below SCANS without endings: {id}, {scan}, others, * ({id}_{scan})"
    )
    names.add_argument(
        "--words",
        metavar="F,M",
        type=_two_words,
        default=("pre", "post"),
        help="what {scan} stands for: the fixed and the moving scan (pre,post)",
    )
    names.add_argument(
        "--no-loops", action="store_true", help="of three scans of one bone, align no more than is asked"
    )
    work = parser.add_argument_group("the work")
    work.add_argument("--jobs", metavar="N", type=JOBS, help="pairs at once (as processors and memory allow)")
    work.add_argument("--threads", metavar="N", type=JOBS, default=1, help="threads of each pair (%(default)s)")
    work.add_argument("--dask", metavar="ADDRESS", help="work on this Dask cluster; local: on one of this machine")
    out = parser.add_argument_group("what to write for each pair (transform, report and pictures, and ...)")
    for name, endings in ENDINGS.items():
        out.add_argument(
            option_name(name),
            metavar="ENDING",
            nargs="?",
            const=endings[0],
            choices=endings,
            help=f"{', '.join(endings)} ({endings[0]})",
        )
    out.add_argument(
        "--anyway", action="store_true", help="measure cartilage although an alignment is not accepted, and mark it"
    )
    out.add_argument(
        "--contrast", choices=("moving", "fixed"), default="moving", help="the scan with contrast agent (%(default)s)"
    )
    add_scans(parser.add_argument_group("about the scans whose list says nothing else"))
    add_how(parser.add_argument_group("how to align"), one=False)
    return parser


def run(options) -> int:
    """Aligns the pairs of a cohort: 0 where all are accepted and all that was asked for was measured, else 1."""
    values = vars(options)
    asked = {name: values[name] for name in ENDINGS if values[name] is not None}
    about = {
        f"{role}_{name}": values[f"{role}_{name}"]
        for role in ROLES
        for name in ABOUT_SCAN
        if values[f"{role}_{name}"] is not None
    }
    chosen = CohortOptions(
        outputs=usual_outputs() | asked,
        scans=about,
        contrast=options.contrast,
        anyway=options.anyway,
        weights=options.weights,
        bone=options.bone,
        check=options.check,
        spacing=options.working_spacing,
        device=options.device,
        hypotheses=options.hypotheses,
        refine=options.refine,
        loops=not options.no_loops,
        threads=options.threads,
    )
    from ..core.progress import Progress, say

    if options.dry_run:
        from ..cohort.run import find_pairs
        from ..cohort.survey import survey, table

        with Progress(options.verbose) as progress:
            pairs = find_pairs(options.scans, options.pattern, options.words)
            found = survey(pairs, chosen, progress, masks=True)
        remedies = {number: option_of(setting, values) or "" for number, setting in found.settings.items()}
        say(table(found, remedies))
        return 1 if found.problems else 0
    if options.output is None:
        raise OptionError("there is no folder for the results", "give one", Setting("output"))
    from ..cohort.run import State, align_cohort
    from ..cohort.survey import Survey, shown
    from ..cohort.tables import CARTILAGE, DICTIONARY, PAGE, RECORD, TABLE

    with Progress(options.verbose) as progress:

        def tell(state: State) -> None:
            progress.tell(state.line)

        def surveyed(found: Survey) -> None:
            if found.dropped:
                names = ", ".join(map(option_name, found.dropped))
                progress.tell(f"of the run before, not asked for now and removed: {names}; name all to keep them")
            tried = {pair.name for pair in found.pairs if pair.blocked is None}
            doubtful = [one for one in found.problems if one.pair in tried]
            for one, remedy in zip(doubtful, told_once(doubtful), strict=True):
                progress.tell(shown(f"{one.pair}: {one.problem}{f'; {remedy}' if remedy else ''}"))

        result = align_cohort(
            options.scans,
            options.output,
            chosen,
            pattern=options.pattern,
            words=options.words,
            jobs=options.jobs,
            dask=options.dask,
            progress=progress,
            tell=tell,
            surveyed=surveyed,
            command=spell(*sys.argv[1:]) if sys.argv[1:2] == ["cohort"] else "",
        )
    counts = ", ".join(f"{count} {status}" for status, count in result.counts.items())
    say(f"{counted(len(result.pairs), 'pair')}: {counts}")
    if result.unmeasured:
        names = shown(", ".join(pair.name for pair in result.unmeasured))
        many = counted(len(result.unmeasured), "pair")
        say(f"{'cartilage':<17} could not be measured in {many}: {names}; warnings in {TABLE} say why")
    if result.closing:
        lost = sum(pair.status != "accepted" for pair in result.closing)
        open_ones = f"; {lost} not accepted, which measure nothing" if lost else ""
        say(f"{counted(len(result.closing), 'alignment')} to close loops{open_ones}")
        for pair in filter(looked_at, result.closing):
            told = [*([] if pair.status == "accepted" else [pair.verdict]), *pair.warnings]
            say(f"{'to close loops':<17} {shown(pair.name)}: {shown(' '.join(told) or pair.verdict)}")
    loose = [problem for problem in result.problems if not problem.pair]
    for problem, remedy in zip(loose, told_once(loose), strict=True):
        say(f"{'left out':<17} {problem.problem}; {remedy}")
    for name in (PAGE, TABLE, CARTILAGE, DICTIONARY, RECORD):
        if (path := Path(options.output) / name).is_file():
            say(f"{'written':<17} {path}")
    if "before" not in chosen.outputs:
        say(f"No pictures were drawn, for that install matplotlib and Pillow: {how_to_install()}")
    return 0 if result.accepted and not result.unmeasured else 1


def _two_words(text: str) -> tuple[str, str]:
    words = [word.strip() for word in text.split(",")]
    if len(words) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not two words, as in pre,post")
    return words[0], words[1]
