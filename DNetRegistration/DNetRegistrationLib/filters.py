"""Filters of images `(z, y, x)`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """``(z, y, x)`` smoothed by a Gaussian of `sigma` voxels, zero beyond the border."""
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).tolist()
    # A sum of shifted copies: for so short a kernel, faster on a CPU than a convolution.
    for axis in range(3):
        padding = [0, 0, 0, 0, 0, 0]
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        padded, size = F.pad(image, padding), image.shape[axis]
        image = sum(weight * padded.narrow(axis, k, size) for k, weight in enumerate(kernel))
    return image
