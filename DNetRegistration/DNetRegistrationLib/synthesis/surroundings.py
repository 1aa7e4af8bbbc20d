"""What lies around a bone in the scanner, in Hounsfield units: liquid, soft tissue, ligaments, fragments, a holder."""

from __future__ import annotations

from typing import Any

import numpy as np

from .fields import Cover, share_inside, single
from .grid import Lattice
from .session import Fragment, Session, Strand, Tube
from .tibia import CENTER

AIR = -1000.0
_PLASTIC = 120.0


def covered(session: Session, points: np.ndarray, cover: Cover) -> np.ndarray:
    """Whether film, muscle, ligaments or fragments lie at points, beside liquid, air and the holder.

    Args:
        session: what lies around the bone.
        points: ``(n, 3)`` of the animal's frame, outside the bone, mm.
        cover: of the bone at the points.

    Returns:
        ``(n,)`` bool.
    """
    level = session.muscle_waves.values(points) + session.muscle + 0.09 * session.fibre_waves.values(points)
    found = (level > _thinning(*points.T)) & (session.muscle > -5)
    if session.film:
        share, _ = session.film.layer(session.film.waves.values(points), np.zeros(len(points)), cover, 1e-3)
        found |= share > 0.5
    for strand in session.strands:
        along = strand.end - strand.start
        t = np.clip((points - strand.start) @ along / (along @ along), 0, 1)
        found |= np.linalg.norm(points - strand.start - t[:, None] * along, axis=1) < strand.radius
    for fragment in session.fragments:
        found |= _fragment_depth(fragment, points) > 0
    return found


def _thinning(x, y, z):
    """How remnants of muscle thin out with the distance from the shaft's axis, and beyond the joint."""
    reach = np.sqrt(x * x + y * y) - 1.3
    return 1.3 * np.maximum(reach, (z + 0.1) * 1.6)


def _fragment_depth(fragment: Fragment, points: np.ndarray) -> np.ndarray:
    """How deep points ``(n, 3)`` lie in a fragment, mm."""
    halves = 1 / np.linalg.norm(fragment.axes, axis=1)
    local = (points - fragment.center) @ fragment.axes.T
    depth = (1 - np.linalg.norm(local, axis=1)) * halves.mean() + 0.025 * fragment.lumps.values(points)
    return np.minimum(depth, (fragment.face - local[:, 0]) * halves[0])


class _Sheet:
    """Slices low to high of a lattice. Coordinates are sums of parts along the index axes, and computed as such."""

    def __init__(self, lattice: Lattice, low: int, high: int) -> None:
        self._x, self._y = (single(lattice.along(axis).T) for axis in (0, 1))
        self._z = single((lattice.axis(2, np.arange(low, high)) + lattice.affine[:3, 3]).T)

    def coordinate(self, c: int) -> np.ndarray:
        """``(z, y, x)`` float32, coordinate x, y or z in mm."""
        return self._z[c][:, None, None] + self._y[c][:, None] + self._x[c]

    def projection(self, direction: np.ndarray) -> np.ndarray:
        """``(z, y, x)`` float32, the dot product with a ``(3,)`` vector."""
        along = single(direction)
        return (along @ self._z)[:, None, None] + (along @ self._y)[:, None] + (along @ self._x)


