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

GENES = 160
# Middle of what a scan shows of the bone, in the animal's frame: scans place this point near the middle of the grid.
CENTER = np.array([0.0, 0.0, -1.45])

_Z_LOW, _Z_HIGH, _Z_STEP = -12.0, 0.8, 0.05
_ANGLES = 240
_XY_HALF, _XY_STEP = 2.6, 0.04


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
        return Shape.grow(self)


class _Genes:
    """Turns genes into measures, one after the other."""

    def __init__(self, genes: np.ndarray) -> None:
        self._genes, self._next = genes, 0

    def normal(self) -> float:
        self._next += 1
        return float(np.clip(self._genes[self._next - 1], -2.5, 2.5))

    def __call__(self, mean: float, spread: float) -> float:
        return mean + spread * self.normal()

    def uniform(self, low: float, high: float) -> float:
        from math import erf, sqrt

        return low + (high - low) * 0.5 * (1 + erf(self.normal() / sqrt(2)))


@dataclass(frozen=True)
class Waves:
    """A random field: sum of ``n`` cosines of unit variance. `gradient` is the root mean square of its slope, per mm."""

    vectors: np.ndarray  # (3, n) wave vectors, rad/mm
    phases: np.ndarray  # (n,)

    @classmethod
    def draw(cls, generator, count, wavelength, spread=0.2, stretch=(1.0, 1.0, 1.0)) -> Waves:
        """Waves in all directions; `stretch` lengthens the structures along x, y, z."""
        direction = generator.standard_normal((3, count))
        direction /= np.linalg.norm(direction, axis=0)
        length = wavelength * np.exp(spread * generator.uniform(-1, 1, count))
        vectors = 2 * np.pi / length * direction / np.asarray(stretch)[:, None]
        return cls(vectors, generator.uniform(0, 2 * np.pi, count))

    @property
    def gradient(self) -> float:
        return float(np.sqrt((self.vectors**2).sum(0).mean()))

    def values(self, points: np.ndarray) -> np.ndarray:
        """At ``(..., 3)`` points, in NumPy."""
        return np.sqrt(2 / len(self.phases)) * np.cos(points @ self.vectors + self.phases).sum(-1)


