"""The Siamese networks of Table 1: SE, SED, SNL-SED and D-net.

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
- *Norm*: GroupNorm with 8 groups: batch statistics do not exist for one pair at 1^3, and would tie the two branches
  and the machines of a distributed training together.

This gives 9,272,332 (SE), 5,273,164 (SED) and 4,847,180 (SNL-SED and D-net). The denominator in the second line of
Eq. 2 is read as the sum over phi(x_k^m, x_j^f), and Eq. 3 as exp((W x1) . (W x2)).

Weights and features lie in `channels_last_3d`, in which the convolutions are fastest and voxels need no copy to
become rows of the links' matrices. All networks run under `torch.autocast` in bfloat16: norms and softmax accumulate
in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.constants import CUBE_SIZE
from .layers import Convolution, NonLocalLink, Norm
from .regression import Directions, Regression, RegressionNetwork, require_cubes
from .turns import ROTATIONS, turned

REDUCTIONS = (1, 2, 4, 8)  # by which the cubes may be smaller

_CHANNELS = (1, 16, 32, 64, 64, 64, 64)
_BOTTLENECK = 40
_FEATURE_SIZE = 8  # edge, in voxels, of the features that the head reads
_HIDDEN = 128
_SKIPS = 4
_ALONE = len(_CHANNELS) - 1 - _SKIPS  # blocks before the first link


def _shortcut(inputs: int, outputs: int) -> nn.Module:
    return nn.Identity() if inputs == outputs else Convolution(inputs, outputs, 1)


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
        self.blocks = nn.ModuleList(
            ResDown(inputs, outputs, NonLocalLink(outputs, link == "mutual") if link and i >= _ALONE else None)
            for i, (inputs, outputs) in enumerate(pairwise(_CHANNELS))
        )

    def forward(self, cubes: Tensor) -> list[Tensor]:
        return self.latter(self.first(cubes))

    def first(self, cubes: Tensor) -> Tensor:
        """The blocks without links: what they give for a scan does not depend on its partner."""
        return self._outputs(cubes, 0, _ALONE)[-1]

    def latter(self, features: Tensor) -> list[Tensor]:
        """The four latter blocks, of what `first` gave."""
        return self._outputs(features, _ALONE, len(self.blocks))

    def _outputs(self, features: Tensor, start: int, end: int) -> list[Tensor]:
        outputs = []
        for i, block in enumerate(self.blocks[start:end], start):
            # Smaller cubes keep their grid until it is that of cubes of 64^3.
            features = block(features, halve=features.shape[-1] > CUBE_SIZE >> (i + 1))
            outputs.append(features)
        return outputs


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
        first, *others = reversed(skips)
        deepest, *blocks = self.blocks
        features = deepest(first)
        for block, skip in zip(blocks, others, strict=True):
            features = block(_enlarge(features, 2) + skip)
        return features


class Sum(nn.Module):
    """SE's way from the encoder to the head: outputs of 8^3 to 1^3 enlarged to 8^3 and summed."""

    channels = _CHANNELS[-1]

    def forward(self, skips: list[Tensor]) -> Tensor:
        first, *others = skips
        return sum((_enlarge(skip, first.shape[-1] // skip.shape[-1]) for skip in others), first)


def _require_cubes(fixed: Tensor, moving: Tensor) -> None:
    edge = fixed.shape[-1]
    require_cubes(fixed, moving, edge if edge in (CUBE_SIZE // factor for factor in REDUCTIONS) else CUBE_SIZE)


def _single_channel(cubes: Tensor) -> Tensor:
    """The same cubes in `channels_last_3d`.

    `contiguous(memory_format=...)` does not touch a single channel's strides, with which the first shortcut runs in the
    plain layout, thrice as long.
    """
    return cubes.reshape(-1, *cubes.shape[2:], 1).movedim(-1, 1)


def _enlarge(features: Tensor, factor: int) -> Tensor:
    return functional.interpolate(features, scale_factor=factor, mode="nearest") if factor > 1 else features


class Siamese(RegressionNetwork):
    """Two branches with shared weights, and a regression on both: SE, SED, SNL-SED and D-net.

    Args:
        name: of the network, as in `registry.NETWORKS`.
        encoder: cubes ``(2 * batch, 1, 64, 64, 64)`` to a list of features. Cubes of the same extent may be smaller by
            one of `REDUCTIONS`; then as many first blocks keep their grid. Training on them takes a fraction of the
            time, and what is learned nearly holds for larger cubes at once.
        decoder: that list to ``(2 * batch, channels, 8, 8, 8)``.
    """

    turns = 8

    def __init__(self, name: str, encoder: Encoder, decoder: Decoder | Sum) -> None:
        super().__init__()
        self.name = name
        self.encoder, self.decoder = encoder, decoder
        inputs = 2 * decoder.channels * _FEATURE_SIZE**3
        self.head = nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.ReLU(), Regression(_HIDDEN))
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
        """What the head reads of each branch: ``(batch, channels * 8^3)``; swapping the inputs swaps them."""
        _require_cubes(fixed, moving)
        # Both branches as one batch; the links find the partner in the other half.
        return self._linked(self.encoder.first(_single_channel(torch.cat((fixed, moving)))))

    def _linked(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`features` of what the blocks without links gave for both branches, as one batch."""
        first, second = self.decoder(self.encoder.latter(features)).flatten(1).chunk(2)
        return first, second

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        return self.head(torch.cat(self.features(fixed, moving), dim=1))

    def both_directions(self, fixed: Tensor, moving: Tensor) -> Directions:
        """As `RegressionNetwork.both_directions`, for the cost of one pass through the trunk."""
        return self.regressed(*self.features(fixed, moving))

    def regressed(self, first: Tensor, second: Tensor) -> Directions:
        """`both_directions` of the branches' features."""
        pairs = torch.cat((torch.cat((first, second), dim=1), torch.cat((second, first), dim=1)))
        forward, backward = self.head(pairs).chunk(2)
        return forward, backward

    def of_pairings(self, fixed: Tensor, moving: Tensor, pairings: Sequence[tuple[int, int]]) -> Iterator[Directions]:
        """As `RegressionNetwork.of_pairings`, with a pass of each turned cube through the blocks without links."""
        _require_cubes(fixed, moving)
        seen: list[dict[int, Tensor]] = [{}, {}]
        for pairing in pairings:
            for known, cubes, number in zip(seen, (fixed, moving), pairing, strict=True):
                if number not in known:
                    known[number] = self.encoder.first(_single_channel(turned(cubes, ROTATIONS[number])))
            yield self.regressed(*self._linked(torch.cat([known[n] for known, n in zip(seen, pairing, strict=True)])))

    def sample_links(self, voxels: int) -> None:
        for layer in self.encoder.modules():
            if isinstance(layer, NonLocalLink):
                layer.sampled = voxels
