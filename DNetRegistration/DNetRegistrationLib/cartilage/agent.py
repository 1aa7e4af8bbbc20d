"""Whether a layer of contrast agent lies on a joint, and in which of two scans. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .layer import THICKEST, Layers
from .sight import MISMATCH, Sight

#: A layer is one where chi-squared says so.
EVIDENCE = 16.0
# And where its level is at least this share of the typical one.
_LEAST_LEVEL = 0.35
# Noise and small mismatches look like a layer on at most this share of a surface without agent. Media that differ look
# like more, but fainter than this share of bone: up to 0.1 of it in 24 pairs without agent, to 0.12 of what the other
# scan shows more. In 24 pairs with agent that could be measured it was 0.165 and more.
_NO_AGENT, _LEAST_AGENT = 0.05, 0.13
# That the joint bears no agent takes scans that both show more than this share of it.
_IN_VIEW = 0.5
#: From this share of a surface on, both scans show as good as all of it.
IN_FULL = 0.85
# A layer is hidden where what lies around the bone differs by as much, as air and liquid do. So where the scan with
# agent is brighter than the other one by more than this share of bone up to this height, mm, on more than this share of
# what both show, agent is not denied, nor a faint layer claimed as agent where nothing is measured. It was so on 0 to
# 0.09 of 8 joints without agent in like media, or in water and fixative, and on 0.07 to 0.77 of 6 in air, or in air and
# liquid; on 0.57 of one with agent in air and liquid, which was denied.
_BRIGHTER, _AROUND_IT, _AS_MEDIA = 0.2, 0.1, 0.2
_FAINT = 2 * _LEAST_AGENT
# Where nothing is measured and the scan that should be without agent bears so many times as much of a layer as the
# other one, agent may be in it: of 13 pairs of bones among soft tissue 0 to 3.7 times the right way, up to hundreds the
# wrong way.
_OTHER_WAY = 5.0
# It lies on so many times the share that noise takes; to say so without a measurement takes more.
_MAYBE, _SURELY = 2, 4
# The rim is about so wide, mm.
_RIM = 0.4


@dataclass(frozen=True, eq=False)
class Agent:
    """What is seen of contrast agent on a surface of ``n`` points.

    Attributes:
        sight: of the surface.
        layers: in the scan that should bear agent.
        covered: ``(n,)`` bool, where they are layers of agent; nowhere where none is found, which does not say that the
            bone is bare.
        level: their typical one, in grey values of that scan; NaN where no agent is found.
        borne: how much of layers there is, agent or not: area times level times thickness.
    """

    sight: Sight
    layers: Layers
    covered: np.ndarray
    level: float
    borne: float

    @property
    def found(self) -> bool:
        """Whether there is any."""
        return bool(self.level > 0)

    @cached_property
    def _other_way(self) -> tuple[float, float]:
        """The share of the surface that bears a layer in the other scan, and how much of it that is."""
        layers, _ = self.sight.fit(-1.0)
        covered, level = _layers_seen(layers, self.sight)
        covered &= level > _LEAST_AGENT * self.sight.contrast
        areas = self.sight.mesh.areas
        return float(areas[covered].sum() / areas.sum()), _amount(layers, covered, areas)

    def in_the_other_scan(self, surely: bool) -> bool:
        """Whether agent may be, or surely is, in the scan that should be without it."""
        share, borne = self._other_way
        return share > (_SURELY if surely else _MAYBE) * _NO_AGENT and borne > _OTHER_WAY * self.borne

    @cached_property
    def brighter(self) -> float:
        """Where both scans show it, the share of the surface around which the one with agent is much brighter."""
        sight = self.sight
        around = (sight.heights > sight.blur) & (sight.heights < _AROUND_IT)
        seen = sight.seen[:, around]
        height = np.where(seen, sight.difference[:, around], 0).sum(1) / np.maximum(seen.sum(1), 1)
        areas, known = sight.mesh.areas, seen.any(1)
        return float(areas[height > _BRIGHTER * sight.contrast].sum() / max(areas[known].sum(), 1e-12))

    def told(self, in_view: float, measured: bool) -> bool | None:
        """Whether there is agent; None where that cannot be told.

        Args:
            in_view: the share of the surface that both scans show.
            measured: thickness is, anywhere.
        """
        if not self.found:
            return False if in_view > _IN_VIEW and self.brighter <= _AS_MEDIA else None
        return None if not measured and self._like_media else True

    @property
    def _like_media(self) -> bool:
        return self.level < _FAINT * self.sight.contrast and self.brighter > _AS_MEDIA

    def doubt(self) -> str:
        """Says why agent that was found is doubted where nothing is measured."""
        told = "whether it is contrast agent cannot be told: the layer on the joint's surface is faint"
        return f"{told}, and {self._media()}"

    def absence(self, in_view: float) -> str:
        """Says that no agent was found, and what to do, where both scans show a share of the surface."""
        if self.brighter > _AS_MEDIA:
            beside = f"; both scans show {math.floor(100 * in_view)} % of that surface" if in_view < IN_FULL else ""
            return (
                "whether there is contrast agent on the surface taken for the joint's cannot be told, so no cartilage "
                f"is measured: {self._media()}{beside}"
            )
        least = f"{100 * _LEAST_AGENT:.0f} % of the brightness of bone"
        told = f"no contrast agent of {least} was found on the surface that was taken for the joint's"
        if not in_view > _IN_VIEW:
            return (
                f"{told} where both scans show it, which is {math.floor(100 * in_view)} % of it, so no cartilage is "
                "measured: whether there is agent elsewhere cannot be told; it takes scans that both show the joint"
            )
        return (
            f"{told}, so no cartilage is measured: check that one of the two scans was made with agent, and which one, "
            "and that this surface is the joint's, which may be another where the view cuts the bone on several sides: "
            "a region of the joint says where it is; at this voxel size and noise a layer half as bright as bone would "
            f"be seen from {3 * self.sight.bare_error(self.sight.contrast / 2):.0f} um on"
        )

    def _media(self) -> str:
        """Says that media may differ, and what to do."""
        return (
            f"on {100 * self.brighter:.0f} % of that surface, where both scans show it, the scan with agent is "
            "brighter than the other one around the bone too, as where one lay in air and the other in liquid, which "
            "hides a layer; scan both in the same medium"
        )


def look_for_agent(layers: Layers, sight: Sight) -> Agent:
    """What is seen of contrast agent in the layers on a surface."""
    areas = sight.mesh.areas
    seen, level = _layers_seen(layers, sight)
    found = areas[seen].sum() > _NO_AGENT * areas.sum() and level > _LEAST_AGENT * sight.contrast
    return Agent(sight, layers, seen & found, level if found else np.nan, _amount(layers, seen, areas))


def _amount(layers: Layers, chosen: np.ndarray, areas: np.ndarray) -> float:
    return float((areas * layers.level * layers.thickness_mm)[chosen].sum())


def _layers_seen(layers: Layers, sight: Sight) -> tuple[np.ndarray, float]:
    """``(n,)`` bool, where a layer is seen, and the typical level of layers."""
    clear = (layers.evidence > 2 * EVIDENCE) & (layers.level > 0) & (layers.thickness_mm < THICKEST - 0.01)
    # Soft tissue hangs on the rim: the middle of the surface says what cartilage looks like.
    weight = sight.mesh.areas * clear * np.minimum(sight.mesh.border_distance() / _RIM, 1) ** 2
    if not weight.sum() > 0:
        return np.zeros(len(clear), bool), np.nan
    order = np.argsort(layers.level)
    typical = float(layers.level[order][np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)])
    covered = (layers.evidence > EVIDENCE) & (layers.level > _LEAST_LEVEL * typical)
    # What fades less than the match of bone is sure of is no layer.
    return covered & (layers.level * layers.thickness_mm > 4 * MISMATCH * sight.contrast), typical