@dataclass(frozen=True)
class Shape:
    """The tables of one bone. Heights are rows from `_Z_LOW`, angles columns from -pi, x and y from -`_XY_HALF`."""

    radius: np.ndarray  # (z, angle) of the outer surface, from the axis
    tilt: np.ndarray  # (z, angle) cosine of the surface against the radius: turns radial into normal distance
    cortex: np.ndarray  # (z, angle) cortical thickness
    axis: np.ndarray  # (2, z) x and y of the shaft's axis
    fibula: np.ndarray  # (3, z) x, y and radius of the fibula
    fibula_top: float
    top: np.ndarray  # (y, x) height of the plateau
    slope: np.ndarray  # (y, x) cosine of its slope
    plate: np.ndarray  # (y, x) subchondral thickness
    growth: np.ndarray  # (y, x) height of the growth plate
    cartilage: np.ndarray  # (y, x) cartilage thickness
    growth_half: float  # half thickness of the growth plate
    bridged: float  # how much of the growth plate is bridged by bone, a level of a unit normal field
    epiphysis: tuple[Waves, Waves]
    metaphysis: tuple[Waves, Waves]
    strut: float  # half thickness of trabeculae
    loss: float  # loss of trabeculae, 0 (none) to 1
    osteoarthritis: float

    @classmethod
    def grow(cls, animal: Animal) -> Shape:
        gene, generator = _Genes(animal.genes), np.random.default_rng([animal.structure, 3])
        osteoarthritis = gene.uniform(-0.5, 1.0)
        osteoarthritis = max(osteoarthritis, 0.0)
        size = gene(1.0, 0.035)

        z = np.arange(_Z_LOW, _Z_HIGH + _Z_STEP / 2, _Z_STEP)
        angle = np.linspace(-np.pi, np.pi, _ANGLES + 1)
        level = z / size

        def profile(knots):
            values = np.interp(level, *np.array(knots).T[:, ::-1])
            return _smooth(values, 0.16 / _Z_STEP)

        medial = profile([(0.4, 1.48), (0.0, 1.60), (-0.4, 1.66), (-0.9, 1.50), (-1.4, 1.16), (-2.0, 0.88), (-3.0, 0.68),
                          (-4.0, 0.58), (-6.0, 0.53), (-12.0, 0.50)])  # fmt: skip
        lateral = profile([(0.4, 1.40), (0.0, 1.54), (-0.4, 1.60), (-0.9, 1.46), (-1.4, 1.20), (-2.0, 0.96), (-3.0, 0.70),
                           (-4.0, 0.56), (-6.0, 0.50), (-12.0, 0.48)])  # fmt: skip
        anterior = profile([(0.4, 0.95), (0.0, 1.02), (-0.5, 1.12), (-1.0, 1.16), (-1.5, 1.12), (-2.0, 1.02), (-3.0, 0.80),
                            (-4.0, 0.66), (-6.0, 0.56), (-12.0, 0.50)])  # fmt: skip
        posterior = profile([(0.4, 1.02), (0.0, 1.14), (-0.4, 1.18), (-0.9, 1.08), (-1.4, 0.90), (-2.0, 0.76), (-3.0, 0.64),
                             (-4.0, 0.57), (-6.0, 0.52), (-12.0, 0.48)])  # fmt: skip
        head = _sigmoid((level + 1.5) / 0.3)
        medial = medial * (head * gene(1.0, 0.05) + (1 - head) * gene(1.0, 0.06))
        lateral = lateral * (head * gene(1.0, 0.05) + (1 - head) * gene(1.0, 0.06))
        anterior = anterior * (head * gene(1.0, 0.05) + (1 - head) * gene(1.0, 0.06))
        posterior = posterior * (head * gene(1.0, 0.05) + (1 - head) * gene(1.0, 0.06))
        power = (2.0 + 0.35 * head * gene(1.0, 0.2))[:, None]
        cosine, sine = np.cos(angle), np.sin(angle)
        across = np.where(cosine > 0, medial[:, None], lateral[:, None])
        along = np.where(sine > 0, anterior[:, None], posterior[:, None])
        radius = (np.abs(cosine / across) ** power + np.abs(sine / along) ** power) ** (-1 / power)

        def bump(center, width):
            """Along the angle, periodic, of height 1."""
            return np.exp((np.cos(angle - np.asarray(center)[..., None]) - 1) / width**2)

        # The tibial crest leans to the lateral side and sharpens from the tuberosity downward.
        crest_at = np.deg2rad(gene(100, 4) + gene(10, 4) * np.clip(-level - 1.5, 0, 5) / 3)
        crest = profile([(0.4, 0), (-0.6, 0.0), (-1.1, 0.25), (-1.7, 0.50), (-2.6, 0.46), (-3.6, 0.36), (-5.0, 0.20),
                         (-7.5, 0.06), (-12.0, 0.0)]) * gene(1.0, 0.15)  # fmt: skip
        radius += crest[:, None] * bump(crest_at, gene(0.36, 0.03))
        # Between the condyles, the bone falls back behind; flanks of the shaft are flat to hollow.
        notch = profile([(0.4, 0.34), (-0.3, 0.30), (-0.9, 0.20), (-1.6, 0.14), (-3.0, 0.05), (-12.0, 0.0)])
        radius -= (notch * gene(1.0, 0.2))[:, None] * bump(np.deg2rad(gene(-90, 5)), gene(0.34, 0.04))
        flank = profile([(0.4, 0.02), (-1.0, 0.05), (-1.8, 0.16), (-3.0, 0.13), (-5.0, 0.05), (-12.0, 0.0)])
        radius -= (flank * gene(1.0, 0.25))[:, None] * bump(np.deg2rad(gene(158, 6)), 0.5)
        radius -= (0.7 * flank * gene(1.0, 0.25))[:, None] * bump(np.deg2rad(gene(35, 6)), 0.45)
        for order in (2, 3, 4, 5):
            for shape in (cosine, sine):
                swing = np.cos(2 * np.pi * level / gene(5.0, 0.6) + gene(0, 2.5))
                radius += (0.014 * gene.normal() * swing)[:, None] * np.real((cosine + 1j * sine) ** order)[None] * (
                    1.0 if shape is cosine else 0.7
                )
        # Osteophytes along the rim of the plateau, mostly medial; a rough surface where disease is.
        for _ in range(generator.poisson(5 * osteoarthritis)):
            at = np.deg2rad(generator.choice([generator.normal(0, 40), generator.uniform(-180, 180)], p=[0.7, 0.3]))
            height = generator.uniform(0.06, 0.32) * (0.4 + 0.6 * osteoarthritis)
            spread = generator.uniform(0.1, 0.22)
            lift = np.exp(-0.5 * ((z + generator.uniform(0.05, 0.5)) / spread) ** 2)
            radius += height * lift[:, None] * bump(at, generator.uniform(0.1, 0.25))
        rough = Waves.draw(generator, 24, 0.45, 0.5)
        ring = np.stack(np.broadcast_arrays(1.2 * cosine, 1.2 * sine, z[:, None]), -1)
        radius += rough.values(ring) * (0.008 + 0.014 * osteoarthritis * head[:, None])
        radius = size * np.maximum(radius, 0.25)
        radius[:, -1] = radius[:, 0]

        along_angle = np.gradient(np.pad(radius, ((0, 0), (1, 1)), "wrap"), angle[1] - angle[0], axis=1)[:, 1:-1] / radius
        tilt = 1 / np.sqrt(1 + along_angle**2 + np.gradient(radius, _Z_STEP, axis=0) ** 2)
        cortex = profile([(0.4, 0.11), (-0.5, 0.10), (-1.0, 0.11), (-1.6, 0.12), (-2.4, 0.16), (-3.4, 0.20), (-6.0, 0.22),
                          (-12.0, 0.22)]) * gene(1.0, 0.08)  # fmt: skip
        cortex = cortex[:, None] * (1 + 0.15 * gene.normal() * cosine + 0.12 * gene.normal() * np.cos(2 * angle))
        cortex = cortex + 0.35 * crest[:, None] * bump(crest_at, 0.35)
        cortex = size * np.clip(cortex, 0.07, 0.6)

        # Bent like a bow from the metaphysis downward.
        down = np.clip(-level - 1.0, 0, None)
        bow = down**2 / (1 + 0.06 * down**2)
        axis = np.stack((gene(-0.012, 0.012) * bow, gene(0.012, 0.012) * bow + 0.0))

        has_fibula = gene.normal() > -1.2
        apart = gene.uniform(-0.04, 0.14)  # fused to touching to a gap
        top_of_fibula = size * gene(-1.0, 0.1)
        towards = np.deg2rad(gene(218, 6))
        column = np.interp(towards - 2 * np.pi, angle, np.arange(angle.size))
        surface = radius[:, int(round(column))]
        fibula_radius = size * profile([(0.4, 0.26), (-1.2, 0.28), (-1.8, 0.22), (-2.6, 0.15), (-4.0, 0.13), (-12.0, 0.13)])
        fibula_radius = fibula_radius * gene(1.0, 0.1) if has_fibula else np.full_like(z, -1.0)
        at_top = np.interp(top_of_fibula - 0.3, z, surface)
        out = profile([(0.4, 0.0), (-1.2, 0.0), (-2.5, 0.10), (-4.0, 0.12), (-7.0, -0.10), (-12.0, -0.6)])
        reach = np.clip(at_top + 0.12 + apart + size * out, surface + 0.10, None) if has_fibula else surface
        reach = _smooth(np.maximum(reach, surface + fibula_radius + apart), 0.3 / _Z_STEP)
        fibula = np.stack((axis[0] + reach * np.cos(towards), axis[1] + reach * np.sin(towards), fibula_radius))

        grid = np.arange(-_XY_HALF, _XY_HALF + _XY_STEP / 2, _XY_STEP)
        x, y = (np.broadcast_to(c, (grid.size, grid.size)) / size for c in (grid[None, :], grid[:, None]))

        def hill(cx, cy, wx, wy):
            return np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)

        facets = [(gene(0.82, 0.03), gene(-0.12, 0.04)), (gene(-0.80, 0.03), gene(-0.20, 0.04))]
        top = gene(0.24, 0.04) * y + gene(0.0, 0.04) * x - 0.10 * ((x * x + y * y) / 2.4) ** 2
        top -= gene(0.11, 0.03) * hill(*facets[0], 0.48, 0.55) + gene(0.05, 0.04) * hill(*facets[1], 0.45, 0.5)
        top += gene(0.30, 0.04) * hill(gene(0.15, 0.02), gene(0.0, 0.05), 0.17, 0.36)
        top += gene(0.24, 0.04) * hill(gene(-0.22, 0.02), gene(-0.12, 0.05), 0.16, 0.30)
        top -= gene(0.42, 0.06) * _sigmoid((y - 0.72) / 0.12) + gene(0.10, 0.04) * hill(0.0, 0.55, 0.35, 0.2)
        for _ in range(3):
            top += gene(0, 0.02) * hill(gene(0, 0.6), gene(0, 0.5), 0.4, 0.4)
        # Erosions of late disease, mostly on the medial side.
        lesion = np.zeros_like(top)
        for _ in range(generator.poisson(2.5 * osteoarthritis)):
            cx, cy = facets[0] if generator.random() < 0.75 else facets[1]
            lesion += generator.uniform(0.3, 1.0) * hill(
                cx + generator.normal(0, 0.25), cy + generator.normal(0, 0.3), *generator.uniform(0.12, 0.35, 2)
            )
        lesion = np.clip(lesion, 0, 1) * osteoarthritis
        flat = np.stack((size * x, size * y, 0 * x), -1)
        top = size * (top - 0.10 * lesion) + rough.values(flat) * (0.004 + 0.008 * osteoarthritis)
        slope = 1 / np.sqrt(1 + sum(g**2 for g in np.gradient(top, _XY_STEP)))
        both = hill(*facets[0], 0.6, 0.7) + hill(*facets[1], 0.6, 0.7)
        plate = size * gene(0.09, 0.012) * (1 + 0.5 * both) * (1 + 0.9 * osteoarthritis * hill(*facets[0], 0.6, 0.6))

        growth = gene(-0.92, 0.05) + gene(0.06, 0.03) * x + gene(0.10, 0.04) * y
        growth += gene(0.09, 0.03) * np.cos(2 * np.pi * x / gene(1.7, 0.12) + gene(0, 0.8))
        growth += gene(0.07, 0.03) * np.cos(2 * np.pi * y / gene(1.4, 0.12) + gene(0, 0.8))
        growth -= gene(0.45, 0.08) * _sigmoid((y - 0.85) / 0.13)
        growth = size * growth + 0.02 * Waves.draw(generator, 16, 0.5, 0.3).values(flat)

        # Flat over each facet, running out at its rim.
        edges = [np.clip(1.35 - ((x - cx) / 0.62) ** 2 - ((y - cy) / 0.80) ** 2, 0, 1) for cx, cy in facets]
        thick = [gene(0.062, 0.012), gene(0.068, 0.012)]
        wavy = 1 + 0.15 * Waves.draw(generator, 16, 1.0, 0.3).values(flat)
        cartilage = sum(e * t for e, t in zip(edges, thick, strict=True)) * wavy * (1 - 0.85 * lesion)
        cartilage = np.clip(cartilage, 0, 0.11)

        def pair(wavelength, stretch, holes):
            return (
                Waves.draw(generator, 16, wavelength, 0.25, stretch),
                Waves.draw(generator, 10, holes, 0.3, stretch),
            )

        return cls(
            radius=radius, tilt=tilt, cortex=cortex, axis=axis, fibula=fibula, fibula_top=top_of_fibula, top=top,
            slope=slope, plate=plate, growth=growth, cartilage=cartilage, growth_half=0.5 * gene(0.095, 0.015),
            bridged=gene(1.9, 0.3), epiphysis=pair(gene(0.40, 0.02), (1, 1, 1.15), 0.36),
            metaphysis=pair(gene(0.40, 0.03), (1, 1, 4.0), 0.42), strut=0.5 * gene(0.050, 0.004),
            loss=float(np.clip(0.35 + 0.25 * gene.normal() + 0.2 * osteoarthritis, 0, 1)),
            osteoarthritis=osteoarthritis,
        )  # fmt: skip


