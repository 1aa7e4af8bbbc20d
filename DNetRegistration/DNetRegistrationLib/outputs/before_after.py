"""Two small pictures of the moving scan on the same slices, before and after, to be flickered between.

The outline of the fixed cortex stands still in both: where it lies on the moving bone afterwards, they are aligned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..bone.cortex import CorticalBone
from ..core.pictures import require_pillow
from ..imaging.volume import Volume
from .slices import BRIGHTEST, FIXED_COLOR, Layer, View, length_text, round_length, window

PIXELS = 400  # along the edge of a slice
GAP = 6
OUTSIDE = "#2B2E33"
THICKNESS = 2.0  # of the outline, in pixels


@dataclass(frozen=True)
class Slices:
    """Three orthogonal slices side by side; see `slices.Window.views`.

    Attributes:
        pixels: ``(PIXELS, 3 * PIXELS + 2 * GAP, 3)`` uint8, red, green and blue.
        views: what each slice shows.
        note: what else to know of it.
    """

    pixels: np.ndarray
    views: tuple[View, View, View]
    note: str = ""


def before_and_after(
    fixed: Volume, moving: Volume, bones: tuple[CorticalBone, CorticalBone], matrix: np.ndarray, mark: str = ""
) -> tuple[Slices, Slices]:
    """The moving scan as it lies in the world, and as it is carried onto the fixed one.

    The slices lie along the fixed bone's own axes through the middle of its cortex, whose outline is drawn.

    Args:
        fixed, moving: the scans.
        bones: cortical bone of the fixed and of the moving scan.
        matrix: ``(4, 4)``, fixed to moving points, LPS mm.
        mark: of the alignment, as `Alignment.mark` gives it; a note of the latter.
    """
    shown = window(bones, matrix)
    views = shown.views(fixed.anatomical)
    layers = Layer.of(fixed, bones[0]), Layer.of(moving, bones[1])
    before, after = (_slices(*layers, placed, views) for placed in (np.eye(4), matrix))
    note = ""
    if not shown.shows(bones[1]):
        away = float(np.linalg.norm(bones[1].center - bones[0].center))
        note = f"the moving bone lies {length_text(away)} away"
    return Slices(before, views, note), Slices(after, views, mark)


def write_slices(path: str | Path, slices: Slices) -> None:
    """Writes one of the two to a ``.webp`` of some tens of kilobytes, or to a ``.png``, with names and a scale bar.

    Args:
        path: of the file.
        slices: what `before_and_after` gave.

    Raises:
        PackageError: Pillow is missing.
        OSError: the file cannot be written.
    """
    require_pillow("a picture")
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(slices.pixels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)

    def write(place: tuple[float, float], text: str, anchor: str) -> None:
        # The font that Pillow brings has no micro sign.
        draw.text(place, text.replace("µ", "u"), "white", font, anchor, stroke_width=1, stroke_fill="black")

    middle, near, far = PIXELS / 2, 4, PIXELS - 4
    for number, view in enumerate(slices.views):
        left = number * (PIXELS + GAP)
        write((left + near, near), view.name, "lt")
        for name, x, y, anchor in zip(
            view.ends, (near, far, middle, middle), (middle, middle, near, far), ("lm", "rm", "mt", "mb"), strict=True
        ):
            write((left + x, y), name, anchor)
    width = slices.views[0].width
    length = round_length(width / 4)
    bar = length / width * PIXELS
    draw.rectangle((10, far - 6, 10 + bar, far - 2), "white", "black")
    write((10 + bar / 2, far - 9), length_text(length), "mb")
    write((image.width / 2, far - 20), slices.note, "mb")
    if Path(path).suffix.lower() == ".webp":
        image.save(path, quality=72, method=4)
    else:
        image.save(path, optimize=True)


def _slices(fixed: Layer, moving: Layer, placed: np.ndarray, views: tuple[View, View, View]) -> np.ndarray:
    gap = np.zeros((PIXELS, GAP, 3), np.uint8)
    drawn = [_slice(fixed, moving, placed, view) for view in views]
    return np.concatenate([drawn[0], gap, drawn[1], gap, drawn[2]], 1)


def _slice(fixed: Layer, moving: Layer, placed: np.ndarray, view: View) -> np.ndarray:
    points = view.points(PIXELS)
    grey = moving.grey(points @ placed[:3, :3].T + placed[:3, 3])
    color = np.where(np.isfinite(grey)[..., None], (BRIGHTEST * 255 * grey)[..., None], _rgb(OUTSIDE))
    line = _line(np.where(np.isfinite(fixed.grey(points)), fixed.cortex(points), np.nan))[..., None]
    return np.rint((1 - line) * color + line * _rgb(FIXED_COLOR)).astype(np.uint8)


def _line(share: np.ndarray) -> np.ndarray:
    """How much of each pixel an outline covers, 0 to 1: its distance from the level 0.5 is told by the slope there."""
    slope = np.hypot(*np.gradient(share))
    distance = np.abs(share - 0.5) / np.maximum(slope, 1e-6)
    return np.nan_to_num(np.clip((THICKNESS + 1) / 2 - distance, 0, 1))


def _rgb(color: str) -> np.ndarray:
    return np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)], float)
