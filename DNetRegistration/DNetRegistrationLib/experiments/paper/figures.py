"""Figures 3 and 4 of the paper, from stored results and training logs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas

from ...core.pictures import new_figure
from ...training.curves import QUANTITIES, curve_panels
from ...training.run import LOG, VALIDATION
from .plan import METHODS
from .results import CRITERIA, DSC, TRUE_DSC, EvaluationResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn in all figures."""

    color: str
    marker: str
    line: str = "-"


# Colours of Okabe and Ito, which every kind of colour vision tells apart; brown for their yellow, too pale for lines.
STYLES = {
    "unmoved": MethodStyle("#BBBBBB", "*", ":"),
    "sitk": MethodStyle("#888888", "d", ":"),
    "me": MethodStyle("#E69F00", "v"),
    "se": MethodStyle("#7A5C1E", "^"),
    "sed": MethodStyle("#56B4E9", "s"),
    "snl-sed": MethodStyle("#0072B2", "D"),
    "dnet": MethodStyle("#D55E00", "o"),
    "dnet-turned": MethodStyle("#D55E00", "*", "--"),
    "dnet-shipped": MethodStyle("#8C2D04", "<"),
    "dnet-shipped-turned": MethodStyle("#8C2D04", ">", "--"),
    "equivariant": MethodStyle("#CC79A7", "P"),
    "equivariant-own": MethodStyle("#CC79A7", "p", "--"),
    "search": MethodStyle("#009E73", "h", "--"),
    "full": MethodStyle("#000000", "X"),
}


def draw_training(runs: Mapping[str, Path]) -> Figure | None:
    """Fig. 3: loss, rotation error and translation error against the iteration; None where there is nothing to draw.

    Args:
        runs: folder of the training run of each method.
    """
    logs = {method: (_table(run / LOG), _table(run / VALIDATION)) for method, run in runs.items()}
    logs = {method: tables for method, tables in logs.items() if any(map(len, tables))}
    if not logs:
        return None
    figure, panels = curve_panels((11, 3.9))
    for panel, (trained, _, validated) in zip(panels, QUANTITIES, strict=True):
        for method, (log, validation) in logs.items():
            style = STYLES[method]
            # The loss of the equivariant network is another quantity.
            comparable = trained != "loss" or METHODS[method].network != "equivariant"
            drawn = log.dropna(subset=trained) if comparable and trained in log else log[:0]
            if len(drawn):
                panel.plot(drawn.iteration, _smoothed(drawn[trained]), style.line, color=style.color, linewidth=1.1)
            if validated is not None and len(validation):
                whole = validation[validation.views == "whole"]
                line = {"marker": style.marker, "linestyle": "" if len(drawn) else style.line, "color": style.color}
                panel.plot(whole.iteration, whole[validated.format("mean")], **{**_THIN, **line, "markersize": 4})
    _legend(figure, {method: METHODS[method].label for method in logs})
    return figure


def draw_positions(results: EvaluationResults, test: str) -> Figure | None:
    """Fig. 4 (a) and (b): TE, RE and DSC, mean and standard deviation, against the angle or the translation.

    None where the test has no results of the main strategies.
    """
    found = {method: results.of(test, method, results.main_strategies) for method in results.methods}
    found = {method: of for method, of in found.items() if len(of)}
    if not found:
        return None
    figure, panels = _panels(3, (12, 4.4))
    for panel, criterion in zip(panels, CRITERIA[test], strict=True):
        for rank, (method, of) in enumerate(found.items()):
            means = _by_position(of, criterion.name)
            style = STYLES[method]
            panel.errorbar(
                means.index + 0.3 * _step(means.index) * (rank / len(found) - 0.5),  # side by side
                means["mean"],
                means["std"].fillna(0),
                fmt=style.marker,
                linestyle=style.line,
                color=style.color,
                elinewidth=0.6,
                **_THIN,
            )
        if criterion is DSC:
            panel.plot(_by_position(max(found.values(), key=len), TRUE_DSC.name)["mean"], **_TRUTH)
            panel.set_ylim(-2, 102)
        else:
            panel.set_yscale("log")
        panel.set(xlabel="rotation (degrees)" if test == "rotation" else "translation (mm)", ylabel=criterion.label)
        if test == "rotation":
            panel.set_xticks(range(-180, 181, 60))
        panel.grid(alpha=0.3, linewidth=0.4)
    _legend(figure, _labels(results, found, results.main_strategies), truth=True)
    return figure


