"""The paper's criteria (Sec. 2.5): translation error, rotation error and Dice of cortices. And the target error.

Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..bone.cortex import CorticalBone, dice
from ..core.constants import PAPER_SPACING
from ..geometry.transforms import mean_point_error, rotation_error_deg

#: A pair is aligned when the mean error over its bone is below the paper's voxel.
SUCCESS_UM = 1000 * PAPER_SPACING
# The mean error over this many points of the bone is that over all of it.
_POINTS = 20_000


@dataclass(frozen=True)
class Metrics:
    """How far an estimated transform is from the true one. Without a truth all but `dice` are NaN.

    Attributes:
        te_um: translation error, um, with the fixed image's centre as origin.
        re_deg: rotation error, degrees.
        target_um: mean distance over the fixed scan's cortex between where it is put and where it is, um.
        dice: of the cortices as estimated, 0 to 1.
        dice_true: of the cortices at the true pose, which is the most that can be reached.
    """

    te_um: float
    re_deg: float
    target_um: float
    dice: float
    dice_true: float


def translation_error_um(estimate: np.ndarray, truth: np.ndarray, center: np.ndarray) -> float:
    """TE of two ``(4, 4)`` transforms, um.

    The paper's cubes lie on image centres, so that the translation t of a transform is x_m - c_m = R (x_f - c_f) + t.
    TE = |t - t^| is then the distance between where the two transforms put the fixed image's centre. The moving
    image's centre cancels out.

    Args:
        estimate, truth: fixed to moving points, LPS mm.
        center: ``(3,)`` world position of the fixed image's centre, mm.
    """
    return 1000 * mean_point_error(estimate, truth, np.reshape(center, (1, 3)))


def target_error_um(estimate: np.ndarray, truth: np.ndarray, bone: CorticalBone) -> float:
    """Mean distance, um, between where two ``(4, 4)`` transforms put the voxels of a cortex; NaN without a cortex."""
    flat = np.flatnonzero(bone.cortex)
    flat = flat[:: max(1, len(flat) // _POINTS)]
    index = np.stack(np.unravel_index(flat, bone.cortex.shape)[::-1], -1)
    points = index @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    return 1000 * mean_point_error(estimate, truth, points)


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
        dice_true: Dice at the truth, where it is known already.
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
