"""What a network is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairBatch:
    """Pairs of cubes and the truth about them. The edge n of the cubes is 64, or 64 divided by the reduction asked for.

    Attributes:
        fixed, moving: ``(b, 1, n, n, n)`` float32 bone values, [z, y, x].
        fixed_inside, moving_inside: ``(b, 1, n, n, n)`` float32, 1 inside the field of view and 0 outside, where
            images are 0 too.
        rotation: ``(b, 3, 3)`` float64, fixed to moving points, (x, y, z), about the cubes' centres.
        translation: ``(b, 3)`` float64 mm: moving - moving centre = rotation (fixed - fixed centre) + translation.
        to_bone: ``(b, 2, 3, 4)`` float64, of fixed and moving: mm about the cube's centre to mm about the middle of the
            bone's grid in the dataset.
    """

    fixed: Tensor
    moving: Tensor
    fixed_inside: Tensor
    moving_inside: Tensor
    rotation: Tensor
    translation: Tensor
    to_bone: Tensor
