"""Layers of the networks of Table 1: convolution, norm and non-local link."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers processed at a time, so that they stay in the cache.
_CHUNK = 1 << 18


class Convolution(nn.Conv3d):
    """A convolution that keeps the grid.

    On grids of a few voxels a processor computes in the precision of the weights, which costs nothing there: in
    bfloat16 the gradient of weights on 2^3 voxels is wrong, even infinite (oneDNN 3.12, AVX-512).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu" or features.shape[-1] > 4:
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.to(self.weight.dtype))


class Norm(nn.GroupNorm):
    """GroupNorm with 8 groups in the precision of its input, with sums in float32.

    On a GPU autocast would turn its output, and all up to the next convolution, into float32: twice the bytes, and
    bytes take the time there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type != "cpu":
            return self._in_precision_of(features)
        # On a processor autocast leaves it alone, and weights may have another precision.
        if torch.is_grad_enabled() and features.dtype != torch.float64:
            return ChannelsLastGroupNorm.apply(features, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(features)

    def _in_precision_of(self, features: Tensor) -> Tensor:
        weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            return functional.group_norm(features, self.num_groups, weight, bias, self.eps)


class NonLocalLink(nn.Module):
    """Eq. 2-4 on the features of both branches, ``(2 * batch, channels, z, y, x)``: fixed first, then moving.

    Every voxel k receives the average of W x_j over all voxels j of its partner, weighted by the softmax over j of
    (W x_k) . (W x_j).

    Args:
        channels: of the features; W is ``channels x channels``.
        mutual: the partner is the other branch (MNL); otherwise the branch itself (SNL).

    Attributes:
        sampled: how many voxels j the average is over in training, drawn at random each time; 0 for all of them. The
            expectation is nearly the same, and at 16^3 the cost is a tenth.
    """

    def __init__(self, channels: int, mutual: bool) -> None:
        super().__init__()
        self.sampled = 0
        self.embed = nn.Linear(channels, channels, bias=False)
        self.mutual = mutual

    def forward(self, features: Tensor) -> Tensor:
        embedded = self.embed(features.flatten(2).transpose(1, 2))[:, None]  # (2 * batch, 1 head, voxels, channels)
        partners = embedded.roll(len(embedded) // 2, dims=0) if self.mutual else embedded
        if self.training and 0 < self.sampled < (voxels := partners.shape[2]):
            partners = partners[:, :, torch.randperm(voxels, device=partners.device)[: self.sampled]]
        # Eq. 3 has no division by sqrt(channels).
        linked = functional.scaled_dot_product_attention(embedded, partners, partners, scale=1.0)
        return linked[:, 0].transpose(1, 2).unflatten(2, features.shape[2:])


class ChannelsLastGroupNorm(torch.autograd.Function):
    """GroupNorm of ``(batch, channels, z, y, x)``, whose gradient a processor computes fast in `channels_last_3d`.

    The forward pass is torch's. The gradient of torch 2.13 takes 4 to 6 times as long on 64^3 voxels of 16 channels in
    bfloat16, longer than the convolutions there.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = features.shape[:2]
        voxels = features[0, 0].numel()
        normed, mean, scale = torch.native_group_norm(features, weight, bias, batch, channels, voxels, groups, eps)
        ctx.save_for_backward(features, weight, mean, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """With y = w (x - m) s + b: sums over voxels first, then dx = w s dy - s (A + B (x - m) s).

        A and B are the means over a group of w dy and of w dy (x - m) s.
        """
        features, weight, mean, scale = ctx.saved_tensors
        (batch, channels), groups = features.shape[:2], mean.shape[1]
        x, dy = (values.movedim(1, -1).reshape(batch, -1, channels) for values in (features, gradient))
        voxels = x.shape[1]
        rows = max(1, _CHUNK // channels)
        ones = torch.ones(1, rows)
        sums = torch.zeros(2, batch, channels, dtype=torch.float64)
        for each in range(batch):
            for dy_part, x_part in zip(dy[each].split(rows), x[each].split(rows), strict=True):
                one, dy_part = ones[:, : len(dy_part)], dy_part.float()
                # A product with ones is the fastest sum over voxels.
                sums[0, each] += (one @ dy_part)[0]
                sums[1, each] += (one @ (dy_part * x_part))[0]

        def of_group(values: Tensor) -> Tensor:  # (batch, channels): the mean over a group's channels
            return _spread(values.unflatten(1, (groups, -1)).mean(2), channels)

        w, m, s = weight.double(), _spread(mean.double(), channels), _spread(scale.double(), channels)
        d_bias, d_weight = sums[0], (sums[1] - sums[0] * m) * s
        a, b = of_group(w * d_bias) / voxels, of_group(w * d_weight) / voxels
        of_dy, of_x, constant = (values.float() for values in (w * s, -s * s * b, s * (s * b * m - a)))
        dx = torch.empty_like(x)
        for each in range(batch):
            for dy_part, x_part, out in zip(
                dy[each].split(rows), x[each].split(rows), dx[each].split(rows), strict=True
            ):
                out.copy_((dy_part * of_dy[each]).addcmul_(x_part, of_x[each]).add_(constant[each]))
        dx = dx.reshape(batch, *features.shape[2:], channels).movedim(-1, 1)
        return dx, d_weight.sum(0).to(weight.dtype), d_bias.sum(0).to(weight.dtype), None, None


def _spread(values: Tensor, channels: int) -> Tensor:
    """``(batch, groups)`` to ``(batch, channels)``."""
    return values.repeat_interleave(channels // values.shape[1], 1)
