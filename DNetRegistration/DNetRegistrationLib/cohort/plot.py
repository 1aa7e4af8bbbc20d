"""Where the points of the plot over a cohort lie: Dice, expected error and confidence, one place a pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..registration.verdict import ACCEPT
from .result import PairResult

#: Of a panel, in the units of the drawing; the panels stand below each other.
LEFT, WIDTH, HEIGHT, TOP, GAP = 64, 1120, 104, 26, 34


@dataclass(frozen=True)
class Tick:
    """A line across a panel: where it is, and what stands beside it."""

    y: float
    text: str
    limit: bool = False


@dataclass(frozen=True)
class Point:
    """A pair in a panel. `y` is None where the number is not known; then it stands at the foot. `start`: before."""

    pair: int
    x: float
    y: float
    known: bool
    text: str
    start: float | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity over all pairs."""

    title: str
    top: float
    bottom: float
    ticks: tuple[Tick, ...]
    points: tuple[Point, ...]


def panels(pairs: Sequence[PairResult]) -> tuple[Panel, ...]:
    """The three panels, for a drawing of `size`; points count the pairs from 0, in their order."""
    errors = [pair.expected_error_um for pair in pairs if math.isfinite(pair.expected_error_um)]
    voxels = {round(pair.working_spacing_um, 3) for pair in pairs if math.isfinite(pair.working_spacing_um)}
    positive = [max(error, 0.01) for error in [*errors, *voxels]] or [1.0]
    low, high = math.floor(math.log10(min(positive))), max(math.ceil(math.log10(max(positive))), 1)
    low = min(low, high - 1)

    def decades(value: float) -> float:
        return (math.log10(max(value, 10.0**low)) - low) / (high - low)

    limit = [(voxels.pop(), "1 voxel", True)] if len(voxels) == 1 else []
    powers = [(10.0**power, f"{10.0**power:g}", False) for power in range(low, high + 1)]
    shares = [(0.0, "0", False), (0.5, "0.5", False), (1.0, "1", False)]
    return (
        _panel(0, "Dice of cortices", pairs, "dice", ".3f", float, shares, "dice_before"),
        _panel(1, "Expected error (µm)", pairs, "expected_error_um", ".2f", decades, [*powers, *limit]),
        _panel(2, "Confidence", pairs, "confidence", ".3f", float, [*shares, (ACCEPT, f"{ACCEPT:g}", True)]),
    )


def size() -> tuple[int, int]:
    """Width and height of the drawing."""
    return LEFT + WIDTH + 16, TOP + 3 * (HEIGHT + GAP)


def _panel(
    number: int,
    title: str,
    pairs: Sequence[PairResult],
    name: str,
    style: str,
    scale: Callable[[float], float],
    lines: Sequence[tuple[float, str, bool]],
    start: str | None = None,
) -> Panel:
    top = TOP + number * (HEIGHT + GAP)
    bottom = top + HEIGHT

    def height(value: float) -> float:
        return round(bottom - min(max(scale(value), 0.0), 1.0) * HEIGHT, 1)

    points = []
    for index, pair in enumerate(pairs):
        value = getattr(pair, name)
        known = math.isfinite(value)
        before = getattr(pair, start) if start else math.nan
        points.append(
            Point(
                index,
                round(LEFT + WIDTH * (index + 0.5) / len(pairs), 1),
                height(value) if known else bottom,
                known,
                f"{title} {format(value, style)}" if known else f"{title} unknown",
                height(before) if math.isfinite(before) else None,
            )
        )
    return Panel(
        title, top, bottom, tuple(Tick(height(value), text, limit) for value, text, limit in lines), tuple(points)
    )
