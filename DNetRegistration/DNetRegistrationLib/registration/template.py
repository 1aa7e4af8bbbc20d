"""Templates: points of a scan at the edges of its bone, with their values and gradients, at any resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from torch import Tensor

from ..bone.images import BoneImage, NativeScan
from ..imaging.tensors import SLAB_VOXELS, erode, inner_slopes

# No template has more voxels of an image at the working spacing.
MOST_EDGES = 1 << 17
# Fewer edge voxels than this do not fix a pose.
LEAST_EDGES = 27


@dataclass(frozen=True)
class Template:
    """Points of one scan at the edges of its bone.

    Attributes:
        index: ``(n, 3)`` float32 voxel indices (x, y, z).
        affine: ``(4, 4)`` float64, index to world LPS mm.
        values: ``(n,)`` bone values.
        gradient: ``(n, 3)`` their gradient per mm, along world x, y, z.
        center: ``(3,)`` float64 world centroid of the points, about which rotations are taken.
        radius: root mean square distance of the points from it, in mm; of a single point half a voxel, since rotations
            are measured by it.
    """

    index: Tensor
    affine: np.ndarray
    values: Tensor
    gradient: Tensor
    center: np.ndarray
    radius: float

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` voxel size along x, y, z in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def local(self) -> Tensor:
        """``(n, 3)`` positions relative to `center`, in mm."""
        linear = torch.tensor(self.affine[:3, :3], dtype=torch.float32, device=self.index.device)
        offset = torch.as_tensor(self.affine[:3, 3] - self.center, dtype=torch.float32, device=self.index.device)
        return torch.addmm(offset[:, None], linear, self.index.T).T


def edge_template(image: BoneImage, count: int, check: Callable[[], None] = lambda: None) -> Template:
    """The template of the `count` voxels (`MOST_EDGES` at most) of steepest bone value, away from the border of the
    field of view.

    `check` is called between slabs; an exception from it ends the work.
    """
    # Checks of one pose after another ask for the same one.
    return image.kept(("template", count), lambda: _steepest(image, count, check))


def _steepest(image: BoneImage, count: int, check: Callable[[], None]) -> Template:
    at, strength = _edges(image, check)
    check()
    chosen = at[strength.topk(min(count, len(at)), sorted=False).indices].sort().values
    values = image.values
    _, height, width = values.shape
    to_world = torch.as_tensor(np.linalg.inv(image.affine[:3, :3]), dtype=torch.float32, device=values.device)
    flat = values.reshape(-1)
    strides = (1, width, width * height)
    gradient = torch.stack([(flat[chosen + s] - flat[chosen - s]) / 2 for s in strides], dim=-1) @ to_world
    return make_template(index_of(chosen, values.shape).float(), image.affine, flat[chosen], gradient)


def shows_edges(image: BoneImage) -> bool:
    """Whether an image shows enough edges of bone to fix a pose."""
    return len(_edges(image, lambda: None)[0]) >= LEAST_EDGES


def _edges(image: BoneImage, check: Callable[[], None]) -> tuple[Tensor, Tensor]:
    """The steepest voxels ``(n,)``, counted in memory order, and how steep they are: `MOST_EDGES` or fewer.

    They are kept with the image, since each of its templates is made of some of them.
    """
    return image.kept("edges", lambda: _found_edges(image, check))


def _found_edges(image: BoneImage, check: Callable[[], None]) -> tuple[Tensor, Tensor]:
    values = image.values
    depth, height, width = values.shape
    to_world = np.linalg.inv(image.affine[:3, :3])
    # The square of a gradient in the world, as a form of the one along the axes of the grid.
    form = to_world @ to_world.T
    strength = torch.zeros_like(values)
    step = max(1, SLAB_VOXELS // (height * width))
    for start in range(1, depth - 1, step):
        check()
        stop = min(start + step, depth - 1)
        slopes = inner_slopes(values[start - 1 : stop + 1])
        inner = torch.zeros_like(slopes[0])
        for first, second in combinations_with_replacement(range(3), 2):
            if abs(factor := form[first, second] * (1 if first == second else 2)) > 1e-9 * form.trace():
                inner.addcmul_(slopes[first], slopes[second], value=float(factor))
        inner = inner.clamp_(min=0).sqrt_()
        if image.inside is not None:
            inner = inner * (erode(image.inside[start - 1 : stop + 1])[1:-1, 1:-1, 1:-1] > 0.999)
        strength[start:stop, 1:-1, 1:-1] = inner
    flat = strength.view(-1)
    steep = (flat > 0.05 * flat.max()).nonzero()[:, 0]
    if len(steep) > MOST_EDGES:
        steep = steep[flat[steep].topk(MOST_EDGES, sorted=False).indices].sort().values
    return steep, flat[steep]


def index_of(at: Tensor, shape: torch.Size) -> Tensor:
    """Indices ``(n, 3)`` (x, y, z) of voxels that are counted in the memory order of an image of `shape` (z, y, x)."""
    _, height, width = shape
    return torch.stack((at % width, at // width % height, at // (width * height)), dim=-1)


def make_template(index: Tensor, affine: np.ndarray, values: Tensor, gradient: Tensor) -> Template:
    """A `Template` of points ``(n, 3)`` with their values ``(n,)`` and gradients ``(n, 3)``.

    That of no points is centred on the first voxel: what is measured about it is finite, and nothing.
    """
    mean = index.cpu().double().sum(0).numpy() / max(1, len(index))
    center = affine[:3, :3] @ mean + affine[:3, 3]
    template = Template(index, affine, values, gradient, center, 1.0)
    distance = float((template.local().square().sum() / max(1, len(index))).sqrt())
    radius = max(distance, float(template.spacing.min()) / 2)
    return Template(index, affine, values, gradient, center, radius)


def sample_through(template: Template, image: BoneImage | NativeScan, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """Samples `image` at the template's points, moved by ``(h, 4, 4)`` transforms; see `sample_voxels`."""
    return sample_voxels(template.index, template.affine, image, transforms)


