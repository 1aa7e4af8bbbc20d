"""Keypoints: a few hundred places on bone, found by a rule that turns with the image, with their descriptors.

A keypoint stands where the difference of two smoothed images is locally strongest: on plates, rods, edges and holes of
bone. The keypoints turn with the image: every step (separable symmetric filters, maxima over cubes of voxels, the step
to a fraction of a voxel, jets) commutes with the 24 rotations of the grid exactly, and nearly with all others.

Nothing is known beyond the field of view: images are smoothed over what lies inside only, and no keypoint stands
close to the border, where it would stand for the cut rather than for bone.

A descriptor consists of numbers that do not change when the image is turned. At a few scales the image has a value, a
gradient and a Hessian at a place (its jet); dot products, traces and determinants of these, within a scale and across
scales, are polynomials that no rotation changes. Some are determinants of three vectors, of which a mirror image
changes the sign: they tell a bone from its mirror image (parity-odd), as no distance and no angle can. See Florack et
al., "Scale and the differential structure of images" (Image and Vision Computing 1992) for such invariants.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..imaging.tensors import dilate, gaussian

SCALES = (1.0, 1.6, 2.5, 4.0)  # standard deviations in voxels
_FINE, _COARSE = 1, 3  # the scales whose gradients give a keypoint its two directions
_APART = 2  # keypoints of one round lie further apart than this along some axis, in voxels
_ROUNDS = 3
_WEAKEST = 0.004  # difference of bone values below which a maximum is noise
_SEEN = 0.7  # share of what is smoothed over that must lie in the field of view
_FARTHEST = 0.87  # a keypoint moves at most half a voxel's diagonal
_STENCIL = torch.tensor([(x, y, z) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=torch.float32)
_OWN = 5  # numbers of a descriptor that are not invariants of its jets


@dataclass(frozen=True)
class Jets:
    """Derivatives at ``n`` places and ``s`` scales, each multiplied by its scale to the power of its order.

    Attributes:
        values: ``(n, s)``.
        gradients: ``(n, s, 3)``, (x, y, z).
        hessians: ``(n, s, 3, 3)``.
    """

    values: Tensor
    gradients: Tensor
    hessians: Tensor


def count_invariants(scales: int) -> int:
    """How many invariants jets of so many scales have."""
    zeros = torch.zeros(1, scales, 3)
    return invariants(Jets(zeros[..., 0], zeros, torch.zeros(1, scales, 3, 3))).shape[-1]


def invariants(jets: Jets) -> Tensor:
    """``(n, f)`` rotation-invariant numbers of jets, each in the units of an image value by a signed root."""
    gradients, hessians = jets.gradients, jets.hessians
    scales = range(gradients.shape[1])
    steps = range(gradients.shape[1] - 1)  # from a scale to the next
    # [.., t, s] is H_t g_s
    turned = torch.einsum("ntij,nsj->ntsi", hessians, gradients)
    along = torch.einsum("nui,ntsi->nuts", gradients, turned)
    gradient_products = gradients @ gradients.mT
    hessian_products = torch.einsum("nsij,ntij->nst", hessians, hessians)

    found = [jets.values, hessians.diagonal(dim1=-2, dim2=-1).sum(-1), _root(_determinant(hessians), 3)]
    first, second = torch.triu_indices(len(scales), len(scales))
    found += [_root(gradient_products[:, first, second], 2), _root(hessian_products[:, first, second], 2)]
    found += [_root(along[:, s, :, s], 3) for s in scales]
    found += [_root(along[:, s, :, s + 1], 3) for s in steps]

    odd = []
    for a, b, c in combinations(scales, 3):
        odd.append(_root(_triple(gradients[:, a], gradients[:, b], gradients[:, c]), 3))
    for s in scales:
        twice = (hessians[:, s] @ turned[:, s, s, :, None])[..., 0]
        odd.append(_root(_triple(gradients[:, s], turned[:, s, s], twice), 6))
    for s in steps:
        finer, coarser = gradients[:, s], gradients[:, s + 1]
        odd.append(_root(_triple(finer, turned[:, s, s], coarser), 4))
        odd.append(_root(_triple(finer, coarser, turned[:, s + 1, s + 1]), 4))
        odd.append(_root(_triple(coarser, turned[:, s, s + 1], turned[:, s + 1, s]), 5))
    return torch.cat((*found, torch.stack(odd, -1)), -1)


def _triple(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Determinant of three ``(n, 3)`` vectors."""
    return (torch.linalg.cross(first, second) * third).sum(-1)


def _determinant(matrices: Tensor) -> Tensor:
    """Of ``(..., 3, 3)``: much faster than the general one."""
    return _triple(*matrices.unbind(-2))


def _root(values: Tensor, degree: int) -> Tensor:
    """Signed root. Its slope at zero is infinite: no gradient is to pass here."""
    return values.sign() * values.abs() ** (1 / degree)


DESCRIPTOR = count_invariants(len(SCALES)) + _OWN


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of a batch of cubes; where a cube has fewer than others, the rest is zeros and not `valid`.

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
def find_keypoints(images: Tensor, inside: Tensor, count: int) -> Keypoints:
    """The keypoints of canonical cubes, the strongest first.

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
    positions, directions, descriptors = (
        torch.stack([F.pad(part, (0, 0) * (part.ndim - 1) + (0, longest - len(part))) for part in parts])
        for parts in zip(*found, strict=True)
    )
    number = torch.tensor([len(positions) for positions, _, _ in found], device=images.device)
    valid = torch.arange(longest, device=images.device) < number[:, None]
    return Keypoints(positions, directions, descriptors, valid)


def _describe(difference: Tensor, smoothed: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, directions and descriptors of keypoints at voxels ``(n, 3)`` [z, y, x] of one cube."""
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
    volume = _root(_determinant(hessian), 3)
    own = (value.sign(), value.abs().sqrt(), trace / height, size.sqrt() / height, volume / height)
    descriptors = torch.cat((invariants(jets), torch.stack(own, -1)), -1)
    directions = F.normalize(jets.gradients[:, [_FINE, _COARSE]], dim=-1, eps=1e-6)
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
        left = left.masked_fill(dilate(maxima.byte(), _APART) > 0, 0.0)
    return chosen
