"""Random bones other than mouse tibiae: long, flat and irregular shells filled with trabeculae, at the mouse's scale.

A network that has seen only tibiae knows only tibiae. These bones are drawn much more widely than any one bone varies,
so that a rat's tibia, a humerus, a vertebra or a skull is just another sample. They are functions of points in the
animal's frame, as a tibia is, and lie about `tibia.CENTER`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import OptionError, Setting
from .fields import Depths, Field, Tissue, Waves, draw_axes, draw_direction, intersect, share_inside, single, unite
from .tibia import CENTER, Animal

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


def draw_animal(kind: str, seed: int) -> Animal | Variant:
    """Draws a bone of a kind: "tibia", or one of `KINDS`; the same for the same seed.

    Raises:
        OptionError: there is no such kind.
    """
    return Animal.draw(seed) if kind == "tibia" else Variant.draw(kind, seed)


class VariantModel:
    """A `Variant`, ready to be evaluated at points of the animal's frame."""

    def __init__(self, variant: Variant) -> None:
        generator = np.random.default_rng([variant.structure, 12])
        uniform = generator.uniform
        self.side = -1.0 if variant.left else 1.0
        self._outer = {"long": _Long, "flat": _Flat, "irregular": _Irregular}[variant.kind](generator)
        self._turn = single(draw_axes(generator) if variant.kind != "long" else np.eye(3))
        self._rough = Field(Waves.draw(generator, 20, uniform(0.4, 1.0), 0.5))
        self._roughness = uniform(0.005, 0.03)
        thickness = np.exp(uniform(np.log(0.07), np.log(0.32)))
        self._cortex = min(thickness, 0.45 * self._outer.thickness)
        self._uneven = Field(Waves.draw(generator, 8, uniform(1.5, 3.5), 0.4))
        # Sheets lie half a wavelength apart.
        stretch = (1, 1, np.exp(uniform(0, 1.2)))
        wavelength = 2 * np.exp(uniform(np.log(0.18), np.log(0.45)))
        self._sheets = Field(Waves.draw(generator, 16, wavelength, 0.3, stretch))
        self._holes = Field(Waves.draw(generator, 10, uniform(0.25, 0.5), 0.3, stretch))
        self._strut = 0.5 * uniform(0.04, 0.11)
        self._level = uniform(-1.3, -0.1)  # the higher, the more of the sheets is pierced
        self._facing = single(draw_direction(generator) if variant.kind != "long" else np.array([0, 0, 1.0]))
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
        facing = self._facing
        along = points[0] * float(facing[0]) + points[1] * float(facing[1]) + points[2] * float(facing[2])
        covered = np.clip((along - self._patch) * 5.0, 0, 1)
        cartilage = (share_inside(outer + self._cartilage, width) - filled) * covered
        return Tissue(filled, bone, shell + 0.88 * spongy * filled, cartilage)

    def _own(self, x, y, z):
        """Points of the animal's frame in the bone's own, about its middle."""
        x, y, z = x * self.side - float(CENTER[0]), y - float(CENTER[1]), z - float(CENTER[2])
        turn = self._turn
        return tuple(x * float(row[0]) + y * float(row[1]) + z * float(row[2]) for row in turn)

    def _depth(self, points):
        return (self._outer(points) + self._roughness * self._rough(points)) * _SLOPE


