"""What a network proposes for a pair of canonical cubes: a few rigid transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import rigid
from ..networks.contract import Candidate, Network

if TYPE_CHECKING:
    from ..bone.cube import CanonicalCube


def propose(network: Network, fixed: CanonicalCube, moving: CanonicalCube) -> list[Tensor]:
    """Candidate transforms from fixed to moving points, ``(4, 4)`` float64 in LPS mm, the most likely first.

    Outputs that are not finite give no candidate. Cubes lie along the world's axes, so a rotation of cubes is a
    rotation of the world.

    Args:
        network: on any device. It sees the arrays of the cubes, indexed [z, y, x]; its answer acts on vectors
            (x, y, z).
        fixed: canonical cube of the fixed scan.
        moving: canonical cube of the moving scan, at the same spacing.

    Raises:
        ValueError: the spacings of the cubes differ.
    """
    if fixed.spacing != moving.spacing:
        raise ValueError(
            f"the canonical cubes have spacings of {fixed.spacing} and {moving.spacing} mm; make both with one spacing"
        )
    device = next(network.parameters()).device
    images = [_batch_of_one(cube.image, device) for cube in (fixed, moving)]
    insides = [_batch_of_one(cube.inside, device) for cube in (fixed, moving)]
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        (found,) = network.candidates(images[0], images[1], insides[0], insides[1], fixed.spacing)
    candidates = [_in_world(candidate, fixed, moving) for candidate in found]
    return [candidate for candidate in candidates if candidate.isfinite().all()]


def _batch_of_one(array: Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32, device=device)[None, None]


def _in_world(candidate: Candidate, fixed: CanonicalCube, moving: CanonicalCube) -> Tensor:
    """The candidate as a ``(4, 4)`` transform: moving point - moving centre = R (fixed point - fixed centre) + t."""
    if candidate.inverse:
        return rigid.inverse(_in_world(candidate._replace(inverse=False), moving, fixed))
    center_fixed, center_moving = (torch.as_tensor(cube.center, dtype=torch.float64) for cube in (fixed, moving))
    shift = center_moving + candidate.translation - candidate.rotation @ center_fixed
    return rigid.rigid(candidate.rotation, shift)
