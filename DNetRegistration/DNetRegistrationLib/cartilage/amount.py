"""Thickness of layers too thin to be resolved, from how much agent they hold. Needs no torch.

A fit tells a layer thinner than the blur from a thicker and fainter one only by noise. What both share is how much more
agent there is than in what lies on the layer: thickness times level over that. So where the level is known from what is
resolved near by, this amount gives the thickness.
"""

from __future__ import annotations

import numpy as np

from .filling import smooth_surface
from .layer import Layers
from .mesh import Mesh

# What lies on a layer and reaches this share of its level is about as bright: what is left to tell them apart is noise.
BRIGHT_BEYOND = 0.7
# With less resolved than this share of the layer, what seems resolved is thin and fitted too thick and faint (40 um).
_LEAST_RESOLVED = 0.4


def level_around(mesh: Mesh, seen: np.ndarray, resolved: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """``(n,)`` the level of cartilage about each point, 0 where none is seen.

    Args:
        mesh: of ``n`` points.
        seen: ``(n,)`` bool, where a layer is.
        resolved: ``(n,)`` bool, where it is thick enough to tell its level; with few of these, all that is seen tells.
        levels: ``(n,)`` as they were fitted.
    """
    if np.count_nonzero(resolved) < _LEAST_RESOLVED * np.count_nonzero(seen):
        resolved = seen
    if not resolved.any():
        return np.zeros(len(levels))
    usual = float(np.median(levels[resolved]))
    return usual + smooth_surface(mesh, resolved, levels - usual)


def thickness_by_amount(layers: Layers, level: np.ndarray) -> np.ndarray:
    """``(n,)`` thickness in mm of layers of another level that hold as much agent.

    Args:
        layers: as they were fitted.
        level: ``(n,)`` of the same material where it is resolved; where it is 0, so is the thickness.
    """
    over = np.maximum(level - layers.beyond, (1 - BRIGHT_BEYOND) * level)
    held = layers.thickness_mm * np.clip(layers.level - layers.beyond, 0, None)
    return np.where(level > 0, held / np.where(level > 0, over, 1), 0)


def amount_tells(layers: Layers, level: np.ndarray) -> np.ndarray:
    """``(n,)`` bool, where what lies on a layer is so much fainter that its amount tells its thickness.

    Args:
        layers: as they were fitted.
        level: ``(n,)`` of cartilage near by, 0 where none is seen.
    """
    return (level > 0) & (layers.beyond <= BRIGHT_BEYOND * level)
