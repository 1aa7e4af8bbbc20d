"""Whether answers are what they are said to be: none accepted that is wrong, and errors below what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..statistics import median
from ..tables import Finding
from .limits import at_most, count, enough, few, many

if TYPE_CHECKING:
    import pandas

#: Doubts of an accepted answer that name why it may be wrong, by the kind of pair. An answer of which one of them is
#: told counts as named. Where no answer is right, only that the bone may be another animal's names it.
NAMING: dict[str, tuple[str, ...]] = {
    "metal": ("metal",),
    "strain": ("strain",),
    "shear": ("strain",),
    "missing": ("strain", "slices", "other bone"),
    "doubled": ("strain", "slices", "other bone"),
    "two bones": ("other bone", "part"),
    "littermate crop": ("identity",),
    "slender relative": ("identity",),
}
#: The true error is to be below so many times the expected one, in so many of the accepted answers that are right.
_FACTOR, _COVERED = 2.0, 0.95
# A refusal takes at most so many times as long as an acceptance.
_SLOWER = 4.0
# The table names so many of the pairs that went wrong.
_SHOWN = 12


def coverage(o: pandas.DataFrame, what: str) -> list[Finding]:
    """Whether the expected error covers the true one, of accepted answers that are right."""
    good = o[o.accepted & o.right]
    if good.empty:
        return [] if o.empty else [enough(f"accepted answers that are right, {what}", 0, 1)]
    ratio = good.error_um / good.expected_error_um
    low, middle, high = np.percentile(ratio, (10, 50, 90))
    return [
        many(f"true error below {_FACTOR:g} times the expected one, {what}", ratio < _FACTOR, _COVERED),
        Finding("  true over expected error", f"median {middle:.2f}, 80 % within {low:.2f} to {high:.2f}"),
    ]


def adversarial(o: pandas.DataFrame) -> list[Finding]:
    """Pairs that invite a wrong answer: none is accepted unnamed, few right ones are refused."""
    if o.empty:
        return []
    wrong = o.accepted & ~o.right
    named = wrong & np.array([_named(row) for row in o.itertuples()], bool)
    unnamed = wrong & ~named
    due = o[o.answerable & (o.right | (o.failure != ""))]
    found = [at_most("adversarial pairs accepted though wrong", _listed(o, unnamed), unnamed.sum(), 0)]
    found.append(Finding("  wrong, and named by a warning", count(named)))
    if len(due):
        found.append(few("  right answers refused", ~due.accepted, 0.03))
    if len(due):
        found += [_indented(finding) for finding in coverage(due, "adversarial pairs")]
    times = [median(o.seconds_total[(o.failure == "") & (o.accepted == accepted)]) for accepted in (False, True)]
    if np.isfinite(times).all():
        refusal, acceptance = times
        measured = f"{refusal:.2f} s against {acceptance:.2f} s"
        found.append(at_most("  time of a refusal", measured, refusal / acceptance, _SLOWER, " times an acceptance's"))
    failed = o.failure != ""
    if failed.any():
        found.append(Finding("  ended with an error", count(failed)))
    return [*found, *(_of_kind(kind, rows, unnamed[rows.index]) for kind, rows in o.groupby("kind", sort=False))]


def _named(outcome) -> bool:
    """Whether a doubt of an accepted answer that is wrong says what is wrong with it."""
    told = set(outcome.doubts.split("; ")) & set(NAMING.get(outcome.kind, ()))
    # "It holds for one bone" is true of one of them at least.
    return bool(told) and (outcome.kind != "two bones" or min(outcome.errors_um) < outcome.voxel_um)


def _listed(o: pandas.DataFrame, chosen: pandas.Series) -> str:
    names = [f"{row.kind} {row.seed}" for row in o[chosen].itertuples()]
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return count(chosen) + (f": {shown}" if names else "")


def _of_kind(kind: str, o: pandas.DataFrame, unnamed: pandas.Series) -> Finding:
    due, good = o[o.answerable & (o.right | (o.failure != ""))], o[o.accepted & o.right]
    parts = [f"{len(o)} pairs, {int(o.accepted.sum())} accepted, {int(unnamed.sum())} of these wrong"]
    if len(due):
        parts.append(f"{int((~due.accepted).sum())} of {len(due)} right ones refused")
    if len(good):
        covered = good.error_um < _FACTOR * good.expected_error_um
        parts.append(f"expected error covers {int(covered.sum())} of {len(good)}")
    return Finding(f"  {kind}", ", ".join(parts))


def _indented(finding: Finding) -> Finding:
    return Finding(f"  {finding.what}", finding.measured, finding.required, finding.holds)
