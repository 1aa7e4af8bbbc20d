"""Thickness where it was not measured, from what lies around it. Needs no torch."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from .mesh import Mesh

# Single points are noise: a value is carried on from about this length of surface before it, mm.
_REACH = 0.08
# What goes on from what is known differs from it by at most this share of the thickness, or this much, um, and by this
# share of the level, over so many rings of neighbours. So many times a ring is added.
_SMOOTH, _SMOOTH_UM, _EVEN = 0.15, 4.0, 0.1
_RINGS, _TIMES = 3, 40


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


def smooth_surface(mesh: Mesh, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The membrane that lies nearest to known values: the mean of a Gaussian Markov random field.

    It minimises the squares of what it leaves of the known values plus those of its slopes along the surface, so it
    goes straight on where nothing is known (Rue & Held, Gaussian Markov Random Fields, 2005, chapter 3).

    Args:
        mesh: of ``n`` points.
        known: ``(n,)`` bool, where values are known.
        values: ``(n,)``; others are not looked at.

    Returns:
        ``(n,)``, 0 on pieces of the mesh of which nothing is known.
    """
    near = mesh.neighbours
    ties = sparse.diags(np.asarray(near.sum(1), float).ravel()) - near
    stiff = _REACH**2 / float(mesh.areas.mean())
    # A little keeps pieces at 0 of which nothing is known.
    matrix = sparse.diags(known + 1e-9) + stiff * ties
    order: dict = dict(permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.asarray(splu(sparse.csc_matrix(matrix), **order).solve(np.where(known, values, 0.0).astype(float)))
