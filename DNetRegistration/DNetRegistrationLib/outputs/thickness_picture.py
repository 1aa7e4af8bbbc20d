"""The picture of a measurement of cartilage: thickness on the joint surface seen from above, and two slices."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cartilage.result import CartilageMeasurement, ThicknessMap
from ..core.pictures import new_figure
from ..core.words import micrometres
from ..imaging.resample import interpolate
from ..imaging.volume import Volume
from ..version import __version__
from .thickness_surface import UNKNOWN, color_limit_um

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _BAD = "#1A1A1A", "#5F6368", "#B3261E"
_BONE, _OUTER = "#56B4E9", "#FF9E1B"
_GREY = "#{:02x}{:02x}{:02x}".format(*UNKNOWN)
# About the map and the cut layer, mm; and how finely slices are sampled.
_MARGIN, _BELOW, _ABOVE, _PIXELS = 0.12, 0.3, 0.2, 700


@dataclass(frozen=True)
class Frame:
    """The joint surface as one looks down on it.

    Attributes:
        center: ``(3,)`` of the surface, LPS mm.
        right, up, out: ``(3,)`` unit vectors: medial to lateral, across it, and out of the bone.
    """

    center: np.ndarray
    right: np.ndarray
    up: np.ndarray
    out: np.ndarray

    @classmethod
    def of(cls, measurement: CartilageMeasurement) -> Frame:
        """From medial on the left to lateral on the right; where sides are unknown, along the longer extent."""
        found = measurement.map
        weights = found.areas_mm2[:, None]
        center = (found.points * weights).sum(0) / weights.sum()
        out = (found.normals * weights).sum(0)
        out /= max(float(np.linalg.norm(out)), 1e-12)
        sides = {one.name: number for number, one in enumerate(measurement.compartments)}
        middles = [_middle(found, sides[name]) for name in ("medial", "lateral") if name in sides]
        if len(middles) == 2 and all(np.isfinite(one).all() for one in middles):
            right = middles[1] - middles[0]
        else:
            spread = (found.points - center) * np.sqrt(weights)
            right = np.linalg.svd(spread - np.outer(spread @ out, out), full_matrices=False)[2][0]
        right = right - (right @ out) * out
        right /= max(float(np.linalg.norm(right)), 1e-12)
        return cls(center, right, np.cross(out, right), out)

    def seen(self, points: np.ndarray) -> np.ndarray:
        """``(n, 3)`` mm to the right, up and out."""
        return (points - self.center) @ np.stack((self.right, self.up, self.out), 1)


def write_picture(path: str | Path, measurement: CartilageMeasurement, contrast: Volume, matrix: np.ndarray) -> None:
    """Draws the picture to a ``.png``, ``.pdf`` or ``.svg``; see `draw_thickness`."""
    # Without a date, and with names of its parts that are not drawn, the same result gives the same file.
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(Path(path).suffix.lower(), {})
    figure = draw_thickness(measurement, contrast, matrix)
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "DNetRegistration"}):
        figure.savefig(path, metadata=metadata, dpi=200)


def draw_thickness(measurement: CartilageMeasurement, contrast: Volume, matrix: np.ndarray) -> Figure:
    """The picture as a ``matplotlib.figure.Figure``, 10 by 5.2 inches.

    Left: the surface seen from above, coloured by thickness, grey where it was filled or not measured, compartments
    outlined. Right: the scan with agent cut along the two lines that the left part shows, with the bone's surface and
    the layer's.

    Args:
        measurement: the measurement.
        contrast: the scan with contrast agent.
        matrix: ``(4, 4)`` from the world of the scan without agent to that of the one with it, LPS mm.

    Raises:
        PackageError: matplotlib is missing.
    """
    figure = new_figure(10, 5.2, layout=None)
    frame = Frame.of(measurement)
    seen = frame.seen(measurement.map.points)
    low, high = seen.min(0) - _MARGIN, seen.max(0) + _MARGIN
    # The map has two lines of heading above it, the upper slice one; below it stand a slice's name and the colours.
    top = _words(figure, measurement)
    plateau = figure.add_axes((0.02, 0.16, 0.5, min(0.85, top - 0.09) - 0.16))
    cuts = _cuts(measurement, frame)
    _draw_map(figure, plateau, measurement, frame, low, high, cuts)
    for number, (name, at, along) in enumerate(cuts):
        low_edge = 0.5 - 0.39 * number
        axes = figure.add_axes((0.56, low_edge, 0.42, min(low_edge + 0.35, top - 0.05) - low_edge))
        _draw_slice(axes, measurement, frame, contrast, matrix, name, at, along)
    return figure


def _middle(found: ThicknessMap, number: int) -> np.ndarray:
    chosen = found.compartment == number
    weight = found.areas_mm2[chosen]
    return weight @ found.points[chosen] / weight.sum() if weight.sum() > 0 else np.full(3, np.nan)


def _cuts(measurement: CartilageMeasurement, frame: Frame) -> list[tuple[str, np.ndarray, int]]:
    """Name, a point in the frame, and the frame's axis along the slice: through both sides, and one measured."""
    known = [number for number, one in enumerate(measurement.compartments[:-1]) if not np.isnan(one.mean_thickness_um)]
    middle = _middle(measurement.map, known[0] if known else 0)
    first = frame.seen(middle[None])[0] if np.isfinite(middle).all() else np.zeros(3)
    return [("A", np.zeros(3), 0), ("B", first, 1)]


