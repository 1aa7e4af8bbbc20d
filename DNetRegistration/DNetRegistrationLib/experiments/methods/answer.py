"""What every method answers, and how the other tools are asked. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...geometry.transforms import affine_matrix
from ...imaging.volume import Volume


@dataclass(frozen=True)
class Answer:
    """What a method answers.

    Attributes:
        matrix: ``(4, 4)`` float64, fixed to moving points, LPS mm, rigid.
        accepted: whether the method itself trusts it; None where it does not say.
    """

    matrix: np.ndarray
    accepted: bool | None = None


def centered(matrix, translation, center) -> np.ndarray:
    """``(4, 4)`` float64 of ITK's transforms about a centre: x -> A (x - c) + c + t, all in LPS mm.

    Args:
        matrix: A, nine numbers by rows.
        translation: t.
        center: c.
    """
    linear, center = np.reshape(np.asarray(matrix, float), (3, 3)), np.asarray(center)
    return affine_matrix(linear, center + translation - linear @ center)


def float_voxels(scan: Volume) -> np.ndarray:
    """The voxels ``(z, y, x)`` of a scan as float32, shifted so that the darkest is 0; 0 outside the field of view.

    The other tools do not know NaN, and take centres of mass, which negative values as in CT would distort.
    """
    voxels = np.asarray(scan.voxels, np.float32)
    return np.nan_to_num(voxels - np.nanmin(voxels), copy=False, nan=0.0)
