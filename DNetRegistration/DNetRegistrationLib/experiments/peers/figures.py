"""A comparison in pictures: success by rotation angle, errors, cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..figures import new_figure, plain_numbers
from ..metrics import SUCCESS_UM
from ..statistics import median, rate
from .methods import FULL, METHODS
from .pairs import BIN_NAMES
from .results import PeerResults

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
    # Side by side within each bin, so that intervals do not lie on each other.
    offsets = dict(zip(methods, np.linspace(-0.36, 0.36, len(methods)) if len(methods) > 1 else (0.0,), strict=True))
    # This project last, on top.
    for method in reversed(methods):
        results = [result for result in found.turned if result.method == method]
        rates = [(k, rate(r.success for r in results if r.angle_bin == k)) for k in range(len(BIN_NAMES))]
        rates = [(k, one) for k, one in rates if one.total]
        places = [k + offsets[method] for k, _ in rates]
        shares = [100 * one.share for _, one in rates]
        low, high = ([100 * abs(end - one.share) for _, one in rates for end in (getattr(one, name),)]
                     for name in ("low", "high"))  # fmt: skip
        color, marker = _STYLES[method]
        panel.errorbar(
            places, shares, (low, high), fmt=marker, color=color, markersize=6, elinewidth=1.2, capsize=2,
            label=f"{METHODS[method].title} ({len(results)} pairs)",
        )  # fmt: skip
    for edge in range(1, len(BIN_NAMES)):
        panel.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    panel.set(
        xlabel="rotation between the two scans (degrees)",
        ylabel=f"pairs with an error below {SUCCESS_UM:g} um (%)",
        ylim=(-3, 103),
        xlim=(-0.5, len(BIN_NAMES) - 0.5),
        xticks=range(len(BIN_NAMES)),
        xticklabels=BIN_NAMES,
    )
    panel.set_title("Success by rotation angle, 95 % intervals", fontsize=10)
    _legend(figure, panel)
    figure.savefig(path)


def draw_errors(found: PeerResults, path: Path) -> None:
    """Target error of every pair by method, on a logarithmic scale, with the median."""
    methods = found.methods("angle")
    figure = new_figure(8.6, 0.9 + 0.5 * len(methods))
    panel = figure.subplots()
    finite = [result.error_um for result in found.turned if math.isfinite(result.error_um)]
    nowhere = 3 * max(finite, default=1000.0)
    generator = np.random.default_rng(0)
    failed = False
    for row, method in enumerate(methods):
        results = [result for result in found.turned if result.method == method]
        color, _ = _STYLES[method]
        for none in (False, True):
            errors = [r.error_um for r in results if math.isinf(r.error_um) is none]
            heights = row + generator.uniform(-0.26, 0.26, len(errors))
            if none:
                failed = failed or bool(errors)
                panel.plot([nowhere] * len(errors), heights, "x", color=color, markersize=5)
            else:
                panel.plot(errors, heights, "o", color=color, markersize=3.5, alpha=0.75, markeredgewidth=0)
        middle = median(r.error_um for r in results)
        middle = nowhere if math.isinf(middle) else middle
        panel.plot((middle, middle), (row - 0.38, row + 0.38), color="black", linewidth=1.6)
    panel.axvline(SUCCESS_UM, color="0.5", linestyle="--", linewidth=1)
    panel.annotate(
        f"{SUCCESS_UM:g} um", (SUCCESS_UM, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
        color="0.4", fontsize=8,
    )  # fmt: skip
    label = "mean error over the bone (um); the bar is the median"
    panel.set(xscale="log", xlabel=f"{label}; x: an error message instead" if failed else label)
    panel.set_yticks(range(len(methods)), [METHODS[method].title for method in methods])
    panel.invert_yaxis()
    plain_numbers(panel.xaxis)
    panel.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def draw_cost(found: PeerResults, path: Path) -> None:
    """Time and peak memory against the number of voxels along an axis, both on logarithmic scales."""
    figure = new_figure(9.4, 4.2)
    panels = figure.subplots(1, 2)
    sizes = sorted({result.size for result in found.growing})
    for method in reversed(found.methods("size")):
        results = sorted((r for r in found.growing if r.method == method), key=lambda result: result.size)
        color, marker = _STYLES[method]
        done = [r for r in results if not r.failure]
        wide = 2.2 if method == FULL else 1.2
        style = dict(color=color, linewidth=wide, markersize=6)
        label = METHODS[method].title
        for panel, name in zip(panels, ("seconds", "peak_gb"), strict=True):
            # Hollow where the pair was not aligned: it cost that much all the same.
            panel.plot(
                [r.size for r in done], [getattr(r, name) for r in done], marker, linestyle="-", **style, label=label
            )
            for result in done:
                fill = color if result.success else "white"
                panel.plot(result.size, getattr(result, name), marker, color=color, markersize=6, markerfacecolor=fill)
        late = [r for r in results if r.late]
        panels[0].plot([r.size for r in late], [r.limit_s for r in late], marker=r"$\uparrow$", linestyle="",
                       color=color, markersize=10)  # fmt: skip
    for panel, label in zip(panels, ("time to align (s)", "peak memory (GB)"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="voxels along each axis", ylabel=label)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        if any(len(line.get_xdata()) for line in panel.lines):
            plain_numbers(panel.yaxis)
        else:
            # Without a value there is no logarithmic axis.
            panel.set(yscale="linear", yticks=())
        panel.grid(alpha=0.3)
    notes = "hollow: not aligned"
    if any(r.late for r in found.growing):
        notes += "; arrow: ended at the time limit"
    figure.suptitle(f"Cost as the volume grows ({notes})", fontsize=10)
    _legend(figure, panels[0])
    figure.savefig(path)


def _legend(figure, panel) -> None:
    """Beside the panels, in the order of the methods."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)
