"""The picture of an alignment: three orthogonal slices before and after, with both cortices outlined."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bone.cortex import CorticalBone
from ..core.pictures import new_figure
from ..core.words import capital, micrometres, percent, plain
from ..imaging.resample import interpolate
from ..imaging.volume import Volume
from ..registration.result import Alignment
from ..version import __version__
from .slices import BRIGHTEST, FIXED_COLOR, MOVING_COLOR, Layer, View, length_text, round_length, window
from .subtraction import farthest
from .summary import found_by, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD_COLOR, BAD_COLOR = "#1B7F5C", "#B3261E"
INK, FAINT = "#1A1A1A", "#5F6368"
PIXELS = 420  # along the edge of a panel
# Inches.
WIDTH, MARGIN, PANEL, ROW = 10.0, 0.15, 3.13, 3.38
VERDICT_LINE, NOTE_LINE = 0.225, 0.125


@dataclass(frozen=True)
class Panel:
    """The content of one panel, ``(PIXELS, PIXELS)`` arrays, NaN outside the fields of view.

    Attributes:
        grey: how bright it is, 0 to 1.
        fixed, moving: share of the cortex of either scan.
    """

    grey: np.ndarray
    fixed: np.ndarray
    moving: np.ndarray


def write_overlay(
    path: str | Path,
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    bones: tuple[CorticalBone, CorticalBone],
    subtraction: Volume | None = None,
) -> None:
    """Draws the picture to a ``.png``, ``.pdf`` or ``.svg``; see `draw_overlay`."""
    # Without a date, the same result gives the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(Path(path).suffix.lower(), {})
    draw_overlay(alignment, fixed, moving, bones, subtraction).savefig(path, metadata=metadata)


def draw_overlay(
    alignment: Alignment,
    fixed: Volume,
    moving: Volume,
    bones: tuple[CorticalBone, CorticalBone],
    subtraction: Volume | None = None,
) -> Figure:
    """The picture as a ``matplotlib.figure.Figure``, 10 inches wide and as high as its words and rows take.

    The slices lie along the fixed bone's own axes through the middle of its cortex. They show the mean of the grey
    values of the scans that lie there: before as they lie in the world, after with the moving scan carried onto the
    fixed one. All panels have one scale.

    Args:
        alignment: the alignment.
        fixed, moving: the scans it aligns.
        bones: cortical bone of the fixed and the moving scan.
        subtraction: what `outputs.subtraction.subtract` gives, for a third row; or None.

    Raises:
        PackageError: matplotlib is missing.
    """
    figure = new_figure(WIDTH, WIDTH, layout=None)
    matrix = np.asarray(alignment.matrix, np.float64)
    verdict = _wrapped(figure, _reason(alignment), WIDTH - _beside_badge(alignment) - MARGIN, size=11)
    note = _wrapped(figure, _note(alignment, subtraction), WIDTH - 0.46 - MARGIN, size=7)
    top = 1.44 + VERDICT_LINE * max(0, len(verdict) - 2)
    rows = 2 if subtraction is None else 3
    named = 0.0 if alignment.bone is None else 0.2
    foot = 0.2 + named + NOTE_LINE * len(note)
    page = _Page(figure, top + rows * ROW + foot)
    shown = window(bones, matrix)
    views = shown.views(fixed.anatomical)
    layers = [Layer.of(volume, bone) for volume, bone in zip((fixed, moving), bones, strict=True)]
    panels = {
        "Before": ([_panel(layers, np.eye(4), view) for view in views], f"Dice {number(alignment.dice_before, '.2f')}"),
        "After": ([_panel(layers, matrix, view) for view in views], f"Dice {number(alignment.dice, '.2f')}"),
    }
    if subtraction is not None:
        reach = farthest(subtraction.voxels)
        carried = [_subtracted(subtraction, reach, layers[0], view) for view in views]
        panels["Subtraction"] = (carried, f"\N{PLUS-MINUS SIGN}{plain(reach)}")
    for row, (label, (drawn, told)) in enumerate(panels.items()):
        start = top + row * ROW
        vertical: dict[str, Any] = {"rotation": 90, "color": INK, "ha": "center"}
        page.text(0.22, start + PANEL * 0.5, label, size=15, weight="bold", va="top", **vertical)
        page.text(0.22, start + PANEL * 0.5 - 0.1, told, size=12, va="bottom", **vertical)
        for column, (view, panel) in enumerate(zip(views, drawn, strict=True)):
            axes = page.axes(0.45 + 3.19 * column, start, PANEL)
            _draw_panel(axes, panel, view)
            if column == 0:
                _scale_bar(axes, shown.width)
    if not shown.shows(bones[1]):
        away = np.linalg.norm(bones[1].center - bones[0].center)
        told = f"the moving bone lies {length_text(float(away))} away"
        page.text(3.7, top + ROW - 0.12, told, size=9, color=INK, va="center")
    _write_verdict(page, alignment, verdict)
    _write_numbers(page, alignment, top)
    _write_scan(page, 0.46, top, "fixed", fixed, FIXED_COLOR, 3.5)
    _write_scan(page, 5.26, top, "moving", moving, MOVING_COLOR, 2)
    below = top + rows * ROW
    if alignment.bone is not None:
        page.text(0.46, below - 0.08, alignment.bone.name.capitalize(), size=9, color=INK, va="top", parse_math=False)
    page.text(0.46, below + named, "\n".join(note), size=7, color=FAINT, va="top", linespacing=1.2, parse_math=False)
    return figure


class _Page:
    """A figure in inches from its upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        figure.set_size_inches(WIDTH, height)
        self.figure, self.height = figure, height

    def text(self, x: float, y: float, text: str, **style: Any) -> Any:
        return self.figure.text(x / WIDTH, 1 - y / self.height, text, **style)

    def axes(self, left: float, top: float, width: float) -> Axes:
        return self.figure.add_axes((left / WIDTH, 1 - (top + width) / self.height, width / WIDTH, width / self.height))

    def line(self, left: float, right: float, y: float, **style: Any) -> None:
        from matplotlib.lines import Line2D

        height = 1 - y / self.height
        self.figure.add_artist(Line2D((left / WIDTH, right / WIDTH), (height, height), **style))


