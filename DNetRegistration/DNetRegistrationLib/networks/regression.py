"""Networks that regress a motion: 12 numbers, the translation and the rotation's parameters (Sec. 2.1)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.constants import CUBE_SIZE, PAPER_SPACING
from ..geometry.average import median_motion
from ..geometry.rigid import inverse, rigid, rotation_from_6d
from .batch import PairBatch
from .contract import Candidate, Criterion, Network
from .turns import ROTATIONS, pairings, turned

PARAMETERS = 12
BONE_RADIUS = 1.28  # mm, about the distance of a mouse bone's voxels from the centre of its cube

_TURNS = rigid(ROTATIONS, torch.zeros(3, dtype=torch.float64))

#: Outputs ``(b, 12)``: the motion from fixed to moving, and that from moving to fixed.
Directions = tuple[Tensor, Tensor]


def split_parameters(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """A network's output ``(..., 12)`` as translation ``(..., 3)`` and rotation parameters ``(..., 9)``."""
    translation, rotation = parameters.split((3, 9), dim=-1)
    return translation, rotation


def require_cubes(fixed: Tensor, moving: Tensor, edge: int = CUBE_SIZE) -> None:
    """Raises `ValueError` unless both are ``(b, 1, edge, edge, edge)``."""
    shape = (len(fixed), 1, edge, edge, edge)
    if fixed.shape != shape or moving.shape != shape:
        raise ValueError(
            f"the network was given {tuple(fixed.shape)} and {tuple(moving.shape)}; "
            f"give two tensors (batch, 1, {CUBE_SIZE}, {CUBE_SIZE}, {CUBE_SIZE})"
        )


class Regression(nn.Linear):
    """The last layer, to 12 numbers; untrained, it leaves everything near where it is, as Global-net does.

    It computes in the precision of its weights: bfloat16 would round the rotation to 0.1 degrees.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, PARAMETERS)
        with torch.no_grad():
            self.weight.normal_(std=0.01)
            self.bias.copy_(torch.cat((torch.zeros(3), torch.eye(3).flatten())))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class RegressionNetwork(Network):
    """A network of Table 1.

    Its 12 numbers are the translation (3), then the rotation parameters (9: the columns of R one after the other; Eq. 1
    uses the first six). They describe the motion from fixed to moving points, in (x, y, z) order and about the cubes'
    centres, in mm at the paper's working spacing of 0.08 mm: one unit is 12.5 voxels of the cube, whatever its
    spacing. A criterion judges the pair of what `forward` and, or else None, the other direction gave.
    """

    readouts = ("head",)

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """``(b, 12)``, the motion from fixed to moving points, of cubes ``(b, 1, 64, 64, 64)``."""

    @abstractmethod
    def both_directions(self, fixed: Tensor, moving: Tensor) -> Directions:
        """The motion from fixed to moving and that from moving to fixed, ``(b, 12)`` each."""

    def loss(
        self, batch: PairBatch, criterion: Criterion, both_directions: bool = False
    ) -> tuple[Tensor, dict[str, Any]]:
        if both_directions:
            return criterion(self.both_directions(batch.fixed, batch.moving), batch)
        return criterion((self(batch.fixed, batch.moving), None), batch)

    def estimate(
        self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        translation, rotation = split_parameters(self(fixed, moving).double())
        return rotation_from_6d(rotation), translation

    def candidates(
        self,
        fixed: Tensor,
        moving: Tensor,
        fixed_inside: Tensor,
        moving_inside: Tensor,
        spacing: float,
        turns: int = 1,
    ) -> list[list[Candidate]]:
        """What the network says of (fixed, moving), and the inverse of what it says of (moving, fixed).

        With several turns their median comes first, and its spread is known.
        """
        scale = spacing / PAPER_SPACING  # the network has learned voxels, and knows nothing of their size
        found = []
        for answers in self.answers(fixed, moving, turns):
            unturned = [Candidate(answer[:3, :3], answer[:3, 3] * scale) for answer in answers[:2]]
            answers = answers[answers.isfinite().all(-1).all(-1)]
            if turns == 1 or not len(answers):
                found.append(unturned)
                continue
            median, apart = median_motion(answers, BONE_RADIUS)
            spread = float(apart.median()) * scale
            found.append([Candidate(median[:3, :3], median[:3, 3] * scale, spread), *unturned])
        return found

    def answers(self, fixed: Tensor, moving: Tensor, turns: int = 1) -> Tensor:
        """What the network says of pairs, turned so many ways and in both directions, as motions of the pairs as given.

        Returns:
            ``(b, 2 * turns, 4, 4)`` float64 on the CPU, from fixed to moving points about the cubes' centres, mm at the
            paper's spacing. Of each turn, the first of which turns nothing, the motion comes first, then the inverse of
            that from moving to fixed.
        """
        pairs = pairings(turns)
        found = []
        for (first, second), directions in zip(pairs, self.of_pairings(fixed, moving, pairs), strict=True):
            # In float64 on the CPU from here on: the centres of cubes may be far from the world's origin.
            there, back = (_motion(parameters.detach().cpu().double()) for parameters in directions)
            turn_fixed, turn_moving = _TURNS[first], _TURNS[second]
            found += [turn_moving.mT @ there @ turn_fixed, inverse(turn_fixed.mT @ back @ turn_moving)]
        return torch.stack(found, 1)

    def of_pairings(self, fixed: Tensor, moving: Tensor, pairings: Sequence[tuple[int, int]]) -> Iterator[Directions]:
        """`both_directions` of turned cubes, for each pair of numbers of `turns.ROTATIONS`."""
        for first, second in pairings:
            yield self.both_directions(turned(fixed, ROTATIONS[first]), turned(moving, ROTATIONS[second]))


def _motion(parameters: Tensor) -> Tensor:
    translation, rotation = split_parameters(parameters)
    return rigid(rotation_from_6d(rotation), translation)
