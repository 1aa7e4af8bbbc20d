"""Figures 3 and 4 of the paper, from stored results and training logs alone.

matplotlib is imported when they are drawn, and never through pyplot: a caller's figures and backend stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...training.run import LOG, VALIDATION
from ..statistics import summarize
from .plan import GROUPS, METHODS, STRATEGIES
from .results import CRITERIA, DSC, TRUE_DSC, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Style:
    """How a method is drawn, the same in all figures."""

    color: str
    marker: str
    line: str = "-"


# Colours of Okabe and Ito (brown for their yellow, too pale for lines), apart for every kind of colour vision.
STYLES = {
    "unmoved": Style("#BBBBBB", "*", ":"),
    "sitk": Style("#888888", "d", ":"),
    "me": Style("#E69F00", "v"),
    "se": Style("#7A5C1E", "^"),
    "sed": Style("#56B4E9", "s"),
    "snl-sed": Style("#0072B2", "D"),
    "dnet": Style("#D55E00", "o"),
    "equivariant": Style("#CC79A7", "P"),
    "equivariant-own": Style("#CC79A7", "p", "--"),
    "search": Style("#009E73", "h", "--"),
    "full": Style("#000000", "X"),
}


def draw_curves(runs: Mapping[str, Path]) -> Figure | None:
    """Fig. 3: loss, rotation error and translation error against the iteration; None where there is nothing to draw.

    Args:
        runs: folder of the training run of each method.
    """
    logs = {method: (_table(run / LOG), _table(run / VALIDATION)) for method, run in runs.items()}
    if not any(log or validation for log, validation in logs.values()):
        return None
    figure, panels = _panels(1, 3, (11, 3.9))
    columns = (("loss", "loss", None), ("re_deg", "RE (degrees)", "re_{}_deg"), ("te_um", "TE (um)", "te_{}_um"))
    for panel, (trained, label, validated) in zip(panels[0], columns, strict=True):
        for method, (log, validation) in logs.items():
            style = STYLES[method]
            points = [(float(v["iteration"]), float(v[trained])) for v in log if v.get(trained)]
            # Of the equivariant network the loss is another quantity.
            if points and not (trained == "loss" and METHODS[method].network == "equivariant"):
                panel.plot(*_smoothed(points), style.line, color=style.color, linewidth=1.1)
            if validated is not None:
                seen = [v for v in validation if v["views"] == "whole"]
                means = [(float(v["iteration"]), float(v[validated.format("mean")])) for v in seen]
                if means:
                    panel.plot(
                        *zip(*means, strict=True),
                        style.marker,
                        linestyle="" if points else style.line,
                        color=style.color,
                        markersize=4,
                        markeredgecolor="white",
                        markeredgewidth=0.4,
                    )
        panel.set(xlabel="iteration", ylabel=label, yscale="log")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3, linewidth=0.4)
    _legend(figure, [method for method, tables in logs.items() if any(tables)])
    return figure


def draw_positions(results: Results, test: str) -> Figure | None:
    """Fig. 4 (a) and (b): TE, RE and DSC, mean and standard deviation, against the angle or the translation.

    Pairs of strategies S1 and S2; None where there are none.
    """
    strategies = [s for s in GROUPS["S1&S2"] if s in results.strategies()] or results.strategies()
    methods = [method for method in results.methods() if results.of(test, method, strategies)]
    if not methods:
        return None
    figure, panels = _panels(1, 3, (12, 4.4))
    for panel, criterion in zip(panels[0], CRITERIA[test], strict=True):
        for rank, method in enumerate(methods):
            _draw_means(panel, results, criterion, test, method, strategies, rank / len(methods) - 0.5)
        if criterion is DSC:
            _draw_true_pose(panel, results, test, methods, strategies)
        logarithmic = {} if criterion is DSC else {"yscale": "log"}
        x = "rotation (degrees)" if test == "rotation" else "translation (mm)"
        panel.set(xlabel=x, ylabel=criterion.label, **logarithmic)
        if test == "rotation":
            panel.set_xticks(range(-180, 181, 60))
        if criterion is DSC:
            panel.set_ylim(-2, 102)
        panel.grid(alpha=0.3, linewidth=0.4)
    _legend(figure, methods, truth=True)
    return figure


def draw_subjects(results: Results) -> Figure | None:
    """Fig. 4 (c): DSC of each bone in the real test, with the DSC at the true pose where it is known."""
    strategies = [s for s in GROUPS["S1&S2"] if s in results.strategies()] or results.strategies()
    found = {method: results.of("real", method, strategies) for method in results.methods()}
    bones = sorted({result.bone for of_method in found.values() for result in of_method})
    if not bones:
        return None
    figure, panels = _panels(1, 1, (max(9, min(16, 0.33 * len(bones) + 2)), 4.4))
    panel = panels[0][0]
    place = {bone: at for at, bone in enumerate(bones)}
    for method, of_method in found.items():
        style = STYLES[method]
        points = sorted((place[result.bone], DSC.of(result)) for result in of_method)
        if points:
            panel.plot(*zip(*points, strict=True), style.marker, linestyle=style.line, color=style.color, **_THIN)
    most = max(found.values(), key=len)
    known = sorted((place[r.bone], TRUE_DSC.of(r)) for r in most if r.truth)
    if known:
        panel.plot(*zip(*known, strict=True), **_TRUTH)
    panel.set_xticks(range(len(bones)), bones, rotation=90, fontsize=7, parse_math=False)
    panel.set(ylabel=DSC.label, ylim=(-2, 102), xlim=(-0.5, len(bones) - 0.5))
    panel.grid(alpha=0.3, linewidth=0.4)
    _legend(figure, list(found), truth=bool(known))
    return figure


def draw_strategies(results: Results) -> Figure | None:
    """Fig. 4 (d): DSC, mean and standard deviation, by strategy, in the rotation and the real test."""
    tests = [test for test in ("rotation", "real") if test in results.tests()]
    strategies = [s for s in STRATEGIES if s in results.strategies()]
    if not tests or not strategies:
        return None
    methods = results.methods()
    figure, panels = _panels(1, len(tests), (6 * len(tests), 4.4))
    width = 0.86 / len(methods)
    for panel, test in zip(panels[0], tests, strict=True):
        for rank, method in enumerate(methods):
            of_each = [summarize(results.values(DSC, test, method, [strategy])) for strategy in strategies]
            x = np.arange(len(strategies)) + (rank - (len(methods) - 1) / 2) * width
            panel.bar(
                x,
                [s.mean for s in of_each],
                width,
                yerr=[s.sd if s.count > 1 else 0 for s in of_each],
                color=STYLES[method].color,
                hatch="////" if STYLES[method].line == "--" else None,
                edgecolor="white" if STYLES[method].line == "--" else "none",
                linewidth=0.3,
                error_kw={"elinewidth": 0.7, "ecolor": "#444444"},
            )
        panel.set_xticks(range(len(strategies)), strategies)
        panel.set(ylabel=DSC.label, ylim=(0, 100), title=f"{test} test")
        panel.grid(alpha=0.3, linewidth=0.4, axis="y")
        panel.set_axisbelow(True)
    _legend(figure, methods, bars=True)
    return figure


_THIN = {"markersize": 5, "linewidth": 0.8, "markeredgecolor": "white", "markeredgewidth": 0.4}
_TRUTH = {"color": "#444444", "marker": "_", "markersize": 9, "linestyle": "", "zorder": 0}


def _draw_means(panel, results, criterion, test: str, method: str, strategies: Sequence[str], dodge: float) -> None:
    by_position: dict[float, list[float]] = {}
    for result in results.of(test, method, strategies):
        by_position.setdefault(round(result.position, 6), []).append(criterion.of(result))
    x = np.array(sorted(by_position))
    summaries = [summarize(by_position[at]) for at in x]
    # Side by side, but not as if they were elsewhere.
    step = min(np.diff(x).min(), np.ptp(x) / 10) if len(x) > 1 else 1.0
    style = STYLES[method]
    panel.errorbar(
        x + 0.3 * step * dodge,
        [s.mean for s in summaries],
        [s.sd if s.count > 1 else 0 for s in summaries],
        fmt=style.marker,
        linestyle=style.line,
        color=style.color,
        elinewidth=0.6,
        **_THIN,
    )


def _draw_true_pose(panel, results, test: str, methods: Sequence[str], strategies: Sequence[str]) -> None:
    by_position: dict[float, list[float]] = {}
    for result in max((results.of(test, method, strategies) for method in methods), key=len):
        by_position.setdefault(round(result.position, 6), []).append(TRUE_DSC.of(result))
    x = sorted(by_position)
    panel.plot(x, [summarize(by_position[at]).mean for at in x], **_TRUTH)


def _panels(rows: int, columns: int, size: tuple[float, float]):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend(figure, methods: Sequence[str], truth: bool = False, bars: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = []
    for method in methods:
        style, label = STYLES[method], METHODS[method].label
        if bars:
            hatch = "////" if style.line == "--" else None
            handles.append(Patch(facecolor=style.color, edgecolor="white", hatch=hatch, label=label))
        else:
            line = {"marker": style.marker, "linestyle": style.line, "color": style.color}
            handles.append(Line2D([], [], label=label, **line, **_THIN))
    if truth:
        handles.append(Line2D([], [], label="at the true pose", **{**_TRUTH, "zorder": 1}))
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(handles) // 2), fontsize=8, frameon=False)


def _table(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _smoothed(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Means over windows that grow with the run, so that curves of noise can be told from each other."""
    x, y = np.array(points).T
    window = max(1, len(y) // 40)
    kernel = np.ones(window)
    # At the ends over what there is.
    return x, np.convolve(y, kernel, "same") / np.convolve(np.ones_like(y), kernel, "same")
