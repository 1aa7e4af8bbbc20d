"""Random bones other than mouse tibiae: long, flat and irregular shells filled with trabeculae, at the mouse's scale.

A network that has seen only tibiae knows only tibiae. These bones are drawn much more widely than any one bone varies,
so that a rat's tibia, a humerus, a vertebra or a skull is just another sample. They are functions of points in the
animal's frame, as a tibia is, and lie about `tibia.CENTER`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import OptionError, Setting
from .fields import (
    Cover,
    Depths,
    Field,
    Tissue,
    Waves,
    draw_axes,
    draw_direction,
    intersect,
    share_inside,
    single,
    unite,
)
from .tibia import CENTER, Animal

# Coordinates x, y and z of points, ``(n,)`` each.
Points = Sequence[np.ndarray]

KINDS = ("long", "flat", "irregular")
# The roughness and the bumps of a surface make its depth steeper than 1; this factor makes up for it on average.
_SLOPE = 0.88


@dataclass(frozen=True, eq=False)
class Variant:
    """A bone of one of `KINDS`.

    Attributes:
        kind: of bone.
        structure: seed of everything about it.
        left: the mirror image.
    """

    kind: str
    structure: int
    left: bool = False

    @classmethod
    def draw(cls, kind: str, seed: int) -> Variant:
        """Draws a bone of a kind; the same for the same seed.

        Raises:
            OptionError: there is no such kind.
        """
        if kind not in KINDS:
            remedy = f"give tibia, {', '.join(KINDS)}"
            raise OptionError(f"kind of bone {kind!r} is unknown", remedy, Setting("kind"))
        generator = np.random.default_rng([seed, 11])
        return cls(kind, int(generator.integers(1 << 62)), bool(generator.integers(2)))

    def mirrored(self) -> Variant:
        """Mirrors this very bone."""
        return replace(self, left=not self.left)

    @property
    def osteoarthritis(self) -> float:
        """0: these bones have none."""
        return 0.0

    def model(self) -> VariantModel:
        """Makes the bone ready to be evaluated."""
        return VariantModel(self)


def draw_animal(kind: str, seed: int, varied: bool = False) -> Animal | Variant:
    """Draws a bone of a kind: "tibia", `varied` or not, or one of `KINDS`; the same for the same seed.

    Raises:
        OptionError: there is no such kind.
    """
    return Animal.draw(seed, varied) if kind == "tibia" else Variant.draw(kind, seed)


class VariantModel:
    """A `Variant`, ready to be evaluated at points of the animal's frame."""

    def __init__(self, variant: Variant, surface: type[Surface] | None = None) -> None:
        """Makes the bone with a `surface` of its own, or with that of its kind."""
        generator = np.random.default_rng([variant.structure, 12])
        uniform = generator.uniform
        surface = surface or _SURFACES[variant.kind]
        self._side = -1.0 if variant.left else 1.0
        self._outer = surface(generator)
        self._turn = single(draw_axes(generator) if surface.facing is None else np.eye(3)).tolist()
        self._rough = Field(Waves.draw(generator, 20, uniform(0.4, 1.0), 0.5))
        self._roughness = uniform(0.005, 0.03)
        thickness = np.exp(uniform(np.log(0.07), np.log(0.32)))
        self._cortex = self._outer.thickness if surface.solid else min(thickness, 0.45 * self._outer.thickness)
        self._uneven = Field(Waves.draw(generator, 8, uniform(1.5, 3.5), 0.4))
        # Sheets lie half a wavelength apart.
        stretch = (1, 1, np.exp(uniform(0, 1.2)))
        wavelength = 2 * np.exp(uniform(np.log(0.18), np.log(0.45)))
        self._sheets = Field(Waves.draw(generator, 16, wavelength, 0.3, stretch))
        self._holes = Field(Waves.draw(generator, 10, uniform(0.25, 0.5), 0.3, stretch))
        self._strut = 0.5 * uniform(0.04, 0.11)
        self._level = uniform(-1.3, -0.1)  # the higher, the more of the sheets is pierced
        self._facing = single(draw_direction(generator) if surface.facing is None else surface.facing).tolist()
        self._patch = uniform(0.2, 1.0)  # mm from the middle, where cartilage begins
        self._cartilage = uniform(0.03, 0.1)

    def depths(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Depths:
        """Signed distances to the outer surface, any of which cartilage may cover."""
        outer = self._depth(self._own(x, y, z))
        return Depths(outer, outer, outer)

    def tissue(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, width: float) -> Tissue:
        """What a cube of edge `width` (mm) around each point is made of."""
        points = self._own(x, y, z)
        outer = self._depth(points)
        filled = share_inside(outer, width)
        inner = outer - self._cortex * np.clip(1 + 0.35 * self._uneven(points), 0.4, 1.8)
        shell = filled * (1 - share_inside(inner, width))
        spongy = outer * 0
        here = np.flatnonzero(inner > -width)
        if len(here):
            near = [c[here] for c in points]
            pierced = (self._holes(near) - self._level - self._outer.emptiness(near)) * 0.07
            sheet = np.abs(self._sheets(near)) * (1 / self._sheets.gradient)
            thickness = self._strut * (1 + 0.25 * np.clip(pierced * 8, -1, 1))
            solid = intersect(thickness - sheet, pierced, 0.02)
            spongy[here] = share_inside(solid, width) * share_inside(inner[here], width)
        bone = shell + spongy * filled
        cartilage = (share_inside(outer + self._cartilage, width) - filled) * self._covered(points)
        return Tissue(filled, bone, shell + 0.88 * spongy * filled, cartilage)

    def cover(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Cover:
        """What lies on the bone: all of it is healthy."""
        points = self._own(x, y, z)
        outer = self._depth(points)
        thickness = np.full_like(outer, self._cartilage)
        return Cover(outer, thickness, thickness, self._covered(points))

    def _covered(self, points: Points) -> np.ndarray:
        """The share of cartilage that is there."""
        return np.clip((_dot(points, self._facing) - self._patch) * 5.0, 0, 1)

    def _own(self, x, y, z) -> Points:
        """Points of the animal's frame in the bone's own, about its middle."""
        points = _minus((x * self._side, y, z), CENTER.tolist())
        return tuple(_dot(points, row) for row in self._turn)

    def _depth(self, points: Points) -> np.ndarray:
        return (self._outer(points) + self._roughness * self._rough(points)) * _SLOPE


class Surface:
    """The outer surface of a bone, before it is roughened; points are in the bone's own frame.

    Attributes:
        thickness: half of the bone's, in mm: its cortex is thinner.
        facing: direction of the side that cartilage covers. None draws it, and how the bone lies in its frame.
        solid: all of it is cortex.
    """

    thickness: float
    facing: tuple[float, float, float] | None = None
    solid: bool = False

    def __init__(self, generator: np.random.Generator) -> None:
        raise NotImplementedError

    def __call__(self, points: Points) -> np.ndarray:
        """The signed distance of points to it, mm."""
        raise NotImplementedError

    def emptiness(self, points: Points) -> np.ndarray:
        """How much fewer trabeculae there are than elsewhere in the bone."""
        return points[0] * 0


class _Long(Surface):
    """A bent and twisted shaft whose cross-section changes along it, with a flared upper end of bumps and hollows.

    The shaft leaves the field of view at the bottom, or has a second end there.
    """

    facing = (0.0, 0.0, 1.0)

    def __init__(self, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self._shaft, self._flare = uniform(0.35, 0.8), uniform(0.3, 1.1)
        self._reach = uniform(0.5, 1.3)  # mm over which the flare runs out
        self._bottom = -uniform(1.6, 2.6) if generator.random() < 0.4 else -20.0
        self._top = uniform(1.0, 1.7)
        self._bend = generator.normal(0, 0.05, 2).tolist()
        self._twist = generator.normal(0, 0.3)
        self._lobes = [(k, generator.normal(0, 0.22 / k), uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)]
        self._flared = [(k, generator.normal(0, 0.3 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
        self._bumps = Field(Waves.draw(generator, 10, uniform(1.2, 2.4), 0.4))
        self._height = uniform(0.05, 0.25)
        self.thickness = self._shaft

    def __call__(self, points: Points) -> np.ndarray:
        x, y, z = points
        dx, dy = x - self._bend[0] * z * z, y - self._bend[1] * z * z
        radius, angle = np.sqrt(dx * dx + dy * dy + 1e-6), np.arctan2(dy, dx)
        upper = np.exp((np.clip(z, -20, self._top) - self._top) * (1 / self._reach))
        lower = np.exp((self._bottom - np.clip(z, self._bottom, 20)) * (1 / self._reach))
        turned = angle + self._twist * z
        around = sum(a * np.cos(k * turned + phase) for k, a, phase in self._lobes)
        ends = sum(a * np.cos(k * angle + phase) for k, a, phase in self._flared)
        side = self._shaft * (1 + around) + self._flare * (upper + lower) * (1 + ends)
        side = (np.clip(side, 0.2, 2.2) - radius) * 0.85
        bumps = self._height * self._bumps(points)
        return intersect(intersect(side, self._top + bumps - z, 0.25), z - self._bottom + bumps, 0.25)

    def emptiness(self, points: Points) -> np.ndarray:
        """No trabeculae in the middle of the shaft."""
        z = points[2]
        return 1.6 * np.clip(np.minimum(self._top - 0.9 - z, z - self._bottom - 0.6), 0, 3)


class _Flat(Surface):
    """A curved plate of varying thickness, with ridges, holes and a lobed outline."""

    def __init__(self, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        self._curve = generator.normal(0, 0.16, 3).tolist()
        self._wave = Field(Waves.draw(generator, 6, uniform(2.0, 4.0), 0.4, (1, 1, 1e3)))
        self._ripple = uniform(0.0, 0.22)
        self._half = np.exp(uniform(np.log(0.12), np.log(0.45)))
        self._ridges = Field(Waves.draw(generator, 8, uniform(1.2, 2.5), 0.4, (1, 1, 1e3)))
        self._edge = (uniform(1.7, 2.6) * np.array([1.0, uniform(0.6, 1.0)])).tolist()
        self._lobes = [(k, generator.normal(0, 0.16 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4, 5)]
        count = generator.poisson(1.5)
        self._holes = [(*uniform(-1.4, 1.4, 2).tolist(), uniform(0.12, 0.4)) for _ in range(count)]
        self.thickness = self._half

    def __call__(self, points: Points) -> np.ndarray:
        x, y, z = points
        a, b, c = self._curve
        middle = a * x * x + b * y * y + c * x * y + self._ripple * self._wave(points)
        half = self._half * np.clip(1 + 0.45 * self._ridges(points), 0.35, 2.2)
        # Where a plate slopes, it is thinner than it is high.
        slope = np.sqrt(1 + (2 * a * x + c * y) ** 2 + (2 * b * y + c * x) ** 2)
        plate = half - np.abs(z - middle) / slope
        across = np.sqrt((x / self._edge[0]) ** 2 + (y / self._edge[1]) ** 2 + 1e-6)
        angle = np.arctan2(y, x)
        outline = 1 + sum(s * np.cos(k * angle + phase) for k, s, phase in self._lobes)
        depth = intersect(plate, (outline - across) * min(self._edge) * 0.8, 0.2)
        for hole_x, hole_y, radius in self._holes:
            away = np.sqrt((x - hole_x) ** 2 + (y - hole_y) ** 2) - radius
            depth = intersect(depth, away, 0.1)
        return depth


class _Irregular(Surface):
    """Lumps and processes grown together, with tunnels through them, like a vertebra or a tarsal bone."""

    def __init__(self, generator: np.random.Generator) -> None:
        uniform = generator.uniform
        lumps = []
        for number in range(generator.integers(3, 8)):
            center = generator.normal(0, 0.75, 3) if number else np.zeros(3)
            halves = uniform(0.6, 1.25) * np.exp(generator.normal(0, 0.3, 3)) * (1.0 if number < 2 else 0.6)
            lumps.append((center, draw_axes(generator) / np.clip(halves, 0.2, 1.7)[:, None]))
        for _ in range(generator.integers(0, 4)):  # processes: long and thin, outward
            outward = draw_direction(generator)
            turn = draw_axes(generator)
            turn[0] = outward
            turn[1] = np.cross(outward, turn[2])
            turn[1] /= np.linalg.norm(turn[1])
            turn[2] = np.cross(outward, turn[1])
            halves = np.array([uniform(0.7, 1.3), uniform(0.2, 0.45), uniform(0.12, 0.3)])
            lumps.append((outward * uniform(0.8, 1.5), turn / halves[:, None]))
        self._lumps = [(center.tolist(), axes.tolist()) for center, axes in lumps]
        self._tunnels = [
            (generator.normal(0, 0.7, 3).tolist(), draw_direction(generator).tolist(), uniform(0.15, 0.5))
            for _ in range(generator.integers(0, 3))
        ]
        self._fillet = uniform(0.15, 0.5)
        self.thickness = 0.6

    def __call__(self, points: Points) -> np.ndarray:
        first, *others = (ellipsoid(points, center, axes) for center, axes in self._lumps)
        depth = first
        for lump in others:
            depth = unite(depth, lump, self._fillet)
        for start, unit, radius in self._tunnels:
            away = _minus(points, start)
            along = sum(u * c for u, c in zip(unit, away, strict=True))
            across = np.sqrt(np.clip(sum(c * c for c in away) - along * along, 1e-6, None))
            depth = intersect(depth, across - radius, 0.1)
        return depth


def ellipsoid(points: Points, center: list[float], axes: list[list[float]]) -> np.ndarray:
    """The signed distance to an ellipsoid, exact to first order near its surface.

    Args:
        points: coordinates x, y and z.
        center: of the ellipsoid.
        axes: in rows the directions of its axes over their half lengths, 1/mm.
    """
    away = _minus(points, center)
    local = [sum(row[i] * away[i] for i in range(3)) for row in axes]
    length = np.sqrt(sum(c * c for c in local) + 1e-6)
    gradient = [sum(axes[row][i] * local[row] for row in range(3)) for i in range(3)]
    slope = np.sqrt(sum(c * c for c in gradient) + 1e-6) / length
    return (1 - length) / slope


_SURFACES: dict[str, type[Surface]] = {"long": _Long, "flat": _Flat, "irregular": _Irregular}


def _minus(points: Points, origin: Sequence[float]) -> Points:
    return tuple(c - o for c, o in zip(points, origin, strict=True))


def _dot(points: Points, direction: Sequence[float]) -> np.ndarray:
    return points[0] * direction[0] + points[1] * direction[1] + points[2] * direction[2]
