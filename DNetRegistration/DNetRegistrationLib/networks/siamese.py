"""The five networks of Table 1: SE, SED, SNL-SED, D-net and ME.

A network takes two canonical cubes, ``(batch, 1, 64, 64, 64)`` each, indexed ``[z, y, x]``, and returns 12 numbers,
``(batch, 12)``: the translation (3), then the rotation parameters (9: the columns of R one after the other; Eq. 1
uses the first six). They describe the motion that carries fixed to moving points, in (x, y, z) order and relative to
the cubes' centres, with the translation in mm at the paper's working spacing of 0.08 mm: one unit is 12.5 voxels of
the cube, whatever its spacing. `proposal` turns them into a world transform.

Figure 1 is not in the paper's text. What is inferred, from the trainable-parameter counts of Table 1 ("Variable No.",
in millions: ME 0.7, SE 9.2, SED 5.2, SNL-SED and D-net 4.9):

- *Res-down*: 3^3 convolution, norm, ReLU, 3^3 convolution, norm, plus the input (through a 1^3 convolution where the
  widths differ), ReLU, max-pool of 2. Convolutions have no bias. Six blocks count 0.88M.
- *Linked Res-down* (blocks 3 to 6, "the 4 latter"): the link stands in place of the second convolution, before
  pooling, so at 16^3, 8^3, 4^3 and 2^3. An added link would make D-net larger than SED; in the table it is smaller.
  At the blocks' outputs the last link would see a single voxel. W is 64 x 64, one per link, shared by both branches
  and, as in Eq. 3-4, by query, key and value.
- *Res-up*: a residual bottleneck of 64-40-40-64 channels (1^3, 3^3, 1^3), the last one 64-40-40-32, at 1^3, 2^3, 4^3
  and 8^3, on the sum of the previous block's output, enlarged by repetition, and the skip connection.
- *Head*: the 8^3 features of both branches, 128 neurons, ReLU, 12 neurons. 8^3 voxels of twice 32 channels give the
  4.19M weights that the table asks for.
- *SE* has no decoder: the outputs of its four latter blocks, enlarged to 8^3 and summed, go to the head (8^3 voxels
  of twice 64 channels: 8.39M).
- *ME*: the two cubes as two channels; three down-sampling blocks of Global-net (Hu et al., ISBI 2018: a convolution
  of 7^3 in the first, 3^3 in the others, then two of 3^3 with a residual, max-pool); a 3^3 convolution with max-pool
  to 4^3 x 128; a fully connected layer to 12.
- *Norm*: GroupNorm with 8 groups: batch statistics do not exist for one pair at 1^3, and would tie the two branches
  and the machines of a distributed training together.

This gives 9,272,332 (SE), 5,273,164 (SED), 4,847,180 (SNL-SED and D-net) and 690,828 (ME). The denominator in the
second line of Eq. 2 is read as the sum over phi(x_k^m, x_j^f), and Eq. 3 as exp((W x1) . (W x2)).

Weights and features lie in `channels_last_3d`, in which the convolutions are fastest and voxels are tokens without a
copy. All networks run under `torch.autocast` in bfloat16: norms and softmax accumulate in float32.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .equivariant import Equivariant
from .normalization import ChannelsLastGroupNorm

CUBE = 64  # d_0 = h_0 = w_0
REDUCTIONS = (1, 2, 4, 8)  # by which a Siamese network's cubes may be smaller
TRANSLATION_SPACING = 0.08  # mm: at this spacing of the cube a network's translation is in mm
PARAMETERS = 12

_CHANNELS = (1, 16, 32, 64, 64, 64, 64)
_MIXED_CHANNELS = (2, 16, 32, 64, 128)
_BOTTLENECK = 40
_FEATURE_SIZE = 8  # edge, in voxels, of the features that the head reads
_SKIPS = 4


def split_parameters(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """A network's output ``(..., 12)`` as translation ``(..., 3)`` and rotation parameters ``(..., 9)``."""
    translation, rotation = parameters.split((3, 9), dim=-1)
    return translation, rotation


