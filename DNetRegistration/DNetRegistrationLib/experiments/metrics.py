"""The paper's criteria (Sec. 2.5), translation error, rotation error and Dice of cortices; and the target error.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..bone.cortex import CorticalBone, dice
from ..geometry.transforms import rotation_error_deg

#: A pair is aligned when the mean error over its bone is below this, the paper's voxel.
SUCCESS_UM = 80.0
#: Points of bone that stand for all of it.
_POINTS = 20_000


@dataclass(frozen=True)
class Metrics:
    """How far an estimated transform is from the true one; NaN where the truth is not known.

    Attributes:
        te_um: translation error, um, with the fixed image's centre as origin.
        re_deg: rotation error, degrees.
        target_um: mean distance over the fixed scan's cortex of where it is put and where it is, um.
        dice: of the cortices as estimated, 0 to 1.
        dice_true: of the cortices at the true pose: what is to be had.
    """

    te_um: float
    re_deg: float
    target_um: float
    dice: float
    dice_true: float


def translation_error_um(estimate: np.ndarray, truth: np.ndarray, center: np.ndarray) -> float:
    """TE of two ``(4, 4)`` transforms, um.

    Cubes lie on image centres, and the translation of a transform is x_m - c_m = R (x_f - c_f) + t: it is what the
    fixed centre moves by, beyond the moving one. So TE = |t - t^| is the distance between where the two transforms put
    the fixed image's centre, wherever the moving image has its own.

    Args:
        estimate, truth: fixed to moving points, LPS mm.
        center: ``(3,)`` world position of the fixed image's centre, mm.
    """
    difference = np.asarray(estimate, float) - np.asarray(truth, float)
    return 1000 * float(np.linalg.norm(difference[:3, :3] @ center + difference[:3, 3]))


def target_error_um(estimate: np.ndarray, truth: np.ndarray, bone: CorticalBone) -> float:
    """Mean distance, um, over a cortex of where two ``(4, 4)`` transforms put its voxels; NaN without a cortex."""
    flat = np.flatnonzero(bone.cortex)
    if not len(flat):
        return float("nan")
    flat = flat[:: max(1, len(flat) // _POINTS)]
    index = np.stack(np.unravel_index(flat, bone.cortex.shape)[::-1], -1)
    points = index @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    difference = np.asarray(estimate, float) - np.asarray(truth, float)
    return 1000 * float(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean())


def measure(
    estimate: np.ndarray,
    truth: np.ndarray | None,
    center: np.ndarray,
    bones: tuple[CorticalBone, CorticalBone],
    dice_true: float | None = None,
) -> Metrics:
    """All criteria of one alignment.

    Args:
        estimate: ``(4, 4)``, fixed to moving points, LPS mm.
        truth: likewise, or None where it is not known.
        center: ``(3,)`` world position of the fixed image's centre, mm.
        bones: cortices of the fixed and the moving scan.
        dice_true: the Dice at the truth, where it has been computed already.
    """
    overlap = dice(*bones, estimate)
    if truth is None:
        nan = float("nan")
        return Metrics(nan, nan, nan, overlap, nan)
    return Metrics(
        translation_error_um(estimate, truth, center),
        rotation_error_deg(np.asarray(truth), np.asarray(estimate)),
        target_error_um(estimate, truth, bones[0]),
        overlap,
        dice(*bones, truth) if dice_true is None else dice_true,
    )
