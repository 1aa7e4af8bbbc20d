"""A session: what lies around a bone in the scanner, and what the scanner is like that day.

Intensities are Hounsfield units (air -1000, water 0). `scanner` makes an image of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .fields import Waves, draw_axes, draw_direction
from .random_bones import Variant, VariantModel
from .soaking import Film, Uptake
from .tibia import Animal, TibiaModel

# How scanners store Hounsfield units: gain, offset, dtype. "raw" puts water at 1000, so that dense solutions and muscle
# stay below the paper's threshold of 2000; "attenuation" is in 1/cm.
SCALES = {
    "hu": (1.0, 0.0, "int16"),
    "raw": (1.0, 1000.0, "uint16"),
    "byte": (255 / 5500, 1000 * 255 / 5500, "uint8"),
    "attenuation": (0.45e-3, 0.45, "float32"),
}

BACKGROUNDS = ("air", "water", "fixative")


@dataclass(frozen=True)
class Fragment:
    """A broken piece of bone: a lumpy ellipsoid in the animal's frame.

    Attributes:
        center: ``(3,)`` in mm.
        axes: ``(3, 3)``, in rows the directions of its axes over their half lengths, 1/mm.
        lumps: of its surface.
        face: where it broke: a flat cut across its first axis, in half lengths from the centre.
        brightness: relative to bone.
    """

    center: np.ndarray
    axes: np.ndarray
    lumps: Waves
    face: float
    brightness: float


@dataclass(frozen=True)
class Strand:
    """A remnant of ligament or tendon between two points of the animal's frame; mm and HU."""

    start: np.ndarray
    end: np.ndarray
    radius: float
    brightness: float


@dataclass(frozen=True)
class Tube:
    """The holder that the bone lies in: a wall about an axis in the animal's frame, air beyond; mm."""

    center: np.ndarray
    axis: np.ndarray
    radius: float
    wall: float


@dataclass(frozen=True)
class Session:
    """One visit to the scanner.

    Attributes:
        seed: of the noise and the rings.
        scale: one of `SCALES`.
        gain: of this day, about 1.
        background: one of `BACKGROUNDS`.
        medium, bone, marrow, soft, cartilage: HU of the liquid or air around the bone, and of tissues.
        uptake, soaked: HU that contrast agent adds to cartilage and to soft tissue.
        muscle: how much soft tissue is left, as a level of a field of unit variance.
        muscle_waves, soak_waves, fibre_waves: where soft tissue is, how contrast agent soaks in, the grain of muscle.
        fragments, strands: broken pieces of bone, and remnants of ligaments.
        surface: of the liquid, with air beyond: its normal in the animal's frame, and its distance from
            `tibia.CENTER` along it in mm.
        tube: the holder.
        blur: point spread, standard deviation in voxels.
        noise: in HU, in voxels of 0.025 mm.
        rings, cupping: how strong these artefacts are.
        circle: radius of the reconstructed cylinder over half the grid's width. Outside is NaN or the lowest value.
        profile, film: how uptake changes with depth, and soaked soft tissue on the bone's surface; None for even uptake
            in cartilage alone.
        hardening, spread: how much bright things darken what is near them in a slice, as a share of their mean HU
            about it, and the standard deviation of that mean in mm.
    """

    seed: int
    scale: str
    gain: float
    background: str
    medium: float
    bone: float
    marrow: float
    soft: float
    cartilage: float
    uptake: float
    soaked: float
    muscle: float
    muscle_waves: Waves
    soak_waves: Waves
    fibre_waves: Waves
    fragments: tuple[Fragment, ...]
    strands: tuple[Strand, ...]
    surface: tuple[np.ndarray, float] | None
    tube: Tube | None
    blur: float
    noise: float
    rings: float
    cupping: float
    circle: float | None
    profile: Uptake | None = None
    film: Film | None = None
    hardening: float = 0.0
    spread: float = 0.3

    @classmethod
    def draw(
        cls,
        seed: int,
        animal: Animal | Variant,
        *,
        contrast: bool = False,
        scale: str = "hu",
        background: str | None = None,
        circle: float | None = None,
        clean: bool = False,
    ) -> Session:
        """Draws a session of an animal; the same for the same arguments.

        Args:
            seed: of the session.
            animal: what is scanned.
            contrast: contrast agent is in cartilage and soft tissue.
            scale: one of `SCALES`.
            background: one of `BACKGROUNDS`; drawn when None.
            circle: see `Session`; None reconstructs the whole grid.
            clean: bone and cartilage alone in air, unblurred and without noise.
        """
        generator = np.random.default_rng([seed, 4])
        uniform = generator.uniform
        if background is None:
            background = str(generator.choice(BACKGROUNDS, p=[0.15, 0.35, 0.5]))
        medium = {"air": -1000.0, "water": uniform(-20, 40), "fixative": uniform(150, 700)}[background]
        soft = uniform(40, 160) + (uniform(0, 250) if generator.random() < 0.3 else 0)
        washout = uniform(0, 1)
        # From session to session stay the density of the bone and the remnants that stick to it; the rest moves.
        lasting = np.random.default_rng([animal.structure, 5])
        stuck = Waves.draw(lasting, 8, 2.2, 0.4)
        moved = Waves.draw(generator, 8, 1.8, 0.4)
        muscle_waves = Waves(np.hstack((stuck.vectors, moved.vectors)), np.hstack((stuck.phases, moved.phases)))
        bone = animal.model()
        session = cls(
            seed=seed,
            scale=scale,
            gain=uniform(0.97, 1.03),
            background=background,
            medium=medium,
            bone=lasting.uniform(2500, 3700),
            marrow=lasting.uniform(-60, 80),
            soft=soft,
            cartilage=soft + uniform(-20, 60),
            uptake=uniform(700, 4500) * (1 - 0.6 * washout) if contrast else 0.0,
            soaked=uniform(150, 1300) * (1 - washout) + 40 if contrast else 0.0,
            muscle=generator.normal(0.2, 0.8),
            muscle_waves=muscle_waves,
            soak_waves=Waves.draw(generator, 10, 1.6, 0.5),
            fibre_waves=_fibres(generator),
            fragments=tuple(_fragment(generator, bone) for _ in range(generator.poisson(2.2))),
            strands=tuple(_strand(generator, bone, soft) for _ in range(generator.integers(0, 5))),
            surface=(draw_direction(generator), uniform(1.0, 2.4)) if generator.random() < 0.35 else None,
            tube=_tube(generator) if generator.random() < 0.75 else None,
            blur=uniform(0.35, 0.6),
            noise=float(np.exp(uniform(np.log(60), np.log(260)))),
            rings=uniform(0, 1) ** 2,
            cupping=uniform(0, 0.08),
            circle=circle,
        )
        if clean:
            session = replace(
                session, gain=1.0, background="air", medium=-1000.0, uptake=0.0, soaked=0.0, muscle=-9.0, fragments=(),
                strands=(), surface=None, tube=None, blur=0.0, noise=0.0, rings=0.0, cupping=0.0,
            )  # fmt: skip
        return session


