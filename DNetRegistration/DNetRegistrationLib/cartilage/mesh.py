"""The surface of bone as triangles. Needs no torch.

Slicer's Python has no scikit-image, and VTK is not everywhere the library is: surface nets (Gibson, MICCAI 1998) are a
few lines of NumPy, and give triangles of even size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse, spatial

_CORNERS = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles.

    Attributes:
        points: ``(n, 3)`` mm.
        triangles: ``(m, 3)`` int, counterclockwise from outside.
    """

    points: np.ndarray
    triangles: np.ndarray

    def part(self, chosen: np.ndarray) -> tuple[Mesh, np.ndarray]:
        """The triangles whose corners are all among the ``(n,)`` bool chosen points, and the ``(k,)`` points left."""
        triangles = self.triangles[chosen[self.triangles].all(1)]
        left = np.unique(triangles)
        number = np.zeros(len(self.points), int)
        number[left] = np.arange(len(left))
        return Mesh(self.points[left], number[triangles]), left

    @cached_property
    def _cross(self) -> np.ndarray:
        a, b, c = (self.points[self.triangles[:, k]] for k in range(3))
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> np.ndarray:
        """``(n,)`` a third of the area of the triangles about each point."""
        area = np.repeat(np.linalg.norm(self._cross, axis=1) / 6, 3)
        return np.bincount(self.triangles.ravel(), area, len(self.points))

    @cached_property
    def normals(self) -> np.ndarray:
        """``(n, 3)`` unit vectors, means over the triangles about each point, weighted by area; 0 where none is."""
        total = np.stack(
            [np.bincount(self.triangles.ravel(), np.repeat(c, 3), len(self.points)) for c in self._cross.T], 1
        )
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)

    @cached_property
    def neighbours(self) -> sparse.csr_matrix:
        """``(n, n)`` 1 where points share an edge, and on the diagonal."""
        a, b, c = self.triangles.T
        count = len(self.points)
        rows, columns = np.concatenate((a, b, c, b, c, a)), np.concatenate((b, c, a, a, b, c))
        joined = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (count, count))
        joined.data[:] = 1
        return (joined + sparse.identity(count, np.float32, "csr")).tocsr()

    def smoothing(self, rounds: int) -> sparse.csr_matrix:
        """``(n, n)`` matrix that replaces values by means over neighbours, so many times; rows sum to 1."""
        near = self.neighbours
        once = sparse.diags(1 / np.asarray(near.sum(1)).ravel().astype(np.float32)) @ near
        out = sparse.identity(len(self.points), np.float32, "csr")
        for _ in range(rounds):
            out = (once @ out).tocsr()
        return out

    def border(self) -> np.ndarray:
        """Indices of points on edges that belong to one triangle."""
        edges = np.sort(np.concatenate([self.triangles[:, (a, b)] for a, b in ((0, 1), (1, 2), (2, 0))]), axis=1)
        unique, count = np.unique(edges, axis=0, return_counts=True)
        return np.unique(unique[count == 1])

    def border_distance(self) -> np.ndarray:
        """``(n,)`` straight distance of each point to the border, mm; infinite where there is none."""
        border = self.border()
        if not len(border):
            return np.full(len(self.points), np.inf)
        return spatial.cKDTree(self.points[border]).query(self.points)[0]

    def pieces(self) -> np.ndarray:
        """``(n,)`` int, which connected piece each point belongs to."""
        return sparse.csgraph.connected_components(self.neighbours, directed=False)[1]


def level_surface(voxels: np.ndarray, affine: np.ndarray, level: float) -> Mesh:
    """The surface where an image rises above a level, by surface nets.

    Args:
        voxels: ``(z, y, x)`` float32, NaN outside the field of view, where there is no surface.
        affine: ``(4, 4)``, index (x, y, z) to world LPS mm, of any handedness.
        level: what is above is inside.
    """
    inside = voxels > level
    shape = tuple(n - 1 for n in voxels.shape)
    count, seen = np.zeros(shape, np.int8), np.ones(shape, bool)
    known = np.isfinite(voxels)
    for corner in _CORNERS:
        here = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
        count += inside[here]
        seen &= known[here]
    cells = np.argwhere((count > 0) & (count < 8) & seen)
    number = np.full(shape, -1, np.int32)
    number[tuple(cells.T)] = np.arange(len(cells))

    # A point is the mean of the crossings of the cell's twelve edges, by linear interpolation.
    value = np.stack([voxels[tuple((cells + corner).T)] for corner in _CORNERS], 1).astype(np.float64) - level
    total, crossings = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for i, first in enumerate(_CORNERS):
        for axis in range(3):
            if first[axis]:
                continue
            # The corner one step along the axis; corners are in binary order.
            low, high = value[:, i], value[:, i + (4, 2, 1)[axis]]
            cut = (low > 0) != (high > 0)
            at = np.tile(np.array(first, float), (int(np.count_nonzero(cut)), 1))
            at[:, axis] = low[cut] / (low[cut] - high[cut])
            total[cut] += at
            crossings[cut] += 1
    index = (cells + total / crossings[:, None])[:, ::-1]
    points = index @ affine[:3, :3].T + affine[:3, 3]

    # Four cells meet at an edge of the grid whose ends lie on both sides: two triangles.
    triangles = []
    for axis in range(3):
        next_axis, last_axis = (axis + 1) % 3, (axis + 2) % 3
        starts = inside.take(range(voxels.shape[axis] - 1), axis)
        edges = np.argwhere(starts != inside.take(range(1, voxels.shape[axis]), axis))
        edges = edges[(edges[:, next_axis] > 0) & (edges[:, last_axis] > 0)]
        edges = edges[
            (edges[:, next_axis] < voxels.shape[next_axis] - 1) & (edges[:, last_axis] < voxels.shape[last_axis] - 1)
        ]
        around = []
        for b, c in ((-1, -1), (0, -1), (0, 0), (-1, 0)):
            cell = edges.copy()
            cell[:, next_axis] += b
            cell[:, last_axis] += c
            around.append(number[tuple(cell.T)])
        quads = np.stack(around, 1)
        # The cells run counterclockwise about the axis, seen from its far end, in (z, y, x); the order of x, y and z is
        # the other way round.
        outward = starts[tuple(edges.T)]
        quads = np.where(outward[:, None], quads[:, ::-1], quads)[(quads >= 0).all(1)]
        triangles += [quads[:, (0, 1, 2)], quads[:, (0, 2, 3)]]
    faces = np.concatenate(triangles)
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return Mesh(points, faces)
