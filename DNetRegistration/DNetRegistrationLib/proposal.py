"""What a network proposes for a pair of canonical cubes: a rigid transform from each direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import rigid
from .networks import TRANSLATION_SPACING, split_parameters

if TYPE_CHECKING:
    from .preprocessing import CanonicalCube


def propose(
    network: torch.nn.Module, fixed: CanonicalCube, moving: CanonicalCube, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Candidate transforms from fixed to moving points, ``(4, 4)`` float64 in LPS mm, by D-net in both directions.

    The first is read from (fixed, moving), the second is the inverse of what is read from (moving, fixed). Outputs that
    are not finite give no candidate. Cubes lie along the world's axes, so that a rotation of cubes is one of the world.

    Args:
        network: as in `networks`, on any device. It sees the cubes' arrays, indexed [z, y, x]; what it returns acts on
            vectors (x, y, z).
        fixed: canonical cube of the fixed scan.
        moving: canonical cube of the moving scan, at the same spacing.
        dtype: ``torch.bfloat16`` is faster on processors that have it.

    Raises:
        ValueError: the spacings of the cubes differ.
    """
    if fixed.spacing != moving.spacing:
        raise ValueError(
            f"the canonical cubes have spacings of {fixed.spacing} and {moving.spacing} mm; make both with one spacing"
        )
    device = next(network.parameters()).device
    images = [torch.as_tensor(cube.image, dtype=torch.float32, device=device)[None, None] for cube in (fixed, moving)]
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        there, back = network.both_directions(*images)
    candidates = [
        to_world(there[0], fixed, moving),
        rigid.inverse(to_world(back[0], moving, fixed)),
    ]
    return [candidate for candidate in candidates if candidate.isfinite().all()]


def to_world(parameters: Tensor, fixed: CanonicalCube, moving: CanonicalCube) -> Tensor:
    """A network's output ``(12,)`` for this pair as a ``(4, 4)`` float64 transform in LPS mm.

    moving point - moving centre = R (fixed point - fixed centre) + t, with t scaled from the network's spacing of
    0.08 mm to the cubes' own: a network has learnt voxels, and knows nothing of their size.
    """
    # From here in float64 on the CPU: centres may be far from the world's origin.
    translation, rotation = split_parameters(parameters.detach().cpu().double())
    turn = rigid.rotation_from_6d(rotation)
    center_fixed, center_moving = (torch.as_tensor(cube.center, dtype=torch.float64) for cube in (fixed, moving))
    return rigid.rigid(turn, center_moving + translation * (fixed.spacing / TRANSLATION_SPACING) - turn @ center_fixed)
