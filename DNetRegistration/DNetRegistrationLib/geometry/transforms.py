"""Rigid transforms as ``(4, 4)`` NumPy matrices: rigidity, the error between two of them, and SimpleITK.

A matrix maps fixed to moving points, in world coordinates (LPS, mm). Needs no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.errors import OptionError


def affine_matrix(linear: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The ``(4, 4)`` float64 matrix of x -> A x + t, with `linear` the ``(3, 3)`` A."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, translation
    return matrix


def rotation_error_deg(first: np.ndarray, second: np.ndarray) -> float:
    """The angle between the rotations of two ``(4, 4)`` transforms, in degrees, exact also where it is tiny.

    It is the paper's RE (Sec. 2.5), from sine and cosine together, since arccos alone resolves only 1e-6 degrees.
    """
    turn = np.asarray(first, float)[:3, :3].T @ np.asarray(second, float)[:3, :3]
    return math.degrees(math.atan2(np.linalg.norm(turn - turn.T) / math.sqrt(8), (np.trace(turn) - 1) / 2))


def mean_point_error(first: np.ndarray, second: np.ndarray, points: np.ndarray) -> float:
    """The mean distance between where two ``(4, 4)`` transforms put points ``(n, 3)``, in the points' unit.

    Over the bone of the fixed scan this is the target registration error. NaN without points.
    """
    if len(points) == 0:
        return float("nan")
    difference = np.asarray(first, float) - np.asarray(second, float)
    return float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def require_rigid(matrix: Any, name: str = "matrix") -> np.ndarray:
    """A ``(4, 4)`` float64 copy whose rotation is exact, of a matrix that is rigid to 1e-4.

    Raises:
        OptionError: wrong shape, not finite, mirrored, or not rigid; it calls the matrix by `name`.
    """
    matrix = np.array(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise OptionError(f"{name} is not a finite 4x4 matrix", "give one that maps fixed to moving points in LPS mm")
    rotation, remedy = matrix[:3, :3], "give a rotation with a translation"
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > 1e-4 or np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-9:
        raise OptionError(f"{name} is not a rigid transform (it scales or shears)", remedy)
    if np.linalg.det(rotation) < 0:
        raise OptionError(f"{name} mirrors (its determinant is -1)", remedy)
    u, _, vh = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ vh
    return matrix


def to_sitk(matrix: np.ndarray) -> Any:
    """A ``SimpleITK.AffineTransform`` of a ``(4, 4)`` matrix in LPS mm.

    Affine, although the map is rigid: an Euler3DTransform is singular at right angles, and its files have crashed
    SimpleITK's reader.
    """
    import SimpleITK as sitk

    matrix = np.asarray(matrix, dtype=np.float64)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def from_sitk(transform: Any) -> np.ndarray:
    """The ``(4, 4)`` float64 matrix of a linear SimpleITK transform, by its action on points.

    Raises:
        OptionError: the transform is not linear, not three-dimensional, or not rigid to 1e-4.
    """
    name = transform.GetName()
    if transform.GetDimension() != 3:
        raise OptionError(f"{name} has {transform.GetDimension()} dimensions", "give a 3D rigid transform")
    if not transform.IsLinear():
        raise OptionError(f"{name} is not a linear transform", "give a rigid one")
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        # The difference of two points loses digits when the translation is large; ITK keeps the vector map apart.
        unit = [float(axis == k) for k in range(3)]
        matrix[:3, axis] = transform.TransformVector(unit, (0.0, 0.0, 0.0))
    return require_rigid(matrix, name)


def matrix_of(transform: Any, name: str = "the transform") -> np.ndarray:
    """The rigid ``(4, 4)`` float64 matrix of a matrix, a SimpleITK transform, or an `Alignment`.

    Raises:
        OptionError: it is none of them, or not rigid to 1e-4; it is called by `name`.
    """
    if isinstance(transform, str | os.PathLike):
        remedy = "read it first, with read_transform or read_report"
        raise OptionError(f"{name} is a path: {os.fspath(transform)!r}", remedy)
    if is_sitk(transform):
        return from_sitk(transform)
    try:
        return require_rigid(getattr(transform, "matrix", transform), name)
    except (TypeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"{name} is not a 4x4 matrix", "give a matrix, an alignment or a transform") from error


def is_sitk(transform: Any) -> bool:
    """Whether it is a transform of SimpleITK."""
    import SimpleITK as sitk

    return isinstance(transform, sitk.Transform)


def composed(transforms: Sequence[Any], inverse: bool = False) -> np.ndarray:
    """The ``(4, 4)`` matrix of transforms that are applied one after the other.

    Each carries what lies in its moving scan to its fixed one, and so maps the points of its fixed scan to those of its
    moving scan. What the first one has carried, the second carries on. So the matrices multiply in their order:
    of A (fixed 1 from moving 2), then B (fixed 0 from 1), the matrix A B maps points of 0 to points of 2.

    Args:
        transforms: what `matrix_of` takes, in the order in which they are applied.
        inverse: give the way back: all of them inverted, in reverse order.

    Returns:
        The points where the result lies to the points of what is carried, LPS mm.
    """
    matrix = np.eye(4)
    for transform in transforms:
        matrix = matrix @ matrix_of(transform)
    return inverted(matrix) if inverse else matrix


def inverted(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a rigid ``(4, 4)`` matrix; its rotation is the transpose, so that it is as exact."""
    return affine_matrix(matrix[:3, :3].T, -matrix[:3, :3].T @ matrix[:3, 3])
