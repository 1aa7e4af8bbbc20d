"""How a Siamese network begins to learn: where the bone lies in each scan, before how one scan lies to the other.

Where both scans are turned any way, the motion between them is a product of two rotations, of which neither scan
alone shows anything: seen over all partners, its mean is nothing, whatever the one scan shows. A network that must
find poses and multiply them at once gets nowhere for as long as a processor can train it. So the two are learned
apart. The features of each scan learn its bone's pose against the bank's frame, which bones of a bank share, through a
linear readout; and a head of the network's own form learns from random poses alone, in seconds, to work out the motion.
A linear readout in front of a linear layer is a linear layer: both together become the network's head, to which nothing
is added, and then all of it is trained on the motion.

A pose is 15 numbers: the columns of the rotation R from the bank's frame to the cube's; where in the cube, in mm from
its centre, the middle of the bank's grid lies, p; and R^T p, the same in the bank's frame. Of two poses follow the
rotation R = Rm Rf^T and the translation pm - Rm (Rf^T pf), sums of products of two.
"""

from __future__ import annotations

import copy
import math
from functools import cache

import torch
from torch import Tensor, nn

from ..geometry.rigid import random_rotations, rotation_from_6d
from ..networks.siamese import Regression, Siamese
from .losses import RADIUS, points_loss

NUMBERS = 15
# mm, of the places that the head learns to compose: about those of whole bones, cut ones lie further off.
_PLACES = 0.3
_STEPS, _BATCH, _RATE = 24_000, 512, 6e-3


class Readout(nn.Linear):
    """Poses ``(..., 15)`` of the features ``(..., n)`` of scans by this network, in its weights' own precision."""

    def __init__(self, network: Siamese, seed: int) -> None:
        super().__init__(network.head[0].in_features // 2, NUMBERS)
        with torch.no_grad():
            self.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(seed))
            self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


def poses(to_bank: Tensor) -> Tensor:
    """Poses ``(..., 15)`` of ``(..., 3, 4)`` mm about a cube's centre to mm about the middle of the bank's grid."""
    turn, there = to_bank[..., :3], -to_bank[..., 3]
    here = (turn.mT @ there[..., None])[..., 0]
    return torch.cat((turn.flatten(-2), here, there), -1)


def poses_loss(estimate: Tensor, to_bank: Tensor) -> Tensor:
    """How far, in mm, poses ``(..., 15)`` carry points `RADIUS` from the middle astray, and that middle itself.

    All nine entries of a rotation count, as they are: it is what the head will be given.
    """
    error = estimate - poses(to_bank).to(estimate)
    turned, placed = error.split((9, 6), -1)
    return RADIUS * turned.unflatten(-1, (3, 3)).norm(dim=-1).mean(-1) + placed.unflatten(-1, (2, 3)).norm(dim=-1).mean(
        -1
    )


def motion(estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations ``(b, 3, 3)`` and translations ``(b, 3)`` in mm, fixed to moving, of poses ``(b, 2, 15)``."""
    fixed, moving = rotation_from_6d(estimate).unbind(1)
    rotation = moving @ fixed.mT
    there, here = estimate[:, 0, 12:], estimate[:, 1, 9:12]
    return rotation, here - (moving @ there[..., None])[..., 0]


def composing_head(hidden: int) -> nn.Sequential:
    """A head with `hidden` neurons, but from two poses ``(b, 30)`` to the motion; its weights are anything yet."""
    return nn.Sequential(nn.Linear(2 * NUMBERS, hidden), nn.ReLU(), Regression(hidden))


@cache
def composer(hidden: int, seed: int) -> nn.Sequential:
    """A `composing_head` that has learned to work out the motion, from random poses."""
    generator = torch.Generator().manual_seed(seed)
    head = composing_head(hidden)
    with torch.no_grad():
        for layer in (head[0], head[2]):
            bound = 1 / math.sqrt(layer.in_features)
            layer.weight.uniform_(-bound, bound, generator=generator)
        head[0].bias.zero_()
    optimizer = torch.optim.Adam(head.parameters(), _RATE)
    for step in range(_STEPS):
        optimizer.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        turn = random_rotations(2 * _BATCH, generator, torch.float32).unflatten(0, (_BATCH, 2))
        there = torch.randn((_BATCH, 2, 3), generator=generator) * _PLACES
        given = poses(torch.cat((turn, -there[..., None]), -1))
        loss = points_loss(head(given.flatten(1)), *motion(given)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.requires_grad_(False)


@torch.no_grad()
def set_head(network: Siamese, compose: nn.Sequential) -> None:
    """Makes the network's head work out the motion from what its `readout` reads."""
    readout, enter = network.readout, compose[0]
    first, second = enter.weight.to(readout.weight).split(NUMBERS, 1)
    network.head[0].weight.copy_(torch.cat((first @ readout.weight, second @ readout.weight), 1))
    network.head[0].bias.copy_(enter.bias.to(readout.weight) + (first + second) @ readout.bias)
    network.head[2].load_state_dict(compose[2].state_dict())


def without_readout(network: Siamese, compose: nn.Sequential | None) -> Siamese:
    """A copy without the `readout`, with a head to `compose` what it reads in place of the network's own."""
    network = copy.deepcopy(network)
    if compose is not None:
        set_head(network, compose)
    del network.readout
    return network
