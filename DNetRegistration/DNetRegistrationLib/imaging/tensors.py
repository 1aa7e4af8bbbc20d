"""Images `(..., z, y, x)` as torch tensors: smoothed, dilated, and interpolated between voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# So many voxels are filtered at a time that a few copies of them fit a processor's cache.
SLAB_VOXELS = 1 << 19
# Along axes up to this length, a product with a banded matrix is faster than a filter.
SHORT_AXIS = 160
# Of so many points the cells' voxels fit a processor's cache.
SMALL = 1 << 15
# Fewer points are not worth a thread.
LEAST_PART = 4000
# Points that the eight neighbours are gathered for at a time: for each they take about 300 bytes.
MOST_POINTS = 1 << 18


def gaussian(image: Tensor, sigma: float | Sequence[float]) -> Tensor:
    """Smooths ``(..., z, y, x)`` by a Gaussian of `sigma` voxels; the image is 0 beyond its border.

    One deviation is for all axes, or each of z, y and x has its own.
    """
    sigmas = (sigma,) * 3 if isinstance(sigma, float) else tuple(sigma)
    if max(image.shape[-3:]) <= SHORT_AXIS:
        z, y, x = (_band(size, one).to(image) for size, one in zip(image.shape[-3:], sigmas, strict=True))
        return along_axes(image, z, y, x)
    if image.ndim > 3:
        return torch.stack([gaussian(one, sigmas) for one in image])
    kernels = [_kernel(one).tolist() for one in sigmas]
    radius, *wide = (len(kernel) // 2 for kernel in kernels)
    padded, out = F.pad(image, (0, 0, 0, 0, radius, radius)), torch.empty_like(image)
    step = max(1, SLAB_VOXELS // image[0].numel())
    for start in range(0, len(image), step):
        slab = padded[start : start + step + 2 * radius]
        # For so short a kernel, a sum of shifted copies is faster on a processor than a convolution.
        for axis, padding in ((0, ()), (1, (0, 0, wide[0], wide[0])), (2, (wide[1], wide[1]))):
            slab = F.pad(slab, padding) if padding else slab
            size = slab.shape[axis] - len(kernels[axis]) + 1
            slab = sum(weight * slab.narrow(axis, k, size) for k, weight in enumerate(kernels[axis]))
        out[start : start + step] = slab
    return out


def gaussian_mean(image: Tensor, sigma: float) -> Tensor:
    """Means of ``(z, y, x)`` by a Gaussian of `sigma` voxels, over what lies within the image."""
    # The weights that lie within add up to a product of one factor for each axis.
    z, y, x = (_band(size, sigma).sum(1).to(image) for size in image.shape)
    return gaussian(image, sigma) / (z[:, None, None] * (y[:, None] * x))


def along_axes(image: Tensor, z: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """An image ``(..., z, y, x)`` with a matrix applied to its lines along each axis."""
    image = y @ (image @ x.T)
    return (z @ image.flatten(-2)).view(*image.shape[:-3], len(z), *image.shape[-2:])


def dilate(image: Tensor, reach: int = 1) -> Tensor:
    """Takes the maximum of ``(..., z, y, x)`` over the cube of `reach` voxels about each voxel, within the image."""
    for axis in (-1, -2, -3):
        # Axis by axis and shift by shift, this is some twenty times as fast on a processor as a max-pool.
        widest, size = image.clone(), image.shape[axis]
        for shift in range(1, min(reach, size - 1) + 1):
            for to, start in ((shift, 0), (0, shift)):
                part = widest.narrow(axis, to, size - shift)
                torch.maximum(part, image.narrow(axis, start, size - shift), out=part)
        image = widest
    return image


def erode(inside: Tensor) -> Tensor:
    """The least share inside of each voxel and its 26 neighbours."""
    return -dilate(-inside)


def pooled_by(values: Tensor, factors: tuple[int, int, int]) -> Tensor:
    """Means of ``(z, y, x)`` over blocks of (x, y, z) `factors`, each 1 or 2; incomplete blocks are left off."""
    for axis, factor in zip((2, 1, 0), factors, strict=True):
        if factor == 2 and values.shape[axis] > 1:
            even = values.shape[axis] // 2 * 2
            values = values.narrow(axis, 0, even).unflatten(axis, (even // 2, 2))
            values = (values.select(axis + 1, 0) + values.select(axis + 1, 1)) * 0.5
    return values


def inner_slopes(values: Tensor) -> list[Tensor]:
    """Central differences of an image per voxel, along x, y, z, without those of its outermost voxels."""
    inner = (slice(1, -1),) * 3
    found = []
    for axis in (2, 1, 0):
        after, before = ((*inner[:axis], part, *inner[axis + 1 :]) for part in (slice(2, None), slice(None, -2)))
        found.append((values[after] - values[before]).mul_(0.5))
    return found


def sample_linear(
    image: Tensor,
    index: Tensor,
    inside: Tensor | None = None,
    convert: Callable[[Tensor], Tensor] = Tensor.float,
    finite: bool = False,
) -> tuple[Tensor, Tensor]:
    """Interpolates an image trilinearly at continuous indices.

    The eight neighbours of each point are gathered, so that an image of integers is never converted as a whole. A float
    image that is known to be finite mostly goes to `sample_channels`.

    Args:
        image: ``(z, y, x)``, any dtype that can be indexed.
        index: ``(n, 3)`` float, continuous indices in the order (x, y, z).
        inside: ``(z, y, x)`` share of each voxel in the field of view, or None where all of it is.
        convert: what turns gathered values into float32; NaN marks what is outside.
        finite: the image is known to hold no NaN, which saves the search for it.

    Returns:
        ``(n,)`` float32 values: the weighted mean of the neighbours that are inside, 0 where none is. And ``(n,)``
        float32, the interpolated share inside, 0 off the grid.
    """
    # With shares inside, or of integers, that path takes a pass through the whole image first.
    ready = image.dtype == torch.float32 and inside is None
    if finite and (ready or is_worth_a_pass(image, index)):
        values = convert(image)
        return sample_channels(values[None] if inside is None else weighted(values, inside), index)
    if len(index) > MOST_POINTS:
        parts = [sample_linear(image, part, inside, convert, finite) for part in index.split(MOST_POINTS)]
        values, shares = (torch.cat(part) for part in zip(*parts, strict=True))
        return values, shares
    at, beyond, on_grid = _cells(image.shape, index)
    values = convert(_looked_up(image, at))
    if finite and inside is None:
        return _between(values, beyond) * on_grid, on_grid.float()
    weight = values.isfinite().float()
    values = values.nan_to_num(0.0)
    if inside is not None:
        weight = weight * _looked_up(inside, at)
    share = _between(weight, beyond)
    return _between(values * weight, beyond) / share.clamp(min=1e-6) * on_grid, share * on_grid


def _cells(shape: Sequence[int], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cells of eight voxels that points ``(n, 3)`` (x, y, z) lie in.

    Returns:
        ``(8, n)`` the voxels, counted in memory order, z slowest; ``(3, n)`` how far points lie beyond the first of
        them along x, y, z, 0 to 1; and ``(n,)`` which points lie on the grid: it reaches half a voxel beyond the
        outermost centres.
    """
    depth, height, width = shape
    last = index.new_tensor((width - 1, height - 1, depth - 1))[:, None]
    lines = index.T
    x, y, z = (lines - last / 2).abs() <= (last + 1) / 2
    # A place that is not known counts as 0.
    clamped = lines.where(lines > 0, 0.0).minimum(last)
    low = clamped.floor().minimum((last - 1).clamp(min=0))
    # Of 32 bits they are looked up in a third of the time.
    whole = low.int() if depth * height * width < 1 << 31 else low.long()
    first = (whole[2] * height + whole[1]) * width + whole[0]
    steps = (height * width * int(depth > 1), width * int(height > 1), int(width > 1))
    offsets = [dz + dy + dx for dz in (0, steps[0]) for dy in (0, steps[1]) for dx in (0, steps[2])]
    return first + whole.new_tensor(offsets)[:, None], clamped - low, x & y & z


