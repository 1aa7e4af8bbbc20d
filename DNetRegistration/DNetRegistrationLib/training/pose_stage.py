"""Pose pre-training: a Siamese network learns the bone's pose in each scan first, and then the motion between them.

Where both scans are in any orientation, the motion between them is a product of two rotations, and one scan alone tells
nothing of it: averaged over all partners the motion is zero, whatever the scan shows. A network that must find poses
and multiply them at once learned nothing for as long as a processor can train it. So the two are learned apart. The
features of each scan learn its bone's pose against the frame that the bones of a dataset share, through a linear
readout. A head of the network's own form learns from random poses alone, in a minute, to work out the motion. A
linear readout in front of a linear layer is a linear layer: both together become the network's head, to which nothing
is added. Then the whole network is trained on the motion.

A pose is 15 numbers: the columns of the rotation R from the bone's frame to the cube's; p, where in the cube, in mm
from its centre, the middle of the bone's grid lies; and R^T p, the same in the bone's frame. Of two poses follow the
rotation R = Rm Rf^T and the translation pm - Rm (Rf^T pf), sums of products of two.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..geometry.rigid import random_rotations, rotation_from_6d
from ..networks.batch import PairBatch
from ..networks.contract import Criterion
from ..networks.regression import BONE_RADIUS, Regression
from ..networks.siamese import Siamese
from .distributed import Processes
from .losses import points_loss
from .validation import errors

NUMBERS = 15
# mm, spread of the places that the head learns to compose: about that of whole bones; cut ones lie further off.
_PLACES = 0.3
_STEPS, _BATCH, _RATE = 24_000, 512, 6e-3


class PoseStage:
    """The stage that learns poses: a readout of poses, and a head that composes two of them into a motion.

    Args:
        network: whose features are read.
        seed: of the readout's and the head's weights.

    Attributes:
        readout: trained with the network, also while the motion is learned.
        composer: the head that composes two poses; None until `prepare` has trained it.
    """

    def __init__(self, network: Siamese, seed: int) -> None:
        self.readout = Readout(network.head[0].in_features // 2, seed)
        self.composer: nn.Sequential | None = None
        self._hidden, self._seed = network.head[0].out_features, seed

    def prepare(self, processes: Processes, check: Callable[[float], bool] = lambda fraction: False) -> bool:
        """Trains the composer, which takes a minute; the first of several processes does so for all.

        Args:
            processes: those that train together.
            check: called with the fraction done; where it returns true, nothing is made.

        Returns:
            Whether the composer is there.
        """
        made = composer(self._hidden, self._seed, check) if processes.first else None
        self.composer = processes.from_first(made)
        return self.composer is not None

    def loss(
        self,
        network: Siamese,
        batch: PairBatch,
        criterion: Criterion,
        both_directions: bool,
        poses_alone: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """As `Network.loss`: of poses alone, or of poses and the motion."""
        features = network.features(batch.fixed, batch.moving)
        seen = self.readout(torch.stack(features, 1)).float()
        loss = poses_loss(seen, batch.to_bone).mean()
        if poses_alone:
            turned, shifted = errors(*motion(seen.detach().double()), batch)
            return loss, {"re_deg": turned.mean(), "te_um": shifted.mean()}
        # The loss of poses stays: after a change of resolution it corrects the features, and until then the motion
        # tells them little.
        forward, backward = network.regressed(*features)
        motion_loss, figures = criterion((forward, backward if both_directions else None), batch)
        return motion_loss + loss, figures

    @torch.no_grad()
    def set_head(self, network: Siamese, readout: Readout) -> None:
        """Makes the network's head work out the motion from what a readout reads."""
        enter, leave = self.composer[0], self.composer[2]
        first, second = enter.weight.to(readout.weight).split(NUMBERS, 1)
        network.head[0].weight.copy_(torch.cat((first @ readout.weight, second @ readout.weight), 1))
        network.head[0].bias.copy_(enter.bias.to(readout.weight) + (first + second) @ readout.bias)
        network.head[2].load_state_dict(leave.state_dict())

    def with_head(self, network: Siamese, readout: Readout) -> Siamese:
        """A copy of the network with the head of `set_head`."""
        network = copy.deepcopy(network)
        self.set_head(network, readout)
        return network

    def state(self) -> dict[str, Any]:
        """What going on needs: plain tensors."""
        made = None if self.composer is None else self.composer.state_dict()
        return {"readout": self.readout.state_dict(), "composer": made}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a `state`."""
        self.readout.load_state_dict(state["readout"])
        if state["composer"] is not None:
            self.composer = composing_head(self._hidden).requires_grad_(False)
            self.composer.load_state_dict(state["composer"])


class Readout(nn.Linear):
    """Poses ``(..., 15)`` of the features ``(..., n)`` of scans, in the precision of its weights."""

    def __init__(self, features: int, seed: int) -> None:
        super().__init__(features, NUMBERS)
        with torch.no_grad():
            self.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
            self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


def poses(to_bone: Tensor) -> Tensor:
    """Poses ``(..., 15)`` of ``(..., 3, 4)`` mm about a cube's centre to mm about the middle of the bone's grid."""
    turn, there = to_bone[..., :3], -to_bone[..., 3]
    here = (turn.mT @ there[..., None])[..., 0]
    return torch.cat((turn.flatten(-2), here, there), -1)


def poses_loss(estimate: Tensor, to_bone: Tensor) -> Tensor:
    """How far off, in mm, poses ``(..., 15)`` carry points `BONE_RADIUS` from the middle, and that middle itself.

    All nine entries of a rotation count as they are, since the head is given them.
    """
    error = estimate - poses(to_bone).to(estimate)
    turned, placed = error.split((9, 6), -1)
    turned, placed = turned.unflatten(-1, (3, 3)), placed.unflatten(-1, (2, 3))
    return BONE_RADIUS * turned.norm(dim=-1).mean(-1) + placed.norm(dim=-1).mean(-1)


def motion(estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations ``(b, 3, 3)`` and translations ``(b, 3)`` in mm, fixed to moving, of poses ``(b, 2, 15)``."""
    fixed, moving = rotation_from_6d(estimate).unbind(1)
    rotation = moving @ fixed.mT
    there, here = estimate[:, 0, 12:], estimate[:, 1, 9:12]
    return rotation, here - (moving @ there[..., None])[..., 0]


