"""What a network proposes for two scans, or for a pair of canonical cubes: a few rigid transforms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..geometry import rigid
from ..networks.contract import Candidate, Network

if TYPE_CHECKING:
    from ..bone.cube import CanonicalCube
    from ..bone.prepare import PreparedScan
    from ..networks.weights import LoadedWeights


class Proposal(NamedTuple):
    """What a network proposes.

    Attributes:
        poses: ``(h, 4, 4)`` float64 on the CPU, from fixed to moving points in LPS mm, the most likely first.
        spread: median distance in mm, over the bone, of the network's answers from the first pose, which is their
            median: its own doubt. NaN where it was asked once.
    """

    poses: Tensor
    spread: float = math.nan


def proposal_of(
    weights: LoadedWeights, fixed: PreparedScan, moving: PreparedScan, turns: int | None = None
) -> Proposal:
    """Asks a network about two scans, by cubes that lie where those lay that it learned on; see `propose`."""
    first, second = (scan.cube_on(weights.placement) for scan in (fixed, moving))
    return propose(weights.network.to(first.image.device), first, second, turns)


def propose(network: Network, fixed: CanonicalCube, moving: CanonicalCube, turns: int | None = None) -> Proposal:
    """Asks a network about two cubes, turned several ways.

    Outputs that are not finite give no pose; there may be none. Cubes lie along the world's axes, so a rotation of
    cubes is a rotation of the world.

    Args:
        network: on any device. It sees the arrays of the cubes, indexed [z, y, x]; its answer acts on vectors
            (x, y, z).
        fixed: canonical cube of the fixed scan.
        moving: canonical cube of the moving scan, at the same spacing.
        turns: how many ways the pair is turned, 1 to `turns.MOST_TURNS`. With more than one, the first pose is the
            median of the answers, and those to the pair as it is follow. None takes what suits the network.

    Raises:
        ValueError: the spacings of the cubes differ.
        OptionError: `turns` is out of range.
    """
    if fixed.spacing != moving.spacing:
        raise ValueError(
            f"the canonical cubes have spacings of {fixed.spacing} and {moving.spacing} mm; make both with one spacing"
        )
    device = next(network.parameters()).device
    first, second = (_batch_of_one(cube.image, device) for cube in (fixed, moving))
    first_seen, second_seen = (_batch_of_one(cube.inside, device) for cube in (fixed, moving))
    turns = network.turns if turns is None else turns
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        (found,) = network.candidates(first, second, first_seen, second_seen, fixed.spacing, turns)
    poses = [_in_world(candidate, fixed, moving) for candidate in found]
    finite = [pose for pose in poses if pose.isfinite().all()]
    stacked = torch.stack(finite) if finite else torch.empty(0, 4, 4, dtype=torch.float64)
    return Proposal(stacked, found[0].spread if found else math.nan)


def _batch_of_one(array: Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float32, device=device)[None, None]


def _in_world(candidate: Candidate, fixed: CanonicalCube, moving: CanonicalCube) -> Tensor:
    """The candidate as a ``(4, 4)`` transform: moving point - moving centre = R (fixed point - fixed centre) + t."""
    center_fixed, center_moving = (torch.as_tensor(cube.center, dtype=torch.float64) for cube in (fixed, moving))
    shift = center_moving + candidate.translation - candidate.rotation @ center_fixed
    return rigid.rigid(candidate.rotation, shift)
