"""The shape of a mouse's proximal tibia, as a continuous function of points.

The animal's frame, in mm: z along the shaft, proximal positive, the plateau near 0; y anterior; x toward the medial
side of a right leg (of a left leg, its mirror image, toward the lateral side). Nothing here is an image: surfaces are
smooth tables over (angle, height) and (x, y), trabeculae are level sets of sums of waves, and all are evaluated anew
wherever a scan has a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .arrays import Arrays
from .shape import ANGLES, GENES, XY_HALF, XY_STEP, Z_LOW, Z_STEP, Shape, grow

# Middle of what a scan shows of the bone, in the animal's frame: scans place this point near the middle of the grid.
CENTER = np.array([0.0, 0.0, -1.45])


@dataclass(frozen=True, eq=False)
class Animal:
    """A tibia: where it lies in the space of shapes, and the seed of its fine structure.

    Attributes:
        genes: ``(GENES,)`` shape coordinates, standard normal over the population.
        structure: seed of what two animals never share: trabeculae, osteophytes, roughness.
        left: a left leg, the mirror image of a right one with the same genes.
    """

    genes: np.ndarray
    structure: int
    left: bool = False

    @classmethod
    def draw(cls, seed: int) -> Animal:
        """An animal from the population; the same for the same seed."""
        generator = np.random.default_rng([seed, 1])
        return cls(generator.standard_normal(GENES), int(generator.integers(1 << 62)), bool(generator.integers(2)))

    def relative(self, seed: int, amount: float = 0.3) -> Animal:
        """Another animal near this one in shape (a littermate, same side): genes that correlate sqrt(1 - amount^2)."""
        generator = np.random.default_rng([seed, 2])
        genes = np.sqrt(1 - amount**2) * self.genes + amount * generator.standard_normal(GENES)
        return replace(self, genes=genes, structure=int(generator.integers(1 << 62)))

    def mirrored(self) -> Animal:
        """The mirror image of this very bone, down to its trabeculae, as a stack read in reverse order shows it."""
        return replace(self, left=not self.left)

    @cached_property
    def shape(self) -> Shape:
        return grow(self.genes, self.structure)

    @property
    def osteoarthritis(self) -> float:
        """0 (none) to 1."""
        return self.shape.osteoarthritis

    def bone(self, arrays: Arrays) -> Bone:
        """Ready for evaluation."""
        return Bone(self, arrays)


@dataclass(frozen=True)
class Depths:
    """Signed distances (mm, positive inside) of points, and what was looked up on the way."""

    outer: object  # below the outer surface of tibia or fibula, whichever is deeper
    tibia: object  # below the tibia's outer surface
    side: object  # below its mantle
    top: object  # below its plateau
    fibula: object
    mantle_at: tuple  # cells and weights of the (z, angle) tables
    plateau_at: tuple  # of the (y, x) tables


@dataclass(frozen=True)
class Tissue:
    """Volume fractions at points: what a box of the given width around each is made of."""

    filled: object  # within the outer surface: bone, marrow, growth plate
    bone: object  # mineralised tissue
    density: object  # the same, weighted by its degree of mineralisation
    cartilage: object  # articular cartilage


class Bone:
    """An animal's tibia, ready for evaluation. Points are flat float32 arrays x, y, z in the animal's frame, in mm."""

    def __init__(self, animal: Animal, arrays: Arrays) -> None:
        shape = self.shape = animal.shape
        self.arrays = arrays
        self.side = -1.0 if animal.left else 1.0
        load = arrays.array
        mantle, plateau = shape.mantle, shape.plateau
        self.rows, self.columns = mantle.radius.shape[0], plateau.top.shape[1]
        # Tables by number, as `_look` takes them.
        self.mantle = [load(table.ravel()) for table in (mantle.radius, mantle.tilt, mantle.cortex)]
        self.plateau = [
            load(table.ravel())
            for table in (plateau.top, plateau.slope, plateau.plate, plateau.growth, plateau.cartilage)
        ]
        self.lines = [load(line) for line in (*mantle.axis, *shape.fibula.line)]
        self.waves = [
            (load(wave.vectors), load(wave.phases), (2 / len(wave.phases)) ** 0.5)
            for wave in (*shape.spongiosa.epiphysis, *shape.spongiosa.metaphysis)
        ]

    def depths(self, x, y, z) -> Depths:
        """Signed distances to the surfaces: exact to first order near them, conservative guesses far away."""
        xp, arrays = self.arrays.xp, self.arrays
        x = x * self.side
        row = xp.clip((z - Z_LOW) / Z_STEP, 0, self.rows - 1.001)
        row_index, row_weight = _split(arrays, row)
        axis_x, axis_y, fibula_x, fibula_y, fibula_radius = (
            _between(arrays.take(line, row_index), arrays.take(line, row_index + 1), row_weight) for line in self.lines
        )
        dx, dy = x - axis_x, y - axis_y
        column = (xp.arctan2(dy, dx) + np.pi) * (ANGLES / (2 * np.pi))
        mantle_at = _cell(arrays, row_index, row_weight, xp.clip(column, 0, ANGLES - 0.001), ANGLES + 1)
        side = self._look(0, self.mantle, mantle_at) - xp.sqrt(dx * dx + dy * dy)
        side = side * self._look(1, self.mantle, mantle_at)

        y_row = xp.clip((y + XY_HALF) / XY_STEP, 0, self.columns - 1.001)
        x_column = xp.clip((x + XY_HALF) / XY_STEP, 0, self.columns - 1.001)
        plateau_at = _cell(arrays, *_split(arrays, y_row), x_column, self.columns)
        top = (self._look(0, self.plateau, plateau_at) - z) * self._look(1, self.plateau, plateau_at)
        tibia = both(xp, side, top, 0.16)

        fx, fy = x - fibula_x, y - fibula_y
        fibula = both(xp, fibula_radius - xp.sqrt(fx * fx + fy * fy), self.shape.fibula.top - z, 0.3)
        # Joined where they touch, with a fillet.
        outer = -both(xp, -tibia, -fibula, 0.06)
        return Depths(outer, tibia, side, top, fibula, mantle_at, plateau_at)

    def tissue(self, x, y, z, width: float) -> Tissue:
        """What a small cube of edge `width` (mm) around each point is made of, to second order in the width."""
        xp = self.arrays.xp
        depths = self.depths(x, y, z)

        def share(distance):
            # A ramp has the variance of the cube, in whichever direction the surface crosses it.
            return xp.clip(distance * (1 / width) + 0.5, 0, 1)

        filled = share(depths.outer)
        cortex = self._look(2, self.mantle, depths.mantle_at)
        plate = self._look(2, self.plateau, depths.plateau_at)
        above_growth = (z - self._look(3, self.plateau, depths.plateau_at)) * 0.92
        inner = both(xp, depths.side - cortex, depths.top - plate, 0.16)
        cavity = share(inner)
        fibula_cavity = share(depths.fibula - 0.075)
        hollow = xp.where(depths.fibula > depths.tibia, fibula_cavity, cavity)
        shell = filled * (1 - hollow)

        points = (x * self.side, y, z)
        shell = shell * self._porosity(points, inner, above_growth, shell)
        spongy = self._trabeculae(points, inner, above_growth, width) * (hollow * filled)
        within = xp.where(depths.tibia > depths.fibula - 0.02, 1.0, 0.0)
        open_plate = 1 - within * self._gap(points, above_growth, width)
        bone = (shell + spongy) * open_plate
        # The shaft is the most mineralised, the young bone about the growth plate the least.
        density = (shell * (1 - 0.1 * xp.clip((z + 3.0) * 0.5, 0, 1)) + 0.86 * spongy) * open_plate

        thickness = self._look(4, self.plateau, depths.plateau_at)
        covered = xp.clip(depths.side * 10.0 + 0.5, 0, 1)
        cartilage = (share(depths.outer + thickness) - filled) * covered
        return Tissue(filled, bone, density, cartilage)

    def _gap(self, points, above_growth, width):
        """Fraction of growth plate, which bridges of bone cross here and there."""
        xp, spongiosa = self.arrays.xp, self.shape.spongiosa
        gap = above_growth * 0
        here = self.arrays.nonzero(xp.abs(above_growth) < spongiosa.growth_half + width)
        if len(here):
            bridge = self._wave(xp.stack([c[here] for c in points], -1), 1) - spongiosa.bridged
            half = xp.clip(spongiosa.growth_half - 0.05 * xp.clip(bridge, 0, 1), 0, None)
            # Both faces count: the sheet may be thinner than the cube.
            upper, lower = ((half + side * above_growth[here]) * (1 / width) for side in (1, -1))
            gap[here] = xp.clip(upper + 0.5, 0, 1) + xp.clip(lower + 0.5, 0, 1) - 1
        return gap

    def _porosity(self, points, inner, above_growth, shell):
        """What pores leave of the cortex below the growth plate, where it is still forming."""
        xp = self.arrays.xp
        left = shell * 0 + 1
        here = self.arrays.nonzero((shell > 0) & (above_growth < 0) & (above_growth > -1.4))
        if len(here):
            field = self._wave(xp.stack([c[here] for c in points], -1), 3)
            depth = field - 1.1 - 0.7 * xp.clip(-above_growth[here], 0, 2) + 3.0 * xp.clip(inner[here], -0.3, 0.0)
            left[here] = 1 - 0.85 * xp.clip(depth * 2.5, 0, 1)
        return left

    def _trabeculae(self, points, inner, above_growth, width):
        """Fraction of trabecular bone within the cavity."""
        arrays, xp, spongiosa = self.arrays, self.arrays.xp, self.shape.spongiosa
        spongy = inner * 0
        for which, (first, second) in enumerate(((0, 1), (2, 3))):
            zone = above_growth > 0 if which == 0 else (above_growth <= 0) & (above_growth > -2.8)
            here = arrays.nonzero(zone & (inner > -width))
            if len(here) == 0:
                continue
            near = xp.stack([c[here] for c in points], -1)
            height, wall = above_growth[here], inner[here]
            pierced = self._wave(near, second)
            if which == 0:
                level = -1.05 + 0.6 * spongiosa.loss
            else:
                # Away from the growth plate trabeculae thin out, later along the cortex than in the middle.
                level = -1.3 + 0.8 * spongiosa.loss - 1.3 * height - 0.9 * xp.clip(1 - wall * 3.5, 0, 1)
            # In mm: how far to the end of a strut. There is nothing to look up beyond it.
            holes = (pierced - level) * 0.07
            some = arrays.nonzero(holes > -0.5 * width - 0.01)
            if len(some):
                thickness = spongiosa.strut * (1 + 0.25 * xp.clip(holes[some] * 8, -1, 1))
                gradient = (spongiosa.epiphysis if which == 0 else spongiosa.metaphysis)[0].gradient
                sheet = xp.abs(self._wave(near[some], first)) * (1 / gradient)
                solid = both(xp, thickness - sheet, holes[some], 0.02)
                spongy[here[some]] = xp.clip(solid * (1 / width) + 0.5, 0, 1)
            # Calcified layers to both sides of the growth plate, pierced here and there.
            beside = arrays.nonzero(xp.abs(height) < spongiosa.growth_half + 0.05 + width)
            if len(beside):
                layer = spongiosa.growth_half + 0.03 + 0.03 * xp.clip(pierced[beside], -1.5, 0.5)
                layer = layer - xp.abs(height[beside])
                layer = xp.clip(layer * (1 / width) + 0.5, 0, 1) * 0.9
                spongy[here[beside]] = xp.maximum(spongy[here[beside]], layer)
        return spongy

    def _wave(self, points, which):
        vectors, phases, scale = self.waves[which]
        angles = points @ vectors
        angles += phases
        return self.arrays.xp.cos(angles).sum(-1) * scale

    def _look(self, which, tables, at):
        """A table between its four neighbours."""
        cell, step, row_weight, column_weight = at
        take, table = self.arrays.take, tables[which]
        near = _between(take(table, cell), take(table, cell + 1), column_weight)
        cell = cell + step
        return _between(near, _between(take(table, cell), take(table, cell + 1), column_weight), row_weight)


def _between(first, second, weight):
    """Linear interpolation, in the memory of `second`."""
    second -= first
    second *= weight
    second += first
    return second


def _split(arrays, position):
    """Whole and fractional parts of positive numbers."""
    whole = arrays.cast(position, "int64")
    return whole, position - arrays.cast(whole, "float32")


def _cell(arrays, row_index, row_weight, column, columns):
    column_index, column_weight = _split(arrays, column)
    return row_index * columns + column_index, columns, row_weight, column_weight


def both(xp, first, second, fillet):
    """The smaller of two signed distances (inside both), the edge between them rounded over `fillet` mm."""
    apart = xp.clip(fillet - xp.abs(first - second), 0, None)
    return xp.minimum(first, second) - apart * apart * (0.25 / fillet)
