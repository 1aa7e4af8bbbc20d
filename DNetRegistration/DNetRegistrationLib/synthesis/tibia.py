"""A mouse's proximal tibia as a continuous function of points.

The animal's frame, in mm: z runs along the shaft, proximal positive, with the plateau near 0; y points to the front; x
points to the medial side of a right leg. A left leg is the mirror image. Nothing here is an image: surfaces are smooth
tables over (angle, height) and (x, y), trabeculae are level sets of sums of waves, and all of it is evaluated anew
wherever a scan has a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .fields import Cover, Depths, Field, Tissue, intersect, share_inside, single, unite
from .joint_surface import vary_joint
from .shape import ANGLES, GENES, XY_HALF, XY_STEP, Z_LOW, Z_STEP, Shape, grow

# The middle of what a scan shows of the bone, in the animal's frame. It lies near the middle of a scan's grid.
CENTER = np.array([0.0, 0.0, -1.45])


@dataclass(frozen=True, eq=False)
class Animal:
    """A tibia: its place in the space of shapes, and the seed of its fine structure.

    Attributes:
        genes: ``(GENES,)`` shape coordinates, standard normal over the population.
        structure: seed of what no two animals share: trabeculae, osteophytes, roughness.
        left: a left leg, the mirror image of a right one with the same genes.
        varied: its joint surface and cartilage vary as `joint_surface` says.
        cartilage: factor on the thickness of its cartilage, to make groups of animals that differ in it alone.
    """

    genes: np.ndarray
    structure: int
    left: bool = False
    varied: bool = field(default=False, kw_only=True)
    cartilage: float = field(default=1.0, kw_only=True)

    @classmethod
    def draw(cls, seed: int, varied: bool = False) -> Animal:
        """Draws an animal from the population; the same for the same seed."""
        generator = np.random.default_rng([seed, 1])
        genes, structure = generator.standard_normal(GENES), int(generator.integers(1 << 62))
        return cls(genes, structure, bool(generator.integers(2)), varied=varied)

    def relative(self, seed: int, amount: float = 0.3) -> Animal:
        """Draws a littermate: the same side, and genes that correlate sqrt(1 - `amount`^2) with this one's."""
        generator = np.random.default_rng([seed, 2])
        genes = np.sqrt(1 - amount**2) * self.genes + amount * generator.standard_normal(GENES)
        return replace(self, genes=genes, structure=int(generator.integers(1 << 62)))

    def mirrored(self) -> Animal:
        """Mirrors this very bone, trabeculae included, as a stack of slices read in reverse order shows it."""
        return replace(self, left=not self.left)

    @cached_property
    def shape(self) -> Shape:
        """The measures of the bone."""
        shape = grow(self.genes, self.structure)
        return vary_joint(shape, self.structure) if self.varied else shape

    @property
    def osteoarthritis(self) -> float:
        """0 (none) to 1."""
        return self.shape.osteoarthritis

    def model(self) -> TibiaModel:
        """Makes the bone ready to be evaluated."""
        return TibiaModel(self)


class Cells(NamedTuple):
    """Where points lie in a table of rows and columns.

    Attributes:
        cell: index in the flat table of the entry before each point.
        columns: of the table.
        row_weight, column_weight: of the entry after each point, 0 to 1.
    """

    cell: np.ndarray
    columns: int
    row_weight: np.ndarray
    column_weight: np.ndarray

    @classmethod
    def of(cls, row_index, row_weight, column, columns: int) -> Cells:
        """Cells by row and weight of the next row, and by continuous column."""
        column_index, column_weight = _split(column)
        return cls(row_index * columns + column_index, columns, row_weight, column_weight)

    def look_up(self, table: np.ndarray) -> np.ndarray:
        """Interpolates a flat table between the four entries about each point."""
        cell, step, row_weight, column_weight = self
        before = _between(table.take(cell), table.take(cell + 1), column_weight)
        cell = cell + step
        return _between(before, _between(table.take(cell), table.take(cell + 1), column_weight), row_weight)


@dataclass(frozen=True)
class TibiaDepths(Depths):
    """`Depths` of a tibia, and what was looked up on the way.

    Attributes:
        tibia, fibula: below the outer surface of either.
        mantle_at, plateau_at: where points lie in the (z, angle) and the (y, x) tables.
    """

    tibia: np.ndarray
    fibula: np.ndarray
    mantle_at: Cells
    plateau_at: Cells


