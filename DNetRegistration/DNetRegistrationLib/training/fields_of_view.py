"""Fields of view of training pairs: how bones are turned in them, where they are cut, and where cubes lie.

Blocks of voxels stand for a bone: they suffice to find where a cut leaves which share of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.constants import CUBE_SIZE, FIELD_OF_VIEW, PAPER_SPACING
from ..synthesis.pairs import SHARED
from .dataset import BoneDataset, quantized

# Half the edge of a field of view, mm.
HALF_VIEW = FIELD_OF_VIEW / 2
# Edge of a block in voxels of the bone's grid; and how many blocks stand for a bone.
_BLOCK, _BLOCKS = 4, 2048


class Drawn(NamedTuple):
    """Random numbers of a batch of `b` pairs, drawn by `pairs.PairSource`; NumPy, and so the same on every device.

    Sides are fixed, moving. What is in mm is relative to the middle of a field of view, along its axes.
    """

    bones: np.ndarray  # (b,) which of the dataset
    contrast: np.ndarray  # (b, 2) bool, which of its two scans
    rotation: np.ndarray  # (b, 3, 3) fixed to moving
    turn: np.ndarray  # (b, 2, 3, 3) from the dataset's frame to each field of view
    jitter: np.ndarray  # (b, 3) mm, where the middle of the bone's grid is in the fixed scan
    shift: np.ndarray  # (b, 3) mm, where the middle of the fixed field of view is in the moving scan
    fraction: np.ndarray  # (b, 2, tries) of the bone that a cut leaves; 1 cuts nothing
    axis: np.ndarray  # (b, 2, tries) across which it cuts
    from_low: np.ndarray  # (b, 2, tries) bool, whether the low side of it stays
    placing: np.ndarray | None  # (b, 2, 3) mm, of the cube off the bone; None places cubes on the field of view
    scale: np.ndarray  # (b, 2) of intensities
    noise_seed: int


class Blocks:
    """Where the bones of a dataset are, in blocks of voxels: the `_BLOCKS` fullest of each scan; the rest is noise.

    Attributes:
        places: ``(n, 2, m, 3)`` float64, centroids of the bone in the blocks, in mm about the middle of the grid.
        counts: ``(n, 2, m)`` int64, bone in the blocks. Whole numbers: their sums do not depend on the order.
    """

    def __init__(self, dataset: BoneDataset, device: torch.device) -> None:
        scans = (scan for pair in zip(dataset.plain, dataset.contrast, strict=True) for scan in pair)
        sums = torch.stack([_block_sums(scan.to(device)) for scan in scans]).unflatten(0, (-1, 2))
        self.counts = sums[..., 0]
        index = sums[..., 1:].double() / self.counts.clamp(min=1)[..., None]
        self.places = (index - (dataset.plain.shape[-1] - 1) / 2) * dataset.spacing


def _block_sums(scan: Tensor) -> Tensor:
    """``(m, 4)`` int64 of the fullest blocks of a scan ``(d, d, d)``: bone, and its moments by index x, y, z."""
    scan = quantized(scan) if scan.is_floating_point() else scan
    z, y, x = (where := scan.nonzero()).unbind(-1)
    blocks = -(-scan.shape[-1] // _BLOCK)
    at = ((z // _BLOCK) * blocks + y // _BLOCK) * blocks + x // _BLOCK
    bone = scan[z, y, x].long()[:, None]
    sums = torch.zeros((max(blocks**3, _BLOCKS), 4), dtype=torch.int64, device=scan.device)
    sums.index_add_(0, at, torch.cat((bone, bone * where.flip(-1)), -1))
    return sums[sums[:, 0].topk(_BLOCKS).indices]


@dataclass(frozen=True)
class Views:
    """Where fields of view end, and where cubes lie. Sides are fixed, moving; everything float64.

    Attributes:
        rotation: ``(b, 3, 3)`` fixed to moving.
        translation: ``(b, 3)`` mm, about the cubes' centres.
        bounds: ``(b, 2, 2, 3)`` mm, the lowest and highest position in the (cut) field of view, about its uncut middle.
        center: ``(b, 2, 3)`` mm, the cubes' centres, likewise.
        to_bone: ``(b, 2, 3, 4)`` mm about a cube's centre to mm about the middle of the bone's grid.
    """

    rotation: Tensor
    translation: Tensor
    bounds: Tensor
    center: Tensor
    to_bone: Tensor

    def inside(self, fields: Tensor | None, reduction: int = 1) -> Tensor:
        """``(b, 2, edge, edge, edge)`` whether voxels of the cubes lie in the field of view.

        Args:
            fields: ``(b, 2, 3, 4)`` `BoneDataset.fields` of the bones, which end the field of view too.
            reduction: by which cubes have fewer voxels along each axis; `edge` is 64 divided by it.
        """
        edge = CUBE_SIZE // reduction
        axis = torch.arange(edge, dtype=torch.float64, device=self.center.device)
        axis = (axis - (edge - 1) / 2) * PAPER_SPACING * reduction
        place = self.center[..., None] + axis
        x, y, z = ((place >= self.bounds[:, :, 0, :, None]) & (place <= self.bounds[:, :, 1, :, None])).unbind(2)
        inside = z[..., :, None, None] & y[..., None, :, None] & x[..., None, None, :]
        if fields is not None:
            fields = fields.to(axis.device)
            turn = fields[..., :3] @ self.to_bone[..., :3]
            shift = moved(fields[..., :3], self.to_bone[..., 3]) + fields[..., 3]
            for row, start in zip(turn.unbind(2), shift.unbind(2), strict=True):
                x, y, z = (row[..., None] * axis).float().unbind(2)
                z = z + start[..., None].float()
                inside &= (z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]).abs() <= 1
        return inside


def find_views(drawn: Drawn, blocks: Blocks) -> Views:
    """Where the fields of view of drawn pairs end, and where their cubes lie."""

    def load(values: np.ndarray) -> Tensor:
        # Some kilobytes, which are copied before this returns: there is no need to wait for the device.
        return torch.from_numpy(values).to(blocks.counts.device, non_blocking=True)

    rotation, turn, jitter, shift = (load(values) for values in (drawn.rotation, drawn.turn, drawn.jitter, drawn.shift))
    bones = load(drawn.bones)
    scan = (bones[:, None], load(drawn.contrast.astype(np.int64)))
    place, counts = blocks.places[scan] @ turn.mT, blocks.counts[scan]
    offset, shift = _in_view(place, counts, torch.stack((jitter, moved(rotation, jitter) + shift), 1), shift)

    place = place + offset[:, :, None]
    counts = counts * _within(place, -HALF_VIEW, HALF_VIEW)
    cuts = _cut(place, counts, load(drawn.fraction), load(drawn.axis), load(drawn.from_low))
    # What both show is counted on the bone without contrast agent.
    bone = blocks.places[bones, :1] @ turn.mT + offset[:, :, None]
    bounds = _first_that_share(cuts, bone, blocks.counts[bones, 0])
    if drawn.placing is None:
        center = torch.zeros_like(offset)
    else:
        left = counts * _within(place, bounds[:, :, None, 0], bounds[:, :, None, 1])
        center = (left[..., None] * place).sum(2) / left.sum(2)[..., None] + load(drawn.placing)
    translation = moved(rotation, center[:, 0]) + shift - center[:, 1]
    to_bone = torch.cat((turn.mT, moved(turn.mT, center - offset)[..., None]), -1)
    return Views(rotation, translation, bounds, center, to_bone)


def _in_view(place: Tensor, counts: Tensor, offset: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of bones ``(b, 2, 3)`` and shifts ``(b, 3)``; both are zero where a field of view would show no bone."""
    seen = (_within(place + offset[:, :, None], -HALF_VIEW, HALF_VIEW) * counts).sum(-1) > 0
    seen = seen.all(1)[:, None].double()
    return offset * seen[..., None], shift * seen


