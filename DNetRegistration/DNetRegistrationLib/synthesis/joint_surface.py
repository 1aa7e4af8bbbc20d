"""The joint surface of a tibia, varied far more widely than `shape` varies it: plateau, cartilage, wear and spurs.

What works on one shape of plateau and one thickness of cartilage need not work on another. Published thickness of the
cartilage of mouse tibiae is 30 to 50 um (Lakin et al. 2017, J Orthop Res 35:2740) and falls by a quarter within 12
weeks of joint surgery (das Neves Borges et al. 2014, Osteoarthritis Cartilage 22:1419). The ranges here are wider on
purpose; a comment beside each number says what it does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .fields import Waves
from .shape import HEIGHTS, TURN, XY_HALF, XY_STEP, Mantle, Plateau, Shape, mantle_tilt, plateau_slope

# Middles of the medial and the lateral facet, x and y in mm, and their half widths.
_FACETS, _WIDTHS = ((0.82, -0.12), (-0.80, -0.20)), (0.70, 0.85)
# A layer is as thick as that in its middle, mm; facets are drawn between, and vary by a sixth.
THINNEST, THICKEST = 0.025, 0.12


def vary_joint(shape: Shape, structure: int) -> Shape:
    """Gives a bone another plateau, other cartilage and more spurs; the same for the same seed `structure`."""
    generator = np.random.default_rng([structure, 21])
    plateau = _plateau(shape.plateau, generator)
    return replace(shape, plateau=plateau, mantle=_with_spurs(shape.mantle, generator))


def _plateau(plateau: Plateau, generator: np.random.Generator) -> Plateau:
    uniform = generator.uniform
    grid = np.arange(-XY_HALF, XY_HALF + XY_STEP / 2, XY_STEP)
    x, y = np.meshgrid(grid, grid)
    flat = np.stack((x, y, 0 * x), -1)

    def hill(cx, cy, wx, wy):
        return np.exp(-(((x - cx) / wx) ** 2) - ((y - cy) / wy) ** 2)

    middle = np.exp(-(((x * x + y * y) / 4) ** 2))  # The far corners of the table stay as they are.
    top = plateau.top + (uniform(-0.12, 0.12) * x + uniform(-0.2, 0.2) * y) * middle
    for cx, cy in _FACETS:
        top += uniform(-0.10, 0.14) * hill(cx, cy, 0.5, 0.55)  # From hollow to domed.
    top += uniform(-0.22, 0.10) * hill(0.0, -0.05, 0.3, 0.35)  # From a flat to a high eminence.
    for _ in range(8):  # Bumps and dents.
        top += generator.normal(0, 0.02) * hill(*uniform(-1.3, 1.3, 2), *uniform(0.15, 0.5, 2))

    # Thickness: the same on both facets but for a sixth. Exponents below 1 make domes, large ones even layers.
    mean = np.exp(uniform(np.log(THINNEST), np.log(THICKEST)))
    healthy = np.zeros_like(top)
    for cx, cy in _FACETS:
        wx, wy = np.array(_WIDTHS) * uniform(0.85, 1.1, 2)
        away = ((x - cx - generator.normal(0, 0.04)) / wx) ** 2 + ((y - cy - generator.normal(0, 0.06)) / wy) ** 2
        thickness = mean * np.exp(generator.normal(0, 0.16))
        healthy = np.maximum(healthy, thickness * np.clip(1 - away ** np.exp(uniform(-0.3, 1.5)), 0, 1))
    healthy *= np.clip(1 + uniform(0, 0.25) * Waves.draw(generator, 16, uniform(0.5, 1.2), 0.3).values(flat), 0.3, 1.7)
    healthy = np.clip(healthy, 0, THICKEST)

    # Lesions with steep or shallow walls, from a dent in the cartilage down to the bone; the medial facet has most.
    left = np.ones_like(top)
    for _ in range(generator.poisson(1.5)):
        cx, cy = _FACETS[int(generator.random() > 0.7)]
        wide = uniform(0.08, 0.35)
        cx, cy = cx + generator.normal(0, 0.3), cy + generator.normal(0, 0.3)
        ellipse = hill(cx, cy, wide, wide * np.exp(generator.normal(0, 0.4)))
        wall = uniform(1.0, 6.0)
        left *= 1 - min(uniform(0.3, 1.4), 1.0) * np.clip(0.5 + wall * (ellipse - 0.5), 0, 1)
    return replace(
        plateau,
        top=top,
        slope=plateau_slope(top),
        cartilage=healthy * left,
        healthy=healthy,
        rim=float(uniform(0.06, 0.3)),
    )


def _with_spurs(mantle: Mantle, generator: np.random.Generator) -> Mantle:
    """Osteophytes on the rim of the plateau: two in the mean, 0.05 to 0.35 mm high."""
    radius = mantle.radius.copy()
    for _ in range(generator.poisson(2.0)):
        medial = generator.random() < 0.6
        at = np.deg2rad(generator.normal(0, 40) if medial else generator.uniform(-180, 180))
        lift = np.exp(-0.5 * ((HEIGHTS + generator.uniform(0.05, 0.5)) / generator.uniform(0.1, 0.22)) ** 2)
        around = np.exp((np.cos(TURN - at) - 1) / generator.uniform(0.1, 0.3) ** 2)
        radius += generator.uniform(0.05, 0.35) * lift[:, None] * around
    radius[:, -1] = radius[:, 0]
    return replace(mantle, radius=radius, tilt=mantle_tilt(radius))
