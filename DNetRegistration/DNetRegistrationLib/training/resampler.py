"""Bones of a dataset on cubes: turned and moved, trilinear, straight from the bone's grid."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.constants import CUBE_SIZE, PAPER_SPACING
from .dataset import BoneDataset

# Cubes resampled at a time on a GPU.
_CUBES = 32


def reduced(dataset: BoneDataset, factor: int) -> BoneDataset:
    """The bones with voxels about `factor` times as large, which are means; the same dataset at 1."""
    if factor == 1:
        return dataset
    size = round(dataset.plain.shape[-1] / factor)

    def coarser(scans: Tensor) -> Tensor:
        found = torch.empty((len(scans), size, size, size), dtype=scans.dtype, device=scans.device)
        for scan, out in zip(scans, found, strict=True):
            means = F.interpolate(scan[None, None].float(), size=size, mode="area")[0, 0]
            out.copy_(means if scans.is_floating_point() else means.round_())
        return found

    spacing = dataset.spacing * dataset.plain.shape[-1] / size
    return replace(dataset, plain=coarser(dataset.plain), contrast=coarser(dataset.contrast), spacing=spacing)


class Resampler:
    """Resamples bones of a dataset to cubes of 64^3 voxels of 0.08 mm.

    Args:
        dataset: the bones.
        reduction: by which a cube has fewer voxels along each axis, as much larger.
    """

    def __init__(self, dataset: BoneDataset, reduction: int = 1) -> None:
        self.dataset = dataset = reduced(dataset, reduction)
        self.edge, self.cube_spacing = CUBE_SIZE // reduction, PAPER_SPACING * reduction
        self.size, self.spacing = dataset.plain.shape[-1], dataset.spacing
        # Edge of blocks of the bone's grid, in voxels. A block of 2^3 voxels of a cube is made of voxels in the block
        # of the grid that its middle is in, or in one next to it.
        self._block = math.ceil(self.cube_spacing * math.sqrt(3) / 2 / dataset.spacing + math.sqrt(3))
        self._near: dict[tuple[int, bool], Tensor] = {}

    def __call__(self, scans: list[tuple[int, bool]], to_bone: Tensor, inside: Tensor) -> Tensor:
        """Bone values ``(m, edge, edge, edge)`` float32; 0 outside.

        Args:
            scans: which bones, and whether with contrast agent.
            to_bone: ``(m, 3, 4)`` float64, mm about a cube's middle to mm about the middle of the bone's grid.
            inside: ``(m, edge, edge, edge)`` bool, where values are wanted.
        """
        resampled = self._where_bone_is if self.dataset.device.type == "cpu" else self._everywhere
        return resampled(scans, to_bone.float().to(self.dataset.device), inside).mul_(self.dataset.unit)

    def _scan(self, number: int, contrast: bool) -> Tensor:
        return (self.dataset.contrast if contrast else self.dataset.plain)[number]

    @property
    def _unit(self) -> float:
        """Takes mm to the coordinates of `grid_sample`, -1 to 1."""
        return 2 / (self.spacing * (self.size - 1))

    def _everywhere(self, scans: list[tuple[int, bool]], to_bone: Tensor, inside: Tensor) -> Tensor:
        images = torch.empty(inside.shape, device=inside.device)
        for start in range(0, len(scans), _CUBES):
            part = slice(start, start + _CUBES)
            theta = to_bone[part] * self._unit
            theta[..., :3] *= self.cube_spacing * (self.edge - 1) / 2
            grid = F.affine_grid(theta, [len(theta), 1, *inside.shape[1:]], align_corners=True)
            values = torch.stack([self._scan(*scan) for scan in scans[part]])[:, None].float()
            images[part] = F.grid_sample(values, grid, align_corners=True)[:, 0]
        return images.mul_(inside)

    def _where_bone_is(self, scans: list[tuple[int, bool]], to_bone: Tensor, inside: Tensor) -> Tensor:
        """The same from a tenth of the cubes' voxels; a GPU would have to wait for their number."""
        images = torch.zeros((len(scans), self.edge**3))
        voxels, places = self._cube_blocks
        blocks, middles = -(-self.size // self._block), places.mean(1)
        for image, scan, matrix, seen in zip(images, scans, to_bone, inside.flatten(1), strict=True):
            turn, shift = matrix[:, :3].T, matrix[:, 3]
            # Voxel centres are whole numbers; a block begins half a voxel before its first.
            index = (middles @ turn + shift) / self.spacing + self.size / 2
            at = (index / self._block).floor_().long()
            on_grid = ((at >= 0) & (at < blocks)).all(-1)
            x, y, z = at.clamp_(0, blocks - 1).unbind(-1)
            found = (self._near_bone(scan)[(z * blocks + y) * blocks + x] & on_grid).nonzero()[:, 0]
            here = voxels[found].flatten()
            wanted = seen[here]
            grid = (places[found].flatten(0, 1)[wanted] @ turn + shift) * self._unit
            values = self._scan(*scan)[None, None].float()
            image[here[wanted]] = F.grid_sample(values, grid[None, None, None], align_corners=True).flatten()
        return images.view(inside.shape)

    @cached_property
    def _cube_blocks(self) -> tuple[Tensor, Tensor]:
        """A cube's voxels in blocks of 2^3: ``(n, 8)`` counted in memory order, ``(n, 8, 3)`` places in mm."""
        half = self.edge // 2
        axis = (torch.arange(self.edge) - (self.edge - 1) / 2) * self.cube_spacing
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1], -1).view(-1, 3)
        voxels = torch.arange(self.edge**3).view(half, 2, half, 2, half, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8)
        return voxels, places[voxels]

    def _near_bone(self, scan: tuple[int, bool]) -> Tensor:
        """Flat over the blocks of the bone's grid: whether the block or one next to it holds any bone."""
        if scan not in self._near:
            blocks = -(-self.size // self._block)
            holds = torch.zeros((blocks,) * 3)
            holds[tuple((self._scan(*scan).nonzero() // self._block).unbind(-1))] = 1
            self._near[scan] = F.max_pool3d(holds[None], 3, stride=1, padding=1).bool().flatten()
        return self._near[scan]
