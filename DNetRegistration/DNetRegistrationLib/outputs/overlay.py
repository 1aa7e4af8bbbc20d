"""The picture of an alignment: three orthogonal slices before and after, with both cortices outlined."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bone.cortex import CorticalBone
from ..core.pictures import new_figure
from ..imaging.volume import Volume
from ..registration.result import Alignment
from ..version import __version__
from .slices import BRIGHTEST, FIXED_COLOR, MOVING_COLOR, VIEWS, Layer, View, length_text, round_length, visible, window
from .summary import found_by, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD_COLOR, BAD_COLOR = "#1B7F5C", "#B3261E"
INK, FAINT = "#1A1A1A", "#5F6368"
PIXELS = 420  # along the edge of a panel


@dataclass(frozen=True)
class Panel:
    """The content of one panel, ``(PIXELS, PIXELS)`` arrays, NaN outside the fields of view.

    Attributes:
        grey: grey values, 0 to 1.
        fixed, moving: share of the cortex of either scan.
    """

    grey: np.ndarray
    fixed: np.ndarray
    moving: np.ndarray


def write_overlay(
    path: str | Path, alignment: Alignment, fixed: Volume, moving: Volume, bones: tuple[CorticalBone, CorticalBone]
) -> None:
    """Draws the picture to a ``.png``, ``.pdf`` or ``.svg``; see `draw_overlay`."""
    # Without a date, the same result gives the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(Path(path).suffix.lower(), {})
    draw_overlay(alignment, fixed, moving, bones).savefig(path, metadata=metadata)


def draw_overlay(
    alignment: Alignment, fixed: Volume, moving: Volume, bones: tuple[CorticalBone, CorticalBone]
) -> Figure:
    """The picture as a ``matplotlib.figure.Figure``, 10 by 8.4 inches.

    The slices lie along the world's axes through the middle of the fixed cortex. They show the mean of the grey values
    of the scans that lie there: before as they lie in the world, after with the moving scan carried onto the fixed one.
    All panels have one scale.

    Args:
        alignment: the alignment.
        fixed, moving: the scans it aligns.
        bones: cortical bone of the fixed and the moving scan.

    Raises:
        PackageError: matplotlib is missing.
    """
    figure = new_figure(10, 8.4, layout=None)
    matrix = np.asarray(alignment.matrix, np.float64)
    center, width = window(bones, matrix)
    layers = [Layer.of(volume, bone) for volume, bone in zip((fixed, moving), bones, strict=True)]
    middle = bones[0].center
    rows = (("Before", np.eye(4), alignment.dice_before), ("After", matrix, alignment.dice))
    for row, (label, placed, dice) in enumerate(rows):
        bottom = 0.456 - 0.402 * row
        vertical: dict[str, Any] = {"rotation": 90, "color": INK, "ha": "center"}
        figure.text(0.022, bottom + 0.186, label, size=15, weight="bold", va="top", **vertical)
        figure.text(0.022, bottom + 0.196, f"Dice {number(dice, '.2f')}", size=12, va="bottom", **vertical)
        for column, view in enumerate(VIEWS):
            axes = figure.add_axes((0.045 + 0.319 * column, bottom, 0.313, 0.313 * 10 / 8.4))
            _draw_panel(axes, _panel(layers, placed, view, center, width, middle[view.through]), view)
            if column == 0:
                _scale_bar(axes, width)
    if not visible(bones[1], center, width):
        away = np.linalg.norm(bones[1].center - bones[0].center)
        figure.text(
            0.37, 0.442, f"the moving bone lies {length_text(float(away))} away", size=9, color=INK, va="center"
        )
    _header(figure, alignment, fixed, moving)
    return figure


def _panel(
    layers: list[Layer], placed: np.ndarray, view: View, center: np.ndarray, width: float, through: float
) -> Panel:
    points = view.points(center, width, through, PIXELS)
    both = (points, points @ placed[:3, :3].T + placed[:3, 3])
    greys = np.stack([layer.grey(at) for layer, at in zip(layers, both, strict=True)])
    seen = np.isfinite(greys)
    total = np.where(seen, greys, 0).sum(0)
    grey = np.divide(total, seen.sum(0), out=np.full(total.shape, np.nan), where=seen.any(0))
    # An outline ends where a field of view ends: closing it there would draw a surface that does not exist.
    shares = [np.where(here, layer.cortex(at), np.nan) for layer, at, here in zip(layers, both, seen, strict=True)]
    return Panel(grey, *shares)


def _draw_panel(axes: Axes, panel: Panel, view: View) -> None:
    axes.set_facecolor("#2B2E33")
    edge = (0, PIXELS, PIXELS, 0)
    axes.imshow(
        np.ma.masked_invalid(BRIGHTEST * panel.grey), cmap="gray", vmin=0, vmax=1, extent=edge, interpolation="bilinear"
    )
    grid = np.arange(PIXELS) + 0.5
    for share, color, thickness in ((panel.fixed, FIXED_COLOR, 2.0), (panel.moving, MOVING_COLOR, 0.9)):
        if np.nanmax(share, initial=0) > 0.5 > np.nanmin(share, initial=1):
            # The moving line is thinner and on top: where the two agree, orange runs in the middle of blue.
            axes.contour(grid, grid, np.ma.masked_invalid(share), [0.5], colors=[color], linewidths=[thickness])
    axes.set(xticks=[], yticks=[], xlim=(0, PIXELS), ylim=(PIXELS, 0))
    for spine in axes.spines.values():
        spine.set_visible(False)
    text: dict[str, Any] = {**_shadowed(), "transform": axes.transAxes}
    left, right, upper, lower = view.ends
    axes.text(0.015, 0.5, left, ha="left", va="center", **text)
    axes.text(0.985, 0.5, right, ha="right", va="center", **text)
    axes.text(0.5, 0.985, upper, ha="center", va="top", **text)
    axes.text(0.5, 0.015, lower, ha="center", va="bottom", **text)
    axes.text(0.02, 0.98, view.name, ha="left", va="top", **text)


def _scale_bar(axes: Axes, width: float) -> None:
    from matplotlib.patches import Rectangle

    length = round_length(width / 4)
    pixels = length / width * PIXELS
    left, top = 0.035 * PIXELS, 0.945 * PIXELS
    bar = Rectangle((left, top), pixels, 0.012 * PIXELS, facecolor="white", edgecolor="black", linewidth=0.6, zorder=5)
    axes.add_patch(bar)
    axes.text(left + pixels / 2, top - 3, length_text(length), ha="center", va="bottom", **_shadowed())


def _shadowed() -> dict[str, Any]:
    """The style of text that can be read on light and on dark grey."""
    from matplotlib import patheffects

    shadow = patheffects.withStroke(linewidth=2.5, foreground="black", alpha=0.8)
    return {"color": "white", "size": 9, "path_effects": [shadow]}


def _write_fitted(figure: Figure, x: float, y: float, start: str, text: str, right: float, **style: Any) -> None:
    """Writes `start` and `text` from `x` on, the middle of `text` shortened so that it ends before `right`."""
    # File names may hold dollar signs, which are not mathematics.
    shown = figure.text(x, y, start + text, parse_math=False, **style)
    length = len(text)
    while length > 8 and shown.get_window_extent().x1 > right * figure.bbox.width:
        length -= 2
        # The end of a path tells more than its beginning.
        shown.set_text(f"{start}{text[: length // 3]}…{text[-(length - length // 3) :]}")


def _header(figure: Figure, alignment: Alignment, fixed: Volume, moving: Volume) -> None:
    """Writes the verdict, the numbers, the names of the scans, and a note at the foot."""
    _write_verdict(figure, alignment)
    _write_numbers(figure, alignment)
    _write_scan(figure, 0.046, "fixed", fixed, FIXED_COLOR, 3.5)
    _write_scan(figure, 0.526, "moving", moving, MOVING_COLOR, 2)
    note = (
        f"Cortical bone outlined above {alignment.fixed_threshold:.4g} (fixed) and {alignment.moving_threshold:.4g} "
        f"(moving); slices in LPS world axes through the fixed cortex's centre; background: mean of both scans. "
        f"DNetRegistration {__version__}"
    )
    if alignment.bone is not None:
        figure.text(0.046, 0.04, alignment.bone.name.capitalize(), size=9, color=INK, va="center")
    figure.text(0.046, 0.022, note, size=7, color=FAINT, va="center", parse_math=False)


def _write_verdict(figure: Figure, alignment: Alignment) -> None:
    accepted = alignment.accepted
    badge = {"boxstyle": "round,pad=0.35", "facecolor": GOOD_COLOR if accepted else BAD_COLOR, "edgecolor": "none"}
    words = "ACCEPTED" if accepted else "NOT ACCEPTED"
    figure.text(0.051, 0.971, words, size=14, weight="bold", color="white", bbox=badge, va="center")
    # The badge already says whether it was accepted; what follows the colon says why.
    reason = str(alignment.verdict).split(": ", 1)[-1]
    verdict = textwrap.shorten(reason[:1].upper() + reason[1:], 190, placeholder=" …")
    lines = "\n".join(textwrap.wrap(verdict, 92 if accepted else 84)[:2])
    left = 0.19 if accepted else 0.25
    figure.text(left, 0.971, lines, size=11, color=INK, va="center", linespacing=1.25, parse_math=False)


def _write_numbers(figure: Figure, alignment: Alignment) -> None:
    by_network = alignment.hypothesis == "dnet"
    numbers = (
        ("confidence", f"{number(100 * alignment.confidence, '.3g')} %"),
        ("expected error", length_text(alignment.expected_error_um / 1000)),
        ("Dice", f"{number(alignment.dice_before, '.2f')} → {number(alignment.dice, '.2f')}"),
        ("rotation", f"{number(alignment.rotation_deg, '.2f')}°"),
        ("translation", length_text(float(np.linalg.norm(alignment.translation_mm)))),
        # There is room for one word only.
        ("found by network", str(alignment.network)) if by_network else ("found by", found_by(alignment)),
    )
    for place, (label, value) in enumerate(numbers):
        left = 0.046 + 0.16 * place
        figure.text(left, 0.927, label, size=8.5, color=FAINT, va="center")
        figure.text(left, 0.905, value, size=12.5, weight="bold", color=INK, va="center", parse_math=False)


def _write_scan(figure: Figure, left: float, label: str, volume: Volume, color: str, thickness: float) -> None:
    """Writes the name, size and spacing of a scan, with its line in the legend, from `left` on."""
    from matplotlib.lines import Line2D

    figure.add_artist(Line2D((left, left + 0.03), (0.869, 0.869), color=color, linewidth=thickness))
    size = " × ".join(str(n) for n in volume.size)
    spacing = np.round(volume.spacing * 1000, 2)
    steps = " × ".join(f"{s:g}" for s in (spacing if len(set(spacing.tolist())) > 1 else spacing[:1]))
    text, start = str(volume.name), f"{label}: "
    _write_fitted(figure, 0.038 + left, 0.869, start, text, left + 0.46, size=9, color=INK, va="center")
    figure.text(0.038 + left, 0.851, f"{size} voxels of {steps} µm", size=7.5, color=FAINT, va="center")
