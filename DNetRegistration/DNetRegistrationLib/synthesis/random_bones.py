"""Bones that are no mouse tibiae: long, flat and irregular shells with trabecular filling, at the mouse's scale.

A network that has seen tibiae alone knows tibiae. These are drawn much more widely than any one bone varies, so that a
rat's tibia, a humerus, a vertebra or a skull is just another sample. They are functions of points, as a tibia is
(`anatomy`), in the same frame: what a scan shows of them lies about `anatomy.CENTER`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from .arrays import Arrays
from .shape import Waves
from .tibia import CENTER, Animal, Tissue, both

KINDS = ("long", "flat", "irregular")
# Distances are divided by what the roughness and the bumps of a surface add to their slope.
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
        """One of all there are; the same for the same seed.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"kind of bone {kind!r} is unknown; give tibia, {', '.join(KINDS)}")
        generator = np.random.default_rng([seed, 11])
        return cls(kind, int(generator.integers(1 << 62)), bool(generator.integers(2)))

    def mirrored(self) -> Variant:
        """The mirror image of this very bone."""
        return replace(self, left=not self.left)

    @property
    def osteoarthritis(self) -> float:
        """None of these has any."""
        return 0.0

    def bone(self, arrays: Arrays) -> VariedBone:
        """Ready for evaluation."""
        return VariedBone(self, arrays)


def draw_animal(kind: str, seed: int) -> Animal | Variant:
    """An animal's bone of a kind: "tibia", or one of `KINDS`; the same for the same seed.

    Raises:
        ValueError: there is no such kind.
    """
    return Animal.draw(seed) if kind == "tibia" else Variant.draw(kind, seed)


class VariedBone:
    """A `Variant`, ready for evaluation. Points are flat float32 arrays x, y, z in the animal's frame, in mm."""

    def __init__(self, variant: Variant, arrays: Arrays) -> None:
        generator = np.random.default_rng([variant.structure, 12])
        uniform = generator.uniform
        self.arrays, self.xp = arrays, arrays.xp
        self.side = -1.0 if variant.left else 1.0
        self._outer = {"long": _Long, "flat": _Flat, "irregular": _Irregular}[variant.kind](generator, arrays)
        self._turn = arrays.array(_turn(generator) if variant.kind != "long" else np.eye(3))
        self._rough = _Field(arrays, Waves.draw(generator, 20, uniform(0.4, 1.0), 0.5))
        self._roughness = uniform(0.005, 0.03)
        thickness = np.exp(uniform(np.log(0.07), np.log(0.32)))
        self._cortex = min(thickness, 0.45 * self._outer.thickness)
        self._uneven = _Field(arrays, Waves.draw(generator, 8, uniform(1.5, 3.5), 0.4))
        # Sheets lie half a wavelength apart.
        stretch = (1, 1, np.exp(uniform(0, 1.2)))
        wavelength = 2 * np.exp(uniform(np.log(0.18), np.log(0.45)))
        self._sheets = _Field(arrays, Waves.draw(generator, 16, wavelength, 0.3, stretch))
        self._holes = _Field(arrays, Waves.draw(generator, 10, uniform(0.25, 0.5), 0.3, stretch))
        self._strut = 0.5 * uniform(0.04, 0.11)
        self._level = uniform(-1.3, -0.1)  # the higher, the more of the sheets is pierced
        self._facing = arrays.array(_direction(generator) if variant.kind != "long" else np.array([0, 0, 1.0]))
        self._patch = uniform(0.2, 1.0)  # mm from the middle, where cartilage begins
        self._cartilage = uniform(0.03, 0.1)

    def depths(self, x, y, z):
        """Signed distance (mm, positive inside) of points to the outer surface, under the names `scanner` reads."""
        outer = self._depth(self._own(x, y, z))
        return SimpleNamespace(outer=outer, side=outer, top=outer)

    def tissue(self, x, y, z, width: float) -> Tissue:
        """What a small cube of edge `width` (mm) around each point is made of."""
        xp = self.xp
        points = self._own(x, y, z)
        outer = self._depth(points)

        def share(distance):
            return xp.clip(distance * (1 / width) + 0.5, 0, 1)

        filled = share(outer)
        inner = outer - self._cortex * xp.clip(1 + 0.35 * self._uneven(points), 0.4, 1.8)
        shell = filled * (1 - share(inner))
        spongy = outer * 0
        here = self.arrays.nonzero(inner > -width)
        if len(here):
            near = [c[here] for c in points]
            pierced = (self._holes(near) - self._level - self._outer.emptiness(near)) * 0.07
            sheet = xp.abs(self._sheets(near)) * (1 / self._sheets.gradient)
            thickness = self._strut * (1 + 0.25 * xp.clip(pierced * 8, -1, 1))
            solid = both(xp, thickness - sheet, pierced, 0.02)
            spongy[here] = share(solid) * share(inner[here])
        bone = shell + spongy * filled
        facing = self._facing
        along = points[0] * float(facing[0]) + points[1] * float(facing[1]) + points[2] * float(facing[2])
        covered = xp.clip((along - self._patch) * 5.0, 0, 1)
        cartilage = (share(outer + self._cartilage) - filled) * covered
        return Tissue(filled, bone, shell + 0.88 * spongy * filled, cartilage)

    def _own(self, x, y, z):
        """Points about the middle of the bone, turned as it lies."""
        x, y, z = x * self.side - float(CENTER[0]), y - float(CENTER[1]), z - float(CENTER[2])
        turn = self._turn
        return tuple(x * float(row[0]) + y * float(row[1]) + z * float(row[2]) for row in turn)

    def _depth(self, points):
        return (self._outer(points) + self._roughness * self._rough(points)) * _SLOPE


