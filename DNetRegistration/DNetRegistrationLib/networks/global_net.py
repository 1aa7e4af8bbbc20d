"""ME, the mixed encoder: the Global-net of Hu et al. (ISBI 2018), regressed to 12 numbers.

The two cubes are two channels; three down-sampling blocks of Global-net (a convolution of 7^3 in the first, 3^3 in
the others, then two of 3^3 with a residual, max-pool); a 3^3 convolution with max-pool to 4^3 x 128; a fully
connected layer to 12. That counts 690,828 parameters (0.7M in Table 1).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.constants import CUBE_SIZE
from .layers import Convolution, Norm
from .regression import Directions, Regression, RegressionNetwork, require_cubes

_CHANNELS = (2, 16, 32, 64, 128)


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


class MixedEncoder(RegressionNetwork):
    """ME, the Global-net: both cubes as channels of one branch, regressed to 12 numbers."""

    name = "me"

    def __init__(self) -> None:
        super().__init__()
        *widths, last = _CHANNELS
        self.blocks = nn.Sequential(
            *(GlobalDown(inputs, outputs, 3 if i else 7) for i, (inputs, outputs) in enumerate(pairwise(widths)))
        )
        self.last = nn.Sequential(Convolution(widths[-1], last, 3), Norm(last), nn.ReLU(), nn.MaxPool3d(2))
        self.head = Regression(last * (CUBE_SIZE // 2 ** (len(_CHANNELS) - 1)) ** 3)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        require_cubes(fixed, moving)
        cubes = torch.cat((fixed, moving), dim=1).contiguous(memory_format=torch.channels_last_3d)
        return self.head(self.last(self.blocks(cubes)).flatten(1))

    def both_directions(self, fixed: Tensor, moving: Tensor) -> Directions:
        require_cubes(fixed, moving)
        forward, backward = self(torch.cat((fixed, moving)), torch.cat((moving, fixed))).chunk(2)
        return forward, backward
