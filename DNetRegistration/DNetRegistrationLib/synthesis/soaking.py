"""How contrast agent lies: unevenly through the depth of cartilage, and in a film of soft tissue on the bone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fields import Cover, Waves, share_inside

# Cartilage thicker than this (mm) is a joint surface that a film leaves free or covers.
_JOINT = 0.01


@dataclass(frozen=True)
class Uptake:
    """The agent in cartilage, relative to its mean level, by the depth under the joint's surface.

    Attributes:
        gradient: how much more is at the joint's surface, and less at the bone, than in the middle.
        washed, reach: the share that has left the joint's surface again, and the depth in mm at which 1/e of that has.
    """

    gradient: float
    washed: float
    reach: float

    def factor(self, cover: Cover) -> np.ndarray:
        """At points in cartilage."""
        height = np.clip(-cover.outer / np.maximum(cover.thickness, 1e-6), 0, 1)
        washed = self.washed * np.exp((height - 1) * cover.thickness * (1 / self.reach))
        return np.clip(1 + self.gradient * (2 * height - 1), 0, None) * (1 - washed)


@dataclass(frozen=True)
class Film:
    """Soft tissue on the outer surface of a bone, soaked with agent.

    Attributes:
        thickness: where its field is 1 and more, mm.
        level: added to the field; the higher, the more of the surface is covered.
        waves: a field of unit variance that thins and ends the film.
        joint: factor on its thickness over cartilage.
        soft, agent: HU of the tissue, and what agent adds in the middle of the film.
        gradient: how much more agent is on the film's outside, and less at the bone, than in its middle.
    """

    thickness: float
    level: float
    waves: Waves
    joint: float
    soft: float
    agent: float
    gradient: float

    def layer(self, field: np.ndarray, taken: np.ndarray, cover: Cover, width: float) -> tuple[np.ndarray, np.ndarray]:
        """Volume fraction of the film in cubes of edge `width` (mm) around points, and its HU there.

        Args:
            field: of `waves`, without the level.
            taken: the share of bone and cartilage in the cubes.
            cover: of the bone at the points.
            width: of the cubes.
        """
        thickness = self.thickness * np.clip(field + self.level, 0, 1)
        thickness = thickness * (1 - (1 - self.joint) * np.clip(cover.healthy * cover.share * (1 / _JOINT), 0, 1))
        under = cover.outer + cover.thickness * cover.share
        share = share_inside(under + thickness, width) - taken
        height = np.clip(-under / np.maximum(thickness, 1e-6), 0, 1)
        return np.clip(share, 0, 1), self.soft + self.agent * (1 + self.gradient * (2 * height - 1))
