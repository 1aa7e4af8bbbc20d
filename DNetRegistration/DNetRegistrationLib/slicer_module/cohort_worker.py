"""Works on a cohort for the panel, in a process of its own: ``... cohort_worker check|align SCANS RESULTS``.

It does what the command ``cohort`` does with ``--dry-run`` and without, so that either goes on where the other stopped.
Events (see `events`) go to the standard output, everything else to the standard error. What came of the pairs lies in
the folder of results.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from ..bone.scan_file import ABOUT_SCAN
from ..core.threads import let_threads_sleep
from .events import ERROR, FOUND, PROGRESS, error_values, to_line


def check(scans: str, results: str, tell: Callable[..., None]) -> None:
    """Tells the pairs and all problems of their scans, by headers alone.

    Raises:
        DNetError: there are no scans.
    """
    from ..cohort.run import find_pairs
    from ..cohort.survey import rows, survey

    found = survey(
        find_pairs(scans),
        progress=lambda fraction, message: tell(PROGRESS, fraction=fraction, message=message),
        masks=True,
    )
    columns = {
        number: f"in a list: the column {setting.scan}_{setting.quantity}"
        for number, setting in found.settings.items()
        if setting.quantity in ABOUT_SCAN and setting.scan
    }
    tell(FOUND, rows=rows(found, columns))


def align(scans: str, results: str, tell: Callable[..., None]) -> None:
    """Aligns all pairs, and writes the tables and the page.

    Raises:
        DNetError: the scans or the folder of results cannot be used.
    """
    from ..cohort.run import State, align_cohort

    last = ""

    def progress(fraction: float, message: str) -> None:
        tell(PROGRESS, fraction=fraction, message=last or message)

    def done(state: State) -> None:
        nonlocal last
        last = state.line

    align_cohort(scans, results, progress=progress, tell=done)


def main(what: str, scans: str, results: str) -> int:
    """Does the work, and tells of it; returns 0, or 2 where it could not be done."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print is no event

    def tell(event: str, **values) -> None:
        print(to_line(event, **values), file=stream, flush=True)

    let_threads_sleep()
    try:
        {"check": check, "align": align}[what](scans, results, tell)
    except Exception as error:
        traceback.print_exc()
        tell(ERROR, **error_values(error))
        return 2
    return 0


if __name__ == "__main__":  # the processes that align import this file too
    sys.exit(main(*sys.argv[1:]))