def composing_head(hidden: int) -> nn.Sequential:
    """A head with `hidden` neurons from two poses ``(b, 30)`` to the motion, untrained."""
    return nn.Sequential(nn.Linear(2 * NUMBERS, hidden), nn.ReLU(), Regression(hidden))


_made: dict[tuple[int, int], nn.Sequential] = {}


def composer(hidden: int, seed: int, check: Callable[[float], bool] = lambda fraction: False) -> nn.Sequential | None:
    """A `composing_head` trained on random poses to work out the motion; frozen. None where `check` said stop."""
    if (hidden, seed) in _made:
        return _made[hidden, seed]
    generator = torch.Generator().manual_seed(seed)
    head = composing_head(hidden)
    with torch.no_grad():
        for layer in (head[0], head[2]):
            bound = 1 / math.sqrt(layer.in_features)
            layer.weight.uniform_(-bound, bound, generator=generator)
        head[0].bias.zero_()
    optimizer = torch.optim.Adam(head.parameters(), _RATE)
    for step in range(_STEPS):
        if step % 100 == 0 and check(step / _STEPS):
            return None
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        turn = random_rotations(2 * _BATCH, generator, torch.float32).unflatten(0, (_BATCH, 2))
        there = torch.randn((_BATCH, 2, 3), generator=generator) * _PLACES
        given = poses(torch.cat((turn, -there[..., None]), -1))
        loss = points_loss(head(given.flatten(1)), *motion(given)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _made.setdefault((hidden, seed), head.requires_grad_(False))