class _Field:
    """`Waves`, evaluated."""

    def __init__(self, arrays: Arrays, waves: Waves) -> None:
        self.arrays, self.gradient = arrays, waves.gradient
        self._vectors, self._phases = arrays.array(waves.vectors), arrays.array(waves.phases)
        self._scale = (2 / len(waves.phases)) ** 0.5

    def __call__(self, points):
        angles = self.arrays.xp.stack(tuple(points), -1) @ self._vectors
        angles += self._phases
        return self.arrays.xp.cos(angles).sum(-1) * self._scale


class _Long:
    """A shaft, bent and twisted, of a cross-section that changes along it, with a flared end of bumps and hollows.

    The end is the upper one; the shaft leaves the field of view, or ends in another.
    """

    def __init__(self, generator, arrays: Arrays) -> None:
        uniform, self.xp = generator.uniform, arrays.xp
        self._shaft, self._flare = uniform(0.35, 0.8), uniform(0.3, 1.1)
        self._reach = uniform(0.5, 1.3)  # mm over which the flare runs out
        self._bottom = -uniform(1.6, 2.6) if generator.random() < 0.4 else -20.0
        self._top = uniform(1.0, 1.7)
        self._bend = generator.normal(0, 0.05, 2)
        self._twist = generator.normal(0, 0.3)
        self._lobes = [(k, generator.normal(0, 0.22 / k), uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)]
        self._flared = [(k, generator.normal(0, 0.3 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
        self._bumps = _Field(arrays, Waves.draw(generator, 10, uniform(1.2, 2.4), 0.4))
        self._height = uniform(0.05, 0.25)
        self.thickness = self._shaft

    def __call__(self, points):
        xp = self.xp
        x, y, z = points
        dx, dy = x - float(self._bend[0]) * z * z, y - float(self._bend[1]) * z * z
        radius, angle = xp.sqrt(dx * dx + dy * dy + 1e-6), xp.arctan2(dy, dx)
        upper = xp.exp((xp.clip(z, -20, self._top) - self._top) * (1 / self._reach))
        lower = xp.exp((self._bottom - xp.clip(z, self._bottom, 20)) * (1 / self._reach))
        turned = angle + self._twist * z
        around = sum(a * xp.cos(k * turned + phase) for k, a, phase in self._lobes)
        ends = sum(a * xp.cos(k * angle + phase) for k, a, phase in self._flared)
        side = self._shaft * (1 + around) + self._flare * (upper + lower) * (1 + ends)
        side = (xp.clip(side, 0.2, 2.2) - radius) * 0.85
        bumps = self._height * self._bumps(points)
        return both(xp, both(xp, side, self._top + bumps - z, 0.25), z - self._bottom + bumps, 0.25)

    def emptiness(self, points):
        """No trabeculae in the middle of the shaft."""
        z = points[2]
        return 1.6 * self.xp.clip(self.xp.minimum(self._top - 0.9 - z, z - self._bottom - 0.6), 0, 3)


class _Flat:
    """A curved plate of varying thickness, with ridges, holes and a lobed outline."""

    def __init__(self, generator, arrays: Arrays) -> None:
        uniform, self.xp = generator.uniform, arrays.xp
        self._curve = generator.normal(0, 0.16, 3)
        self._wave = _Field(arrays, Waves.draw(generator, 6, uniform(2.0, 4.0), 0.4, (1, 1, 1e3)))
        self._ripple = uniform(0.0, 0.22)
        self._half = np.exp(uniform(np.log(0.12), np.log(0.45)))
        self._ridges = _Field(arrays, Waves.draw(generator, 8, uniform(1.2, 2.5), 0.4, (1, 1, 1e3)))
        self._edge = uniform(1.7, 2.6) * np.array([1.0, uniform(0.6, 1.0)])
        self._lobes = [(k, generator.normal(0, 0.16 / k), uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4, 5)]
        count = generator.poisson(1.5)
        self._holes = [(*uniform(-1.4, 1.4, 2), uniform(0.12, 0.4)) for _ in range(count)]
        self.thickness = self._half

    def __call__(self, points):
        xp = self.xp
        x, y, z = points
        a, b, c = (float(v) for v in self._curve)
        middle = a * x * x + b * y * y + c * x * y + self._ripple * self._wave(points)
        half = self._half * xp.clip(1 + 0.45 * self._ridges(points), 0.35, 2.2)
        # A plate that bends is thinner than it is high.
        slope = xp.sqrt(1 + (2 * a * x + c * y) ** 2 + (2 * b * y + c * x) ** 2)
        plate = half - xp.abs(z - middle) / slope
        across = xp.sqrt((x / float(self._edge[0])) ** 2 + (y / float(self._edge[1])) ** 2 + 1e-6)
        angle = xp.arctan2(y, x)
        outline = 1 + sum(s * xp.cos(k * angle + phase) for k, s, phase in self._lobes)
        depth = both(xp, plate, (outline - across) * float(self._edge.min()) * 0.8, 0.2)
        for hole_x, hole_y, radius in self._holes:
            away = xp.sqrt((x - float(hole_x)) ** 2 + (y - float(hole_y)) ** 2) - float(radius)
            depth = both(xp, depth, away, 0.1)
        return depth

    def emptiness(self, points):
        """Diploe everywhere between the tables."""
        return points[0] * 0


class _Irregular:
    """Lumps and processes grown together, and tunnels through them, as of a vertebra or a tarsal bone."""

    def __init__(self, generator, arrays: Arrays) -> None:
        uniform, self.xp = generator.uniform, arrays.xp
        self._lumps = []
        for number in range(generator.integers(3, 8)):
            center = generator.normal(0, 0.75, 3) if number else np.zeros(3)
            halves = uniform(0.6, 1.25) * np.exp(generator.normal(0, 0.3, 3)) * (1.0 if number < 2 else 0.6)
            self._lumps.append((center, _turn(generator) / np.clip(halves, 0.2, 1.7)[:, None]))
        for _ in range(generator.integers(0, 4)):  # processes: long and thin, outward
            outward = _direction(generator)
            turn = _turn(generator)
            turn[0] = outward
            turn[1] = np.cross(outward, turn[2])
            turn[1] /= np.linalg.norm(turn[1])
            turn[2] = np.cross(outward, turn[1])
            halves = np.array([uniform(0.7, 1.3), uniform(0.2, 0.45), uniform(0.12, 0.3)])
            self._lumps.append((outward * uniform(0.8, 1.5), turn / halves[:, None]))
        self._tunnels = [
            (generator.normal(0, 0.7, 3), _direction(generator), uniform(0.15, 0.5))
            for _ in range(generator.integers(0, 3))
        ]
        self._fillet = uniform(0.15, 0.5)
        self.thickness = 0.6

    def __call__(self, points):
        xp = self.xp
        depth = None
        for center, axes in self._lumps:
            away = [c - float(m) for c, m in zip(points, center, strict=True)]
            local = [sum(float(row[i]) * away[i] for i in range(3)) for row in axes]
            length = xp.sqrt(sum(c * c for c in local) + 1e-6)
            gradient = [sum(float(axes[row][i]) * local[row] for row in range(3)) for i in range(3)]
            slope = xp.sqrt(sum(c * c for c in gradient) + 1e-6) / length
            lump = (1 - length) / slope
            depth = lump if depth is None else -both(xp, -depth, -lump, self._fillet)
        for start, unit, radius in self._tunnels:
            away = [c - float(m) for c, m in zip(points, start, strict=True)]
            along = sum(float(u) * c for u, c in zip(unit, away, strict=True))
            across = xp.sqrt(xp.clip(sum(c * c for c in away) - along * along, 1e-6, None))
            depth = both(xp, depth, across - float(radius), 0.1)
        return depth

    def emptiness(self, points):
        """Filled with trabeculae throughout."""
        return points[0] * 0


def _direction(generator) -> np.ndarray:
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _turn(generator) -> np.ndarray:
    """A ``(3, 3)`` orthogonal matrix, any way."""
    turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    return turn