def _looked_up(image: Tensor, at: Tensor) -> Tensor:
    """The voxels ``at``, of any shape, counted in memory order."""
    return image.reshape(-1).index_select(0, at.view(-1)).view(at.shape)


def _kernel(sigma: float) -> Tensor:
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    return kernel / kernel.sum()


@lru_cache(maxsize=64)
def _band(size: int, sigma: float) -> Tensor:
    """The symmetric ``(size, size)`` matrix that smooths a line it is multiplied with.

    It is exactly 0 beyond the kernel: denormal numbers would slow a processor down a hundredfold.
    """
    kernel = _kernel(sigma)
    offset = torch.arange(size)[:, None] - torch.arange(size) + len(kernel) // 2
    within = (offset >= 0) & (offset < len(kernel))
    return (kernel[offset.clamp(0, len(kernel) - 1)] * within).float()


def is_worth_a_pass(image: Tensor, index: Tensor) -> bool:
    """Whether points ``(n, 3)`` are so many that a pass through the whole image saves time."""
    return 8 * len(index) > image.numel()


def weighted(image: Tensor, inside: Tensor) -> Tensor:
    """The channels ``(2, z, y, x)`` of `sample_channels`: an image times its share in the field of view, and that."""
    return torch.stack((image * inside, inside.to(image.dtype)))


