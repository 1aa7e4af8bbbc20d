"""Values of an image between its voxels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_linear(
    image: Tensor,
    index: Tensor,
    inside: Tensor | None = None,
    convert: Callable[[Tensor], Tensor] = Tensor.float,
    finite: bool = False,
) -> tuple[Tensor, Tensor]:
    """Trilinear values at continuous indices.

    Of an image in memory as integers the eight neighbours of each point are gathered, so that it is never converted as
    a whole; a float image that is known to be finite mostly goes to the framework's own `grid_sample`.

    Args:
        image: ``(z, y, x)``, any dtype that can be indexed.
        index: ``(n, 3)`` float, continuous indices in the order (x, y, z).
        inside: ``(z, y, x)`` share of each voxel in the field of view, or None where all of it is.
        convert: what turns gathered values into float32; NaN marks what is outside.
        finite: the image is known to hold no NaN, which spares looking for it.

    Returns:
        ``(n,)`` float32 values, the mean of what is inside among the neighbours, 0 where nothing is; and ``(n,)``
        float32, the interpolated share inside, 0 off the grid.
    """
    depth, height, width = image.shape
    flat, flat_inside = image.reshape(-1), None if inside is None else inside.reshape(-1)
    limit = index.new_tensor((width - 1, height - 1, depth - 1))
    # Half a voxel beyond the outermost centres still belongs to the field of view.
    on_grid = ((index >= -0.5) & (index <= limit + 0.5)).all(-1)
    # With a field of view, that takes a pass through the whole image first.
    if finite and image.dtype == torch.float32 and (inside is None or 8 * len(index) > image.numel()):
        return _sample_float(image, index, inside, on_grid)
    clamped = index.clamp(min=0).minimum(limit)
    low = clamped.floor().minimum((limit - 1).clamp(min=0))
    weight_high = clamped - low
    x, y, z = low.long().unbind(-1)
    base = (z * height + y) * width + x
    steps = (height * width * int(depth > 1), width * int(height > 1), int(width > 1))
    offsets = torch.tensor([dz + dy + dx for dz in (0, steps[0]) for dy in (0, steps[1]) for dx in (0, steps[2])])
    at = base + offsets.to(base.device)[:, None]
    values = convert(flat[at])
    if finite and inside is None:
        return _between(values, weight_high) * on_grid, on_grid.float()
    weight = values.isfinite().float()
    values = values.nan_to_num(0.0)
    if flat_inside is not None:
        weight = weight * flat_inside[at]
    share = _between(weight, weight_high)
    return _between(values * weight, weight_high) / share.clamp(min=1e-6) * on_grid, share * on_grid


def _sample_float(image: Tensor, index: Tensor, inside: Tensor | None, on_grid: Tensor) -> tuple[Tensor, Tensor]:
    """`sample_linear` of a finite float32 image."""
    channels = image[None] if inside is None else torch.stack((image * inside, inside))
    at = (index + 0.5) * (2 / index.new_tensor(image.shape[::-1])) - 1
    found = F.grid_sample(channels[None], at[None, None, None], padding_mode="border", align_corners=False)[0, :, 0, 0]
    if inside is None:
        return found[0] * on_grid, on_grid.float()
    return found[0] / found[1].clamp(min=1e-6) * on_grid, found[1] * on_grid


def _between(corners: Tensor, weight_high: Tensor) -> Tensor:
    """Values ``(n,)`` within cells of ``(8, n)`` corners, z slowest, at ``(n, 3)`` fractions x, y, z."""
    for axis in (2, 1, 0):
        low, high = corners.chunk(2)
        corners = torch.lerp(low, high, weight_high[:, axis])
    return corners[0]
