"""A comparison in pictures: success by rotation angle, errors, cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core.pictures import new_figure
from ..methods import FULL, METHODS
from ..metrics import SUCCESS_UM
from ..statistics import median
from .pairs import BIN_NAMES
from .report import numbers
from .results import PeerResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# This project in blues, the others in colours of Okabe and Ito, which the colour-blind can tell apart too.
_STYLES = {
    "full": ("#0B3C6F", "o"),
    "search": ("#3F7FBF", "s"),
    "equivariant": ("#7FB0DD", "^"),
    "dnet": ("#A9C9E8", "v"),
    "axes": ("#009E73", "D"),
    "simpleitk": ("#E69F00", "P"),
    "elastix": ("#D55E00", "X"),
    "ants": ("#CC79A7", "*"),
}


def draw_success(found: PeerResults, path: Path) -> None:
    """Success rate against rotation angle, with 95 % intervals, to a .png, .pdf or .svg file."""
    figure = new_figure(8.6, 4.6)
    panel = figure.subplots()
    methods = found.methods("angle")
    rates = numbers(found).query("group == 'angle' and value != 'all'")
    # Side by side within each bin, so that intervals do not lie on each other. This project last, on top.
    offsets = np.linspace(-0.36, 0.36, len(methods)) if len(methods) > 1 else (0.0,)
    for method, offset in reversed(list(zip(methods, offsets, strict=True))):
        bins = rates[rates.method == method]
        color, marker = _STYLES[method]
        panel.errorbar(
            [BIN_NAMES.index(name) + offset for name in bins.value],
            100 * bins.success,
            # Rounding can put an end of an interval just beyond the rate.
            100 * np.abs([bins.success - bins.success_low, bins.success_high - bins.success]),
            fmt=marker, color=color, markersize=6, elinewidth=1.2, capsize=2,
            label=f"{METHODS[method].title} (n = {bins.pairs.sum()})",
        )  # fmt: skip
    for edge in range(1, len(BIN_NAMES)):
        panel.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    panel.set(
        xlabel="rotation between the two scans (degrees)",
        ylabel=f"pairs with an error below {SUCCESS_UM:g} um (%)",
        ylim=(-3, 103),
        xlim=(-0.5, len(BIN_NAMES) - 0.5),
    )
    panel.set_xticks(range(len(BIN_NAMES)), BIN_NAMES)
    panel.set_title("Success by rotation angle, 95 % intervals", fontsize=10)
    _legend(figure, panel)
    figure.savefig(path)


def draw_errors(found: PeerResults, path: Path) -> None:
    """Target error of every pair by method, on a logarithmic scale, with the median."""
    methods, turned = found.methods("angle"), found.of("angle")
    figure = new_figure(8.6, 0.9 + 0.5 * len(methods))
    panel = figure.subplots()
    # Failures have no error; they are put beyond the largest one.
    finite = turned.error_um[np.isfinite(turned.error_um)]
    beyond = 3 * (finite.max() if len(finite) else 1000.0)
    generator = np.random.default_rng(0)
    for row, method in enumerate(methods):
        errors = turned.error_um[turned.method == method].to_numpy()
        heights = row + generator.uniform(-0.26, 0.26, len(errors))
        good, color = np.isfinite(errors), _STYLES[method][0]
        panel.plot(errors[good], heights[good], "o", color=color, markersize=3.5, alpha=0.75, markeredgewidth=0)
        panel.plot(np.full((~good).sum(), beyond), heights[~good], "x", color=color, markersize=5)
        middle = min(median(errors), beyond)
        panel.plot((middle, middle), (row - 0.38, row + 0.38), color="black", linewidth=1.6)
    panel.axvline(SUCCESS_UM, color="0.5", linestyle="--", linewidth=1)
    panel.annotate(
        f"{SUCCESS_UM:g} um", (SUCCESS_UM, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
        color="0.4", fontsize=8,
    )  # fmt: skip
    label = "mean error over the bone (um); the bar is the median"
    panel.set(xscale="log", xlabel=label if len(finite) == len(turned) else f"{label}; x: an error message instead")
    panel.set_yticks(range(len(methods)), [METHODS[method].title for method in methods])
    panel.invert_yaxis()
    _plain_numbers(panel.xaxis)
    panel.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def draw_cost(found: PeerResults, path: Path) -> None:
    """Time and peak memory against the number of voxels along an axis, both on logarithmic scales."""
    figure = new_figure(9.4, 4.2)
    panels = figure.subplots(1, 2)
    growing = found.of("size").sort_values("size")
    for method in reversed(found.methods("size")):
        of = growing[growing.method == method]
        done, late = of[of.failure == ""], of[of.late]
        color, marker = _STYLES[method]
        width = 2.2 if method == FULL else 1.2
        for panel, name in zip(panels, ("seconds", "peak_gb"), strict=True):
            line = {"color": color, "marker": marker, "markersize": 6}
            panel.plot(done["size"], done[name], linewidth=width, label=METHODS[method].title, **line)
            # Hollow where the pair was not aligned: it cost that much all the same.
            wrong = done[~done.success]
            panel.plot(wrong["size"], wrong[name], linestyle="", markerfacecolor="white", **line)
        panels[0].plot(late["size"], late.limit_s, marker=r"$\uparrow$", linestyle="", color=color, markersize=10)
    sizes = sorted(set(growing["size"]))
    for panel, label in zip(panels, ("time to align (s)", "peak memory (GB)"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="voxels along each axis", ylabel=label)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        if any(len(line.get_xdata()) for line in panel.lines):
            _plain_numbers(panel.yaxis)
        else:
            # Without a value there is no logarithmic axis.
            panel.set(yscale="linear", yticks=())
        panel.grid(alpha=0.3)
    late = "; arrow: ended at the time limit" if growing.late.any() else ""
    figure.suptitle(f"Cost as the volume grows (hollow: not aligned{late})", fontsize=10)
    _legend(figure, panels[0])
    figure.savefig(path)


def _legend(figure: Figure, panel: Axes) -> None:
    """Beside the panels, in the order of the methods."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)


def _plain_numbers(axis) -> None:
    """Labels a logarithmic axis with plain numbers, at 1, 2 and 5 in each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