def _wrapped(figure: Figure, text: str, inches: float, size: float) -> list[str]:
    """The lines of a text that are at most so wide. A word that is wider is broken; nothing is left out."""
    probe = figure.text(0, 0, "", size=size, parse_math=False)

    def fits(line: str) -> bool:
        probe.set_text(line)
        return probe.get_window_extent().width <= inches * figure.dpi

    lines = [""]
    for word in text.split():
        if lines[-1] and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        while not fits(word):
            most = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or fits(word[:n]))
            lines[-1], word = word[:most], word[most:]
            lines.append("")
        lines[-1] = word
    probe.remove()
    return lines


def _panel(layers: list[Layer], placed: np.ndarray, view: View) -> Panel:
    points = view.points(PIXELS)
    both = (points, points @ placed[:3, :3].T + placed[:3, 3])
    greys = np.stack([layer.grey(at) for layer, at in zip(layers, both, strict=True)])
    seen = np.isfinite(greys)
    total = np.where(seen, greys, 0).sum(0)
    grey = np.divide(total, seen.sum(0), out=np.full(total.shape, np.nan), where=seen.any(0))
    # An outline ends where a field of view ends: closing it there would draw a surface that does not exist.
    shares = [np.where(here, layer.cortex(at), np.nan) for layer, at, here in zip(layers, both, seen, strict=True)]
    return Panel(BRIGHTEST * grey, *shares)


def _subtracted(subtraction: Volume, reach: float, fixed: Layer, view: View) -> Panel:
    """Zero is middle grey, and so is what does not differ; the fixed cortex is outlined."""
    points = view.points(PIXELS)
    values = interpolate(subtraction.voxels, subtraction.affine, points)
    grey = np.clip(0.5 + values / (2 * max(reach, 1e-9)), 0, 1)
    share = np.where(np.isfinite(grey), fixed.cortex(points), np.nan)
    return Panel(grey, share, np.full_like(share, np.nan))


def _draw_panel(axes: Axes, panel: Panel, view: View) -> None:
    axes.set_facecolor("#2B2E33")
    edge = (0, PIXELS, PIXELS, 0)
    axes.imshow(np.ma.masked_invalid(panel.grey), cmap="gray", vmin=0, vmax=1, extent=edge, interpolation="bilinear")
    grid = np.arange(PIXELS) + 0.5
    for share, color, thickness in ((panel.fixed, FIXED_COLOR, 2.0), (panel.moving, MOVING_COLOR, 0.9)):
        if np.nanmax(share, initial=0) > 0.5 > np.nanmin(share, initial=1):
            # The moving line is thinner and on top: where the two agree, red runs in the middle of blue.
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