def moved(matrix: Tensor, vector: Tensor) -> Tensor:
    """``(..., 3, 3)`` matrices times ``(..., 3)`` vectors."""
    return (matrix @ vector[..., None])[..., 0]


def _cut(place: Tensor, counts: Tensor, fraction: Tensor, axis: Tensor, from_low: Tensor) -> Tensor:
    """Fields of view cut on one side: bounds ``(b, 2, tries, 2, 3)`` in mm.

    Args:
        place: ``(b, 2, m, 3)`` mm, of blocks of bone.
        counts: ``(b, 2, m)``, of bone in them; 0 out of view.
        fraction: ``(b, 2, tries)`` of the bone to be left; 1 cuts nothing.
        axis: ``(b, 2, tries)``, x, y or z, across which to cut.
        from_low: ``(b, 2, tries)`` whether the low side of it is left.
    """
    along, order = place.mT.contiguous().sort(dim=-1, stable=True)
    total = counts[:, :, None].expand_as(along).gather(-1, order).cumsum(-1)
    which = axis[..., None].expand(-1, -1, -1, along.shape[-1])
    along, total = along.gather(2, which), total.gather(2, which)
    share = torch.where(from_low, fraction, 1 - fraction)
    wanted = (share * total[..., -1]).ceil().long().clamp(min=1)
    edge = along.gather(-1, torch.searchsorted(total, wanted[..., None]))
    cut = (torch.arange(3, device=axis.device) == axis[..., None]) & (fraction < 1)[..., None]
    low = torch.where(cut & ~from_low[..., None], edge, -HALF_VIEW)
    high = torch.where(cut & from_low[..., None], edge, HALF_VIEW)
    return torch.stack((low, high), -2)


def _first_that_share(cuts: Tensor, place: Tensor, counts: Tensor) -> Tensor:
    """The first of the cuts after which both sides share enough, ``(b, 2, 2, 3)``; none at all if no cut does.

    Args:
        cuts: ``(b, 2, tries, 2, 3)`` bounds in mm.
        place: ``(b, 2, m, 3)`` mm, where either side has the same blocks of bone.
        counts: ``(b, m)`` of bone in them.
    """
    shown = _within(place[:, :, None], cuts[..., 0, None, :], cuts[..., 1, None, :])
    each = (shown * counts[:, None, None]).sum(-1).amin(1)
    both = (shown.all(1) * counts[:, None]).sum(-1)
    enough = both >= SHARED * each
    first = enough.int().argmax(-1)[:, None, None, None, None]
    chosen = cuts.gather(2, first.expand(-1, 2, -1, 2, 3))[:, :, 0]
    # Filled there: what is sent to a device waits for it.
    uncut = torch.stack((cuts.new_full((1,), -HALF_VIEW), cuts.new_full((1,), HALF_VIEW)))
    return torch.where(enough.any(-1)[:, None, None, None], chosen, uncut)


def _within(place: Tensor, low, high) -> Tensor:
    return ((place >= low) & (place <= high)).all(-1)
