"""Filters of images `(z, y, x)`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Voxels filtered at a time: a few copies of them fit a CPU's cache.
SLAB_VOXELS = 1 << 19


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """``(z, y, x)`` smoothed by a Gaussian of `sigma` voxels, zero beyond the border."""
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).tolist()
    padded, out = F.pad(image, (0, 0, 0, 0, radius, radius)), torch.empty_like(image)
    step = max(1, SLAB_VOXELS // image[0].numel())
    for start in range(0, len(image), step):
        slab = padded[start : start + step + 2 * radius]
        # A sum of shifted copies: for so short a kernel, faster on a CPU than a convolution.
        for axis, padding in ((0, ()), (1, (0, 0, radius, radius)), (2, (radius, radius))):
            slab = F.pad(slab, padding) if padding else slab
            size = slab.shape[axis] - 2 * radius
            slab = sum(weight * slab.narrow(axis, k, size) for k, weight in enumerate(kernel))
        out[start : start + step] = slab
    return out
