"""Values of an image between its voxels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample_linear(
    image: Tensor,
    index: Tensor,
    inside: Tensor | None = None,
    convert: Callable[[Tensor], Tensor] = Tensor.float,
) -> tuple[Tensor, Tensor]:
    """Trilinear values at continuous indices.

    Gathers the eight neighbours of each point, so that an image in memory as integers is never converted as a whole;
    `grid_sample` would need a float copy.

    Args:
        image: ``(z, y, x)``, any dtype that can be indexed.
        index: ``(n, 3)`` float, continuous indices in the order (x, y, z).
        inside: ``(z, y, x)`` share of each voxel in the field of view, or None where all of it is.
        convert: what turns gathered values into float32; NaN marks what is outside.

    Returns:
        ``(n,)`` float32 values, the mean of what is inside among the neighbours, 0 where nothing is; and ``(n,)``
        float32, the interpolated share inside, 0 off the grid.
    """
    depth, height, width = image.shape
    flat, flat_inside = image.reshape(-1), None if inside is None else inside.reshape(-1)
    limit = index.new_tensor((width - 1, height - 1, depth - 1))
    # Half a voxel beyond the outermost centres still belongs to the field of view.
    on_grid = ((index >= -0.5) & (index <= limit + 0.5)).all(-1)
    clamped = index.clamp(min=0).minimum(limit)
    low = clamped.floor().minimum((limit - 1).clamp(min=0))
    weight_high = clamped - low
    x, y, z = low.long().unbind(-1)
    step_x, step_y, step_z = int(width > 1), width * int(height > 1), height * width * int(depth > 1)
    base = (z * height + y) * width + x
    wx, wy, wz = weight_high.unbind(-1)

    total = torch.zeros(index.shape[0], dtype=torch.float32, device=index.device)
    share = torch.zeros_like(total)
    plain = flat_inside is None and not image.is_floating_point()
    for dz, az in ((0, 1 - wz), (step_z, wz)):
        for dy, ay in ((0, 1 - wy), (step_y, wy)):
            azy = az * ay
            for dx, ax in ((0, 1 - wx), (step_x, wx)):
                weight = azy * ax
                at = base + (dz + dy + dx)
                value = convert(flat[at])
                if not plain:
                    seen = value.isfinite()
                    weight = weight * seen
                    value = value.where(seen, 0.0)
                    if flat_inside is not None:
                        weight = weight * flat_inside[at]
                total += weight * value
                share += weight
    return (total / share.clamp(min=1e-6)) * on_grid, share * on_grid
