"""Tokens: a few hundred places on bone, chosen by a rule that turns with the image, each with its description.

A token stands where the difference of two smoothed images is locally strongest: on plates, rods, edges and holes of
bone. The image is turned, and so are the tokens: every step (separable symmetric filters, maxima over cubes of voxels,
the step to a fraction of a voxel, jets) commutes with the 24 rotations of the grid exactly, and nearly with all others.

Beyond the field of view nothing is known: images are smoothed over what lies inside only, and no token stands close to
the border, where it would stand for the cut rather than for bone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.tensors import dilate, gaussian
from .invariants import Jets, count_invariants, invariants

SCALES = (1.0, 1.6, 2.5, 4.0)  # standard deviations in voxels
FINE, COARSE = 1, 3  # the scales whose gradients give a token its two directions
_APART = 2  # tokens of one round lie further apart than this along some axis, in voxels
_ROUNDS = 3
_WEAKEST = 0.004  # difference of bone values below which a maximum is noise
_SEEN = 0.7  # share of what is smoothed over that must lie in the field of view
_FARTHEST = 0.87  # a token moves at most half a voxel's diagonal
_STENCIL = torch.tensor([(x, y, z) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=torch.float32)
_OWN = 5  # numbers of a descriptor that are not invariants of jets

DESCRIPTOR = count_invariants(len(SCALES)) + _OWN


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch of cubes; where a cube has fewer than others, the rest is zeros and not `valid`.

    Attributes:
        positions: ``(b, n, 3)`` float32 in voxels, (x, y, z), from the cube's centre.
        directions: ``(b, n, 2, 3)`` unit vectors along the gradients at a fine and at a coarse scale.
        descriptors: ``(b, n, DESCRIPTOR)`` rotation-invariant numbers.
        valid: ``(b, n)`` bool.
    """

    positions: Tensor
    directions: Tensor
    descriptors: Tensor
    valid: Tensor


@torch.no_grad()
def find_tokens(images: Tensor, inside: Tensor, count: int) -> Tokens:
    """The tokens of canonical cubes, the strongest first.

    Args:
        images: ``(b, n, n, n)`` float32 bone values, [z, y, x].
        inside: ``(b, n, n, n)`` float32 share of each voxel in the field of view.
        count: at most so many a cube.
    """
    seen = (inside > 0.5).to(images.dtype)
    shares = [gaussian(seen, scale) for scale in SCALES]
    smoothed = [
        gaussian(images * seen, scale) / share.clamp(min=0.02) for scale, share in zip(SCALES, shares, strict=True)
    ]
    difference = smoothed[0] - smoothed[1]
    strength = difference.abs() * ((shares[1] > _SEEN) & (seen > 0))
    maxima = _spread_maxima(strength)
    found = []
    for cube in range(len(images)):
        index = maxima[cube].nonzero()
        chosen = strength[cube][tuple(index.T)].topk(min(count, len(index))).indices
        found.append(_describe(difference[cube], [image[cube] for image in smoothed], index[chosen]))
    longest = max(len(positions) for positions, _, _ in found)
    padded = [
        torch.stack([F.pad(part, (0, 0) * (part.ndim - 1) + (0, longest - len(part))) for part in parts])
        for parts in zip(*found, strict=True)
    ]
    number = torch.tensor([len(positions) for positions, _, _ in found], device=images.device)
    valid = torch.arange(longest, device=images.device) < number[:, None]
    return Tokens(*padded, valid)


def _describe(difference: Tensor, smoothed: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, directions and descriptors of tokens at voxels ``(n, 3)`` [z, y, x] of one cube."""
    whole = index.flip(-1).to(difference.dtype)
    jet = _jets([difference], whole, [1.0], [1.0])
    value, gradient, hessian = jet.values[:, 0], jet.gradients[:, 0], jet.hessians[:, 0]
    # Newton's step to the extremum, damped: along an edge or a plate there is no extremum to go to.
    size = hessian.square().sum((-2, -1))
    damped = hessian.mT @ hessian + (0.02 * size + 1e-12)[:, None, None] * torch.eye(3, device=hessian.device)
    step = -torch.linalg.solve(damped, hessian.mT @ gradient[..., None])[..., 0]
    step = step * (_FARTHEST / step.norm(dim=-1, keepdim=True).clamp(min=_FARTHEST))
    places = whole + step
    # A wider stencil at wider scales: differences of neighbours would be small numbers there.
    jets = _jets(smoothed, places, list(SCALES), [1.0 if scale < 2 else 2.0 for scale in SCALES])
    # How sharply the extremum is bent, against its height: blob, rod or plate.
    height = value.abs() + 0.003
    trace = hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    volume = (torch.linalg.cross(hessian[:, 0], hessian[:, 1]) * hessian[:, 2]).sum(-1)
    own = (
        value.sign(), value.abs().sqrt(), trace / height, size.sqrt() / height,
        volume.sign() * volume.abs() ** (1 / 3) / height,
    )  # fmt: skip
    descriptors = torch.cat((invariants(jets), torch.stack(own, -1)), -1)
    directions = F.normalize(jets.gradients[:, [FINE, COARSE]], dim=-1, eps=1e-6)
    return places - (difference.shape[-1] - 1) / 2, directions, descriptors


def _jets(images: list[Tensor], places: Tensor, scales: list[float], reaches: list[float]) -> Jets:
    """Jets of ``(z, y, x)`` images at ``(n, 3)`` continuous (x, y, z) indices, by differences over `reaches` voxels."""
    values, gradients, hessians = [], [], []
    stencil = _STENCIL.to(places)
    for image, scale, reach in zip(images, scales, reaches, strict=True):
        at = (places[:, None] + reach * stencil + 0.5) * (2 / places.new_tensor(image.shape[::-1])) - 1
        near = F.grid_sample(image[None, None], at[None, None], padding_mode="border", align_corners=False)
        near = near.view(len(places), 3, 3, 3)  # [:, z, y, x]
        middle, unit = near[:, 1, 1, 1], scale / reach
        lines = near[:, 1, 1], near[:, 1, :, 1], near[:, :, 1, 1]  # along x, y, z
        xy, xz, yz = (
            (plane[:, 2, 2] + plane[:, 0, 0] - plane[:, 2, 0] - plane[:, 0, 2]) / 4
            for plane in (near[:, 1], near[:, :, 1], near[:, :, :, 1])
        )
        xx, yy, zz = (line[:, 0] + line[:, 2] - 2 * middle for line in lines)
        values.append(middle)
        gradients.append(torch.stack([line[:, 2] - line[:, 0] for line in lines], -1) * (unit / 2))
        hessians.append(torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), -1).unflatten(-1, (3, 3)) * unit**2)
    return Jets(torch.stack(values, 1), torch.stack(gradients, 1), torch.stack(hessians, 1))


def _spread_maxima(strength: Tensor) -> Tensor:
    """Local maxima, then those of what lies away from them, and so on: bool, well spread over all bone."""
    left = torch.where(strength > _WEAKEST, strength, 0.0)
    # Derivatives need neighbours.
    left = F.pad(left[:, 1:-1, 1:-1, 1:-1], (1,) * 6)
    chosen = torch.zeros_like(left, dtype=torch.bool)
    for _ in range(_ROUNDS):
        maxima = (left == dilate(left, _APART)) & (left > 0)
        chosen |= maxima
        left = left * (dilate(maxima.to(left.dtype), _APART) == 0)
    return chosen