class TibiaModel:
    """An animal's tibia and fibula, ready to be evaluated at points of the animal's frame."""

    def __init__(self, animal: Animal) -> None:
        shape = self.shape = animal.shape
        self._side = -1.0 if animal.left else 1.0
        mantle, plateau = shape.mantle, shape.plateau
        self._rows, self._columns = mantle.radius.shape[0], plateau.top.shape[1]
        self._radius, self._tilt, self._cortex = (
            single(table.ravel()) for table in (mantle.radius, mantle.tilt, mantle.cortex)
        )
        self._top, self._slope, self._plate, self._growth, self._cartilage = (
            single(table.ravel())
            for table in (plateau.top, plateau.slope, plateau.plate, plateau.growth, plateau.cartilage)
        )
        # Thinner cartilage of another animal ends where it did.
        self._cartilage *= np.float32(animal.cartilage)
        self._healthy = single(plateau.healthy.ravel())
        self._lines = [single(line) for line in (*mantle.axis, *shape.fibula.line)]
        self._epiphysis, self._metaphysis = (
            (Field(sheets), Field(holes)) for sheets, holes in (shape.spongiosa.epiphysis, shape.spongiosa.metaphysis)
        )

    def depths(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> TibiaDepths:
        """Signed distances to the surfaces: exact to first order near them, conservative guesses far away."""
        x = x * self._side
        row_index, row_weight = _split(np.clip((z - Z_LOW) / Z_STEP, 0, self._rows - 1.001))
        axis_x, axis_y, fibula_x, fibula_y, fibula_radius = (
            _between(line.take(row_index), line.take(row_index + 1), row_weight) for line in self._lines
        )
        dx, dy = x - axis_x, y - axis_y
        column = (np.arctan2(dy, dx) + np.pi) * (ANGLES / (2 * np.pi))
        mantle_at = Cells.of(row_index, row_weight, np.clip(column, 0, ANGLES - 0.001), ANGLES + 1)
        side = mantle_at.look_up(self._radius) - np.sqrt(dx * dx + dy * dy)
        side = side * mantle_at.look_up(self._tilt)

        y_row = np.clip((y + XY_HALF) / XY_STEP, 0, self._columns - 1.001)
        x_column = np.clip((x + XY_HALF) / XY_STEP, 0, self._columns - 1.001)
        y_index, y_weight = _split(y_row)
        plateau_at = Cells.of(y_index, y_weight, x_column, self._columns)
        top = (plateau_at.look_up(self._top) - z) * plateau_at.look_up(self._slope)
        tibia = intersect(side, top, 0.16)

        fx, fy = x - fibula_x, y - fibula_y
        fibula = intersect(fibula_radius - np.sqrt(fx * fx + fy * fy), self.shape.fibula.top - z, 0.3)
        return TibiaDepths(unite(tibia, fibula, 0.06), side, top, tibia, fibula, mantle_at, plateau_at)

    def tissue(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, width: float) -> Tissue:
        """What a cube of edge `width` (mm) around each point is made of, to second order in the width."""
        depths = self.depths(x, y, z)
        filled = share_inside(depths.outer, width)
        cortex = depths.mantle_at.look_up(self._cortex)
        plate = depths.plateau_at.look_up(self._plate)
        above_growth = (z - depths.plateau_at.look_up(self._growth)) * 0.92
        inner = intersect(depths.side - cortex, depths.top - plate, 0.16)
        cavity = share_inside(inner, width)
        fibula_cavity = share_inside(depths.fibula - 0.075, width)
        hollow = np.where(depths.fibula > depths.tibia, fibula_cavity, cavity)
        shell = filled * (1 - hollow)

        points = (x * self._side, y, z)
        shell = shell * self._porosity(points, inner, above_growth, shell)
        spongy = self._trabeculae(points, inner, above_growth, width) * (hollow * filled)
        within = np.where(depths.tibia > depths.fibula - 0.02, 1.0, 0.0)
        open_plate = 1 - within * self._gap(points, above_growth, width)
        bone = (shell + spongy) * open_plate
        # The shaft is the most mineralised, the young bone about the growth plate the least.
        density = (shell * (1 - 0.1 * np.clip((z + 3.0) * 0.5, 0, 1)) + 0.86 * spongy) * open_plate

        thickness, covered = self._layer(depths, self._cartilage)
        cartilage = (share_inside(depths.outer + thickness, width) - filled) * covered
        return Tissue(filled, bone, density, cartilage)

    def cover(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Cover:
        """What lies on the bone."""
        depths = self.depths(x, y, z)
        (thickness, share), (healthy, _) = (self._layer(depths, table) for table in (self._cartilage, self._healthy))
        return Cover(depths.outer, thickness, healthy, share)

    def _layer(self, depths: TibiaDepths, table: np.ndarray):
        """Thickness of a layer of cartilage, and the share of it that is there."""
        thickness = depths.plateau_at.look_up(table)
        rim = self.shape.plateau.rim
        if not rim:
            return thickness, np.clip(depths.side * 10.0 + 0.5, 0, 1)
        inward = np.clip((depths.side - 0.05) * (1 / rim), 0, 1)
        return thickness * (inward * (2 - inward)), np.ones_like(thickness)

    def _gap(self, points, above_growth, width):
        """The share of growth plate, which bridges of bone cross here and there."""
        spongiosa = self.shape.spongiosa
        gap = above_growth * 0
        here = np.flatnonzero(np.abs(above_growth) < spongiosa.growth_half + width)
        if len(here):
            bridge = self._epiphysis[1]([c[here] for c in points]) - spongiosa.bridged
            half = np.clip(spongiosa.growth_half - 0.05 * np.clip(bridge, 0, 1), 0, None)
            # Both faces count: the plate may be thinner than the cube.
            upper, lower = (share_inside(half + side * above_growth[here], width) for side in (1, -1))
            gap[here] = upper + lower - 1
        return gap

    def _porosity(self, points, inner, above_growth, shell):
        """What pores leave of the cortex below the growth plate, where it is still forming."""
        left = shell * 0 + 1
        here = np.flatnonzero((shell > 0) & (above_growth < 0) & (above_growth > -1.4))
        if len(here):
            field = self._metaphysis[1]([c[here] for c in points])
            depth = field - 1.1 - 0.7 * np.clip(-above_growth[here], 0, 2) + 3.0 * np.clip(inner[here], -0.3, 0.0)
            left[here] = 1 - 0.85 * np.clip(depth * 2.5, 0, 1)
        return left

    def _trabeculae(self, points, inner, above_growth, width):
        """The share of trabecular bone in the cavity, above and below the growth plate."""
        loss = self.shape.spongiosa.loss
        spongy = inner * 0
        here = np.flatnonzero((above_growth > 0) & (inner > -width))
        if len(here):
            level = -1.05 + 0.6 * loss
            spongy[here] = self._struts(self._epiphysis, [c[here] for c in points], above_growth[here], level, width)
        here = np.flatnonzero((above_growth <= 0) & (above_growth > -2.8) & (inner > -width))
        if len(here):
            height, wall = above_growth[here], inner[here]
            # Away from the growth plate trabeculae thin out, later along the cortex than in the middle.
            level = -1.3 + 0.8 * loss - 1.3 * height - 0.9 * np.clip(1 - wall * 3.5, 0, 1)
            spongy[here] = self._struts(self._metaphysis, [c[here] for c in points], height, level, width)
        return spongy

    def _struts(self, fields: tuple[Field, Field], points, height, level, width):
        """The share of trabeculae: sheets of the first field, pierced where the second is below `level`."""
        spongiosa, (sheets, holes) = self.shape.spongiosa, fields
        spongy = height * 0
        pierced = holes(points)
        # In mm, the distance to the end of a strut. Beyond it there is nothing to look up.
        rim = (pierced - level) * 0.07
        some = np.flatnonzero(rim > -0.5 * width - 0.01)
        if len(some):
            thickness = spongiosa.strut * (1 + 0.25 * np.clip(rim[some] * 8, -1, 1))
            sheet = np.abs(sheets([c[some] for c in points])) * (1 / sheets.gradient)
            spongy[some] = share_inside(intersect(thickness - sheet, rim[some], 0.02), width)
        # Calcified layers lie on both sides of the growth plate, pierced here and there.
        beside = np.flatnonzero(np.abs(height) < spongiosa.growth_half + 0.05 + width)
        if len(beside):
            layer = spongiosa.growth_half + 0.03 + 0.03 * np.clip(pierced[beside], -1.5, 0.5)
            layer = share_inside(layer - np.abs(height[beside]), width) * 0.9
            spongy[beside] = np.maximum(spongy[beside], layer)
        return spongy


def _between(first, second, weight):
    """Interpolates linearly, in the memory of `second`."""
    second -= first
    second *= weight
    second += first
    return second


def _split(position):
    """Parts positive numbers into whole and fraction."""
    whole = position.astype(np.int64)
    return whole, position - whole.astype(np.float32)
