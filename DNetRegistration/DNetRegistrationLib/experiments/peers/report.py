"""A comparison as tables: Markdown to read, CSV to go on with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas

from ..methods import FULL, METHODS, PEERS
from ..metrics import SUCCESS_UM
from ..statistics import largest, median, rate
from ..tables import Finding, findings_table, markdown, number, text_table
from .pairs import BIN_NAMES, FEW
from .results import MethodResult, PeerResults

#: How many times as fast as ANTs' search the full pipeline has to be.
TIMES_FASTER = 20.0


def numbers(found: PeerResults) -> pandas.DataFrame:
    """A row for each method and each bin of angles ("all" is all of them) and growing volume."""
    rows = []
    for key in METHODS:
        of = found.table[found.table.method == key]
        angle, size = (of[of.group == group] for group in ("angle", "size"))
        parts = [("angle", "all", angle)]
        parts += [("angle", name, angle[angle.angle_bin == k]) for k, name in enumerate(BIN_NAMES)]
        parts += [("size", str(volume), size[size["size"] == volume]) for volume in size["size"]]
        rows += [_summary(key, group, value, o) for group, value, o in parts if len(o)]
    return pandas.DataFrame.from_records(rows)


def _summary(method: str, group: str, value: str, o: pandas.DataFrame) -> dict[str, Any]:
    good, share = o[o.success], rate(o.success)
    return {
        "method": method,
        "title": METHODS[method].title,
        "version": o.version.iloc[0],
        "group": group,
        "value": value,
        "pairs": share.total,
        "aligned": share.count,
        "success": share.share,
        "success_low": share.low,
        "success_high": share.high,
        "median_error_um": median(o.error_um),
        "median_error_um_of_aligned": median(good.error_um),
        "median_rotation_error_deg_of_aligned": median(good.rotation_error_deg),
        "median_seconds": median(o.seconds),
        "most_seconds": largest(o.seconds),
        "peak_gb": largest(o.peak_gb),
        "before_gb": median(o.before_gb),
        "wrong_unnoticed": _unnoticed(o),
        "errors": int((o.failure != "").sum()),
        "over_limit": int(o.late.sum()),
    }


def requirements(found: PeerResults) -> list[Finding]:
    """Whether the full pipeline has the highest success rate and the lowest error of all peers, and how fast it is.

    Each is judged over the full range of angles, on those pairs that both were run on. The highest rate may be shared.
    """
    success, error = [], []
    for peer in PEERS:
        ours, theirs = found.both(FULL, peer)
        if ours.empty:
            continue
        counts, errors = ([of(o) for o in (ours, theirs)] for of in (_aligned, _error))
        title = METHODS[peer].title
        success.append((f"{title} {counts[1]} against {counts[0]} of {len(ours)}", counts[0] >= counts[1]))
        error.append((f"{title} {_digits(errors[1])} against {_digits(errors[0])}", errors[0] < errors[1]))
    ours, theirs = found.both(FULL, "ants")
    times = median(theirs.seconds) / median(ours.seconds) if len(ours) else math.nan
    measured = "not measured" if math.isnan(times) else f"{times:.0f} ({len(ours)} pairs)"
    holds = None if math.isnan(times) else times >= TIMES_FASTER
    return [
        _all("pairs aligned, all angles", "no peer more", success),
        _all("median target error, um", "every peer more", error),
        Finding("times as fast as ANTs' search", measured, f"at least {TIMES_FASTER:g}", holds),
    ]


def _all(what: str, required: str, each: Sequence[tuple[str, bool]]) -> Finding:
    if not each:
        return Finding(what, "no peer was run", required)
    return Finding(what, "; ".join(text for text, _ in each), required, all(holds for _, holds in each))


def _aligned(o: pandas.DataFrame) -> int:
    return int(o.success.sum())


def _error(o: pandas.DataFrame) -> float:
    return median(o.error_um)


def _unnoticed(o: pandas.DataFrame) -> int:
    return int(o.unnoticed.sum())


def against_full(found: PeerResults) -> pandas.DataFrame:
    """Every other method beside the full pipeline, on those pairs that both were run on; what is better is bold."""
    rows = []
    for method in found.methods("angle"):
        ours, theirs = found.both(FULL, method)
        if method == FULL or ours.empty:
            continue
        both = ours.success & theirs.success
        rows.append(
            (
                METHODS[method].title,
                str(len(ours)),
                _against(_aligned(theirs) > _aligned(ours), str(_aligned(theirs)), str(_aligned(ours))),
                _less(_error(theirs), _error(ours)),
                _less(_error(theirs[both]), _error(ours[both])),
                _less(median(theirs.seconds), median(ours.seconds)),
                _less(largest(theirs.peak_gb), largest(ours.peak_gb)),
                _against(_unnoticed(theirs) < _unnoticed(ours), str(_unnoticed(theirs)), str(_unnoticed(ours))),
            )
        )
    names = ("method", "pairs", "aligned", "error (um)", "error where both aligned (um)", "time (s)",
             "peak memory (GB)", "wrong without a warning")  # fmt: skip
    return text_table(names, rows)


def _against(better: bool, theirs: str, ours: str) -> str:
    # What looks the same as it is written is no better.
    return f"{f'**{theirs}**' if better and theirs != ours else theirs} against {ours}"


def _less(theirs: float, ours: float) -> str:
    return _against(theirs < ours, _digits(theirs), _digits(ours))


def report(found: PeerResults, about: Iterable[str]) -> str:
    """The whole comparison as Markdown.

    Args:
        found: the results.
        about: what was measured, how and on what, a line each.
    """
    table = numbers(found)
    parts = ["# This project beside its peers", "", *(f"- {line}" for line in about), ""]
    if found.turned:
        title = f"## Success: a mean error over the bone below {SUCCESS_UM:g} um, by rotation angle"
        note = "In brackets the 95 % interval of the rate in %; of each bin after how many of how many."
        if empty := [f"{name}°" for name in BIN_NAMES if name not in _bins(table)]:
            note += f" No pair was turned by {', '.join(empty)}."
        if (count := len({result.pair for result in found.turned})) < FEW:
            note += f" Fewer than {FEW} pairs, here {count}, tell no methods apart: this is a trial of the program."
        parts += [title, "", markdown(_success_table(table)), "", note, ""]
        note = "Before aligning a process holds its libraries and both scans; peak memory counts them."
        parts += ["## Error, time and memory", "", markdown(_cost_table(table)), "", note, ""]
        note = "On the pairs that both were run on; what is better than this project is bold."
        parts += ["## Each method against this project", "", markdown(against_full(found)), "", note, ""]
    if found.growing:
        parts += ["## Cost as the volume grows", "", markdown(_growth_table(found)), ""]
    parts += ["## What is asked of this project", "", markdown(findings_table(requirements(found)))]
    failed = found.table[found.table.failure != ""]
    if len(failed):
        parts += ["", "## Errors", "", markdown(_failure_table(failed))]
    if found.skipped:
        rows = [(METHODS[method].title, why) for method, why in found.skipped.items()]
        parts += ["", "## Not run", "", markdown(text_table(("method", "why"), rows))]
    return "\n".join(parts)


def _success_table(table: pandas.DataFrame) -> pandas.DataFrame:
    rows, measured = [], _bins(table)
    for title, o in table[table.group == "angle"].groupby("title", sort=False):
        cells = dict(zip(o.value, o.itertuples(), strict=True))
        total = cells["all"]
        interval = f"{100 * total.success:.1f} % [{100 * total.success_low:.1f}, {100 * total.success_high:.1f}]"
        row = [title, interval, f"{total.aligned} of {total.pairs}"]
        for name in measured:
            one = cells.get(name)
            row.append("-" if one is None else f"{one.aligned}/{one.pairs} {_interval(one)}")
        rows.append(row)
    return text_table(["method", "all angles [95 %]", "aligned", *(f"{name}°" for name in measured)], rows)


def _bins(table: pandas.DataFrame) -> list[str]:
    """The bins of angles that hold a pair; few pairs leave some empty."""
    there = table[(table.group == "angle") & (table.pairs > 0)].value
    return [name for name in BIN_NAMES if name in set(there)]


def _interval(row: Any) -> str:
    return f"[{100 * row.success_low:.0f}, {100 * row.success_high:.0f}]"


def _cost_table(table: pandas.DataFrame) -> pandas.DataFrame:
    columns = {
        "error, median (um)": ("median_error_um", ""),
        "of those aligned (um)": ("median_error_um_of_aligned", ""),
        "their rotation error (degrees)": ("median_rotation_error_deg_of_aligned", ".3f"),
        "time (s)": ("median_seconds", ".2f"),
        "longest (s)": ("most_seconds", ".2f"),
        "peak memory (GB)": ("peak_gb", ".2f"),
        "before aligning (GB)": ("before_gb", ".2f"),
    }
    rows = []
    for o in table[(table.group == "angle") & (table.value == "all")].to_dict("records"):
        cells = [number(o[name], form) if form else _digits(o[name]) for name, form in columns.values()]
        rows.append((o["title"], *cells, f"{o['wrong_unnoticed']} of {o['pairs']}"))
    return text_table(("method", *columns, "wrong without a warning"), rows)


def _growth_table(found: PeerResults) -> pandas.DataFrame:
    sizes = sorted({result.size for result in found.growing})
    by_place = {(result.method, result.size): result for result in found.growing}
    rows = []
    for method in found.methods("size"):
        late = [size for size in sizes if (method, size) in by_place and by_place[method, size].late]
        cells = [
            _growth_cell(by_place[method, size]) if (method, size) in by_place
            else f"not tried after {late[0]}^3" if late and late[0] < size else "-"
            for size in sizes
        ]  # fmt: skip
        rows.append((METHODS[method].title, *cells))
    return text_table(("method", *(f"{size}^3" for size in sizes)), rows)


def _growth_cell(result: MethodResult) -> str:
    if result.late:
        return f"over the limit of {result.limit_s:g} s"
    if result.failure:
        return "failed"
    error = f"{_digits(result.error_um)} um" if result.success else "not aligned"
    return f"{result.seconds:.1f} s, {number(result.peak_gb, '.2f')} GB, {error}"


def _failure_table(failed: pandas.DataFrame) -> pandas.DataFrame:
    # The same error names other addresses and numbers each time; its beginning tells it from others.
    kinds = failed.groupby(["method", failed.failure.str[:40]], sort=False).failure.agg(["size", "first"])
    rows = [(METHODS[method].title, str(times), text) for (method, _), times, text in kinds.itertuples(name=None)]
    return text_table(("method", "times", "error"), rows)


def _digits(value: float) -> str:
    """Two digits after the point, none where the value is large."""
    return number(value, ".2f" if value < 100 else ".0f")
