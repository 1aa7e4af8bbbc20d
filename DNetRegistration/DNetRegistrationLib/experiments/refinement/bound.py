"""The least error that noise leaves to any unbiased alignment: the Cramer-Rao bound, computed in float64.

Each scan is a known image of the bone at an unknown pose, with an unknown gain, in white noise. What a scanner blurs
after the noise came in is as informative as before, since the blur can be undone. So the image and its noise are taken
before it. Values that nobody knows, as those of voxels with contrast agent, are left out: a free value for a voxel
takes up all that the voxel tells. The poses of the two scans are estimated from noise of their own, so that the
covariance of the pose between them is the sum of theirs.

No interpolation is in it. Where voxels are coarse for what they show, estimates that interpolate end farther away.

Source: S. M. Kay, Fundamentals of Statistical Signal Processing I (1993), eq. 3.31; D. Robinson, P. Milanfar,
"Fundamental performance limits in image registration", IEEE Trans. Image Processing 13:1185 (2004).
"""

from __future__ import annotations

import numpy as np

#: Motions that are drawn to tell the error of an efficient estimate, and points of the bone at which it is taken.
DRAWS, POINTS = 4000, 500


def fisher_information(points: np.ndarray, gradient: np.ndarray, values: np.ndarray, noise: float) -> np.ndarray:
    """``(6, 6)`` Fisher information about a small rotation (about the origin) and translation, the gain unknown.

    Args:
        points: ``(n, 3)`` positions of voxels, mm.
        gradient: ``(n, 3)`` of the image without noise, per mm.
        values: ``(n,)`` that the gain multiplies: the image less what it is without the bone.
        noise: standard deviation of each voxel.

    Returns:
        of three angles in radians and three lengths in mm: 1/rad^2, 1/(rad mm) and 1/mm^2.
    """
    points, gradient, values = (np.asarray(array, np.float64) for array in (points, gradient, values))
    jacobian = np.concatenate((np.cross(points, gradient), gradient), axis=1) / noise
    gain = values / noise
    cross, own = jacobian.T @ gain, gain @ gain
    # What an unknown gain takes away (Schur's complement).
    return jacobian.T @ jacobian - (np.outer(cross, cross) / own if own > 0 else 0.0)


def relative_covariance(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """``(6, 6)`` least covariance of the motion between two scans, by the informations about each, in one frame."""
    return np.linalg.inv(fixed) + np.linalg.inv(moving)


def efficient_error(covariance: np.ndarray, points: np.ndarray, seed: int = 0) -> float:
    """The median target error, mm, of normal estimates with this covariance: of the mean distance over points.

    Args:
        covariance: ``(6, 6)`` of a small rotation about the origin and a translation.
        points: ``(n, 3)`` of the bone, mm.
        seed: of the draws.
    """
    points = points[:: max(1, len(points) // POINTS)]
    # The standard deviations differ in units; scaled to ones, the factor is well conditioned.
    scale = np.sqrt(np.diag(covariance))
    factor = scale[:, None] * np.linalg.cholesky(covariance / np.outer(scale, scale))
    motions = np.random.default_rng(seed).standard_normal((DRAWS, 6)) @ factor.T
    moved = np.cross(motions[:, None, :3], points) + motions[:, None, 3:]
    return float(np.median(np.linalg.norm(moved, axis=-1).mean(1)))
