"""Table 1 beside the paper's own numbers, summaries of everything, and what networks have learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pandas

from ..statistics import rate, summarize
from ..tables import number, text_table
from .plan import GROUPS, METHODS, TESTS, UNMOVED, network_of
from .results import ALL_CRITERIA, CRITERIA, DSC, NOT_LEARNED, RE, SECONDS, TARGET, TE, TRUE_DSC, EvaluationResults
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
#: The paper's mean for (test, criterion, method, group of strategies; "" where nothing is trained).
PAPER = {
    (test, criterion, method, group): value
    for (method, group), row in _PAPER_ROWS.items()
    for (test, criterion), value in zip(_PAPER_COLUMNS, row, strict=True)
}
#: The paper's networks, from the best to the worst; those in one place are not ordered.
PAPER_ORDER = (("dnet",), ("sed", "snl-sed"), ("se", "me"))


def summaries(results: EvaluationResults) -> pandas.DataFrame:
    """Summarizes each criterion of each method, group of strategies and test.

    Columns: "test", "criterion", "unit", "method", "strategies" (group of strategies, "" where nothing is trained),
    "label" (strategies that have results), "pairs", "mean", "median", "sd"; "success" (a `Rate` over the pairs with a
    known truth); "errors" (pairs that ended with one); "learned" (`EvaluationResults.learned`); "paper" (the paper's
    mean, or NaN).
    """
    rows = []
    there = results.strategies
    learned = {
        (method, group): results.learned(method, strategies)
        for method in results.methods
        for group, strategies in _groups(method, there).items()
    }
    for test in TESTS:
        for criterion in ALL_CRITERIA:
            for method in results.methods:
                for group, strategies in _groups(method, there).items():
                    found = results.of(test, method, strategies)
                    summary = summarize(found[criterion.name])
                    if summary.count:
                        label = "&".join(name for name in strategies if name in there).replace("&S", "&")
                        paper = PAPER.get((test, criterion.name, method, group), math.nan)
                        rows.append({
                            "test": test, "criterion": criterion.name, "unit": criterion.unit, "method": method,
                            "strategies": group, "label": label if group else "-", "pairs": summary.count,
                            "mean": summary.mean, "median": summary.median, "sd": summary.sd,
                            "success": rate(found.success.dropna()), "errors": int((found.failure != "").sum()),
                            "learned": learned[method, group], "paper": paper,
                        })  # fmt: skip
    return pandas.DataFrame(rows)


def _groups(method: str, there: Sequence[str]) -> Mapping[str, Sequence[str]]:
    return GROUPS if METHODS[method].by_strategy else {"": there}


def table_1(summary: pandas.DataFrame, trained: Mapping[str, Mapping[str, Any]]) -> pandas.DataFrame:
    """Means as in the paper's Table 1, a row for each method, with the paper's own mean in brackets.

    Of a network that has not learned it gives no numbers.
    """
    columns = [(test, criterion) for test in CRITERIA for criterion in CRITERIA[test]]
    rows = []
    for method, of in _by_method(summary):
        lines = {(line.test, line.criterion): line for line in of.itertuples()}
        row = [METHODS[method].label, _parameters(method, trained), of.label.iloc[0]]
        for test, criterion in columns:
            line, form = lines.get((test, criterion.name)), ".2f" if criterion is DSC else ".1f"
            paper = "" if line is None or math.isnan(line.paper) else f" ({line.paper:{form}})"
            mean = "-" if line is None else f"{line.mean:{form}}" if line.learned else NOT_LEARNED
            row.append(f"{mean}{paper}")
        rows.append(row)
    truth = ["True pose", "-", "-"]
    for test, criterion in columns:
        of = summary[(summary.test == test) & (summary.criterion == TRUE_DSC.name)]
        # It is the same for all methods that have results of all pairs.
        most = of.loc[of.pairs.idxmax(), "mean"] if len(of) and criterion is DSC else math.nan
        truth.append(number(most, ".2f"))
    names = [f"{TITLES[test]} {criterion.label}" for test, criterion in columns]
    return text_table(("Method", "Variables", "Strategies", *names), [*rows, truth])


def results_table(summary: pandas.DataFrame, test: str) -> pandas.DataFrame:
    """Success rate, and mean, standard deviation and median of each criterion, in one test; see `table_1`."""
    shown = (TARGET, TE, RE, DSC)
    rows = []
    for method, of in _by_method(summary[summary.test == test]):
        lines = {line.criterion: line for line in of.itertuples()}
        some = lines[DSC.name]
        row = [METHODS[method].label, some.label, str(some.pairs), str(some.success)]
        for criterion in shown:
            one = lines.get(criterion.name)
            cell = "-" if one is None else f"{number(one.mean)} ± {number(one.sd)}, {number(one.median)}"
            row.append(cell if one is None or one.learned else NOT_LEARNED)
        row += [number(lines[TRUE_DSC.name].mean) if TRUE_DSC.name in lines else "-"]
        row += [number(lines[SECONDS.name].median), str(some.errors or "-")]
        rows.append(row)
    names = [f"{criterion.label}: mean ± SD, median" for criterion in shown]
    end = ("True pose DSC (%)", "Time (s)", "Errors")
    return text_table(("Method", "Strategies", "Pairs", "Success [95 %]", *names, *end), rows)


def order_table(summary: pandas.DataFrame) -> pandas.DataFrame:
    """The order of the paper's networks by their means, and whether it is that of `PAPER_ORDER`.

    A row for each group of strategies, test and criterion of which all five networks have results, unless those that
    have not learned are of several places: their order is chance.
    """
    rows = []
    networks = [method for place in PAPER_ORDER for method in place]
    for group in GROUPS:
        for test, criteria in CRITERIA.items():
            for criterion in criteria:
                of = summary[
                    (summary.strategies == group) & (summary.test == test) & (summary.criterion == criterion.name)
                ]
                sign = 1 if criterion.smaller_is_better else -1
                means = {line.method: sign * line.mean for line in of.itertuples() if line.method in networks}
                unlearned = set(of[~of.learned.astype(bool)].method)
                by_chance = sum(bool(unlearned & set(place)) for place in PAPER_ORDER) > 1
                if len(means) < len(networks) or by_chance:
                    continue
                holds = all(
                    means[better] < means[worse]
                    for first, second in pairwise(PAPER_ORDER)
                    for better in first
                    for worse in second
                )
                order = ", ".join(METHODS[method].label for method in sorted(means, key=means.__getitem__))
                rows.append((test, criterion.name, group.replace("&S", "&"), order, "yes" if holds else "no"))
    return text_table(("Test", "Criterion", "Strategies", "From best to worst", "As in the paper"), rows)


def training_table(results: EvaluationResults, trained: Mapping[str, Mapping[str, Any]]) -> pandas.DataFrame:
    """The training of each network, and its RE in the rotation test, also in per cent of the RE of unmoved scans."""
    rows = []
    for name, one in trained.items():
        strategy, _, method = name.rpartition("/")
        pairs = "-" if None in (one["iterations"], one["batch"]) else f"{one['iterations'] * one['batch']:,}"
        hours = "-" if one["hours"] is None else f"{one['hours']:.2f}"
        where = "given, not trained here" if one["given"] else one["device"] or "-"
        error, unmoved = (
            summarize(results.of("rotation", which, [strategy] if strategy else results.strategies)[RE.name]).mean
            for which in (method, UNMOVED)
        )
        rows.append((
            METHODS[method].label, strategy or "-", str(one["iterations"] or "-"), str(one["batch"] or "-"), pairs,
            hours, where, number(error, ".1f"), number(100 * error / unmoved, ".0f"),
        ))  # fmt: skip
    columns = ("Network", "Strategy", "Iterations", "Pairs of each", "Pairs in all", "Hours", "Device")
    return text_table((*columns, "Rot RE (degrees)", "of unmoved (%)"), rows)


def significance_table(analyses: Sequence[VarianceAnalysis]) -> pandas.DataFrame:
    """p of each two methods, and which of them has the better mean where they differ significantly."""
    of_two = {(a.methods, a.test, a.criterion.name, a.strategies): a for a in analyses if len(a.methods) == 2}
    columns = list(dict.fromkeys(key[1:] for key in of_two))
    rows = []
    for methods in dict.fromkeys(key[0] for key in of_two):
        row = [" against ".join(METHODS[method].label for method in methods)]
        for column in columns:
            found = of_two.get((methods, *column))
            row.append("-" if found is None else _significance(found))
        rows.append(row)
    names = [f"{TITLES[test]} {name} {group.replace('&S', '&')}" for test, name, group in columns]
    return text_table(("Methods", *names), rows)


def error_table(results: EvaluationResults) -> pandas.DataFrame:
    """The errors that methods ended with, how often, and where first."""
    failed = results.frame[results.frame.failure != ""]
    rows = [
        (METHODS[method].label, failure, str(len(of)), f"{of.bone.iloc[0]}, {of.test.iloc[0]} test")
        for (method, failure), of in failed.groupby(["method", "failure"], sort=False)
    ]
    return text_table(("Method", "Error", "Times", "First"), rows)


def table_1_numbers(summary: pandas.DataFrame) -> pandas.DataFrame:
    """The numbers of Table 1, a row each."""
    names = {test: [criterion.name for criterion in CRITERIA[test]] for test in CRITERIA}
    shown = [line.criterion in names[line.test] for line in summary.itertuples()]
    table = _labelled(summary[shown])
    return table[["test", "criterion", "unit", "method", "strategies", "pairs", "mean", "paper"]]


def summary_numbers(summary: pandas.DataFrame) -> pandas.DataFrame:
    """All of the summary in numbers."""
    table = _labelled(summary)
    for name, field in (
        ("success", "share"),
        ("success_low", "low"),
        ("success_high", "high"),
        ("success_of", "total"),
    ):
        table[name] = [getattr(one, field) for one in summary.success]
    spread = ["pairs", "mean", "median", "sd"]
    success = ["success", "success_low", "success_high", "success_of"]
    return table[["test", "criterion", "unit", "method", "strategies", *spread, *success, "errors"]]


def effect_numbers(analyses: Sequence[VarianceAnalysis]) -> pandas.DataFrame:
    """All effects of all analyses of variance, a row each."""
    rows = []
    for a in analyses:
        methods = " / ".join(METHODS[method].label for method in a.methods)
        means = a.means or (math.nan, math.nan)
        for e in a.effects:
            row = (a.test, a.criterion.name, a.strategies, methods, *means, e.source, e.squares, e.freedom, e.f, e.p)
            rows.append(row)
    names = ["test", "criterion", "strategies", "methods", "mean_first", "mean_second"]
    return pandas.DataFrame(rows, columns=[*names, "source", "sum_of_squares", "degrees_of_freedom", "f", "p"])


def _by_method(summary: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """The rows of each method and group of strategies, in the order of Table 1."""
    for method in METHODS:
        for _, of in summary[summary.method == method].groupby("strategies"):
            yield method, of


def _labelled(summary: pandas.DataFrame) -> pandas.DataFrame:
    return summary.assign(method=[METHODS[method].label for method in summary.method])


def _parameters(method: str, trained: Mapping[str, Mapping[str, Any]]) -> str:
    asked = network_of(method, "").method
    counts = [one["parameters"] for name, one in trained.items() if name.rpartition("/")[2] == asked]
    return f"{counts[0] / 1e6:.2f}M" if counts else "-"


def _significance(analysis: VarianceAnalysis) -> str:
    if not analysis.p < LEVEL:
        return f"p {analysis.p:.2g}"
    return "p <1e-4 " + ("first" if analysis.first_is_better else "second")