def _outside(generator, bone: TibiaModel | VariantModel, clearance: float, reach: float) -> np.ndarray:
    """Draws a point at least `clearance` and, where it can, at most `clearance + reach` mm away from the bone."""
    points = generator.uniform((-2.4, -2.2, -3.6), (2.4, 2.2, 1.6), (400, 3)).astype(np.float32)
    depth = bone.depths(*points.T.copy()).outer
    usable = np.flatnonzero((depth < -clearance) & (depth > -clearance - reach))
    return points[usable[0] if usable.size else depth.argmin()].astype(float)


def _fragment(generator, bone: TibiaModel | VariantModel) -> Fragment:
    size = np.exp(generator.normal(np.log(0.13), 0.45))
    halves = np.clip(size * np.exp(generator.normal(0, 0.35, 3)), 0.04, 0.45)
    axes = draw_axes(generator) / halves[:, None]
    center = _outside(generator, bone, 1.25 * halves.max() + 0.02, 0.9)
    lumps = Waves.draw(generator, 12, 0.35, 0.4)
    return Fragment(center, axes, lumps, generator.uniform(-0.1, 1.2), generator.uniform(0.55, 1.0))


def _strand(generator, bone: TibiaModel | VariantModel, soft: float) -> Strand:
    """Draws a strand that leaves the rim or the eminence upward, like a patellar, collateral or cruciate ligament."""
    angle = generator.choice([np.pi / 2, 0, np.pi, -np.pi / 2]) + generator.normal(0, 0.3)
    rim = np.array([1.5 * np.cos(angle), 1.05 * np.sin(angle), generator.uniform(-0.6, -0.2)])
    if generator.random() < 0.3:
        rim = np.array([generator.normal(0, 0.2), generator.normal(0, 0.3), 0.2])
    away = np.array([0.4 * np.cos(angle), 0.4 * np.sin(angle), 1.0]) + generator.normal(0, 0.4, 3)
    end = rim + away * generator.uniform(0.5, 1.3)
    return Strand(rim, end, generator.uniform(0.1, 0.28), soft + generator.uniform(20, 200))


def _fibres(generator) -> Waves:
    """Draws the grain of muscle: any direction, and widely varying width."""
    waves = Waves.draw(generator, 48, 0.32, 0.9, (1, 1, 3.5))
    return replace(waves, vectors=draw_axes(generator) @ waves.vectors)


def _tube(generator) -> Tube:
    axis = np.array([0, 0, 1]) + generator.normal(0, 0.15, 3)
    center = np.array([*generator.normal(0, 0.2, 2), -1.5])
    return Tube(center, axis / np.linalg.norm(axis), generator.uniform(2.3, 3.4), generator.uniform(0.12, 0.35))