def draw_subjects(results: EvaluationResults) -> Figure | None:
    """Fig. 4 (c): DSC of each bone in the real test, and the DSC at the true pose where that is known."""
    found = {method: results.of("real", method, results.main_strategies) for method in results.methods}
    bones = sorted({bone for of in found.values() for bone in of.bone})
    if not bones:
        return None
    figure, panels = _panels(1, (max(9, min(16, 0.33 * len(bones) + 2)), 4.4))
    panel = panels[0]
    place = {bone: at for at, bone in enumerate(bones)}

    def draw(of: pandas.DataFrame, name: str, **line) -> None:
        points = sorted((place[bone], value) for bone, value in zip(of.bone, of[name], strict=True))
        if points:
            panel.plot(*zip(*points, strict=True), **line)

    for method, of in found.items():
        style = STYLES[method]
        draw(of, DSC.name, marker=style.marker, linestyle=style.line, color=style.color, **_THIN)
    known = max(found.values(), key=len).dropna(subset=TRUE_DSC.name)
    draw(known, TRUE_DSC.name, **_TRUTH)
    panel.set_xticks(range(len(bones)), bones, rotation=90, fontsize=7, parse_math=False)
    panel.set(ylabel=DSC.label, ylim=(-2, 102), xlim=(-0.5, len(bones) - 0.5))
    panel.grid(alpha=0.3, linewidth=0.4)
    _legend(figure, _labels(results, found, results.main_strategies), truth=len(known) > 0)
    return figure


def draw_strategies(results: EvaluationResults) -> Figure | None:
    """Fig. 4 (d): DSC, mean and standard deviation, by strategy, in the rotation and the real test."""
    tests = [test for test in ("rotation", "real") if test in results.tests]
    methods, strategies = results.methods, results.strategies
    if not tests or not strategies:
        return None
    figure, panels = _panels(len(tests), (6 * len(tests), 4.4))
    width = 0.86 / len(methods)
    for panel, test in zip(panels, tests, strict=True):
        for rank, method in enumerate(methods):
            values = [results.of(test, method, [strategy])[DSC.name] for strategy in strategies]
            dashed = STYLES[method].line == "--"
            panel.bar(
                np.arange(len(strategies)) + (rank - (len(methods) - 1) / 2) * width,
                [of.mean() for of in values],
                width,
                yerr=[of.std() if len(of) > 1 else 0 for of in values],
                color=STYLES[method].color,
                hatch="////" if dashed else None,
                edgecolor="white" if dashed else "none",
                linewidth=0.3,
                error_kw={"elinewidth": 0.7, "ecolor": "#444444"},
            )
        panel.set_xticks(range(len(strategies)), strategies)
        panel.set(ylabel=DSC.label, ylim=(0, 100), title=f"{test} test")
        panel.grid(alpha=0.3, linewidth=0.4, axis="y")
        panel.set_axisbelow(True)
    _legend(figure, _labels(results, methods, strategies), bars=True)
    return figure


_THIN = {"markersize": 5, "linewidth": 0.8, "markeredgecolor": "white", "markeredgewidth": 0.4}
_TRUTH = {"color": "#444444", "marker": "_", "markersize": 9, "linestyle": "", "zorder": 0}


def _by_position(of: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """Mean and standard deviation of a criterion at each position of a test."""
    return of.groupby(of.position.round(6))[name].agg(["mean", "std"])


def _step(x: pandas.Index) -> float:
    """The distance between positions, a tenth of their range at most."""
    return min(np.diff(x).min(), np.ptp(x) / 10) if len(x) > 1 else 1.0


def _panels(count: int, size: tuple[float, float]):
    figure = new_figure(*size)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _labels(results: EvaluationResults, methods: Iterable[str], strategies: Sequence[str]) -> dict[str, str]:
    return {method: results.label(method, strategies) for method in methods}


def _legend(figure, labels: Mapping[str, str], truth: bool = False, bars: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = []
    for method, label in labels.items():
        style = STYLES[method]
        if bars:
            hatch = "////" if style.line == "--" else None
            handles.append(Patch(facecolor=style.color, edgecolor="white", hatch=hatch, label=label))
        else:
            line = {"marker": style.marker, "linestyle": style.line, "color": style.color}
            handles.append(Line2D([], [], label=label, **line, **_THIN))
    if truth:
        handles.append(Line2D([], [], label="at the true pose", **{**_TRUTH, "zorder": 1}))
    # In as few rows as let the longest labels fit.
    rows = -(-len(handles) // 5)
    columns = -(-len(handles) // rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _table(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path) if path.is_file() and path.stat().st_size else pandas.DataFrame()


def _smoothed(values: pandas.Series) -> pandas.Series:
    """Means over a fortieth of the run, so that noisy curves can be told apart."""
    return values.rolling(max(1, len(values) // 40), center=True, min_periods=1).mean()
