"""Contrast agent and soft tissue, varied far more widely than `Session.draw` varies them.

Whatever aligns scans with agent must not learn how one generator draws it. Agent may be faint or brighter than bone.
It grades through the cartilage: phosphotungstic acid enters from the joint and reaches the bone within hours (das Neves
Borges et al. 2014, Osteoarthritis Cartilage 22:1419, Fig. 2), and is washed out from the joint's side. It stains what
soft tissue is left on the bone, ligaments at their insertions, muscle and the bath. Bright layers darken what lies
around them in a slice (beam hardening). The ranges are not those of one scanner or agent; these lie within.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .fields import Waves, draw_axes
from .random_bones import Variant, VariantModel
from .session import Fragment, Session, Strand
from .soaking import Film, Uptake
from .tibia import Animal, TibiaModel

AGENTS = ("even", "varied")


def vary_agent(session: Session, animal: Animal | Variant, contrast: bool) -> Session:
    """Draws another session from one, with its soft tissue and agent varied; the same for the same arguments.

    Args:
        session: as `Session.draw` gives it, with agent or without.
        animal: what is scanned.
        contrast: contrast agent is in it.
    """
    generator = np.random.default_rng([session.seed, 31])
    # What sticks to the bone lasts from one session to the next.
    lasting = np.random.default_rng([animal.structure, 32])
    bone = animal.model()
    uptake = _between(generator, 300, 7000)
    bath = _between(generator, 60, 1500) if generator.random() < 0.5 and session.background != "air" else 0.0
    strands, fragments = _insertions(lasting, generator, bone, session.soft, contrast), _debris(generator, bone)
    return replace(
        session,
        medium=session.medium + (bath if contrast else 0),
        uptake=uptake if contrast else 0.0,
        soaked=_between(generator, 60, 2200) if contrast else 0.0,
        strands=strands,
        fragments=session.fragments + fragments,
        profile=Uptake(generator.uniform(-0.6, 0.6), generator.uniform(0, 0.8), _between(generator, 0.005, 0.05)),
        film=_film(lasting, generator, session.soft, contrast),
        hardening=generator.uniform(0, 0.12),
        spread=_between(generator, 0.15, 0.6),
    )


def _between(generator: np.random.Generator, low: float, high: float) -> float:
    """Draws a number whose logarithm is uniform."""
    return float(np.exp(generator.uniform(np.log(low), np.log(high))))


def _film(lasting, generator, soft: float, contrast: bool) -> Film:
    """Draws a film of 20 to 200 um: patches or all of the surface, over cartilage in three of ten animals."""
    thickness, level, waves = _between(lasting, 0.02, 0.2), lasting.normal(1.0, 1.2), Waves.draw(lasting, 8, 1.6, 0.5)
    joint = lasting.uniform(0.1, 1) if lasting.random() < 0.3 else 0.0
    # It dries or swells between sessions.
    thickness = min(thickness * float(np.exp(generator.normal(0, 0.1))), 0.2)
    agent = _between(generator, 100, 4500)
    return Film(thickness, level, waves, joint, soft, agent if contrast else 0.0, generator.uniform(-0.8, 0.8))


def _insertions(lasting, generator, bone: TibiaModel | VariantModel, soft: float, contrast: bool) -> tuple[Strand, ...]:
    """Draws two to six ligaments that leave the bone anywhere about the joint; their free ends move."""
    points = lasting.uniform((-1.8, -1.4, -1.6), (1.8, 1.4, 0.5), (4000, 3))
    depth = bone.depths(*points.T.astype(np.float32)).outer
    usable = points[np.abs(depth) < 0.05]
    strands = []
    for start in usable[: lasting.integers(2, 7)]:
        outward = start - (0, 0, start[2] - 0.5) + lasting.normal(0, 0.3, 3)
        end = start + outward / np.linalg.norm(outward) * lasting.uniform(0.5, 1.5) + generator.normal(0, 0.15, 3)
        agent = _between(generator, 50, 3500) if contrast else 0.0
        strands.append(Strand(start, end, lasting.uniform(0.06, 0.28), soft + lasting.uniform(20, 200) + agent))
    return tuple(strands)


def _debris(generator, bone: TibiaModel | VariantModel) -> tuple[Fragment, ...]:
    """Draws broken pieces that lie on the cartilage."""
    points = generator.uniform((-1.6, -1.2, -0.8), (1.6, 1.2, 0.9), (4000, 3))
    cover = bone.cover(*points.T.astype(np.float32))
    above = -(cover.outer + cover.thickness)
    usable = (cover.healthy * cover.share > 0.01) & (above > 0) & (above < 0.15)
    pieces = []
    for point, half in list(zip(points[usable], above[usable], strict=True))[: generator.poisson(0.7)]:
        halves = np.clip(float(half) * np.exp(generator.normal(0.1, 0.4, 3)), 0.015, 0.2)
        axes = draw_axes(generator) / halves[:, None]
        lumps = Waves.draw(generator, 12, 0.35, 0.4)
        pieces.append(Fragment(point, axes, lumps, generator.uniform(-0.1, 1.2), generator.uniform(0.55, 1.0)))
    return tuple(pieces)
