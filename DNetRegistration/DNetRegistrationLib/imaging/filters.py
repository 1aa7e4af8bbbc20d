"""Filters of images `(..., z, y, x)`."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Voxels filtered at a time: a few copies of them fit a CPU's cache.
SLAB_VOXELS = 1 << 19
# Along axes no longer than this, processors multiply with a banded matrix faster than they filter.
SHORT_AXIS = 160


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """``(..., z, y, x)`` smoothed by a Gaussian of `sigma` voxels, zero beyond the border."""
    if max(image.shape[-3:]) <= SHORT_AXIS:
        z, y, x = (_band(size, sigma).to(image) for size in image.shape[-3:])
        image = y @ (image @ x)
        return (z @ image.flatten(-2)).view(image.shape)
    if image.ndim > 3:
        return torch.stack([gaussian(one, sigma) for one in image])
    kernel = _kernel(sigma).tolist()
    radius = len(kernel) // 2
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


def dilate(image: Tensor, reach: int = 1) -> Tensor:
    """The maximum of ``(..., z, y, x)`` over the cube of `reach` voxels about each voxel, within the image."""
    for axis in (-1, -2, -3):
        # Axis by axis and shift by shift: on a CPU some twenty times as fast as a max-pool.
        widest, size = image.clone(), image.shape[axis]
        for shift in range(1, min(reach, size - 1) + 1):
            for to, start in ((shift, 0), (0, shift)):
                part = widest.narrow(axis, to, size - shift)
                torch.maximum(part, image.narrow(axis, start, size - shift), out=part)
        image = widest
    return image


def _kernel(sigma: float) -> Tensor:
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


@lru_cache(maxsize=64)
def _band(size: int, sigma: float) -> Tensor:
    """``(size, size)`` symmetric: a line times this is the line, smoothed.

    Nothing but zeros beyond the kernel: denormal numbers would slow a processor down a hundredfold.
    """
    kernel = _kernel(sigma)
    offset = torch.arange(size)[:, None] - torch.arange(size) + len(kernel) // 2
    within = (offset >= 0) & (offset < len(kernel))
    return (kernel[offset.clamp(0, len(kernel) - 1)] * within).float()
