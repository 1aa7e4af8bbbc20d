"""How the scan with agent matches the other in the bone under the cartilage: place, grey values, blur. Needs no torch.

Cartilage beside bone twice as bright: 1 um of shift looks like 2 um of cartilage. Contrast agent draws an alignment
towards the bright layer, and a whole bone is matched best where most of it is. So the match is refined here on the
subchondral bone alone, as deep as agent and blur do not reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.transforms import affine_matrix
from ..imaging.grey_fit import fit_grey_values
from .profiles import Sampler

_ROUNDS = 6
# A place is not moved farther than that, mm: the alignment is better known.
_FARTHEST = 0.04
# Fewer samples tell nothing.
_LEAST = 500


@dataclass(frozen=True)
class Match:
    """What turns the scan without agent into the other one, where there is no agent.

    Attributes:
        matrix: ``(4, 4)``, points of the scan without agent to those of the other, LPS mm.
        slope, offset: of the grey values: with agent = slope * plain + offset.
        blur_mm2: by how much the variance of the point spread is wider in the scan with agent, mm^2.
        shift: ``(3,)`` by which a point at the middle was moved, in the world of the scan without agent, mm.
        error_mm: standard error of that along the mean normal.
    """

    matrix: np.ndarray
    slope: float
    offset: float
    blur_mm2: float
    shift: np.ndarray
    error_mm: float


def match_bone(
    plain: Sampler, agent: Sampler, points: np.ndarray, matrix: np.ndarray, step: float, normal: np.ndarray
) -> Match:
    """Refines the match on bone that both scans show, by Gauss-Newton with Tukey's weights.

    Args:
        plain, agent: of the scan without and with agent, at points of the world of the former.
        points: ``(n, 3)`` in bone and marrow under the cartilage, mm.
        matrix: ``(4, 4)`` of the alignment, to the world of the scan with agent.
        step: of the differences that give slopes, mm; about a voxel.
        normal: ``(3,)`` mean normal of the surface.
    """
    middle = points.mean(0)
    ends = step * np.concatenate((np.eye(3), -np.eye(3)))
    value = plain(points)
    around = np.stack([plain(points + end) for end in ends], 1)
    spread = (around.sum(1) - 6 * value) / step**2
    turned = np.stack([agent(points + end) for end in ends], 1)
    slopes = (turned[:, :3] - turned[:, 3:]) / (2 * step)
    known = np.isfinite(value) & np.isfinite(spread) & np.isfinite(slopes).all(1) & np.isfinite(agent(points))
    if np.count_nonzero(known) < _LEAST:
        return Match(matrix, 1.0, 0.0, 0.0, np.zeros(3), np.nan)
    points, value, spread, slopes = points[known], value[known], spread[known], slopes[known]
    fit = fit_grey_values(value, agent(points))
    # Motion of the points: a shift and a turn about the middle.
    columns = np.concatenate((slopes, np.cross(points - middle, slopes)), 1)
    turn, shift = np.eye(3), np.zeros(3)
    slope, offset, blur = fit.slope, fit.offset, 0.0
    for _ in range(_ROUNDS):
        here = (points - middle) @ turn.T + middle + shift
        now = agent(here)
        seen = np.isfinite(now)
        rest = np.where(seen, now - slope * value - offset - blur * spread, 0)
        scale = max(1.4826 * float(np.median(np.abs(rest[seen]))), 1e-12)
        weight = np.clip(1 - (rest / (4.685 * scale)) ** 2, 0, None) ** 2 * seen
        design = np.column_stack((-columns, value, np.ones_like(value), spread))
        normal_matrix = (design * weight[:, None]).T @ design
        size = np.sqrt(np.diag(normal_matrix))
        size[size == 0] = 1
        found = np.linalg.lstsq(normal_matrix / np.outer(size, size), design.T @ (weight * rest) / size, rcond=1e-9)[0]
        found /= size
        shift, turn = shift + found[:3], _rotation(found[3:6]) @ turn
        slope, offset, blur = slope + found[6], offset + found[7], blur + found[8]
    inverse = np.linalg.pinv(normal_matrix / np.outer(size, size)) / np.outer(size, size)
    error = float(np.sqrt(max(normal @ inverse[:3, :3] @ normal, 0)) * scale)
    if np.linalg.norm(shift) > _FARTHEST or not np.isfinite(error) or slope <= 0:
        return Match(matrix, fit.slope, fit.offset, 0.0, np.zeros(3), _FARTHEST)
    moved = affine_matrix(turn, middle + shift - turn @ middle)
    # A blur by half this variance adds it times the Laplacian, in grey values of the scan with agent here.
    return Match(matrix @ moved, float(slope), float(offset), 2 * float(blur / slope), shift, error)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """The rotation by a ``(3,)`` vector of radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
