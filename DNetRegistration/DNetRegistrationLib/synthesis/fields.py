"""What synthetic bones are made of: random fields, signed distances and fractions of tissue at points.

A bone is a function of points, given as flat float32 arrays x, y and z in mm in the animal's frame (see `tibia`).
Signed distances are in mm, positive inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Waves:
    """A random field: the sum of ``n`` cosines, of unit variance.

    Attributes:
        vectors: ``(3, n)`` wave vectors, rad/mm.
        phases: ``(n,)`` rad.
    """

    vectors: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, generator, count, wavelength, spread=0.2, stretch=(1.0, 1.0, 1.0)) -> Waves:
        """Draws waves in all directions, of lengths (mm) within a factor exp(`spread`), stretched along x, y, z."""
        direction = generator.standard_normal((3, count))
        direction /= np.linalg.norm(direction, axis=0)
        length = wavelength * np.exp(spread * generator.uniform(-1, 1, count))
        vectors = 2 * np.pi / length * direction / np.asarray(stretch)[:, None]
        return cls(vectors, generator.uniform(0, 2 * np.pi, count))

    @property
    def gradient(self) -> float:
        """Root mean square of the field's slope, per mm."""
        return float(np.sqrt((self.vectors**2).sum(0).mean()))

    def values(self, points: np.ndarray) -> np.ndarray:
        """The field at ``(..., 3)`` points in mm, float64."""
        angles = np.asarray(points, np.float32) @ self.vectors.astype(np.float32)
        angles += self.phases.astype(np.float32)
        return np.sqrt(2 / len(self.phases)) * np.cos(angles).sum(-1).astype(float)


class Field:
    """`Waves`, ready to be evaluated quickly, in float32.

    Attributes:
        gradient: root mean square of the field's slope, per mm.
    """

    def __init__(self, waves: Waves) -> None:
        self.gradient = waves.gradient
        self._vectors, self._phases = single(waves.vectors), single(waves.phases)
        self._scale = (2 / len(waves.phases)) ** 0.5

    def __call__(self, points) -> np.ndarray:
        """``(n,)`` values at points, given as a sequence of ``(n,)`` x, y and z."""
        angles = np.stack(tuple(points), -1) @ self._vectors
        angles += self._phases
        return np.cos(angles).sum(-1) * self._scale


@dataclass(frozen=True)
class Depths:
    """Signed distances of points, as `scanner` needs them.

    Attributes:
        outer: below the bone's outer surface.
        side: below the sides of the bone, which cartilage does not cover.
        top: below the surface that cartilage may cover.
    """

    outer: np.ndarray
    side: np.ndarray
    top: np.ndarray


@dataclass(frozen=True)
class Cover:
    """What lies on a bone at points, in mm.

    Attributes:
        outer: depth below the bone's outer surface; negative where something may lie on it.
        thickness: of the cartilage there.
        healthy: the same before wear.
        share: of a layer of this thickness that is there, 0 to 1; above 0 on the articular surface only.
    """

    outer: np.ndarray
    thickness: np.ndarray
    healthy: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Tissue:
    """Volume fractions of a small cube around each point.

    Attributes:
        filled: within the outer surface: bone, marrow, growth plate.
        bone: mineralised tissue.
        density: the same, weighted by its degree of mineralisation.
        cartilage: articular cartilage.
    """

    filled: np.ndarray
    bone: np.ndarray
    density: np.ndarray
    cartilage: np.ndarray


def single(data) -> np.ndarray:
    """A contiguous float32 array."""
    return np.ascontiguousarray(data, np.float32)


def share_inside(depth: np.ndarray, width: float) -> np.ndarray:
    """The share of a cube of edge `width` (mm) that lies inside a surface, by the depth of its middle.

    The ramp has the variance of the cube, in whichever direction the surface crosses it.
    """
    return np.clip(depth * (1 / width) + 0.5, 0, 1)


def intersect(first: np.ndarray, second: np.ndarray, fillet: float) -> np.ndarray:
    """The signed distance to what lies inside both surfaces, the edge between them rounded over `fillet` mm."""
    apart = np.clip(fillet - np.abs(first - second), 0, None)
    return np.minimum(first, second) - apart * apart * (0.25 / fillet)


def unite(first: np.ndarray, second: np.ndarray, fillet: float) -> np.ndarray:
    """The signed distance to what lies inside either surface, the edge between them filled over `fillet` mm."""
    return -intersect(-first, -second, fillet)


def draw_direction(generator: np.random.Generator) -> np.ndarray:
    """A ``(3,)`` unit vector, uniform on the sphere."""
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)


def draw_axes(generator: np.random.Generator) -> np.ndarray:
    """A ``(3, 3)`` orthogonal matrix, a rotation or a reflection."""
    axes, _ = np.linalg.qr(generator.standard_normal((3, 3)))
    return axes
