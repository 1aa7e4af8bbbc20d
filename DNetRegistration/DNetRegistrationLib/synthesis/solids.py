"""Solids as signed distances: phantoms, metal, and shapes whose pose is not determined, or is one of several.

A solid is a function of ``(..., 3)`` points in mm in its own frame. It gives depths in mm, ``(...)`` float64, positive
inside, exact near flat faces and conservative at edges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Solid = Callable[[np.ndarray], np.ndarray]


def ball(radius: float) -> Solid:
    """About the origin."""
    return lambda points: radius - np.linalg.norm(points, axis=-1)


def box(*halves: float) -> Solid:
    """Of half edges along x, y and z."""
    return lambda points: (np.array(halves) - np.abs(points)).min(-1)


def cylinder(radius: float, half: float = np.inf) -> Solid:
    """About z, of half a length; without one it has no ends."""
    return lambda points: np.minimum(radius - np.linalg.norm(points[..., :2], axis=-1), half - np.abs(points[..., 2]))


def capsule(radius: float, half: float) -> Solid:
    """A rod about z with round ends; `half` of its length without them."""

    def depth(points: np.ndarray) -> np.ndarray:
        beyond = np.maximum(np.abs(points[..., 2]) - half, 0)
        return radius - np.sqrt(points[..., 0] ** 2 + points[..., 1] ** 2 + beyond**2)

    return depth


def prism(sides: int, radius: float, half: float) -> Solid:
    """A regular prism about z; `radius` is that of the circle within its base."""
    angles = 2 * np.pi * np.arange(sides) / sides
    normals = np.stack((np.cos(angles), np.sin(angles)))
    return lambda points: np.minimum(radius - (points[..., :2] @ normals).max(-1), half - np.abs(points[..., 2]))


def tetrahedron(radius: float) -> Solid:
    """A regular one; `radius` is that of the ball within."""
    normals = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).T / np.sqrt(3)
    return lambda points: radius - (points @ normals).max(-1)


def cross(half: float, width: float) -> Solid:
    """Three square bars along x, y and z; half of their length, and of their width."""
    bars = [box(*np.where(np.arange(3) == axis, half, width)) for axis in range(3)]
    return union(*bars)


def checkerboard(half: float, cell: float) -> Solid:
    """A cube of cells of this edge, every other one of them full."""

    def depth(points: np.ndarray) -> np.ndarray:
        # The depth in a cell is the distance to the nearest of its faces.
        wall = cell / np.pi * np.arcsin(np.abs(np.sin(np.pi * points / cell))).min(-1)
        full = np.floor(points / cell).sum(-1) % 2 == 0
        return np.minimum(np.where(full, wall, -wall), (half - np.abs(points)).min(-1))

    return depth


def bent_tube(radius: float, half: float, bend: float, taper: float, flatness: float) -> Solid:
    """A slender bone: a curved elliptic rod about z that tapers.

    Args:
        radius: in the middle, mm.
        half: of the length, mm.
        bend: how far the ends lie off the middle's axis, along x, mm.
        taper: the radius at the upper end over that at the lower one.
        flatness: the width along y over that along x.
    """

    def depth(points: np.ndarray) -> np.ndarray:
        along = points[..., 2] / half
        wide = radius * taper ** (np.clip(along, -1, 1) / 2)
        across = np.hypot(points[..., 0] - bend * along**2, points[..., 1] / flatness)
        return np.minimum(wide - across, half - np.abs(points[..., 2]))

    return depth


def hollow(solid: Solid, wall: float) -> Solid:
    """The outermost `wall` mm of a solid."""

    def depth(points: np.ndarray) -> np.ndarray:
        outer = solid(points)
        return np.minimum(outer, wall - outer)

    return depth


def union(*solids: Solid) -> Solid:
    """What lies in any of them."""
    return lambda points: np.max([solid(points) for solid in solids], axis=0)


def placed(solid: Solid, pose: np.ndarray) -> Solid:
    """A solid put elsewhere by a ``(4, 4)`` rigid matrix, its own frame to the new one."""
    return lambda points: solid((points - pose[:3, 3]) @ pose[:3, :3])
