"""The measures of one mouse tibia: smooth tables of its surfaces, and waves for its spongy bone.

Frame and units are those of `tibia`. Every measure is a population mean plus a spread times one gene, so that similar
genes give similar bones. The means are those of an adult mouse, read off published micro-CT sections.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from .fields import Waves

GENES = 160
# Tables have heights from Z_LOW on in rows and angles from -pi on in columns, or y and x from -XY_HALF on. They are
# interpolated linearly, which at these steps is within a micrometre of smooth.
Z_LOW, Z_HIGH, Z_STEP = -12.0, 0.8, 0.05
ANGLES = 240
XY_HALF, XY_STEP = 2.6, 0.04
HEIGHTS, TURN = np.arange(Z_LOW, Z_HIGH + Z_STEP / 2, Z_STEP), np.linspace(-np.pi, np.pi, ANGLES + 1)


@dataclass(frozen=True)
class Mantle:
    """The sides of the tibia about its axis; tables ``(z, angle)`` in mm.

    Attributes:
        radius: of the outer surface, from the axis.
        tilt: cosine between the surface's normal and the radius: it turns radial into normal distance.
        cortex: cortical thickness.
        axis: ``(2, z)``, x and y of the shaft's axis.
    """

    radius: np.ndarray
    tilt: np.ndarray
    cortex: np.ndarray
    axis: np.ndarray


@dataclass(frozen=True)
class Fibula:
    """A thin tube beside the tibia.

    Attributes:
        line: ``(3, z)``, x, y and radius in mm; the radius is negative where there is no fibula.
        top: height of its head in mm.
    """

    line: np.ndarray
    top: float


@dataclass(frozen=True)
class Plateau:
    """The upper end of the tibia over (x, y); tables ``(y, x)`` in mm.

    Attributes:
        top: height of the surface.
        slope: cosine of its slope.
        plate: subchondral thickness.
        growth: height of the growth plate.
        cartilage: its thickness.
        healthy: the same without wear.
        rim: mm over which cartilage thins out towards the sides of the bone; 0 ends it there at full thickness.
    """

    top: np.ndarray
    slope: np.ndarray
    plate: np.ndarray
    growth: np.ndarray
    cartilage: np.ndarray
    healthy: np.ndarray
    rim: float = 0.0


@dataclass(frozen=True)
class Spongiosa:
    """Trabeculae, above and below the growth plate.

    Attributes:
        epiphysis, metaphysis: two fields: trabeculae are sheets where the first is near 0, pierced where the second is
            low.
        strut: half thickness of trabeculae in mm.
        loss: of trabeculae, 0 (none) to 1.
        growth_half: half thickness of the growth plate in mm.
        bridged: level above which a field of unit variance bridges the growth plate with bone.
    """

    epiphysis: tuple[Waves, Waves]
    metaphysis: tuple[Waves, Waves]
    strut: float
    loss: float
    growth_half: float
    bridged: float


@dataclass(frozen=True)
class Shape:
    """The measures of one bone."""

    mantle: Mantle
    fibula: Fibula
    plateau: Plateau
    spongiosa: Spongiosa
    osteoarthritis: float  # 0 (none, a third of the animals) to 1


def grow(genes: np.ndarray, structure: int) -> Shape:
    """Makes the shape of an animal from its ``(GENES,)`` genes and the seed of its fine structure."""
    growth = _Growth(genes, structure)
    mantle = growth.mantle()
    return Shape(mantle, growth.fibula(mantle), growth.plateau(), growth.spongiosa(), growth.osteoarthritis)


def mantle_tilt(radius: np.ndarray) -> np.ndarray:
    """`Mantle.tilt` of a table of radii."""
    around = np.gradient(np.pad(radius[:, :-1], ((0, 0), (1, 2)), "wrap"), TURN[1] - TURN[0], axis=1)[:, 1:-1]
    return 1 / np.sqrt(1 + (around / radius) ** 2 + np.gradient(radius, Z_STEP, axis=0) ** 2)


def plateau_slope(top: np.ndarray) -> np.ndarray:
    """`Plateau.slope` of a table of heights."""
    return 1 / np.sqrt(1 + sum(g**2 for g in np.gradient(top, XY_STEP)))


class _Growth:
    """Reads genes one after the other: the order of calls is part of what a gene means."""

    def __init__(self, genes: np.ndarray, structure: int) -> None:
        self._genes = iter(np.clip(genes, -2.5, 2.5).tolist())
        self.generator = np.random.default_rng([structure, 3])
        self.osteoarthritis = max(self._uniform(-0.5, 1.0), 0.0)
        self.size = self._gene(1.0, 0.035)
        self.z = HEIGHTS
        self.level = self.z / self.size
        self.angle = TURN
        self.rough = Waves.draw(self.generator, 24, 0.45, 0.5)

    def _gene(self, mean: float, spread: float) -> float:
        return mean + spread * next(self._genes)

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * 0.5 * (1 + erf(next(self._genes) / sqrt(2)))

    def _profile(self, *knots):
        """Makes a smooth table over height from (height, value) pairs, downward, for a bone of unit size."""
        return _smooth(np.interp(self.level, *np.array(knots).T[:, ::-1]), 0.16 / Z_STEP)

    def _bump(self, center, width):
        """A bump of height 1 along the angle, in radians, periodic; about one centre, or one for each height."""
        return np.exp((np.cos(self.angle - np.asarray(center)[..., None]) - 1) / width**2)

    def mantle(self) -> Mantle:
        gene, angle, level, profile = self._gene, self.angle, self.level, self._profile
        cosine, sine = np.cos(angle), np.sin(angle)
        head = _sigmoid((level + 1.5) / 0.3)
        quarters = [
            half * (head * gene(1.0, 0.05) + (1 - head) * gene(1.0, 0.06))
            for half in (
                profile((0.4, 1.48), (0.0, 1.60), (-0.4, 1.66), (-0.9, 1.50), (-1.4, 1.16), (-2.0, 0.88), (-3.0, 0.68),
                        (-4.0, 0.58), (-6.0, 0.53), (-12.0, 0.50)),
                profile((0.4, 1.40), (0.0, 1.54), (-0.4, 1.60), (-0.9, 1.46), (-1.4, 1.20), (-2.0, 0.96), (-3.0, 0.70),
                        (-4.0, 0.56), (-6.0, 0.50), (-12.0, 0.48)),
                profile((0.4, 0.95), (0.0, 1.02), (-0.5, 1.12), (-1.0, 1.16), (-1.5, 1.12), (-2.0, 1.02), (-3.0, 0.80),
                        (-4.0, 0.66), (-6.0, 0.56), (-12.0, 0.50)),
                profile((0.4, 1.02), (0.0, 1.14), (-0.4, 1.18), (-0.9, 1.08), (-1.4, 0.90), (-2.0, 0.76), (-3.0, 0.64),
                        (-4.0, 0.57), (-6.0, 0.52), (-12.0, 0.48)),
            )
        ]  # fmt: skip
        medial, lateral, anterior, posterior = (half[:, None] for half in quarters)
        power = (2.0 + 0.35 * head * gene(1.0, 0.2))[:, None]
        across, along = np.where(cosine > 0, medial, lateral), np.where(sine > 0, anterior, posterior)
        radius = (np.abs(cosine / across) ** power + np.abs(sine / along) ** power) ** (-1 / power)

        # The tibial crest leans to the lateral side, and sharpens from the tuberosity downward.
        crest_at = np.deg2rad(gene(100, 4) + gene(10, 4) * np.clip(-level - 1.5, 0, 5) / 3)
        crest = profile((0.4, 0.0), (-0.6, 0.0), (-1.1, 0.28), (-1.7, 0.58), (-2.6, 0.54), (-3.6, 0.42), (-5.0, 0.24),
                        (-7.5, 0.06), (-12.0, 0.0))  # fmt: skip
        crest = (crest * gene(1.0, 0.15))[:, None]
        radius += crest * self._bump(crest_at, gene(0.30, 0.03))
        # Behind, the bone recedes between the condyles; its flanks are flat to hollow.
        notch = profile((0.4, 0.46), (-0.3, 0.40), (-0.9, 0.26), (-1.6, 0.14), (-3.0, 0.05), (-12.0, 0.0))
        radius -= (notch * gene(1.0, 0.2))[:, None] * self._bump(np.deg2rad(gene(-90, 5)), gene(0.34, 0.04))
        flank = profile((0.4, 0.22), (-0.5, 0.18), (-1.0, 0.14), (-1.8, 0.18), (-3.0, 0.13), (-5.0, 0.05), (-12.0, 0.0))
        for center, depth in ((150, 1.0), (38, 0.7)):
            radius -= (depth * gene(1.0, 0.25) * flank)[:, None] * self._bump(np.deg2rad(gene(center, 6)), 0.42)
        for order in (2, 3, 4, 5):
            for wave in (np.cos(order * angle), np.sin(order * angle)):
                swing = np.cos(2 * np.pi * level / gene(5.0, 0.6) + gene(0, 2.5))
                radius += (gene(0, 0.012) * swing)[:, None] * wave

        for _ in range(self.generator.poisson(5 * self.osteoarthritis)):
            radius += self._osteophyte()
        ring = np.stack(np.broadcast_arrays(1.2 * cosine, 1.2 * sine, self.z[:, None]), -1)
        radius += self.rough.values(ring) * (0.008 + 0.014 * self.osteoarthritis * head[:, None])
        radius = self.size * np.maximum(radius, 0.25)
        radius[:, -1] = radius[:, 0]
        tilt = mantle_tilt(radius)

        cortex = profile(
            (0.4, 0.11), (-0.5, 0.10), (-1.0, 0.11), (-1.6, 0.12), (-2.4, 0.16), (-3.4, 0.20), (-6.0, 0.22)
        )
        cortex = (cortex * gene(1.0, 0.08))[:, None] * (1 + gene(0, 0.15) * cosine + gene(0, 0.12) * np.cos(2 * angle))
        cortex = self.size * np.clip(cortex + 0.35 * crest * self._bump(crest_at, 0.35), 0.07, 0.6)

        # Bent like a bow from the metaphysis downward.
        down = np.clip(-level - 1.0, 0, None)
        bow = down**2 / (1 + 0.06 * down**2)
        return Mantle(radius, tilt, cortex, np.stack((gene(-0.012, 0.012) * bow, gene(0.012, 0.012) * bow)))

    def _osteophyte(self):
        """A spur on the rim of the plateau, mostly medial."""
        uniform = self.generator.uniform
        medial = self.generator.random() < 0.7
        at = np.deg2rad(self.generator.normal(0, 40) if medial else uniform(-180, 180))
        height = uniform(0.06, 0.32) * (0.4 + 0.6 * self.osteoarthritis)
        lift = np.exp(-0.5 * ((self.z + uniform(0.05, 0.5)) / uniform(0.1, 0.22)) ** 2)
        return height * lift[:, None] * self._bump(at, uniform(0.1, 0.25))

    def fibula(self, mantle: Mantle) -> Fibula:
        gene, profile, size = self._gene, self._profile, self.size
        present = gene(0, 1) > -1.2  # in 88 of 100
        apart = self._uniform(-0.04, 0.14)  # of the tibia: fused, touching or apart
        top = size * gene(-1.0, 0.1)
        towards = np.deg2rad(gene(218, 6) - 360)
        surface = mantle.radius[:, np.abs(self.angle - towards).argmin()]
        thickness = profile((0.4, 0.26), (-1.2, 0.28), (-1.8, 0.22), (-2.6, 0.15), (-4.0, 0.13), (-12.0, 0.13))
        thickness = size * thickness * gene(1.0, 0.1)
        out = profile((0.4, 0.0), (-1.2, 0.0), (-2.5, 0.10), (-4.0, 0.12), (-7.0, -0.10), (-12.0, -0.6))
        reach = np.interp(top - 0.3, self.z, surface) + 0.12 + apart + size * out
        reach = _smooth(np.maximum(reach, surface + thickness + apart), 0.3 / Z_STEP)
        thickness = thickness if present else np.full_like(thickness, -1.0)
        x, y = mantle.axis + reach * np.array([[np.cos(towards)], [np.sin(towards)]])
        return Fibula(np.stack((x, y, thickness)), top)

    def plateau(self) -> Plateau:
        gene, generator, size, disease = self._gene, self.generator, self.size, self.osteoarthritis
        grid = np.arange(-XY_HALF, XY_HALF + XY_STEP / 2, XY_STEP) / size
        x, y = np.meshgrid(grid, grid)
        flat = size * np.stack((x, y, 0 * x), -1)

        def hill(cx, cy, wx, wy):
            return np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)

        # Two hollow facets with the eminence's two tubercles between them; all of it slopes back and drops in front.
        medial, lateral = (gene(0.82, 0.03), gene(-0.12, 0.04)), (gene(-0.80, 0.03), gene(-0.20, 0.04))
        top = gene(0.24, 0.04) * y + gene(0.0, 0.04) * x - 0.10 * ((x * x + y * y) / 2.4) ** 2
        top -= gene(0.11, 0.03) * hill(*medial, 0.48, 0.55) + gene(0.05, 0.04) * hill(*lateral, 0.45, 0.5)
        top += gene(0.30, 0.04) * hill(gene(0.15, 0.02), gene(0.0, 0.05), 0.17, 0.36)
        top += gene(0.24, 0.04) * hill(gene(-0.22, 0.02), gene(-0.12, 0.05), 0.16, 0.30)
        top -= gene(0.42, 0.06) * _sigmoid((y - 0.72) / 0.12) + gene(0.10, 0.04) * hill(0.0, 0.55, 0.35, 0.2)
        for _ in range(3):
            top += gene(0, 0.02) * hill(gene(0, 0.6), gene(0, 0.5), 0.4, 0.4)

        # Late disease erodes bone, mostly medially, and the cartilage over it is gone.
        lesion = np.zeros_like(top)
        for _ in range(generator.poisson(2.5 * disease)):
            cx, cy = medial if generator.random() < 0.75 else lateral
            center = cx + generator.normal(0, 0.25), cy + generator.normal(0, 0.3)
            lesion += generator.uniform(0.3, 1.0) * hill(*center, *generator.uniform(0.12, 0.35, 2))
        lesion = np.clip(lesion, 0, 1) * disease
        top = size * (top - 0.10 * lesion) + self.rough.values(flat) * (0.004 + 0.008 * disease)
        slope = plateau_slope(top)
        loaded = hill(*medial, 0.6, 0.7) + hill(*lateral, 0.6, 0.7)
        plate = size * gene(0.09, 0.012) * (1 + 0.5 * loaded) * (1 + 0.9 * disease * hill(*medial, 0.6, 0.6))

        growth = gene(-0.92, 0.05) + gene(0.06, 0.03) * x + gene(0.10, 0.04) * y
        growth += gene(0.09, 0.03) * np.cos(2 * np.pi * x / gene(1.7, 0.12) + gene(0, 0.8))
        growth += gene(0.07, 0.03) * np.cos(2 * np.pi * y / gene(1.4, 0.12) + gene(0, 0.8))
        growth -= gene(0.45, 0.08) * _sigmoid((y - 0.85) / 0.13)  # down behind the tuberosity
        growth = size * growth + 0.02 * Waves.draw(generator, 16, 0.5, 0.3).values(flat)

        # Cartilage is nearly even over each facet, and runs out at its rim.
        cover = sum(
            gene(mean, 0.012) * np.clip(1.35 - ((x - cx) / 0.62) ** 2 - ((y - cy) / 0.80) ** 2, 0, 1)
            for (cx, cy), mean in ((medial, 0.062), (lateral, 0.068))
        )
        wavy = 1 + 0.15 * Waves.draw(generator, 16, 1.0, 0.3).values(flat)
        healthy = cover * wavy
        worn = np.clip(healthy * (1 - 0.85 * lesion), 0, 0.1)
        return Plateau(top, slope, plate, growth, worn, np.clip(healthy, 0, 0.1))

    def spongiosa(self) -> Spongiosa:
        gene = self._gene

        def fields(wavelength, stretch):
            # Sheets lie half a wavelength apart.
            return (
                Waves.draw(self.generator, 16, wavelength, 0.25, stretch),
                Waves.draw(self.generator, 10, 0.32, 0.3, stretch),
            )

        return Spongiosa(
            epiphysis=fields(gene(0.37, 0.02), (1, 1, 1.15)),
            metaphysis=fields(gene(0.36, 0.025), (1, 1, 4.0)),
            strut=0.5 * gene(0.050, 0.004),
            loss=float(np.clip(gene(0.35, 0.25) + 0.2 * self.osteoarthritis, 0, 1)),
            growth_half=0.5 * gene(0.095, 0.015),
            bridged=gene(1.3, 0.35),
        )


def _sigmoid(value):
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(value))


def _smooth(values, sigma):
    """Smooths a 1-D table by a Gaussian; its ends are repeated beyond them."""
    radius = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(np.pad(values, radius, "edge"), kernel / kernel.sum(), "valid")
