"""The curves of a training run, as in Fig. 3: loss, rotation error and translation error against the iteration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.pictures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A panel each: the column of a run's log, the panel's label, and the columns of its validations.
QUANTITIES = (
    ("loss", "loss", None),
    ("re_deg", "rotation error (degrees)", "re_{}_deg"),
    ("te_um", "translation error (um)", "te_{}_um"),
)
TRAINING_COLOR, VALIDATION_COLORS = "#8FAADC", ("#1F4E79", "#C55A11")


def curve_panels(size: tuple[float, float] = (11, 3.4)) -> tuple[Figure, Sequence[Axes]]:
    """A figure with empty panels for `QUANTITIES` against the iteration, as in Fig. 3."""
    figure = new_figure(*size)
    panels = figure.subplots(1, len(QUANTITIES))
    for panel, (_, label, _) in zip(panels, QUANTITIES, strict=True):
        panel.set(xlabel="iteration", ylabel=label, yscale="log")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3, linewidth=0.4)
    return figure, panels


def draw_curves(
    log: Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]],
    path: Path,
    title: str,
    stages: Iterable[int] = (),
) -> None:
    """Draws the curves of one run into a file.

    Args:
        log: lines of its log, each with "iteration" and "loss", and "re_deg" and "te_um" where it has them.
        validation: lines of its validations, each with "iteration", "views", and means and medians of the errors.
        path: ending in .png, .pdf or .svg.
        title: above the panels.
        stages: the iterations at which another stage of training begins; each is marked by a line.
    """
    figure, panels = curve_panels()
    for panel, (trained, _, validated) in zip(panels, QUANTITIES, strict=True):
        lines = [(line["iteration"], line[trained]) for line in log if trained in line]
        panel.plot(*_columns(lines), color=TRAINING_COLOR, linewidth=0.8, label="training, mean")
        if validated is not None:
            for kind, color in zip(_kinds(validation), VALIDATION_COLORS, strict=False):
                for what, style in (("mean", "x:"), ("median", "o-")):
                    points = [(v["iteration"], v[validated.format(what)]) for v in validation if v["views"] == kind]
                    label = f"{kind} views, {what}"
                    panel.plot(*_columns(points), style, color=color, linewidth=1, markersize=2, label=label)
        for place, start in enumerate(sorted(stages)):
            label = "another stage begins" if place == 0 else None
            panel.axvline(start, color="0.6", linestyle="--", linewidth=0.8, zorder=0, label=label)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path)


def _kinds(validation: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["views"] for line in validation))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
