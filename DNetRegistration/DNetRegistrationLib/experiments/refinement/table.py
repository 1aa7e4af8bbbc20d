"""The contest as tables: per kind of pair the error and bias of each method, beside the bound; and what is required."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas
from scipy.stats import bootstrap, wilcoxon

from ..methods import REFINE
from ..statistics import median
from ..tables import Finding, findings_table, frame, markdown, number, text_table
from .kinds import KINDS
from .results import BOUND, CONTESTANTS, ORACLE, START, RefinementResult

#: The median error is to be at most so many times the bound where that is above a value, else so much above it; um.
TIMES_BOUND, SMALL_UM, ABOVE_UM = 1.3, 0.02, 0.05
#: With contrast agent, the mean error along the axis is to be below this share of the median error.
BIAS_SHARE = 0.25


_NO_PEERS = (REFINE, ORACLE, BOUND, START)
_NOTES = (
    "Errors are medians of the target registration error in um, in brackets their 95 % interval (bootstrap). *Bias* is "
    "the mean error along the bone's axis, positive toward the plateau. *Bound* is the least median error that noise "
    "allows (Cramer-Rao, an unknown gain, voxels that contrast agent changed left out); *ratio* is the error over it. "
    "*p* is of Wilcoxon's signed-rank test against this project, on the same pairs. The start is off by a voxel and "
    "two degrees; the *proposal* is this project's own, tried on fewer pairs."
)


@dataclass(frozen=True)
class Contest:
    """Results that belong together, and why methods were not run, by their keys."""

    results: Sequence[RefinementResult]
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row for each result."""
        return frame(RefinementResult, self.results)

    @property
    def holds(self) -> bool:
        """Whether all that was measured is as required."""
        return all(finding.holds is not False for finding in self.findings())

    def findings(self) -> list[Finding]:
        """What is required of this project, kind by kind, from starts near the truth."""
        return [
            finding
            for kind in KINDS
            for finding in _findings(kind, self.table[(self.table.kind == kind) & (self.table.start == "near")])
        ]

    def report(self) -> str:
        """The whole contest as Markdown."""
        parts = ["# Refinement: this project, its peers, and the least error possible", "", _NOTES, ""]
        for kind in KINDS:
            o = self.table[self.table.kind == kind]
            if len(o):
                parts += [f"## {kind}", "", markdown(_kind_table(o)), ""]
        parts += ["## What is asked of this project", "", markdown(findings_table(self.findings()))]
        failed = self.table[self.table.failure != ""]
        if len(failed):
            kinds = failed.groupby(["method", failed.failure.str[:60]], sort=False).size()
            rows = [(_title(method), str(times), text) for (method, text), times in kinds.items()]
            parts += ["", "## Errors", "", markdown(text_table(("method", "times", "error"), rows))]
        if self.skipped:
            rows = [(CONTESTANTS[key].title, why) for key, why in self.skipped.items()]
            parts += ["", "## Not run", "", markdown(text_table(("method", "why"), rows))]
        return "\n".join(parts)


def _findings(kind: str, o: pandas.DataFrame) -> list[Finding]:
    """Of one kind, by the results from starts near the truth."""
    ours = o[o.method == REFINE]
    if ours.empty:
        return []
    error, bound = median(ours.error_um), median(o[o.method == BOUND].error_um)
    found = []
    peers = {key: _on_common(ours, one) for key, one in o[~o.method.isin(_NO_PEERS)].groupby("method")}
    if peers:
        hardest = max(peers, key=lambda key: peers[key][0] / peers[key][1])
        own, least = peers[hardest]
        required = f"below {number(least)} um ({_title(hardest)})"
        found.append(Finding(f"{kind}: median error", f"{number(own)} um", required, bool(own < least)))
    most = TIMES_BOUND * bound if bound > SMALL_UM else bound + ABOVE_UM
    what = f"{kind}: median error against the bound"
    found.append(Finding(what, f"{number(error)} um", f"at most {number(most)} um", bool(error <= most)))
    if KINDS[kind].contrast:
        bias, limit = float(ours.bias_um.mean()), BIAS_SHARE * error
        held = bool(abs(bias) < limit)
        found.append(Finding(f"{kind}: bias", f"{bias:+.2f} um", f"within {number(limit)} um", held))
    return found


def _on_common(ours: pandas.DataFrame, theirs: pandas.DataFrame) -> tuple[float, float]:
    """The median errors of two methods on the pairs that both were run on."""
    both = set(ours.seed) & set(theirs.seed)
    return tuple(median(one[one.seed.isin(both)].error_um) for one in (ours, theirs))


def _kind_table(o: pandas.DataFrame) -> pandas.DataFrame:
    near, proposal = o[o.start == "near"], o[o.start == "proposal"]
    bound = median(near[near.method == BOUND].error_um)
    ours = near[near.method == REFINE].set_index("seed").error_um
    rows = []
    for key in (START, *CONTESTANTS, BOUND):
        one, other = near[near.method == key], proposal[proposal.method == key]
        if one.empty:
            continue
        error = median(one.error_um)
        ratio = "" if key in (START, BOUND) else number(error / bound, ".1f")
        rows.append(
            (
                _title(key),
                str(len(one)),
                f"{_digits(error)}{_interval(one.error_um)}",
                _signed(one.bias_um),
                ratio,
                "" if key in (START, REFINE, BOUND) else _p(ours, one.set_index("seed").error_um),
                _digits(median(other.error_um)),
                _signed(other.bias_um),
                number(median(one.seconds), ".1f"),
            )
        )
    columns = ("method", "pairs", "error", "bias", "ratio", "p", "from proposal", "its bias", "time (s)")
    return text_table(columns, rows)


def _title(key: str) -> str:
    return {BOUND: "Cramer-Rao bound", START: "the start"}.get(key) or CONTESTANTS[key].title


def _digits(value: float) -> str:
    return number(value, ".3f" if value < 1 else ".2f" if value < 100 else ".0f")


def _signed(values: pandas.Series) -> str:
    values = values[np.isfinite(values)]
    return f"{values.mean():+.2f}" if len(values) else ""


def _interval(errors: pandas.Series) -> str:
    """The 95 % interval of the median by bootstrap; nothing where there are too few pairs or they are equal."""
    values = errors.to_numpy(float)
    if len(values) < 3 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return ""
    found = bootstrap((values,), np.median, method="percentile", random_state=0).confidence_interval
    return f" [{_digits(found.low)}, {_digits(found.high)}]"


def _p(ours: pandas.Series, theirs: pandas.Series) -> str:
    """Of Wilcoxon's signed-rank test on the pairs that both ended on."""
    common = ours.index.intersection(theirs.index)
    difference = (theirs.loc[common] - ours.loc[common]).to_numpy(float)
    difference = difference[np.isfinite(difference)]
    if len(difference) < 3 or not difference.any():
        return ""
    with warnings.catch_warnings():
        # Exact p values do not exist with ties.
        warnings.simplefilter("ignore")
        p = float(wilcoxon(difference).pvalue)
    return "" if math.isnan(p) else f"{p:.2g}"