def _within(away: Tensor, reach: Tensor | float) -> Tensor:
    """``(n,)`` whether no coordinate of points ``(n, 3)`` is larger than `reach`, to either side."""
    # Over columns, which takes a third of a reduction's time.
    x, y, z = (away.abs() <= reach).unbind(-1)
    return x & y & z


def sample_channels(channels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """`sample_linear` of a float32 image ``(1, z, y, x)``, all inside, or of `weighted` ones; nothing in them is NaN.

    By torch's `grid_sample`, but for one thread of a CPU: there looking up eight voxels takes two thirds of the time.
    """
    threads = torch.get_num_threads()
    if channels.device.type == "cpu" and (threads == 1 or len(index) <= SMALL):
        parts = [_sampled(channels, part) for part in index.split(SMALL)]
        values, shares = parts[0] if len(parts) == 1 else (torch.cat(part) for part in zip(*parts, strict=True))
        return values, shares
    scale = 2 / index.new_tensor(channels.shape[:0:-1])
    at = torch.addcmul(scale / 2 - 1, index, scale)
    on_grid = _within(at, 1.0)
    # The processor's threads share the points of different batches only.
    parts = min(threads, len(index) // LEAST_PART) if channels.device.type == "cpu" else 1
    if parts > 1:
        at = F.pad(at, (0, 0, 0, -len(index) % parts)).view(parts, 1, 1, -1, 3)
        batch = channels.expand(parts, *channels.shape)
        found = F.grid_sample(batch, at, padding_mode="border", align_corners=False)
        found = found[:, :, 0, 0].transpose(0, 1).flatten(1)[:, : len(index)]
    else:
        found = F.grid_sample(channels[None], at[None, None, None], padding_mode="border", align_corners=False)
        found = found[0, :, 0, 0]
    if len(channels) == 1:
        return found[0] * on_grid, on_grid.float()
    return found[0] / found[1].clamp(min=1e-6) * on_grid, found[1] * on_grid


def _sampled(channels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    at, beyond, on_grid = _cells(channels.shape[1:], index)
    values, *share = (_between(_looked_up(channel, at), beyond) for channel in channels)
    if not share:
        return values * on_grid, on_grid.float()
    return values / share[0].clamp(min=1e-6) * on_grid, share[0] * on_grid


def sample_lines(
    image: Tensor, to_index: Tensor, shape: Sequence[int], inside: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`sample_linear` of a finite float32 image at all voxels of a grid along its own axes, one axis after the other.

    Args:
        image: ``(z, y, x)``.
        to_index: ``(4, 4)`` float64, index of the grid to that of the image: a diagonal one, and a translation.
        shape: of the grid, (z, y, x).
        inside: as there.

    Returns:
        values, and shares inside, of that shape.
    """
    lines, on_grid = [], []
    for number, size, count in zip((2, 1, 0), image.shape, shape, strict=True):
        at = torch.arange(count, dtype=torch.float64) * to_index[number, number] + to_index[number, 3]
        away = at.clamp(0, size - 1)[:, None] - torch.arange(size, dtype=torch.float64)
        lines.append((1 - away.abs()).clamp(min=0).to(image))
        on_grid.append(((at >= -0.5) & (at <= size - 0.5)).to(image.device))
    z, y, x = lines
    values = along_axes(image[None] if inside is None else weighted(image, inside), z, y, x)
    z, y, x = on_grid
    there = z[:, None, None] & y[:, None] & x
    if inside is None:
        return values[0] * there, there.float()
    return values[0] / values[1].clamp(min=1e-6) * there, values[1] * there


def _between(corners: Tensor, beyond: Tensor) -> Tensor:
    """Interpolates in cells of ``(8, n)`` corners, z slowest, at ``(3, n)`` fractions x, y, z."""
    for axis in (2, 1, 0):
        low, high = corners.chunk(2)
        corners = torch.lerp(low, high, beyond[axis])
    return corners[0]


def grid_index(shape: Sequence[int], to_index: Tensor) -> Tensor:
    """``(z, y, x, 3)`` where the voxels of a grid of a `shape` (z, y, x) lie, as indices (x, y, z) of another.

    Args:
        shape: of the grid.
        to_index: ``(4, 4)`` float64, index of the one to that of the other; or to the world.
    """
    depth, height, width = shape
    axes = [torch.arange(n, dtype=torch.float64)[:, None] for n in (width, height, depth)]
    x, y, z = (axis * to_index[:3, column] for column, axis in enumerate(axes))
    return (z + to_index[:3, 3])[:, None, None] + y[:, None] + x
