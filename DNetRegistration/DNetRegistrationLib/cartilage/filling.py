"""Thickness where it was not measured, from what lies around it. Needs no torch."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from .mesh import Mesh

# Single points are noise: a value is carried on from about this length of surface before it, mm.
_REACH = 0.08


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
