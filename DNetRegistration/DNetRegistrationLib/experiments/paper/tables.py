"""Tables of results: Table 1 with the paper's own figures beside, a summary of everything, analyses of variance."""

from __future__ import annotations

import csv
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..statistics import Rate, Summary, rate, summarize
from .plan import GROUPS, METHODS, TESTS
from .results import CRITERIA, DSC, SECONDS, TARGET, TRUE_DSC, Criterion, Results
from .significance import LEVEL, VarianceAnalysis

TITLES = {"translation": "Transl", "rotation": "Rot", "real": "Real"}

# Table 1 of the paper: TE/um, RE/degrees, DSC/% in the translation and the rotation test, DSC/% in the real test.
_PAPER_ROWS = {
    ("sitk", ""): (710.5, 135.9, 12.98, 696.2, 119.6, 12.75, 16.91),
    ("me", "S1&S2"): (406.4, 82.7, 15.04, 575.4, 92.6, 14.54, 16.75),
    ("me", "S3&S4"): (395.1, 83.4, 14.94, 569.4, 95.1, 14.54, 15.16),
    ("se", "S1&S2"): (472.6, 89.8, 12.86, 692.4, 98.5, 12.22, 18.86),
    ("se", "S3&S4"): (472.5, 89.2, 13.42, 692.4, 98.0, 12.75, 17.23),
    ("sed", "S1&S2"): (124.3, 7.1, 52.28, 154.4, 7.4, 48.28, 43.66),
    ("sed", "S3&S4"): (132.7, 8.0, 51.08, 144.1, 8.1, 47.97, 42.52),
    ("snl-sed", "S1&S2"): (163.4, 9.3, 45.61, 201.5, 9.1, 40.88, 41.85),
    ("snl-sed", "S3&S4"): (146.2, 9.7, 47.69, 175.7, 9.5, 44.69, 39.26),
    ("dnet", "S1&S2"): (55.8, 3.2, 73.57, 65.3, 3.6, 69.83, 67.92),
    ("dnet", "S3&S4"): (77.7, 4.2, 66.44, 81.0, 4.5, 64.64, 61.68),
}
_PAPER_COLUMNS = [(test, criterion.name) for test in CRITERIA for criterion in CRITERIA[test]]
#: The paper's figure for (test, criterion, method, strategies; "" where nothing is trained).
PAPER = {
    (test, criterion, method, group): value
    for (method, group), row in _PAPER_ROWS.items()
    for (test, criterion), value in zip(_PAPER_COLUMNS, row, strict=True)
}


@dataclass(frozen=True)
class Line:
    """The summary of one criterion of a method in a test.

    Attributes:
        test: one of `TESTS`.
        criterion: what was measured.
        method: name of the method.
        strategies: "S1&S2", "S3&S4", or "" where nothing is trained and both say the same.
        label: for people: the strategies that there are results of.
        summary: of the values.
        success: share of pairs with a target error below one working voxel, of those whose truth is known.
        failures: how many pairs ended with an error.
        paper: the paper's mean, or None.
    """

    test: str
    criterion: Criterion
    method: str
    strategies: str
    label: str
    summary: Summary
    success: Rate
    failures: int
    paper: float | None


@dataclass(frozen=True)
class Grid:
    """A table to be shown: names of columns, and rows of text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Markdown, aligned for reading as it stands."""
        cells = [self.columns, *self.rows]
        cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in cells]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.columns))]
        cells.insert(1, tuple("-" * width for width in widths))
        return "\n".join(
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in cells
        )

    def html(self) -> str:
        """An HTML table; cells are text, whatever is in them."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "\n".join(row(cells, "td") for cells in self.rows)
        return f"<table>\n<thead>{row(self.columns, 'th')}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def summaries(results: Results) -> list[Line]:
    """Everything that can be summarized: criteria of Table 1, the true pose's Dice, target error and time."""
    lines = []
    for test in TESTS:
        for criterion in (*CRITERIA["rotation"], TRUE_DSC, TARGET, SECONDS):
            for method in results.methods():
                for group, strategies in _groups(method, results):
                    found = results.of(test, method, strategies)
                    summary = summarize(criterion.of(result) for result in found)
                    if not summary.count:
                        continue
                    known = [result.success for result in found if not math.isnan(result.target_um)]
                    paper = PAPER.get((test, criterion.name, method, group))
                    failures = sum(bool(result.failure) for result in found)
                    label = "&".join(strategies).replace("&S", "&") if group else "-"
                    lines.append(Line(test, criterion, method, group, label, summary, rate(known), failures, paper))
    return lines