class Convolution(nn.Conv3d):
    """A convolution that keeps the grid.

    On grids of a few voxels a processor computes it in its weights' own precision, which costs nothing there: in
    bfloat16 the gradient of weights on 2^3 voxels comes out wrong, even infinite (oneDNN 3.12, AVX-512).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu" or features.shape[-1] > 4:
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.to(self.weight.dtype))


class Norm(nn.GroupNorm):
    """GroupNorm in the precision of what it is given, with sums in float32.

    On a GPU autocast would turn it and all that follows, up to the next convolution, into float32: twice the bytes,
    where bytes are what takes the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu":
            return self.as_given(features)
        # On a processor autocast leaves it as it is, and weights may be of another precision.
        if torch.is_grad_enabled() and features.dtype != torch.float64:
            return ChannelsLastGroupNorm.apply(features, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(features)

    def as_given(self, features: Tensor) -> Tensor:
        """The same where weights must have the precision of the features."""
        weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            return functional.group_norm(features, self.num_groups, weight, bias, self.eps)


def _shortcut(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else Convolution(inputs, outputs, 1)


class NonLocalLink(nn.Module):
    """Eq. 2-4 on the features of both branches, ``(2 * batch, channels, z, y, x)``: fixed first, then moving.

    Every voxel k receives the average of W x_j over all voxels j of its partner, weighted by the softmax over j of
    (W x_k) . (W x_j).

    Args:
        channels: of the features; W is ``channels x channels``.
        mutual: the partner is the other branch (MNL); otherwise the branch itself (SNL).

    Attributes:
        sampled: in training, average over so many voxels j, drawn at random anew each time, where there are more; 0 for
            all of them. The average has the same expectation, nearly, and at 16^3 costs a tenth.
    """

    sampled = 0

    def __init__(self, channels: int, mutual: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, channels, bias=False)
        self.mutual = mutual

    def forward(self, features: Tensor) -> Tensor:
        tokens = self.embed(features.flatten(2).transpose(1, 2))[:, None]  # (2 * batch, 1 head, voxels, channels)
        partners = tokens.roll(len(tokens) // 2, dims=0) if self.mutual else tokens
        if self.training and 0 < self.sampled < (voxels := partners.shape[2]):
            partners = partners[:, :, torch.randperm(voxels, device=partners.device)[: self.sampled]]
        # Eq. 3 has no division by sqrt(channels).
        linked = functional.scaled_dot_product_attention(tokens, partners, partners, scale=1.0)
        return linked[:, 0].transpose(1, 2).unflatten(2, features.shape[2:])


class ResDown(nn.Module):
    """Halves the edge: convolution, then `second` (a convolution or a link), with a residual, then max-pool."""

    def __init__(self, inputs: int, outputs: int, second: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.first_norm = Convolution(inputs, outputs, 3), Norm(outputs)
        self.second = Convolution(outputs, outputs, 3) if second is None else second
        self.second_norm = Norm(outputs)
        self.shortcut = _shortcut(inputs, outputs)

    def forward(self, features: Tensor, halve: bool = True) -> Tensor:
        residual = self.first_norm(self.first(features)).relu_()
        residual = self.second_norm(self.second(residual))
        # In place: at 64^3 fresh memory costs more than the sum. The ReLU of a maximum is the maximum of ReLUs.
        residual.add_(self.shortcut(features))
        return (functional.max_pool3d(residual, 2) if halve else residual).relu_()


class ResUp(nn.Module):
    """A residual bottleneck; the features' edge stays."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow, self.narrow_norm = Convolution(inputs, _BOTTLENECK, 1), Norm(_BOTTLENECK)
        self.middle, self.middle_norm = Convolution(_BOTTLENECK, _BOTTLENECK, 3), Norm(_BOTTLENECK)
        self.widen, self.widen_norm = Convolution(_BOTTLENECK, outputs, 1), Norm(outputs)
        self.shortcut = _shortcut(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.narrow_norm(self.narrow(features)).relu_()
        residual = self.middle_norm(self.middle(residual)).relu_()
        return self.widen_norm(self.widen(residual)).add_(self.shortcut(features)).relu_()


class Encoder(nn.Module):
    """Six Res-down blocks, the four latter linked or not; returns the outputs of those four, 8^3 to 1^3.

    Args:
        link: None, "self" or "mutual".
    """

    def __init__(self, link: str | None) -> None:
        super().__init__()
        linked_from = len(_CHANNELS) - 1 - _SKIPS
        self.blocks = nn.ModuleList(
            ResDown(inputs, outputs, NonLocalLink(outputs, link == "mutual") if link and i >= linked_from else None)
            for i, (inputs, outputs) in enumerate(pairwise(_CHANNELS))
        )

    def forward(self, cubes: Tensor) -> list[Tensor]:
        outputs, kept = [cubes], REDUCTIONS.index(CUBE // cubes.shape[-1])
        for i, block in enumerate(self.blocks):
            outputs.append(block(outputs[-1], halve=i >= kept))
        return outputs[-_SKIPS:]


class Decoder(nn.Module):
    """Four Res-up blocks from 1^3 to 8^3, each on the enlarged result so far plus its skip connection."""

    channels = 32

    def __init__(self) -> None:
        super().__init__()
        deepest = _CHANNELS[-1]
        self.blocks = nn.ModuleList(
            ResUp(deepest, self.channels if i == _SKIPS - 1 else deepest) for i in range(_SKIPS)
        )

    def forward(self, skips: list[Tensor]) -> Tensor:
        features = None
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            features = block(skip if features is None else _enlarge(features, 2) + skip)
        return features


class Sum(nn.Module):
    """SE's way from the encoder to the head: outputs of 8^3 to 1^3 enlarged to 8^3 and summed."""

    channels = _CHANNELS[-1]

    def forward(self, skips: list[Tensor]) -> Tensor:
        return sum(_enlarge(skip, skips[0].shape[-1] // skip.shape[-1]) for skip in skips)


def _enlarge(features: Tensor, factor: int) -> Tensor:
    return functional.interpolate(features, scale_factor=factor, mode="nearest") if factor > 1 else features


class Regression(nn.Linear):
    """The last layer, to 12 numbers; untrained, it proposes to leave everything near where it is, as Global-net does.

    It computes in its weights' own precision: bfloat16 would round the rotation to 0.1 degrees.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, PARAMETERS)
        with torch.no_grad():
            self.weight.normal_(std=0.01)
            self.bias.copy_(torch.cat((torch.zeros(3), torch.eye(3).flatten())))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))


class Siamese(nn.Module):
    """Two branches with shared weights, and a regression on both: SE, SED, SNL-SED and D-net.

    Args:
        name: of the network, as in `NETWORKS`.
        encoder: cubes ``(2 * batch, 1, 64, 64, 64)`` to a list of features. Smaller cubes of the same extent, by one of
            `REDUCTIONS`, are seen too, with as many first blocks that keep their grid: in training that takes a
            fraction of the time, and what was learned so holds at once, nearly, for larger cubes.
        decoder: that list to ``(2 * batch, channels, 8, 8, 8)``.
    """

    def __init__(self, name: str, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.encoder, self.decoder = encoder, decoder
        inputs = 2 * decoder.channels * _FEATURE_SIZE**3
        self.head = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), Regression(128))
        self.to(memory_format=torch.channels_last_3d)

    def features(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads of each branch: ``(batch, channels * 8^3)``; swapping the inputs swaps them."""
        edge = fixed.shape[-1] if fixed.shape[-1] in (CUBE // factor for factor in REDUCTIONS) else CUBE
        _require_cubes(fixed, moving, edge)
        # Both branches as one batch; the links find the partner in the other half. `contiguous(memory_format=...)` does
        # not touch a single channel's strides, with which the first shortcut runs in the plain layout, thrice as long.
        cubes = torch.cat((fixed, moving)).reshape(-1, edge, edge, edge, 1).movedim(-1, 1)
        first, second = self.decoder(self.encoder(cubes)).flatten(1).chunk(2)
        return first, second

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """``(batch, 12)``: the motion from fixed to moving points, see the module's text."""
        return self.head(torch.cat(self.features(fixed, moving), dim=1))

    def both_directions(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """The motion from fixed to moving and that from moving to fixed, ``(batch, 12)`` each, for one pass's cost."""
        return self.regressed(*self.features(fixed, moving))

    def regressed(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """`both_directions` of the branches' features."""
        pairs = torch.cat((torch.cat((first, second), dim=1), torch.cat((second, first), dim=1)))
        there, back = self.head(pairs).chunk(2)
        return there, back


class GlobalDown(nn.Module):
    """Global-net's down-sampling block: convolution, then two with a residual around them, then max-pool."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.enter, self.enter_norm = Convolution(inputs, outputs, kernel), Norm(outputs)
        self.first, self.first_norm = Convolution(outputs, outputs, 3), Norm(outputs)
        self.second, self.second_norm = Convolution(outputs, outputs, 3), Norm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        entered = self.enter_norm(self.enter(features)).relu_()
        residual = self.first_norm(self.first(entered)).relu_()
        residual = self.second_norm(self.second(residual))
        return functional.max_pool3d(residual.add_(entered), 2).relu_()


class MixedEncoder(nn.Module):
    """ME, the Global-net: both cubes as channels of one branch, regressed to 12 numbers."""

    name = "me"

    def __init__(self) -> None:
        super().__init__()
        *widths, last = _MIXED_CHANNELS
        self.blocks = nn.Sequential(
            *(GlobalDown(inputs, outputs, 3 if i else 7) for i, (inputs, outputs) in enumerate(pairwise(widths)))
        )
        self.last = nn.Sequential(Convolution(widths[-1], last, 3), Norm(last), nn.ReLU(), nn.MaxPool3d(2))
        self.head = Regression(last * (CUBE // 2 ** (len(_MIXED_CHANNELS) - 1)) ** 3)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """``(batch, 12)``: the motion from fixed to moving points, see the module's text."""
        _require_cubes(fixed, moving)
        cubes = torch.cat((fixed, moving), dim=1).contiguous(memory_format=torch.channels_last_3d)
        return self.head(self.last(self.blocks(cubes)).flatten(1))

    def both_directions(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """The motion from fixed to moving and the one from moving to fixed, ``(batch, 12)`` each."""
        _require_cubes(fixed, moving)
        there, back = self(torch.cat((fixed, moving)), torch.cat((moving, fixed))).chunk(2)
        return there, back


def _require_cubes(fixed: Tensor, moving: Tensor, edge: int = CUBE) -> None:
    shape = (len(fixed), 1, edge, edge, edge)
    if fixed.shape != shape or moving.shape != shape:
        raise ValueError(
            f"the network was given {tuple(fixed.shape)} and {tuple(moving.shape)}; "
            f"give two tensors (batch, 1, {CUBE}, {CUBE}, {CUBE})"
        )


NETWORKS = {
    "se": lambda: Siamese("se", Encoder(link=None), Sum()),
    "sed": lambda: Siamese("sed", Encoder(link=None), Decoder()),
    "snl-sed": lambda: Siamese("snl-sed", Encoder(link="self"), Decoder()),
    "dnet": lambda: Siamese("dnet", Encoder(link="mutual"), Decoder()),
    "me": MixedEncoder,
    "equivariant": Equivariant,
}


def build(name: str) -> nn.Module:
    """A network of Table 1, or the equivariant one, with fresh weights, drawn from torch's default generator.

    Raises:
        ValueError: no network has this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name]()