def sample_voxels(
    index: Tensor, affine: np.ndarray, image: BoneImage | NativeScan, transforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Samples `image` at voxels ``(n, 3)`` float32 (x, y, z) of a grid, moved by ``(h, 4, 4)`` world transforms.

    Returns:
        ``(h, n)`` bone values, and ``(h, n)`` the share of each that lies in the field of view.
    """
    maps = torch.from_numpy(np.linalg.inv(image.affine)) @ transforms @ torch.tensor(affine)
    maps = maps.to(torch.float32).to(index.device)
    # One product for all, whose x, y and z are lines of memory: triples take three to ten times as long.
    linear, offset = maps[:, :3, :3].transpose(0, 1).reshape(-1, 3), maps[:, :3, 3].T.reshape(-1, 1)
    index = torch.addmm(offset, linear, index.T).view(3, -1).T
    values, inside = image.sample(index)
    return values.view(len(maps), -1), inside.view(len(maps), -1)


def finer_template(image: BoneImage | NativeScan, coarser: Template, count: int) -> Template:
    """A template of at most `count` voxels of an image that lie within a coarser template's voxels.

    So no image finer than the working spacing is searched as a whole. Of a bone image the steepest voxels are taken,
    of a native scan an even sample, since there noise is as steep as bone.
    """
    factors = torch.as_tensor(np.rint(coarser.spacing / image.spacing)).long().to(coarser.index.device)
    children = torch.cartesian_prod(*(torch.arange(int(f), device=factors.device) for f in factors))
    native = isinstance(image, NativeScan)
    corners = coarser.index.long() * factors
    index = (corners[:, None] + children.view(-1, 3)).view(-1, 3)
    if native:
        # An odd step takes every child in turn, since the number of children is even.
        index = index[:: max(1, len(index) // count) | 1]
    depth, height, width = image.shape
    index = index[((index > 0) & (index < torch.tensor((width, height, depth), device=index.device) - 1)).all(-1)]
    strides = (1, width, width * height)
    at = index @ torch.tensor(strides, device=index.device)
    values, seen = image.read(at)
    gradient = torch.empty(len(at), 3, device=at.device)
    for axis, stride in enumerate(strides):
        after, seen_after = image.read(at + stride)
        before, seen_before = image.read(at - stride)
        gradient[:, axis] = (after - before) / 2
        seen = seen & seen_after & seen_before
    gradient = gradient @ torch.as_tensor(np.linalg.inv(image.affine[:3, :3]), dtype=torch.float32, device=at.device)
    chosen = seen.nonzero()[:, 0]
    if not native and len(chosen) > count:
        chosen = chosen[gradient[chosen].square().sum(-1).topk(count, sorted=False).indices.sort().values]
    return make_template(index[chosen].float(), image.affine, values[chosen], gradient[chosen])