def table_1(lines: Sequence[Line], trained: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Means as in the paper's Table 1, methods downwards, each with the paper's own figure in brackets."""
    by_place = {(line.method, line.strategies, line.test, line.criterion.name): line for line in lines}
    columns = [(test, criterion) for test in CRITERIA for criterion in CRITERIA[test]]
    rows = []
    for method, group in dict.fromkeys((line.method, line.strategies) for line in _in_order(lines)):
        label = next(line.label for line in lines if (line.method, line.strategies) == (method, group))
        row = [METHODS[method].label, _parameters(method, trained), label]
        for test, criterion in columns:
            line = by_place.get((method, group, test, criterion.name))
            row.append("-" if line is None else _with_paper(line))
        rows.append(tuple(row))
    truth = ["True pose", "-", "-"]
    for test, criterion in columns:
        of_test = [line for line in lines if line.test == test and line.criterion is TRUE_DSC]
        # The same pairs for all methods that have them all.
        most = max(of_test, key=lambda line: line.summary.count, default=None)
        truth.append(f"{most.summary.mean:.2f}" if criterion is DSC and most is not None else "-")
    names = [f"{TITLES[test]} {criterion.label}" for test, criterion in columns]
    return Grid(("Method", "Variables", "Strategies", *names), (*rows, tuple(truth)))


def summary_grid(lines: Sequence[Line], test: str) -> Grid:
    """Success rate, and mean, standard deviation and median of each criterion, in one test."""
    rows = []
    shown = (TARGET, *CRITERIA["rotation"])
    wanted = [line for line in _in_order(lines) if line.test == test]
    for method, group in dict.fromkeys((line.method, line.strategies) for line in wanted):
        of = {line.criterion: line for line in wanted if (line.method, line.strategies) == (method, group)}
        some = of[DSC]
        row = [METHODS[method].label, some.label, str(some.summary.count), str(some.success)]
        row += [_spread(of[criterion].summary) if criterion in of else "-" for criterion in shown]
        row += [_number(of[TRUE_DSC].summary.mean) if TRUE_DSC in of else "-"]
        row += [_number(of[SECONDS].summary.median), str(some.failures or "-")]
        rows.append(tuple(row))
    names = [f"{criterion.label}: mean ± SD, median" for criterion in shown]
    end = ("True pose DSC (%)", "Time (s)", "Errors")
    return Grid(("Method", "Strategies", "Pairs", "Success [95 %]", *names, *end), tuple(rows))


def comparison_grid(comparisons: Sequence[VarianceAnalysis]) -> Grid:
    """p of each pair of methods, with a mark for which one is better where they differ significantly."""
    of_two = [c for c in comparisons if len(c.methods) == 2]
    columns = list(dict.fromkeys((c.test, c.criterion.name, c.strategies) for c in of_two))
    rows = []
    for methods in dict.fromkeys(c.methods for c in of_two):
        row = [" against ".join(METHODS[method].label for method in methods)]
        for column in columns:
            found = [c for c in of_two if (c.methods, c.test, c.criterion.name, c.strategies) == (methods, *column)]
            row.append(_significance(found[0]) if found else "-")
        rows.append(tuple(row))
    names = [f"{TITLES[test]} {name} {group.replace('&S', '&')}" for test, name, group in columns]
    return Grid(("Methods", *names), tuple(rows))


def write_table_1(path: Path, lines: Sequence[Line]) -> None:
    """Long form: a line for each number of Table 1."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("test", "criterion", "unit", "method", "strategies", "pairs", "mean", "paper"))
        for line in lines:
            if line.criterion in CRITERIA[line.test]:
                paper = "" if line.paper is None else line.paper
                where = (line.test, line.criterion.name, line.criterion.unit, METHODS[line.method].label)
                writer.writerow((*where, line.strategies, line.summary.count, _plain(line.summary.mean), paper))


def write_summary(path: Path, lines: Sequence[Line]) -> None:
    """Long form: a line for each criterion, method, group of strategies and test."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        names = ("test", "criterion", "unit", "method", "strategies", "pairs", "mean", "median", "sd")
        writer.writerow((*names, "success", "success_low", "success_high", "success_of", "errors"))
        for line in lines:
            where = (line.test, line.criterion.name, line.criterion.unit, METHODS[line.method].label, line.strategies)
            s, r = line.summary, line.success
            numbers = (_plain(s.mean), _plain(s.median), _plain(s.sd), _plain(r.share), _plain(r.low), _plain(r.high))
            writer.writerow((*where, s.count, *numbers, r.total, line.failures))


def write_comparisons(path: Path, comparisons: Sequence[VarianceAnalysis]) -> None:
    """Long form: a line for each effect of each analysis of variance."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        names = ("test", "criterion", "strategies", "methods", "mean_first", "mean_second")
        writer.writerow((*names, "source", "sum_of_squares", "degrees_of_freedom", "f", "p"))
        for c in comparisons:
            means = [_plain(mean) for mean in c.means] or ["", ""]
            methods = " / ".join(METHODS[method].label for method in c.methods)
            for effect in c.effects:
                numbers = (_plain(effect.squares), f"{effect.freedom:g}", _plain(effect.f), _plain(effect.p))
                writer.writerow((c.test, c.criterion.name, c.strategies, methods, *means, effect.source, *numbers))


def _groups(method: str, results: Results) -> list[tuple[str, list[str]]]:
    """Groups of strategies with what they hold; one nameless group for all where nothing is trained."""
    there = results.strategies()
    if METHODS[method].network is None:
        return [("", there)]
    groups = [(name, [s for s in strategies if s in there]) for name, strategies in GROUPS.items()]
    return [(name, strategies) for name, strategies in groups if strategies]


def _in_order(lines: Sequence[Line]) -> list[Line]:
    order = list(METHODS)
    return sorted(lines, key=lambda line: (order.index(line.method), line.strategies))


def _parameters(method: str, trained: Mapping[str, Mapping[str, Any]]) -> str:
    counts = [one["parameters"] for name, one in trained.items() if name.partition("/")[2] == method]
    return f"{counts[0] / 1e6:.2f}M" if counts else "-"


def _with_paper(line: Line) -> str:
    digits = 2 if line.criterion is DSC else 1
    paper = "" if line.paper is None else f" ({line.paper:.{digits}f})"
    return f"{line.summary.mean:.{digits}f}{paper}"


def _spread(summary: Summary) -> str:
    return f"{_number(summary.mean)} ± {_number(summary.sd)}, {_number(summary.median)}"


def _number(value: float) -> str:
    """Three digits, and no powers of ten for what is large."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _significance(comparison: VarianceAnalysis) -> str:
    p = "<1e-4" if comparison.p < LEVEL else f"{comparison.p:.2g}"
    if not comparison.p < LEVEL:
        return f"p {p}"
    return f"p {p} " + ("first" if comparison.first_is_better else "second")


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
