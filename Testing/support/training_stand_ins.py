"""A small network and made-up pairs, so that training can be tried in milliseconds."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from DNetRegistrationLib.geometry.rigid import random_rotations, rotation_from_6d
from DNetRegistrationLib.networks.batch import PairBatch
from DNetRegistrationLib.networks.regression import RegressionNetwork
from DNetRegistrationLib.training.dataset import BoneDataset, quantized, save_dataset
from DNetRegistrationLib.training.recipes import KINDS, Recipe
from torch import nn
from torch.nn import functional

QUICK = Recipe(
    name="quick", loss="points", both_directions=False, iterations=12, batch=4, micro_batch=2, optimizer="adamw",
    learning_rate=1e-2, warmup=0.2, decay="cosine", weight_decay=0.01, grad_clip=1.0, ema_decay=0.9,
    precision="float32", rotations="uniform", initial_angle=90.0, angle_curriculum=0.5, placement="bone",
    cut_share=0.5, keep=0.5, contrast=0.5, kinds=("tibia",), bones=8,
)  # fmt: skip


#: How many bones the file of `write_blobs` has.
BLOBS = 8


def write_blobs(path) -> str:
    """A file with blobs for bones."""
    generator = torch.Generator().manual_seed(0)
    axis = (torch.arange(40) - 19.5) / 20
    near = torch.exp(-8 * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2))
    grains = functional.interpolate(torch.rand(2 * BLOBS, 1, 8, 8, 8, generator=generator), 40)[:, 0]
    plain, contrast = quantized(near * grains).split(BLOBS)
    names = [f"blob {number}" for number in range(BLOBS)]
    save_dataset(BoneDataset(plain, contrast, 0.222, names, made={"kinds": KINDS}), path)
    return str(path)


class Pairs:
    """Grains of noise that tell of the true translation, the same for the same number and count."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.drawn: list[tuple[int, int, float]] = []

    def draw(self, number: int, count: int, *, max_angle: float = math.pi, reduction: int = 1) -> PairBatch:
        self.drawn.append((number, count, max_angle))
        drawn = np.random.SeedSequence((self.seed, number, count)).generate_state(1)
        generator = torch.Generator().manual_seed(int(drawn[0]))
        translation = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
        grains = torch.rand(2, count, 4, 4, 4, generator=generator)
        grains[0, :, 0, 0, :3] = translation.float()
        fixed, moving = functional.interpolate(grains, 64 // reduction)[:, :, None]
        inside = torch.ones_like(fixed)
        rotation = random_rotations(count, generator)
        fixed_pose = torch.cat(
            (random_rotations(count, generator), torch.rand(count, 3, 1, generator=generator) - 0.5), -1
        )
        to_bone = torch.stack((fixed_pose, of_moving(fixed_pose, rotation, translation)), 1)
        return PairBatch(fixed, moving, inside, inside, rotation, translation, to_bone)


def of_moving(to_bone, rotation, translation):
    """What carries moving points to the bone, ``(b, 3, 4)``: back to fixed ones, and on as `to_bone` does."""
    turn = to_bone[..., :3] @ rotation.mT
    return torch.cat((turn, to_bone[..., 3:] - turn @ translation[..., None]), -1)


class Small(RegressionNetwork):
    """From 4^3 voxels of each cube to 12 numbers."""

    name = "small"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Sequential(nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 12))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)

    def features(self, fixed, moving):
        step = fixed.shape[-1] // 4
        first, second = torch.cat((fixed, moving), 1)[..., ::step, ::step, ::step].flatten(2).unbind(1)
        return first, second

    def forward(self, fixed, moving):
        return self.head(torch.cat(self.features(fixed, moving), 1))

    def regressed(self, first, second):
        return self.head(torch.cat((first, second), 1)), self.head(torch.cat((second, first), 1))

    def both_directions(self, fixed, moving):
        return self.regressed(*self.features(fixed, moving))


class SmallWithConvolutions(Small):
    """It looks first; the second of its convolutions, of three channels, is such as Muon takes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.look = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 1, 3, padding=1))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.look.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)

    def features(self, fixed, moving):
        step = fixed.shape[-1] // 4
        return [self.look(scan[..., ::step, ::step, ::step]).flatten(1) for scan in (fixed, moving)]


class SmallWithLoss(Small):
    """The other kind of network: with a loss and an estimate of its own, and dice of its own too."""

    name = "own"

    def loss(self, batch, criterion, both_directions=False):
        numbers = self(batch.fixed, batch.moving) * torch.rand(12)
        loss = (numbers[:, :3] - batch.translation).square().mean()
        return loss, {"matches": 0.25, "loss_of_matches": float(loss.detach())}

    def estimate(self, fixed, moving, fixed_inside, moving_inside):
        assert fixed_inside.shape == moving_inside.shape == fixed.shape
        numbers = self(fixed, moving).double()
        return rotation_from_6d(numbers[:, 3:]), numbers[:, :3]


def prepared(one):
    one.prepare()
    return one


def steps(one, count):
    one.prepare()
    for _ in range(count):
        assert one.step() is False
    return one


def same(first, second):
    """Whether two states hold the same bits."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second) and first.dtype == second.dtype
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second or (first != first and second != second)


def through_a_file(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)
