"""Thickness where it was not measured, from what lies around it. Needs no torch."""

from __future__ import annotations

import numpy as np
from scipy import sparse, spatial
from scipy.sparse.linalg import splu

from .mesh import Mesh

# Single points are noise: a value is carried on from about this length of surface before it, mm.
_REACH = 0.08
# What goes on from what is known differs from it by at most this share of the thickness, or this much, um, and by this
# share of the level, over so many rings of neighbours. So many times a ring is added.
_SMOOTH, _SMOOTH_UM, _EVEN = 0.1, 2.0, 0.1
_RINGS, _TIMES = 3, 40
# So much of the rim at least tells of the rest, in steps of so many mm from it, each with so much of the area of the
# largest. Bone is bare where what lies on it is thinner than this share of the median. Nowhere is cartilage expected to
# be thinner than this share of the most.
_RIM_SEEN, _RIM_STEP, _RIM_LEAST, _BARE, _LEAST_RISE = 0.25, 0.05, 0.1, 0.15, 0.05


def carried_on(
    mesh: Mesh, known: np.ndarray, doubted: np.ndarray, thickness: np.ndarray, level: np.ndarray
) -> np.ndarray:
    """Doubted points that go on from known ones without a step in thickness or level, found from those outwards.

    Soft tissue on cartilage begins with a step. Agent that soaked in unevenly makes none.

    Args:
        mesh: of ``n`` points.
        known, doubted: ``(n,)`` bool, apart from each other.
        thickness: ``(n,)`` um.
        level: ``(n,)`` grey values.

    Returns:
        ``(n,)`` bool, some of the doubted points.
    """
    near = mesh.smoothing(_RINGS)
    inside, found = known.copy(), np.zeros_like(known)
    values = np.stack((thickness, level, np.ones(len(known))), 1)
    ahead = near @ (values * doubted[:, None])
    for _ in range(_TIMES):
        behind = near @ (values * inside[:, None])
        front = np.flatnonzero(doubted & ~inside & (behind[:, 2] > 0.2))
        before, after = (part[front, :2] / part[front, 2:] for part in (behind, ahead))
        apart = np.abs(after - before)
        even = (apart[:, 0] < np.maximum(_SMOOTH * before[:, 0], _SMOOTH_UM)) & (apart[:, 1] < _EVEN * before[:, 1])
        if not even.any():
            break
        inside[front[even]] = found[front[even]] = True
    return found


def rise_from_rim(
    mesh: Mesh, known: np.ndarray, thickness: np.ndarray, ends: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """How thick cartilage of each compartment is on average at a distance from its rim, where it is known.

    Cartilage thins towards its rim, so what is hidden there is not as thick as what lies beside it, and what is hidden
    amidst it is thicker. Its rim is the border of what faces the joint, and where bone is bare. Where that of one
    compartment is hidden, the other's tells, in proportion.

    Args:
        mesh: of ``n`` points.
        known: ``(n,)`` bool, where the thickness is known.
        thickness: ``(n,)`` um.
        ends: ``(n,)`` bool, where a border is no rim, as where the scan ends.
        first: ``(n,)`` bool, which of two compartments each point is of.

    Returns:
        ``(n,)`` um; the mean everywhere where too little of the rim is seen.
    """
    border = np.zeros(len(known), bool)
    border[mesh.border()] = True
    border &= ~ends
    mean = float(np.average(thickness[known], weights=mesh.areas[known])) if known.any() else 1.0
    rise = np.full(len(known), max(mean, 1e-9))
    if np.count_nonzero(border & known) < _RIM_SEEN * max(np.count_nonzero(border), 1):
        return rise
    near = mesh.smoothing(_RINGS)
    smooth = near @ np.where(known, thickness, 0) / np.maximum(near @ known.astype(float), 1e-9)
    layer = known & (smooth > 0)
    bare = known & (smooth < _BARE * (np.median(smooth[layer]) if layer.any() else 0.0))
    distance = spatial.cKDTree(mesh.points[border | bare]).query(mesh.points)[0]
    sides = first, ~first
    tell = [np.flatnonzero(side & known & ~bare) for side in sides]
    means = [np.average(thickness[one], weights=mesh.areas[one]) if len(one) else 0.0 for one in tell]
    profiles = [_by_distance(distance[one], mesh.areas[one], thickness[one]) for one in tell]
    for number, other in ((0, 1), (1, 0)):
        # Where the rim of one is hidden, the other's tells of it.
        told = number if profiles[number] is not None else other
        if (profile := profiles[told]) is not None and means[number] > 0:
            side = sides[number]
            rise[side] = means[number] / means[told] * np.interp(distance[side], *profile)
    return np.maximum(rise, _LEAST_RISE * rise.max())


def _by_distance(distance: np.ndarray, areas: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Distances, mm, and the means of values there, as far as they are seen; None where hardly any is."""
    if not len(distance):
        return None
    step = (distance / _RIM_STEP).astype(int)
    count, total = (np.bincount(step, weights, 2) for weights in (areas, areas * values))
    told = count > _RIM_LEAST * count.max()
    last = len(told) if told.all() else int(np.argmin(told))
    if last < 2 or not total[:last].any():
        return None
    return (np.arange(last) + 0.5) * _RIM_STEP, total[:last] / count[:last]


def smooth_surface(mesh: Mesh, known: np.ndarray, values: np.ndarray, expected: np.ndarray | None = None) -> np.ndarray:
    """The membrane that lies nearest to known values: the mean of a Gaussian Markov random field.

    It minimises the squares of what it leaves of the known values plus those of its slopes along the surface, so it
    goes straight on where nothing is known (Rue & Held, Gaussian Markov Random Fields, 2005, chapter 3).

    Args:
        mesh: of ``n`` points.
        known: ``(n,)`` bool, where values are known.
        values: ``(n,)``; others are not looked at.
        expected: ``(n,)`` positive: what is smooth are values over it.

    Returns:
        ``(n,)``, 0 on pieces of the mesh of which nothing is known.
    """
    share = np.ones(len(known)) if expected is None else expected / expected.mean()
    # A slope of the share counts as that of the value, so that single points are smoothed alike everywhere.
    near = sparse.diags(share) @ mesh.neighbours @ sparse.diags(share)
    ties = sparse.diags(np.asarray(near.sum(1), float).ravel()) - near
    stiff = _REACH**2 / float(mesh.areas.mean())
    # A little keeps pieces at 0 of which nothing is known.
    matrix = sparse.diags(known * share**2 + 1e-9) + stiff * ties
    order: dict = dict(permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved = splu(sparse.csc_matrix(matrix), **order).solve(np.where(known, share * values, 0.0).astype(float))
    return share * np.asarray(solved)