class Surroundings:
    """Everything but the bones, as if they were not there."""

    def __init__(self, session: Session, lattice: Lattice) -> None:
        self.session, self.lattice = session, lattice
        # Surfaces are ramps over a voxel.
        self._edge = float(lattice.spacing.mean())

    def fill(self, slab: np.ndarray, texture: np.ndarray, low: int, high: int) -> None:
        """Fills slices low to high with HU, and with how unevenly contrast agent soaks in; both are zeros before."""
        session = self.session
        slab += session.medium
        if session.muscle > -5 or session.uptake:
            texture += self.lattice.field(session.soak_waves, low, high)
        sheet = _Sheet(self.lattice, low, high)
        if session.surface is not None:
            normal, distance = session.surface
            above = sheet.projection(normal) - float(normal @ CENTER + distance)
            slab += share_inside(above, self._edge) * (AIR - slab)
        if session.muscle > -5:
            self._add_muscle(slab, texture, sheet, low, high)
        for strand in session.strands:
            self._add_strand(slab, strand, sheet)
        if session.tube is not None:
            self._add_tube(slab, session.tube, sheet)

    def _add_muscle(self, slab, texture, sheet: _Sheet, low: int, high: int) -> None:
        session = self.session
        level = self.lattice.field(session.muscle_waves, low, high)
        level += session.muscle
        fibres = self.lattice.field(session.fibre_waves, low, high)
        level += 0.09 * fibres
        level -= _thinning(*(sheet.coordinate(c) for c in range(3)))
        cover = np.clip(level * (0.3 / self._edge) + 0.5, 0, 1)
        fibres += 1.5 * texture
        tissue = session.soft + 14 * fibres + session.soaked * np.clip(0.5 + 0.16 * fibres, 0.05, 1.5)
        slab += cover * (tissue - slab)

    def _add_strand(self, slab, strand: Strand, sheet: _Sheet) -> None:
        along = strand.end - strand.start
        length = along @ along
        t = np.clip(sheet.projection(along / length) - float(strand.start @ along / length), 0, 1)
        squared: Any = 0
        for c in range(3):
            apart = sheet.coordinate(c) - float(strand.start[c]) - t * float(along[c])
            squared = squared + apart * apart
        cover = share_inside(strand.radius - np.sqrt(squared), self._edge)
        slab += cover * (strand.brightness + 0.8 * self.session.soaked - slab)

    def _add_tube(self, slab, tube: Tube, sheet: _Sheet) -> None:
        squared = -((sheet.projection(tube.axis) - float(tube.axis @ tube.center)) ** 2)
        for c in range(3):
            apart = sheet.coordinate(c) - float(tube.center[c])
            squared = squared + apart * apart
        distance = np.sqrt(np.clip(squared, 0, None))
        slab += share_inside(distance - tube.radius, self._edge) * (_PLASTIC - slab)
        slab += share_inside(distance - tube.radius - tube.wall, self._edge) * (AIR - slab)

    def add_fragment(self, fragment: Fragment, slab: np.ndarray, low: int, high: int, fine: int) -> None:
        """Adds a fragment to slices low to high, from `fine` samples a voxel and axis, in the box around it only."""
        lattice, padding = self.lattice, self.lattice.padding
        halves = 1 / np.linalg.norm(fragment.axes, axis=1)
        inverse = np.linalg.inv(lattice.affine)
        center = inverse[:3, :3] @ fragment.center + inverse[:3, 3]
        reach = np.linalg.norm(inverse[:3, :3], axis=1) * halves.max() * 1.4 + 1
        ends = (lattice.size[0] - padding, lattice.size[1] - padding, high)
        first = np.maximum(np.floor(center - reach), (-padding, -padding, low)).astype(int)
        last = np.minimum(np.ceil(center + reach) + 1, ends).astype(int)
        if (last <= first).any():
            return
        cells = tuple(slice(first[a] - start, last[a] - start) for a, start in ((2, low), (1, -padding), (0, -padding)))
        parts = (np.arange(fine) + 0.5) / fine - 0.5
        axes = [(np.arange(first[a], last[a])[:, None] + parts).ravel() for a in range(3)]
        index = np.stack(np.meshgrid(*axes[::-1], indexing="ij")[::-1], -1).reshape(-1, 3)
        points = index @ lattice.affine[:3, :3].T + lattice.affine[:3, 3]
        cover = np.clip(_fragment_depth(fragment, points) / (lattice.spacing.mean() / fine) + 0.5, 0, 1)
        shape = [n for a in (2, 1, 0) for n in (last[a] - first[a], fine)]
        cover = single(cover.reshape(shape).mean((1, 3, 5)))
        slab[cells] += cover * (fragment.brightness * self.session.bone - slab[cells])