def _write_fitted(page: _Page, x: float, y: float, start: str, text: str, right: float, **style: Any) -> None:
    """Writes `start` and `text` from `x` on, the middle of `text` shortened so that it ends before `right`."""
    # File names may hold dollar signs, which are not mathematics.
    shown = page.text(x, y, start + text, parse_math=False, **style)
    length = len(text)
    while length > 8 and shown.get_window_extent().x1 > right * page.figure.dpi:
        length -= 2
        # The end of a path tells more than its beginning.
        shown.set_text(f"{start}{text[: length // 3]}…{text[-(length - length // 3) :]}")


def _note(alignment: Alignment, subtraction: Volume | None) -> str:
    shown = ""
    if subtraction is not None:
        shown = " Subtraction: the scan with contrast agent minus the other; middle grey is 0."
        if alignment.surroundings:
            shown += " What surrounds the bone is of another brightness in the other scan, which it shows too."
    return (
        f"Bone is what lies above {plain(alignment.fixed_threshold)} grey values of the fixed and above "
        f"{plain(alignment.moving_threshold)} of the moving scan; cortices are outlined. Slices lie along the fixed "
        f"bone's principal axes, through the centre of its cortex. Background: mean of both scans.{shown} "
        f"DNetRegistration {__version__}."
    )


def _reason(alignment: Alignment) -> str:
    # The badge already says whether it was accepted.
    return capital(micrometres(alignment.why))


def _beside_badge(alignment: Alignment) -> float:
    return 1.9 if alignment.accepted else 2.5


def _write_verdict(page: _Page, alignment: Alignment, lines: list[str]) -> None:
    accepted = alignment.accepted
    badge = {"boxstyle": "round,pad=0.35", "facecolor": GOOD_COLOR if accepted else BAD_COLOR, "edgecolor": "none"}
    words = "ACCEPTED" if accepted else "NOT ACCEPTED"
    page.text(0.51, 0.24, words, size=14, weight="bold", color="white", bbox=badge, va="center")
    single = len(lines) == 1
    place: dict[str, Any] = {"va": "center"} if single else {"va": "top", "linespacing": 1.25}
    reason = "\n".join(lines)
    page.text(_beside_badge(alignment), 0.24 if single else 0.06, reason, size=11, color=INK, parse_math=False, **place)


def _write_numbers(page: _Page, alignment: Alignment, top: float) -> None:
    by_network = alignment.hypothesis == "dnet"
    numbers = (
        ("confidence", percent(alignment.confidence)),
        ("expected error", length_text(alignment.expected_error_um / 1000)),
        ("Dice", f"{number(alignment.dice_before, '.2f')} → {number(alignment.dice, '.2f')}"),
        ("rotation", f"{number(alignment.rotation_deg, '.2f')}°"),
        ("translation", length_text(float(np.linalg.norm(alignment.translation_mm)))),
        # There is room for one word only.
        ("found by network", str(alignment.network)) if by_network else ("found by", found_by(alignment)),
    )
    for place, (label, value) in enumerate(numbers):
        left = 0.46 + 1.6 * place
        page.text(left, top - 0.83, label, size=8.5, color=FAINT, va="center")
        page.text(left, top - 0.64, value, size=12.5, weight="bold", color=INK, va="center", parse_math=False)


def _write_scan(page: _Page, left: float, top: float, label: str, volume: Volume, color: str, line: float) -> None:
    """Writes the name, size and spacing of a scan, with its line in the legend, from `left` on."""
    page.line(left, left + 0.3, top - 0.34, color=color, linewidth=line)
    size = " × ".join(str(n) for n in volume.size)
    spacing = np.round(volume.spacing * 1000, 2)
    steps = " × ".join(f"{s:g}" for s in (spacing if len(set(spacing.tolist())) > 1 else spacing[:1]))
    text, start = str(volume.name), f"{label}: "
    _write_fitted(page, left + 0.38, top - 0.34, start, text, left + 4.6, size=9, color=INK, va="center")
    page.text(left + 0.38, top - 0.19, f"{size} voxels of {steps} µm", size=7.5, color=FAINT, va="center")
