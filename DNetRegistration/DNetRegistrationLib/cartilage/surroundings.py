"""Whether soft tissue with agent lies on the bone beside the joint, where no cartilage is. Needs no torch.

Soft tissue that took up as much agent as cartilage looks like it. But it goes on over the rim and down the bone, and
cartilage ends at the rim. Where a layer beside the joint is as bright and about as thick as the layer on the joint, the
latter is of soft tissue too, or has soft tissue on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import spatial

from .layer import THICKEST, Layers
from .mesh import Mesh

# A layer beside the joint is like the one on it: its level over that one's lies between these, its thickness is more
# than this share of that one's.
_LEVELS, _THICK = (0.4, 2.5), 0.5
# No layer is told apart from none below this, mm.
_THIN = 0.008
# Bone beside the joint counts from here on, mm: cartilage may reach over the rim a little.
_BESIDE = 0.05
# A point is judged by the bone beside the joint that is about so near, mm, relative to the nearest.
_NEAR = 0.25


@dataclass(frozen=True)
class Surroundings:
    """What lies on the bone beside a joint.

    Attributes:
        share: of the bone beside the joint that bears a layer like the one on it, 0 to 1; 0 where none of it is seen.
        near: ``(n,)`` the same for the bone beside the joint that is nearest to each point of the joint.
    """

    share: float
    near: np.ndarray


def look_beside(
    mesh: Mesh, facing: np.ndarray, layers: Layers, evidence: float, level: float, thickness_mm: float
) -> Surroundings:
    """Compares the layer beside the joint with the one on it.

    Args:
        mesh: of the joint and of the bone beside it.
        facing: ``(n,)`` bool, what faces the joint.
        layers: on the mesh.
        evidence: what a layer has.
        level, thickness_mm: of the layer in the middle of the joint.
    """
    joint = mesh.points[facing]
    apart, _ = spatial.cKDTree(joint).query(mesh.points)
    beside = apart > _BESIDE
    if not beside.any() or not level > 0:
        return Surroundings(0.0, np.zeros(len(joint)))
    closed = (layers.thickness_mm < THICKEST - 0.01) & (layers.closed > evidence)
    ratio = layers.level / level
    alike = closed & (layers.evidence > evidence) & (ratio > _LEVELS[0]) & (ratio < _LEVELS[1])
    alike &= layers.thickness_mm > max(_THICK * thickness_mm, _THIN)
    places, areas = mesh.points[beside], mesh.areas[beside]
    like = areas * alike[beside]
    near = np.empty(len(joint))
    # A few hundred places tell as much as all.
    pick = np.random.default_rng(0).permutation(len(places))[:600]
    for start in range(0, len(joint), 4096):
        part = slice(start, start + 4096)
        distance = spatial.distance.cdist(joint[part], places[pick])
        weight = np.exp((distance.min(1, keepdims=True) - distance) / _NEAR)
        near[part] = weight @ like[pick] / np.maximum(weight @ areas[pick], 1e-30)
    return Surroundings(float(like.sum() / max(areas.sum(), 1e-30)), near)
