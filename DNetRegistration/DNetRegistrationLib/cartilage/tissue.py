"""Which layers on a joint are cartilage, and which are soft tissue or cannot be told. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .agent import EVIDENCE, Agent
from .amount import BRIGHT_BEYOND, amount_tells, level_around, thickness_by_amount
from .compartments import articular_cover
from .filling import carried_on
from .layer import THICKEST, Layers
from .result import Reason
from .sight import Sight
from .surroundings import look_beside

# Brighter than this share of the typical level is soft tissue.
_MOST_LEVEL = 1.8
# Where a layer like the one on the joint lies on this share of the bone beside a point, the point's may be soft tissue.
_NEAR_SPREAD = 0.3
# Cartilage of one joint is one material, and smooth. What is thick enough to be resolved, from so many widths of the
# blur on, and fainter than this share of the median level is not of it; nor is what is less faint but thicker than this
# multiple of the median thickness, nor what is as thick and as rough: standard deviation over mean among neighbours.
_RESOLVED, _FAINT = 2.5, 0.75
_LESS_FAINT, _THICK = 0.85, 1.4
_ROUGH = 0.2
# A fit that leaves so many times more than others do is of something else.
_MISFIT = 8.0
# Thickness is uncertain from here on: standard error over the blur.
_UNCERTAIN = 0.5


@dataclass(frozen=True, eq=False)
class Tissue:
    """What lies at ``n`` points of the surface that faces a joint.

    Attributes:
        reason: ``(n,)`` int, values of `Reason`.
        thickness_um: ``(n,)`` of the layer of agent; 0 where there is none.
        error_um: ``(n,)`` standard error of what was fitted.
        most_error_um: a thickness with a larger one is uncertain.
        by_amount_um: ``(n,)`` thickness as the amount of agent tells it.
        untold: ``(n,)`` bool, where that does not tell, or too little to rely on it.
        unresolved: ``(n,)`` bool, where it was taken, since the layer is too thin to be resolved.
        sure: ``(n,)`` bool, where thickness is measured, be it of bare bone.
        bare: ``(n,)`` bool, where bone is bare for sure: no layer is seen, and the amount of agent tells.
        carried: ``(n,)`` bool, where cartilage goes on from there without a step, though it looked like soft tissue.
        layer: ``(n,)`` bool, where a layer is that does not look like soft tissue by itself.
        alike: ``(n,)`` bool, where the bone beside the joint bears such a layer too.
        beside: share of all of that bone that does, 0 to 1.
    """

    reason: np.ndarray
    thickness_um: np.ndarray
    error_um: np.ndarray
    most_error_um: float
    by_amount_um: np.ndarray
    untold: np.ndarray
    unresolved: np.ndarray
    sure: np.ndarray
    bare: np.ndarray
    carried: np.ndarray
    layer: np.ndarray
    alike: np.ndarray
    beside: float

    @property
    def known(self) -> np.ndarray:
        """``(n,)`` bool, where the thickness of cartilage is known."""
        return self.sure | self.carried

    @property
    def telling(self) -> np.ndarray:
        """``(n,)`` bool, where what lies there tells of other places: known cartilage, and bare bone."""
        return (self.known & self.layer) | self.bare


def find_tissue(agent: Agent, around: Sight, every: Layers, facing: np.ndarray, first: np.ndarray) -> Tissue:
    """Tells cartilage from soft tissue.

    Args:
        agent: on the surface that faces the joint.
        around: of that surface and of the bone beside it, ``m`` points.
        every: the layers there.
        facing: ``(m,)`` bool, what faces the joint.
        first: ``(n,)`` bool, which of two compartments each point is of.
    """
    layers, sight, covered = agent.layers, agent.sight, agent.covered
    mesh = sight.mesh
    reason = _reasons(agent)
    seen = covered & (reason == Reason.MEASURED)
    layer = covered & (reason != Reason.SOFT_TISSUE)
    beside = look_beside(around.mesh, facing, every, EVIDENCE, agent.level, _median(layers.thickness_mm, seen))
    alike = beside.near > _NEAR_SPREAD
    usual, resolvable = _median(layers.level, seen), _RESOLVED * sight.agent_blur
    resolved = seen & (layers.level > _FAINT * usual) & (layers.thickness_mm > resolvable)
    nearby = level_around(mesh, seen, resolved & ~alike, layers.level)
    by_amount, untold = thickness_by_amount(layers, nearby), ~amount_tells(layers, nearby)
    unresolved = np.where(untold, layers.thickness_mm, np.minimum(by_amount, layers.thickness_mm)) < resolvable
    thick = _thick(layers.thickness_mm, seen, first)
    other = _unlike(layers, sight, seen, usual, thick, unresolved)
    doubted = seen & (alike | other | thick)
    reason[doubted] = Reason.SOFT_TISSUE
    error = 1000 * layers.error_mm * np.sqrt(np.maximum(layers.misfit, 1))
    most_error = 1000 * _UNCERTAIN * max(sight.agent_blur, sight.step)
    reason[covered & untold & unresolved & (reason == Reason.MEASURED)] = Reason.UNCERTAIN
    unresolved = (unresolved | (error > most_error)) & ~untold
    thickness = 1000 * np.where(covered, np.where(unresolved, by_amount, layers.thickness_mm), 0.0)
    sure = reason == Reason.MEASURED
    # Single points among hidden ones are as doubtful: 490 of one plateau said 3 um, where 23 are true.
    lonely = sure & (mesh.smoothing(2) @ sure.astype(np.float32) <= 0.5)
    reason[lonely], sure = Reason.UNCERTAIN, sure & ~lonely
    # Specks of a layer apart from the rest are of something else.
    sure &= ~covered | articular_cover(mesh, covered & sure)
    carried = carried_on(mesh, covered & sure, doubted, thickness, layers.level)
    # Thick cartilage goes on from thinner; soft tissue that is taken for cartilage begins with a step.
    back = carried & thick & ~alike & ~other
    reason[back], sure = Reason.MEASURED, sure | back
    untold |= by_amount > sight.agent_blur
    bare = sure & ~covered & ~(untold & (layers.level > 0))
    told = (reason, thickness, error, most_error, 1000 * by_amount, untold, unresolved)
    return Tissue(*told, sure, bare, carried, layer, alike, beside.share)


def _median(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.median(values[chosen])) if chosen.any() else 0.0


def _reasons(agent: Agent) -> np.ndarray:
    """``(n,)`` values of `Reason`, by each layer alone."""
    layers, sight, covered, heights = agent.layers, agent.sight, agent.covered, agent.sight.heights
    reason = np.full(len(covered), int(Reason.MEASURED))
    typical = float(np.median(layers.misfit[covered])) if covered.any() else 1.0
    endless = (layers.thickness_mm > THICKEST - 0.01) | (layers.closed < EVIDENCE)
    bright = layers.level > _MOST_LEVEL * agent.level
    reason[covered & (endless | bright | (layers.misfit > _MISFIT * max(typical, 1.0)))] = Reason.SOFT_TISSUE
    above = heights[None] > 3 * sight.blur
    within = heights[None] < layers.thickness_mm[:, None] + 0.03
    inner = np.where(np.isfinite(sight.smoothed), sight.smoothed, -np.inf)[:, heights <= 0].max(1)
    dense = float(np.median(inner[np.isfinite(inner)]))
    low = dense - sight.contrast / max(sight.match.slope, 1e-9)
    with np.errstate(invalid="ignore"):
        hard = sight.smoothed > low + 0.6 * (dense - low)
    reason[(hard & above & within).any(1)] = Reason.FRAGMENT
    needed = (heights[None] > -2 * sight.step) & (heights[None] < layers.thickness_mm[:, None] + 2 * sight.step)
    reason[(~sight.seen & needed).any(1)] = Reason.EDGE_OF_VIEW
    return reason


def _thick(thickness: np.ndarray, seen: np.ndarray, first: np.ndarray) -> np.ndarray:
    """``(n,)`` bool, where a layer is thicker than those that are seen in its compartment; one may be worn."""
    usual = np.zeros(len(thickness))
    for side in (first, ~first):
        usual[side] = _median(thickness, seen & side if (seen & side).any() else seen)
    return thickness > _THICK * usual


def _unlike(
    layers: Layers, sight: Sight, seen: np.ndarray, usual: float, thick: np.ndarray, unresolved: np.ndarray
) -> np.ndarray:
    """Where a layer is not of the cartilage that most of the joint bears, or does not end there.

    Args:
        layers: on the surface.
        sight: of it.
        seen: ``(n,)`` bool, where a layer is seen.
        usual: median level of those.
        thick: ``(n,)`` bool, where it is thicker than others. That alone may be cartilage.
        unresolved: ``(n,)`` bool, where a layer is too thin to tell its level.

    Returns:
        ``(n,)`` bool.
    """
    thickness = layers.thickness_mm
    faint = ~unresolved & (layers.level < _FAINT * usual)
    near = sight.mesh.smoothing(4)
    count = np.maximum(near @ seen.astype(float), 1e-9)
    mean = near @ (seen * thickness) / count
    spread = np.sqrt(np.maximum(near @ (seen * thickness**2) / count - mean**2, 0))
    # It is soft tissue, whose edge is taken for that of the layer.
    bright = layers.beyond - _median(layers.beyond, seen) > BRIGHT_BEYOND * usual
    return faint | bright | (thick & ((layers.level < _LESS_FAINT * usual) | (spread > _ROUGH * mean)))
