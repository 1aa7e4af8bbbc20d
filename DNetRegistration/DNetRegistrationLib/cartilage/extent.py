"""How far the cartilage of a joint reaches, and whether that can be told. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .agent import IN_FULL, Agent
from .compartments import articular_cover, articular_within
from .filling import smooth_surface
from .tissue import Tissue

# Where a layer like the one on the joint lies on this share of the bone beside it, all of it may be soft tissue.
_SPREAD = 0.25
# A layer that is hidden and lies apart from it covers at most this share of its area, else its border is not known: on
# 80 pairs that were measured it was at most 0.31, where means were off by 3.5 um at most, and 1.2 on one that was not.
_APART = 0.4
# Cartilage covers most of what faces the joint, but leaves free its rim and its middle.
_HARDLY, _EVERYWHERE = 0.45, 0.85
# What is to be done where soft tissue hides the joint.
_UNMEASURED = "nothing is measured; a region of the joint says where to measure all the same"


@dataclass(frozen=True, eq=False)
class Extent:
    """The part of ``n`` points that is articular.

    Attributes:
        articular: ``(n,)`` bool; where that cannot be told, what bears a layer, and all without agent or in a region.
        hidden: soft tissue hides the joint, so that nothing can be measured.
        warnings: what a user should know of it.
    """

    articular: np.ndarray
    hidden: bool = False
    warnings: list[str] = field(default_factory=list)


def find_extent(agent: Agent, tissue: Tissue, in_view: float, rise: np.ndarray, marked: bool) -> Extent:
    """Finds where cartilage ends.

    Args:
        agent: on the surface that faces the joint.
        tissue: what lies there.
        in_view: share of the surface that both scans show.
        rise: ``(n,)`` how thick cartilage is expected to be; see `rise_from_rim`.
        marked: the surface is a region that the user marked.
    """
    mesh = agent.sight.mesh
    everywhere = np.ones(len(agent.covered), bool)
    if not agent.found:
        return Extent(everywhere)
    if marked:
        told = "in the given region soft tissue that looks like cartilage counts as it: bone beside it is not looked at"
        return Extent(everywhere, warnings=[told])

    def hidden(why: str) -> Extent:
        return Extent(articular_cover(mesh, tissue.layer), True, [f"{why}, so {_UNMEASURED}"])

    if tissue.beside > _SPREAD:
        beyond = math.ceil(100 * tissue.beside)
        return hidden(
            f"on {beyond} % of the bone beside the joint lies a layer like the one on the joint: soft tissue with "
            "contrast agent, not told from cartilage"
        )
    share = mesh.areas[articular_cover(mesh, tissue.layer & ~tissue.alike)].sum() / mesh.areas.sum()
    if share < _HARDLY:
        least = math.floor(100 * share)
        told = f"only {least} % of the bone that faces the joint bears a layer free of soft tissue"
        if in_view < IN_FULL:
            told += f", and a scan's field of view ends on {100 * (1 - in_view):.0f} %"
        return hidden(f"{told}: what it is cannot be told")
    warnings = []
    if share > _EVERYWHERE:
        warnings.append("agent lies on all of the bone that faces the joint: soft tissue may lie on the cartilage")
    # Where soft tissue lies, the border goes where the layer around it would end.
    articular = articular_within(mesh, smooth_surface(mesh, tissue.known, tissue.thickness_um, rise))
    # Cartilage may lie under what is far from all that was measured.
    apart = mesh.areas[agent.covered & ~tissue.sure & ~articular].sum() / max(mesh.areas[articular].sum(), 1e-12)
    if apart > _APART:
        lost = hidden(
            "soft tissue with contrast agent lies on large parts of the joint apart from what could be measured: where "
            "cartilage ends there cannot be told"
        )
        return Extent(lost.articular, True, warnings + lost.warnings)
    return Extent(articular, warnings=warnings)