def _sigmoid(value):
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(value))


def _smooth(values, sigma):
    """Gaussian smoothing of a 1-D table, ends held."""
    radius = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, radius, "edge"), kernel / kernel.sum(), "valid")


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
    """An animal's tibia ready for evaluation with NumPy or torch. Points are flat arrays x, y, z in its frame, in mm."""

    def __init__(self, animal: Animal, arrays: Arrays) -> None:
        shape = self.shape = animal.shape
        self.arrays = arrays
        self.side = -1.0 if animal.left else 1.0
        load = arrays.array
        self.mantle = [load(table.ravel()) for table in (shape.radius, shape.tilt, shape.cortex)]
        self.plateau = [
            load(table.ravel()) for table in (shape.top, shape.slope, shape.plate, shape.growth, shape.cartilage)
        ]
        self.lines = [load(line) for line in (*shape.axis, *shape.fibula)]
        self.waves = [
            (load(wave.vectors), load(wave.phases), (2 / len(wave.phases)) ** 0.5)
            for wave in (*shape.epiphysis, *shape.metaphysis)
        ]

    def depths(self, x, y, z) -> Depths:
        """Signed distances to the surfaces: exact to first order near them, conservative guesses far away."""
        xp, arrays, shape = self.arrays.xp, self.arrays, self.shape
        x = x * self.side
        row = xp.clip((z - _Z_LOW) / _Z_STEP, 0, shape.radius.shape[0] - 1.001)
        row_index = arrays.cast(row, "int64")
        row_weight = row - row_index
        axis_x, axis_y, fibula_x, fibula_y, fibula_radius = (
            _between(arrays.take(line, row_index), arrays.take(line, row_index + 1), row_weight) for line in self.lines
        )
        dx, dy = x - axis_x, y - axis_y
        column = (xp.arctan2(dy, dx) + np.pi) * (_ANGLES / (2 * np.pi))
        mantle_at = _cell(arrays, row_index, row_weight, xp.clip(column, 0, _ANGLES - 0.001), _ANGLES + 1)
        side = (self._look(0, self.mantle, mantle_at) - xp.sqrt(dx * dx + dy * dy)) * self._look(1, self.mantle, mantle_at)

        width = shape.top.shape[1]
        y_row = xp.clip((y + _XY_HALF) / _XY_STEP, 0, width - 1.001)
        y_index = arrays.cast(y_row, "int64")
        x_column = xp.clip((x + _XY_HALF) / _XY_STEP, 0, width - 1.001)
        plateau_at = _cell(arrays, y_index, y_row - y_index, x_column, width)
        top = (self._look(0, self.plateau, plateau_at) - z) * self._look(1, self.plateau, plateau_at)
        tibia = _both(xp, side, top, 0.16)

        fx, fy = x - fibula_x, y - fibula_y
        fibula = _both(xp, fibula_radius - xp.sqrt(fx * fx + fy * fy), shape.fibula_top - z, 0.3)
        # Joined where they touch, with a fillet.
        outer = -_both(xp, -tibia, -fibula, 0.06)
        return Depths(outer, tibia, side, top, fibula, mantle_at, plateau_at)

    def tissue(self, x, y, z, width: float) -> Tissue:
        """What a small cube of edge `width` (mm) around each point is made of, to second order in the width."""
        xp, shape = self.arrays.xp, self.shape
        depths = self.depths(x, y, z)

        def share(distance):
            # A ramp has the variance of the cube, in whichever direction the surface crosses it.
            return xp.clip(distance * (1 / width) + 0.5, 0, 1)

        filled = share(depths.outer)
        cortex = self._look(2, self.mantle, depths.mantle_at)
        plate = self._look(2, self.plateau, depths.plateau_at)
        above_growth = (z - self._look(3, self.plateau, depths.plateau_at)) * 0.92
        inner = _both(xp, depths.side - cortex, depths.top - plate, 0.16)
        cavity = share(inner)
        fibula_cavity = share(depths.fibula - 0.075)
        hollow = xp.where(depths.fibula > depths.tibia, fibula_cavity, cavity)
        shell = filled * (1 - hollow)

        spongy = self._trabeculae(x * self.side, y, z, inner, above_growth, width) * (hollow * filled)
        within = xp.where(depths.tibia > depths.fibula - 0.02, 1.0, 0.0)
        gap = share(shape.growth_half - xp.abs(above_growth)) * within
        bone = (shell + spongy) * (1 - gap)
        density = (shell + 0.9 * spongy) * (1 - gap)

        thickness = self._look(4, self.plateau, depths.plateau_at)
        covered = xp.clip(depths.side * 10.0 + 0.5, 0, 1)
        cartilage = (share(depths.outer + thickness) - filled) * covered
        return Tissue(filled, bone, density, cartilage)

    def _trabeculae(self, x, y, z, inner, above_growth, width):
        """Fraction of trabecular bone within the cavity."""
        arrays, xp, shape = self.arrays, self.arrays.xp, self.shape
        spongy = inner * 0
        for which, (first, second) in enumerate(((0, 1), (2, 3))):
            # Below the growth plate trabeculae thin out, later along the cortex than in the middle.
            zone = above_growth > 0 if which == 0 else (above_growth <= 0) & (above_growth > -3.4)
            here = arrays.nonzero(zone & (inner > -width))
            if len(here) == 0:
                continue
            points = xp.stack((x[here], y[here], z[here]), -1)
            sheet = self._wave(points, first)
            holes = self._wave(points, second)
            height, wall = above_growth[here], inner[here]
            gradient = (shape.epiphysis if which == 0 else shape.metaphysis)[0].gradient
            if which == 0:
                level = -0.75 + 0.5 * shape.loss
            else:
                below = -height
                level = -0.9 + 0.7 * shape.loss + 1.15 * below - 0.9 * xp.clip(1 - wall * 3.5, 0, 1)
            holes = (holes - level) * 0.07  # mm per unit of the field: how fast a strut ends
            strut = shape.strut * (1 + 0.25 * xp.clip(holes * 8, -1, 1))
            solid = _both(xp, strut - xp.abs(sheet) * (1 / gradient), holes, 0.02)
            share = xp.clip(solid * (1 / width) + 0.5, 0, 1)
            # Calcified layers to both sides of the growth plate.
            layer = shape.growth_half + (0.045 if which == 1 else 0.035) - xp.abs(height)
            share = xp.maximum(share, xp.clip(layer * (1 / width) + 0.5, 0, 1) * 0.9)
            spongy[here] = share
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
    return first + (second - first) * weight


def _cell(arrays, row_index, row_weight, column, columns):
    column_index = arrays.cast(column, "int64")
    return row_index * columns + column_index, columns, row_weight, column - column_index


def _both(xp, first, second, fillet):
    """The smaller of two signed distances (inside both), the edge between them rounded over `fillet` mm."""
    apart = xp.clip(fillet - xp.abs(first - second), 0, None)
    return xp.minimum(first, second) - apart * apart * (0.25 / fillet)
