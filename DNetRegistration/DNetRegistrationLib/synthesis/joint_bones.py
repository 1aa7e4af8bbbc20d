"""Bones that meet a tibia or lie beside it: distal femur, patella, calibration phantom; and all of them as one object.

Each lies about `tibia.CENTER` in a frame of its own, with axes as the tibia's: z proximal, y to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .fields import Depths, Tissue, intersect, single, unite
from .random_bones import Points, Surface, Variant, VariantModel, ellipsoid
from .tibia import CENTER, Animal, TibiaModel

# Farther outside a bone than this, in mm, is none of its cartilage.
_CARTILAGE = 0.25


class _Femur(Surface):
    """Two condyles, a notch between them, a groove in front, and a shaft upward; about the middle of the condyles."""

    facing = (0.0, 0.0, -1.0)
    thickness = 0.5

    def __init__(self, generator: np.random.Generator) -> None:
        def size(mean):
            return mean * np.exp(generator.normal(0, 0.07))

        apart = size(0.72)
        self._lumps = [
            _lump((side * apart, -0.25 * size(1), 0.1 * generator.normal()), (size(0.5), size(0.85), size(0.75)))
            for side in (1, -1)
        ]
        self._lumps.append(_lump((0.0, 0.15 * size(1), 0.6), (size(1.15), size(0.75), size(0.85))))
        self._shaft, self._oval = size(0.62), size(0.85)
        self._bend, self._lean = generator.normal(0.04, 0.03), generator.normal(0, 0.06)
        self._ridge = generator.uniform(0.05, 0.2), generator.uniform(-np.pi, np.pi)
        self._notch, self._groove = size(0.3), size(0.45)
        self._groove_depth = generator.uniform(0.95, 1.15)

    def __call__(self, points: Points) -> np.ndarray:
        x, y, z = points
        first, *others = (ellipsoid(points, *lump) for lump in self._lumps)
        for lump in others:
            first = unite(first, lump, 0.3)
        dx, dy = (x - self._lean * z) / self._oval, y - 0.1 + self._bend * z * z
        height, phase = self._ridge
        radius = self._shaft * (1 + height * np.cos(2 * np.arctan2(dy, dx) + phase))
        shaft = intersect((radius - np.sqrt(dx * dx + dy * dy + 1e-6)) * self._oval, z - 0.3, 0.3)
        solid = unite(first, shaft, 0.5)
        notch = np.sqrt(x * x + np.square(np.maximum(y + 0.35, 0)) + np.square(np.maximum(z + 0.35, 0))) - self._notch
        groove = np.sqrt(x * x + np.square(y - self._groove_depth - self._groove)) - self._groove
        return intersect(intersect(solid, notch, 0.15), groove, 0.2)

    def emptiness(self, points: Points) -> np.ndarray:
        """No trabeculae in the shaft."""
        return 1.6 * np.clip(points[2] - 1.3, 0, 3)


class _Patella(Surface):
    facing = (0.0, -1.0, 0.0)
    thickness = 0.2

    def __init__(self, generator: np.random.Generator) -> None:
        sizes = np.array([0.5, 0.26, 0.62]) * np.exp(generator.normal(0, 0.08, 3))
        self._lumps = [
            _lump((0.0, 0.0, 0.0), sizes),
            _lump(generator.normal(0, (0.15, 0.02, 0.15)), sizes * (0.7, 1.1, 0.7)),
        ]

    def __call__(self, points: Points) -> np.ndarray:
        first, second = (ellipsoid(points, *lump) for lump in self._lumps)
        return unite(first, second, 0.15)


class _Phantom(Surface):
    """A rod with a flat along it and a hole across, of one density: none of its poses looks like another."""

    facing = (0.0, 0.0, 1.0)
    thickness = 10.0
    solid = True

    def __init__(self, generator: np.random.Generator) -> None:
        self._radius, self._half = generator.uniform(0.5, 0.8), generator.uniform(1.2, 2.2)
        self._flat = self._radius * generator.uniform(0.3, 0.7)
        self._hole = generator.uniform(-0.6, 0.6) * self._half, self._radius * generator.uniform(0.25, 0.4)

    def __call__(self, points: Points) -> np.ndarray:
        x, y, z = points
        rod = np.minimum(self._radius - np.sqrt(x * x + y * y + 1e-6), self._half - np.abs(z))
        height, radius = self._hole
        hole = np.sqrt(np.square(y - 0.2 * self._radius) + np.square(z - height)) - radius
        return np.minimum(np.minimum(rod, self._flat - x), hole)


_SURFACES: dict[str, type[Surface]] = {"femur": _Femur, "patella": _Patella, "phantom": _Phantom}


class JointBone(Variant):
    """A femur, a patella or a phantom."""

    @classmethod
    def draw(cls, kind: str, seed: int) -> JointBone:
        """Draws a bone, "femur", "patella" or "phantom"; the same for the same seed."""
        return cls(kind, int(np.random.default_rng([seed, 21]).integers(1 << 62)))

    def model(self) -> VariantModel:
        """Makes the bone ready to be evaluated."""
        return VariantModel(self, _SURFACES[self.kind])


@dataclass(frozen=True, eq=False)
class Group:
    """Bones that lie together, as one object to scan.

    Attributes:
        bones: each one.
        places: ``(n, 4, 4)`` rigid, the frame of each bone to that of the group.
        models: the bones, ready to be evaluated.
    """

    bones: Sequence[Animal | Variant]
    places: np.ndarray
    models: Sequence[TibiaModel | VariantModel]

    @property
    def structure(self) -> int:
        """Seed of what lasts from one scan to the next: that of the first bone."""
        return self.bones[0].structure

    def model(self) -> GroupModel:
        """Makes the bones ready to be evaluated."""
        return GroupModel(self)


class GroupModel:
    """A `Group`, ready to be evaluated at points of its frame."""

    def __init__(self, group: Group) -> None:
        self._parts = [(model, np.linalg.inv(place)) for model, place in zip(group.models, group.places, strict=True)]

    def depths(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Depths:
        """Signed distances to the surfaces of all bones together."""
        every = [model.depths(*_moved(matrix, x, y, z)) for model, matrix in self._parts]
        # Side and top are those of the bone whose cartilage comes closest.
        closest = np.argmax([np.minimum(one.side, one.top) for one in every], 0)[None]
        side, top = (
            np.take_along_axis(np.stack(values), closest, 0)[0]
            for values in ([one.side for one in every], [one.top for one in every])
        )
        return Depths(np.max([one.outer for one in every], 0), side, top)

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """``(n,)`` number of the bone in which, or closest to which, points ``(n, 3)`` lie."""
        x, y, z = single(points.T)
        return np.argmax([model.depths(*_moved(matrix, x, y, z)).outer for model, matrix in self._parts], 0)

    def tissue(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, width: float) -> Tissue:
        """What a cube of edge `width` (mm) around each point is made of."""
        filled, bone, density, cartilage = (np.zeros_like(x) for _ in range(4))
        for model, matrix in self._parts:
            points = _moved(matrix, x, y, z)
            here = np.flatnonzero(model.depths(*points).outer > -_CARTILAGE - width)
            one = model.tissue(*(c[here] for c in points), width)
            filled[here] += one.filled
            bone[here] += one.bone
            density[here] += one.density
            cartilage[here] += one.cartilage
        filled = np.minimum(filled, 1)
        # Where the cartilage of two bones meets, it fills what they leave.
        return Tissue(filled, np.minimum(bone, filled), np.minimum(density, filled), np.minimum(cartilage, 1 - filled))


def surface_points(model: TibiaModel | VariantModel, step: float = 0.15) -> np.ndarray:
    """``(n, 3)`` points just within the surface of a bone, in its frame, within 3 mm of `tibia.CENTER`."""
    axis = np.arange(-3, 3, step)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) + CENTER
    depth = model.depths(*single(points.T)).outer
    return points[(depth > 0) & (depth < 1.5 * step)]


def _moved(matrix: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[np.ndarray]:
    linear, shift = single(matrix[:3, :3]).tolist(), matrix[:3, 3].tolist()
    return [a * x + b * y + c * z + d for (a, b, c), d in zip(linear, shift, strict=True)]


def _lump(center, sizes) -> tuple[list[float], list[list[float]]]:
    """An ellipsoid along the axes, as `random_bones.ellipsoid` takes it."""
    return [float(c) for c in center], np.diag(1 / np.asarray(sizes, float)).tolist()
