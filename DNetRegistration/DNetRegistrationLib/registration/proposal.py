"""What a network proposes for a pair of canonical cubes: a few rigid transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..geometry import rigid
from ..networks.equivariant import Equivariant
from ..networks.siamese import TRANSLATION_SPACING, split_parameters

if TYPE_CHECKING:
    from ..bone.images import CanonicalCube


def propose(
    network: torch.nn.Module, fixed: CanonicalCube, moving: CanonicalCube, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Candidate transforms from fixed to moving points, ``(4, 4)`` float64 in LPS mm.

    The networks of Table 1 are read in both directions: the first candidate is what they say of (fixed, moving), the
    second the inverse of what they say of (moving, fixed). The equivariant one proposes what most of its matches agree
    on, then what others do. Outputs that are not finite give no candidate. Cubes lie along the world's axes, so that a
    rotation of cubes is one of the world.

    Args:
        network: as in `networks`, on any device. It sees the cubes' arrays, indexed [z, y, x]; what it returns acts on
            vectors (x, y, z).
        fixed: canonical cube of the fixed scan.
        moving: canonical cube of the moving scan, at the same spacing.
        dtype: ``torch.bfloat16`` is faster on processors that have it; the equivariant network stays in float32.

    Raises:
        ValueError: the spacings of the cubes differ.
    """
    if fixed.spacing != moving.spacing:
        raise ValueError(
            f"the canonical cubes have spacings of {fixed.spacing} and {moving.spacing} mm; make both with one spacing"
        )
    device = next(network.parameters()).device
    if isinstance(network, Equivariant):
        inputs = (fixed.image, moving.image, fixed.inside, moving.inside)
        poses = network.candidates(*(_batch_of_one(array, device) for array in inputs))[0]
        translations = poses[:, :3, 3] * fixed.spacing
        candidates = [_placed(*pose, fixed, moving) for pose in zip(poses[:, :3, :3], translations, strict=True)]
    else:
        images = [_batch_of_one(cube.image, device) for cube in (fixed, moving)]
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            there, back = network.both_directions(*images)
        candidates = [to_world(there[0], fixed, moving), rigid.inverse(to_world(back[0], moving, fixed))]
    return [candidate for candidate in candidates if candidate.isfinite().all()]


def _batch_of_one(array: Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32, device=device)[None, None]


def to_world(parameters: Tensor, fixed: CanonicalCube, moving: CanonicalCube) -> Tensor:
    """A network's output ``(12,)`` for this pair as a ``(4, 4)`` float64 transform in LPS mm.

    moving point - moving centre = R (fixed point - fixed centre) + t, with t scaled from the network's spacing of
    0.08 mm to the cubes' own: a network has learnt voxels, and knows nothing of their size.
    """
    # From here in float64 on the CPU: centres may be far from the world's origin.
    translation, rotation = split_parameters(parameters.detach().cpu().double())
    turn = rigid.rotation_from_6d(rotation)
    return _placed(turn, translation * (fixed.spacing / TRANSLATION_SPACING), fixed, moving)


def _placed(rotation: Tensor, translation: Tensor, fixed: CanonicalCube, moving: CanonicalCube) -> Tensor:
    """The world transform of a rotation and a translation (mm) about the cubes' centres."""
    center_fixed, center_moving = (torch.as_tensor(cube.center, dtype=torch.float64) for cube in (fixed, moving))
    return rigid.rigid(rotation, center_moving + translation - rotation @ center_fixed)
