"""The comparison in words and numbers: Markdown to read, CSV to go on with; and where this project is not the best."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metrics import SUCCESS_UM
from ..statistics import Rate
from .methods import FULL, METHODS, PEERS
from .pairs import BINS
from .results import Compared, Comparison, bin_name, median, most, success_rate

#: How many times faster than ANTs' search the full pipeline has to be.
TIMES_FASTER = 20.0


@dataclass(frozen=True)
class Requirement:
    """What is asked of the full pipeline; `holds` is None where it was not measured."""

    what: str
    measured: str
    holds: bool | None


def requirements(comparison: Comparison) -> list[Requirement]:
    """Highest success rate and lowest target error of all peers, and faster than ANTs.

    Each is judged over the full range of angles, on those pairs that both were run on; the highest rate may be shared.
    """
    peers = [peer for peer in PEERS if comparison.both(FULL, peer)[0]]
    success, error = [], []
    for peer in peers:
        ours, theirs = comparison.both(FULL, peer)
        counts = [sum(result.success for result in results) for results in (ours, theirs)]
        success.append(
            (f"{METHODS[peer].title} {counts[1]} against {counts[0]} of {len(ours)}", counts[0] >= counts[1])
        )
        errors = [median(result.error_um for result in results) for results in (ours, theirs)]
        error.append((f"{METHODS[peer].title} {_um(errors[1])} against {_um(errors[0])}", errors[0] < errors[1]))
    ours, theirs = comparison.both(FULL, "ants")
    times = median(r.seconds for r in theirs) / median(r.seconds for r in ours) if ours else math.nan
    return [
        _all("the highest success rate of all peers, all angles", success),
        _all("the lowest median target error of all peers, um", error),
        Requirement(
            f"at least {TIMES_FASTER:g} times faster than ANTs' search",
            "not measured" if math.isnan(times) else f"{times:.0f} times ({_count(len(ours), 'pair')})",
            None if math.isnan(times) else times >= TIMES_FASTER,
        ),
    ]


def _all(what: str, each: Sequence[tuple[str, bool]]) -> Requirement:
    if not each:
        return Requirement(what, "no peer was run", None)
    return Requirement(what, "; ".join(text for text, _ in each), all(holds for _, holds in each))


def better_than_full(comparison: Comparison) -> list[str]:
    """A sentence for everything at which another method was better than this project's full pipeline.

    Each is judged on the pairs that both were run on.
    """
    found = []
    for method in comparison.methods():
        if method != FULL:
            found += [f"{METHODS[method].title}: {text}" for text in _better(comparison, method)]
    return found


def _better(comparison: Comparison, method: str) -> list[str]:
    ours, theirs = comparison.both(FULL, method)
    found = []

    def compare(
        what: str, form: str, unit: str, of: Callable[[list[Compared]], float], mine, yours, more=False
    ) -> None:
        first, second = of(mine), of(yours)
        # What looks the same as it is written is no better.
        if (second > first if more else second < first) and form.format(second) != form.format(first):
            found.append(
                f"{what}, {form.format(second)}{unit} against {form.format(first)}{unit} ({_count(len(mine), 'pair')})"
            )

    def aligned(results: list[Compared]) -> float:
        return sum(result.success for result in results)

    if ours:
        compare("more pairs aligned", "{:d}", "", aligned, ours, theirs, more=True)
        for bin in range(len(BINS) - 1):
            within = [[r for r in results if r.bin == bin] for results in (ours, theirs)]
            compare(f"more pairs aligned at {bin_name(bin)} degrees", "{:d}", "", aligned, *within, more=True)
        compare("a lower median error", "{:.2f}", " um", lambda rs: median(r.error_um for r in rs), ours, theirs)
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.success and b.success]
        if pairs:
            both = [list(results) for results in zip(*pairs, strict=True)]
            what = "a lower median error where both aligned"
            compare(what, "{:.2f}", " um", lambda rs: median(r.error_um for r in rs), *both)
        what = "fewer errors that nothing tells of"
        compare(what, "{:d}", "", lambda rs: sum(r.unnoticed for r in rs), ours, theirs)
        ends = f"faster, with {aligned(theirs):d} aligned against {aligned(ours):d}"
        compare(ends, "{:.2f}", " s", lambda rs: median(r.seconds for r in rs), ours, theirs)
        compare("less memory", "{:.2f}", " GB", lambda rs: most(r.peak_gb for r in rs), ours, theirs)
    for size in comparison.sizes():
        mine, yours = comparison.at(FULL, size), comparison.at(method, size)
        if mine is None or yours is None:
            continue
        ends = "" if yours.success else ", but it did not align that pair"
        for what, form, unit, name in (
            ("a lower error", "{:.2f}", "um", "error_um"),
            ("faster", "{:.2f}", "s", "seconds"),
            ("less memory", "{:.2f}", "GB", "peak_gb"),
        ):
            first, second = getattr(mine, name), getattr(yours, name)
            # What fails at once is not fast.
            if yours.failure or not (second < first or mine.late):
                continue
            ours = f"a failure ({mine.failure})" if mine.failure else f"{form.format(first)} {unit}"
            found.append(f"{what} at {size}^3, {form.format(second)} {unit} against {ours}{ends}")
    return found


def markdown(comparison: Comparison, about: Iterable[str]) -> str:
    """The whole comparison, as one text to read.

    Args:
        about: sentences on what was measured, how and on what.
    """
    methods = comparison.methods()
    parts = ["# This project beside its peers", "", *(f"- {sentence}" for sentence in about), ""]
    if comparison.turns:
        parts += [f"## Success: a mean error over the bone below {SUCCESS_UM:g} um, by rotation angle", ""]
        bins = range(len(BINS) - 1)
        head = ["method", "all angles [95 %]", "aligned", *(f"{bin_name(bin)}°" for bin in bins)]
        parts += _table(head, [[METHODS[m].title, *_success_cells(comparison, m)] for m in methods if comparison.of(m)])
        parts += ["", "In brackets the 95 % interval of the rate in %, of each bin after how many of how many.", ""]
        parts += ["## Error, time and memory", ""]
        head = ["method", "error, median (um)", "of those aligned (um)", "their rotation error (degrees)", "time (s)",
                "longest (s)", "peak memory (GB)", "before aligning (GB)", "wrong, and nothing tells"]  # fmt: skip
        parts += _table(head, [[METHODS[m].title, *_cost_cells(comparison.of(m))] for m in methods if comparison.of(m)])
        parts += ["", "Before aligning a process holds its libraries and both scans; peak memory counts them.", ""]
    if comparison.growth:
        sizes = comparison.sizes()
        parts += ["## Cost as the volume grows", ""]
        rows = [[METHODS[m].title, *(_growth_cell(comparison, m, size) for size in sizes)] for m in methods]
        parts += [*_table(["method", *(f"{size}^3" for size in sizes)], rows), ""]
    parts += ["## What is asked of this project", ""]
    marks = {True: "yes", False: "NO", None: "not measured"}
    rows = [[r.what, r.measured, marks[r.holds]] for r in requirements(comparison)]
    parts += [*_table(["required", "measured", "holds"], rows), ""]
    parts += ["## Where another method is better than this project", ""]
    better = better_than_full(comparison)
    parts += [f"- {sentence}" for sentence in better] or ["Nowhere in what was measured."]
    failures = _failures(comparison)
    if failures:
        parts += ["", "## Errors", "", *(f"- {text}" for text in failures)]
    if comparison.skipped:
        parts += ["", "## Not run", ""]
        parts += [f"- {METHODS[method].title}: {why}" for method, why in comparison.skipped.items()]
    return "\n".join(parts)


def _success_cells(comparison: Comparison, method: str) -> list[str]:
    total = success_rate(comparison.of(method))
    cells = [str(total), f"{total.count} of {total.total}"]
    for bin in range(len(BINS) - 1):
        one = success_rate(comparison.of(method, bin))
        interval = f" [{100 * one.low:.0f}, {100 * one.high:.0f}]"
        cells.append(f"{one.count}/{one.total}{interval}" if one.total else "-")
    return cells


def _cost_cells(results: list[Compared]) -> list[str]:
    good = [result for result in results if result.success]
    return [
        _um(median(r.error_um for r in results)),
        _um(median(r.error_um for r in good)),
        _number(median(r.rotation_error_deg for r in good), ".3f"),
        _number(median(r.seconds for r in results), ".2f"),
        _number(most(r.seconds for r in results), ".2f"),
        _number(most(r.peak_gb for r in results), ".2f"),
        _number(median(r.before_gb for r in results), ".2f"),
        f"{sum(r.unnoticed for r in results)} of {len(results)}",
    ]


def _growth_cell(comparison: Comparison, method: str, size: int) -> str:
    result = comparison.at(method, size)
    if result is None:
        late = [r.size for r in comparison.growth if r.method == method and r.late and r.size < size]
        return f"not tried after {min(late)}^3" if late else "-"
    if result.late:
        return f"over the limit of {result.limit_s:g} s"
    if result.failure:
        return "failed"
    error = _um(result.error_um) if result.success else "not aligned"
    return f"{result.seconds:.1f} s, {_number(result.peak_gb, '.2f')} GB, {error}{' um' if result.success else ''}"


def _failures(comparison: Comparison) -> list[str]:
    """What went wrong how often, by method."""
    counts: dict[tuple[str, str], int] = {}
    for result in (*comparison.turns, *comparison.growth):
        if result.failure:
            # The same error names other addresses and numbers each time; its beginning tells it from others.
            known = next((k for k in counts if k[0] == result.method and k[1][:40] == result.failure[:40]), None)
            key = known or (result.method, result.failure)
            counts[key] = counts.get(key, 0) + 1
    return [f"{METHODS[method].title}, {_count(count, 'time')}: {text}" for (method, text), count in counts.items()]


def _um(value: float) -> str:
    """Micrometres, as many digits as they deserve."""
    return _number(value, ".2f" if value < 100 else ".0f")


def _number(value: float, form: str) -> str:
    if math.isnan(value):
        return "-"
    return "no result" if math.isinf(value) else format(value, form)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown, aligned for reading as they stand."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]


def write_csv(comparison: Comparison, path: Path) -> None:
    """The same numbers, a line for each method and bin of angles ("all" is all of them) or growing volume."""
    lines = []
    for method in comparison.methods():
        groups = [("angle", "all", comparison.of(method))]
        groups += [("angle", bin_name(bin), comparison.of(method, bin)) for bin in range(len(BINS) - 1)]
        groups += [("size", str(r.size), [r]) for r in comparison.growth if r.method == method]
        lines += [_line(method, what, which, results) for what, which, results in groups if results]
    names = list(lines[0]) if lines else ["method"]
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(lines)


def _line(method: str, what: str, which: str, results: list[Compared]) -> dict[str, Any]:
    good = [result for result in results if result.success]
    total: Rate = success_rate(results)
    numbers = {
        "success": total.share,
        "success_low": total.low,
        "success_high": total.high,
        "median_error_um": median(r.error_um for r in results),
        "median_error_um_of_aligned": median(r.error_um for r in good),
        "median_rotation_error_deg_of_aligned": median(r.rotation_error_deg for r in good),
        "median_seconds": median(r.seconds for r in results),
        "most_seconds": most(r.seconds for r in results),
        "peak_gb": most(r.peak_gb for r in results),
        "before_gb": median(r.before_gb for r in results),
    }
    return {
        "method": method,
        "title": METHODS[method].title,
        "version": results[0].version,
        "group": what,
        "value": which,
        "pairs": total.total,
        "aligned": total.count,
        **{name: f"{value:.6g}" for name, value in numbers.items()},
        "wrong_unnoticed": sum(r.unnoticed for r in results),
        "errors": sum(bool(r.failure) for r in results),
        "over_limit": sum(r.late for r in results),
    }
