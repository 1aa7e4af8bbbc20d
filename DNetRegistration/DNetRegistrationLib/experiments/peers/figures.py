"""The comparison in pictures: success by angle, errors, cost. matplotlib is imported when they are drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..metrics import SUCCESS_UM
from .methods import FULL, METHODS
from .pairs import BINS
from .results import Comparison, bin_name, median, success_rate

# This project in blues, peers in other colours (Okabe and Ito's, told apart by the colour-blind too).
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


def draw_success(comparison: Comparison, path: Path) -> None:
    """Success rate against rotation angle, with 95 % intervals, to a .png, .pdf or .svg file."""
    figure, panel = _figure(8.6, 4.6)
    methods = [method for method in comparison.methods() if comparison.of(method)]
    # Side by side within each bin, so that intervals do not lie on each other.
    offsets = dict(zip(methods, np.linspace(-0.36, 0.36, len(methods)) if len(methods) > 1 else (0.0,), strict=True))
    # This project last, on top.
    for method in reversed(methods):
        rates = [(bin, success_rate(comparison.of(method, bin))) for bin in range(len(BINS) - 1)]
        rates = [(bin, one) for bin, one in rates if one.total]
        places = [bin + offsets[method] for bin, _ in rates]
        shares = [100 * one.share for _, one in rates]
        low, high = ([100 * abs(end - one.share) for _, one in rates for end in (getattr(one, name),)]
                     for name in ("low", "high"))  # fmt: skip
        color, marker = _STYLES[method]
        panel.errorbar(
            places, shares, (low, high), fmt=marker, color=color, markersize=6, elinewidth=1.2, capsize=2,
            label=f"{METHODS[method].title} ({len(comparison.of(method))} pairs)",
        )  # fmt: skip
    for edge in range(1, len(BINS) - 1):
        panel.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    panel.set(
        xlabel="rotation between the two scans (degrees)",
        ylabel=f"pairs with an error below {SUCCESS_UM:g} um (%)",
        ylim=(-3, 103),
        xlim=(-0.5, len(BINS) - 1.5),
        xticks=range(len(BINS) - 1),
        xticklabels=[bin_name(bin) for bin in range(len(BINS) - 1)],
    )
    panel.set_title("Success by rotation angle, 95 % intervals", fontsize=10)
    _legend(figure, panel)
    figure.savefig(path)


def draw_errors(comparison: Comparison, path: Path) -> None:
    """Target error of every pair by method, on a logarithmic scale, with the median."""
    methods = [method for method in comparison.methods() if comparison.of(method)]
    figure, panel = _figure(8.6, 0.9 + 0.5 * len(methods))
    finite = [r.error_um for m in methods for r in comparison.of(m) if math.isfinite(r.error_um)]
    nowhere = 3 * max(finite, default=1000.0)
    generator = np.random.default_rng(0)
    failed = False
    for row, method in enumerate(methods):
        results = comparison.of(method)
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
    _plain(panel.xaxis)
    panel.grid(axis="x", alpha=0.3)
    figure.savefig(path)


def draw_cost(comparison: Comparison, path: Path) -> None:
    """Time and peak memory against the number of voxels along an axis, both on logarithmic scales."""
    figure, panels = _figure(9.4, 4.2, columns=2)
    sizes = comparison.sizes()
    for method in reversed(comparison.methods()):
        results = [r for size in sizes if (r := comparison.at(method, size)) is not None]
        if not results:
            continue
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
            _plain(panel.yaxis)
        else:
            # Without a value there is no logarithmic axis.
            panel.set(yscale="linear", yticks=())
        panel.grid(alpha=0.3)
    notes = "hollow: not aligned"
    if any(r.late for r in comparison.growth):
        notes += "; arrow: ended at the time limit"
    figure.suptitle(f"Cost as the volume grows ({notes})", fontsize=10)
    _legend(figure, panels[0])
    figure.savefig(path)


def _figure(width: float, height: float, columns: int = 1):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _plain(axis) -> None:
    """Numbers as they are on a logarithmic axis, with 2 and 5 between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(figure, panel) -> None:
    """Beside the panels, in the order of the methods."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)