class _Long:
    """A bent and twisted shaft whose cross-section changes along it, with a flared upper end of bumps and hollows.

    The shaft leaves the field of view at the bottom, or has a second end there.
    """

    def __init__(self, generator) -> None:
        uniform = generator.uniform
        self._shaft, self._flare = uniform(0.35, 0.8), uniform(0.3, 1.1)
        self._reach = uniform(0.5, 1.3)  # mm over which the flare runs out
        self._bottom = -uniform(1.6, 2.6) if generator.random() < 0.4 else -20.0
        self._top = uniform(1.0, 1.7)
        self._bend = generator.normal(0, 0.05, 2)
        self._twist = generator.normal(0, 0.3)
        self._lobes = [(k, generator.normal(0, 0.22 / k), uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)]
        self._flared = [(k, generator.normal(0, 0.3 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
        self._bumps = Field(Waves.draw(generator, 10, uniform(1.2, 2.4), 0.4))
        self._height = uniform(0.05, 0.25)
        self.thickness = self._shaft

    def __call__(self, points):
        x, y, z = points
        dx, dy = x - float(self._bend[0]) * z * z, y - float(self._bend[1]) * z * z
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

    def emptiness(self, points):
        """No trabeculae in the middle of the shaft."""
        z = points[2]
        return 1.6 * np.clip(np.minimum(self._top - 0.9 - z, z - self._bottom - 0.6), 0, 3)


class _Flat:
    """A curved plate of varying thickness, with ridges, holes and a lobed outline."""

    def __init__(self, generator) -> None:
        uniform = generator.uniform
        self._curve = generator.normal(0, 0.16, 3)
        self._wave = Field(Waves.draw(generator, 6, uniform(2.0, 4.0), 0.4, (1, 1, 1e3)))
        self._ripple = uniform(0.0, 0.22)
        self._half = np.exp(uniform(np.log(0.12), np.log(0.45)))
        self._ridges = Field(Waves.draw(generator, 8, uniform(1.2, 2.5), 0.4, (1, 1, 1e3)))
        self._edge = uniform(1.7, 2.6) * np.array([1.0, uniform(0.6, 1.0)])
        self._lobes = [(k, generator.normal(0, 0.16 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4, 5)]
        count = generator.poisson(1.5)
        self._holes = [(*uniform(-1.4, 1.4, 2), uniform(0.12, 0.4)) for _ in range(count)]
        self.thickness = self._half

    def __call__(self, points):
        x, y, z = points
        a, b, c = (float(v) for v in self._curve)
        middle = a * x * x + b * y * y + c * x * y + self._ripple * self._wave(points)
        half = self._half * np.clip(1 + 0.45 * self._ridges(points), 0.35, 2.2)
        # Where a plate slopes, it is thinner than it is high.
        slope = np.sqrt(1 + (2 * a * x + c * y) ** 2 + (2 * b * y + c * x) ** 2)
        plate = half - np.abs(z - middle) / slope
        across = np.sqrt((x / float(self._edge[0])) ** 2 + (y / float(self._edge[1])) ** 2 + 1e-6)
        angle = np.arctan2(y, x)
        outline = 1 + sum(s * np.cos(k * angle + phase) for k, s, phase in self._lobes)
        depth = intersect(plate, (outline - across) * float(self._edge.min()) * 0.8, 0.2)
        for hole_x, hole_y, radius in self._holes:
            away = np.sqrt((x - float(hole_x)) ** 2 + (y - float(hole_y)) ** 2) - float(radius)
            depth = intersect(depth, away, 0.1)
        return depth

    def emptiness(self, points):
        """Diploe everywhere between the tables."""
        return points[0] * 0


class _Irregular:
    """Lumps and processes grown together, with tunnels through them, like a vertebra or a tarsal bone."""

    def __init__(self, generator) -> None:
        uniform = generator.uniform
        self._lumps = []
        for number in range(generator.integers(3, 8)):
            center = generator.normal(0, 0.75, 3) if number else np.zeros(3)
            halves = uniform(0.6, 1.25) * np.exp(generator.normal(0, 0.3, 3)) * (1.0 if number < 2 else 0.6)
            self._lumps.append((center, draw_axes(generator) / np.clip(halves, 0.2, 1.7)[:, None]))
        for _ in range(generator.integers(0, 4)):  # processes: long and thin, outward
            outward = draw_direction(generator)
            turn = draw_axes(generator)
            turn[0] = outward
            turn[1] = np.cross(outward, turn[2])
            turn[1] /= np.linalg.norm(turn[1])
            turn[2] = np.cross(outward, turn[1])
            halves = np.array([uniform(0.7, 1.3), uniform(0.2, 0.45), uniform(0.12, 0.3)])
            self._lumps.append((outward * uniform(0.8, 1.5), turn / halves[:, None]))
        self._tunnels = [
            (generator.normal(0, 0.7, 3), draw_direction(generator), uniform(0.15, 0.5))
            for _ in range(generator.integers(0, 3))
        ]
        self._fillet = uniform(0.15, 0.5)
        self.thickness = 0.6

    def __call__(self, points):
        depth = None
        for center, axes in self._lumps:
            away = [c - float(m) for c, m in zip(points, center, strict=True)]
            local = [sum(float(row[i]) * away[i] for i in range(3)) for row in axes]
            length = np.sqrt(sum(c * c for c in local) + 1e-6)
            gradient = [sum(float(axes[row][i]) * local[row] for row in range(3)) for i in range(3)]
            slope = np.sqrt(sum(c * c for c in gradient) + 1e-6) / length
            lump = (1 - length) / slope
            depth = lump if depth is None else unite(depth, lump, self._fillet)
        for start, unit, radius in self._tunnels:
            away = [c - float(m) for c, m in zip(points, start, strict=True)]
            along = sum(float(u) * c for u, c in zip(unit, away, strict=True))
            across = np.sqrt(np.clip(sum(c * c for c in away) - along * along, 1e-6, None))
            depth = intersect(depth, across - float(radius), 0.1)
        return depth

    def emptiness(self, points):
        """Filled with trabeculae throughout."""
        return points[0] * 0