def _draw_map(
    figure: Figure,
    axes: Axes,
    measurement: CartilageMeasurement,
    frame: Frame,
    low: np.ndarray,
    high: np.ndarray,
    cuts: list[tuple[str, np.ndarray, int]],
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection, PolyCollection

    found = measurement.map
    seen = frame.seen(found.points)
    # What lies higher hides what lies below.
    triangles = found.triangles[np.argsort(seen[found.triangles, 2].mean(1), kind="stable")]
    limit = color_limit_um(found)
    corners = found.thickness_um[triangles]
    known = np.isfinite(corners)
    mean = np.where(known, corners, 0).sum(1) / np.maximum(known.sum(1), 1)
    painter: Any = PolyCollection(
        seen[triangles][:, :, :2], array=np.ma.masked_where(known.sum(1) < 2, mean), edgecolors="face", linewidths=0.2
    )
    colors = colormaps["viridis"].with_extremes(bad=_GREY)
    painter.set(cmap=colors, clim=(0, limit), rasterized=True)
    axes.add_collection(painter)
    for number, one in enumerate(measurement.compartments[:-1] or measurement.compartments):
        edges = rim(found.triangles[(found.compartment[found.triangles] == number).sum(1) >= 2])
        axes.add_collection(LineCollection(seen[edges][:, :, :2], colors=_INK, linewidths=1.1))
        middle = frame.seen(_middle(found, number)[None])[0]
        if np.isfinite(middle).all():
            size: dict[str, Any] = {"ha": "center", "va": "bottom", "size": 10, "color": _INK}
            mean_um = "not measured" if np.isnan(one.mean_thickness_um) else f"{one.mean_thickness_um:.1f} µm"
            sure = measurement.sides_known is not False or one.name not in ("medial", "lateral")
            axes.text(middle[0], high[1] + 0.01, f"{one.name}{'' if sure else ' (?)'}\n{mean_um}", **size)
    for name, at, along in cuts:
        ends = [at.copy(), at.copy()]
        ends[0][along], ends[1][along] = low[along] + _MARGIN / 2, high[along] - _MARGIN / 2
        axes.plot(*np.transpose(ends)[:2], color="white", lw=2.4, alpha=0.8)
        axes.plot(*np.transpose(ends)[:2], color=_INK, lw=0.9, ls=(0, (5, 3)))
        beside: dict[str, Any] = {"ha": "right", "va": "center"} if along == 0 else {"ha": "center", "va": "top"}
        axes.text(ends[0][0], ends[0][1], f"{name} ", **beside)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.axis("off")
    # The other slice's name stands below its compartment.
    right = cuts[1][1][0] <= 0
    _scale_bar(axes, high[0] if right else low[0], low[1] - 0.01, high[0] - low[0], right=right)
    if not known.any():
        return
    place = figure.add_axes((0.12, 0.1, 0.3, 0.022))
    bar = figure.colorbar(painter, cax=place, orientation="horizontal", extend="max")
    bar.set_label("cartilage thickness (µm); grey: filled or not measured", color=_INK)


def _draw_slice(
    axes: Axes,
    measurement: CartilageMeasurement,
    frame: Frame,
    contrast: Volume,
    matrix: np.ndarray,
    name: str,
    at: np.ndarray,
    along: int,
) -> None:
    from matplotlib.collections import LineCollection

    found = measurement.map
    seen, normals = frame.seen(found.points), frame.seen(found.normals + frame.center)
    outer = seen + np.nan_to_num(found.thickness_um)[:, None] / 1000 * normals
    # The lines of the bone, and of what lies on it where that was measured.
    bone, layer, known = section(seen, outer, found.triangles, 1 - along, at[1 - along], found.measured)
    across = bone[..., along] if len(bone) else seen[None, :, along]
    height = bone[..., 2] if len(bone) else seen[None, :, 2]
    low = np.array((across.min() - _MARGIN, height.min() - _BELOW))
    high = np.array((across.max() + _MARGIN, height.max() + _ABOVE))
    step = float((high - low).max()) / _PIXELS
    right, up = np.meshgrid(np.arange(low[0], high[0], step), np.arange(low[1], high[1], step))
    place = np.zeros((*right.shape, 3))
    place[..., 1 - along], place[..., along], place[..., 2] = at[1 - along], right, up
    points = frame.center + place @ np.stack((frame.right, frame.up, frame.out))
    grey = interpolate(contrast.voxels, contrast.affine, points @ matrix[:3, :3].T + matrix[:3, 3])
    lit = grey[np.isfinite(grey)]
    limits = np.percentile(lit, (1, 99.7)) if len(lit) else (0.0, 1.0)
    extent = (low[0], high[0], low[1], high[1])
    axes.imshow(grey, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower", extent=extent, rasterized=True)
    for lines, color in ((bone, _BONE), (layer[known], _OUTER)):
        axes.add_collection(LineCollection(list(lines[..., (along, 2)]), colors=color, linewidths=1.0))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", anchor="W")
    axes.set(xticks=(), yticks=(), facecolor=_GREY)
    axes.set_title(f"{name}   ", loc="left", color=_INK, size=11, weight="bold", pad=3)
    _scale_bar(axes, low[0] + 0.03 * (high - low)[0], low[1] + 0.08 * (high - low)[1], (high - low)[0], "white")
    if name == "A":
        axes.text(0.06, 1.03, "bone surface", color="#1F77A8", size=8, transform=axes.transAxes)
        axes.text(0.3, 1.03, "cartilage surface", color="#C06A00", size=8, transform=axes.transAxes)
        axes.text(1.0, 1.03, "scan with contrast agent", color=_FAINT, size=8, ha="right", transform=axes.transAxes)


def rim(triangles: np.ndarray) -> np.ndarray:
    """``(k, 2)`` the edges that belong to one triangle only."""
    edges = np.concatenate((triangles[:, (0, 1)], triangles[:, (1, 2)], triangles[:, (2, 0)]))
    kinds, counts = np.unique(np.sort(edges, 1), axis=0, return_counts=True)
    return kinds[counts == 1]


def section(
    points: np.ndarray, carried: np.ndarray, triangles: np.ndarray, axis: int, at: float, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a plane cuts a surface, and what its points carry.

    Args:
        points: ``(n, 3)`` of the surface.
        carried: ``(n, 3)`` of another surface, point by point.
        triangles: ``(m, 3)``.
        axis, at: the plane, where this coordinate of the points has this value.
        known: ``(n,)`` bool, where `carried` is known.

    Returns:
        ``(k, 2, 3)`` line pieces in the plane, ``(k, 2, 3)`` the same pieces of `carried`, and ``(k,)`` bool, whether
        these are known.
    """
    side = points[:, axis] - at
    above = side > 0
    cut = triangles[above[triangles].any(1) & ~above[triangles].all(1)]
    first, second, sure = [], [], np.ones(len(cut), bool)
    # One corner lies alone on its side; both edges from it are cut.
    alone = np.where(above[cut].sum(1) == 1, above[cut].argmax(1), (~above[cut]).argmax(1))
    row = np.arange(len(cut))
    for step in (1, 2):
        a, b = cut[row, alone], cut[row, (alone + step) % 3]
        share = (side[a] / (side[a] - side[b]))[:, None]
        first.append(points[a] + share * (points[b] - points[a]))
        second.append(carried[a] + share * (carried[b] - carried[a]))
        sure &= known[a] & known[b]
    return np.stack(first, 1), np.stack(second, 1), sure


def _scale_bar(axes: Axes, left: float, bottom: float, width: float, color: str = _INK, right: bool = False) -> None:
    from matplotlib.patheffects import withStroke

    length = next((one for one in (1.0, 0.5, 0.2, 0.1, 0.05) if one < 0.3 * width), 0.02)
    left -= length if right else 0
    # Words on a scan lie on bright bone or on dark liquid.
    halo = [withStroke(linewidth=2, foreground=_INK)] if color != _INK else []
    axes.plot(
        (left, left + length),
        (bottom, bottom),
        color=color,
        lw=3,
        solid_capstyle="butt",
        clip_on=False,
        path_effects=halo,
    )
    words = f"{length:g} mm" if length >= 0.5 else f"{1000 * length:g} µm"
    place = left + length / 2, bottom + 0.012 * width
    axes.text(*place, words, color=color, ha="center", va="bottom", size=9, path_effects=halo)


def _words(figure: Figure, measurement: CartilageMeasurement) -> float:
    """Writes the title and the warnings; returns where they end, as a share of the picture's height."""
    row = measurement.compartments[-1]
    if np.isnan(row.mean_thickness_um):
        title = "Cartilage: not measured"
    else:
        share = round(100 * (row.measured_share + row.filled_share))
        title = (
            f"Cartilage {row.mean_thickness_um:.1f} ± {row.standard_error_um:.1f} µm (mean ± standard error), "
            f"{row.volume_mm3:.4f} mm³ on {f'{share} % of ' if share < 100 else ''}{row.area_mm2:.2f} mm²"
        )
    accepted, color = ("", _INK) if measurement.accepted else ("ALIGNMENT NOT ACCEPTED. ", _BAD)
    figure.text(0.02, 0.972, accepted + title, size=12, weight="bold", color=color, va="center")
    # Whole sentences: longer ones in smaller letters.
    told = micrometres(" ".join(measurement.warnings))
    lines, size = textwrap.wrap(told, 170), 8
    if len(lines) > 3:
        lines, size = textwrap.wrap(told, 225), 6
    figure.text(0.02, 0.947, "\n".join(lines), size=size, color=_BAD, va="top")
    figure.text(0.98, 0.02, f"DNetRegistration {__version__}", size=7, color=_FAINT, ha="right")
    return 0.947 - len(lines) * 1.25 * size / 72 / figure.get_figheight()
