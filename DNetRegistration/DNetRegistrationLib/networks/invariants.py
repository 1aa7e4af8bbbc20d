"""Numbers that describe a place in an image and do not change when the image is turned.

At a few scales the image has a value, a gradient and a Hessian there (its jet); what is made of them here are dot
products, traces and determinants, within a scale and across scales: polynomials that every rotation leaves as they are.
Some are determinants of three vectors, which a mirror image turns into their negative: they tell a bone from its mirror
image (parity-odd), as no distance and no angle can. See Florack et al., "Scale and the differential structure of
images" (Image and Vision Computing 1992) for such invariants.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


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
    """How many numbers `invariants` makes of jets of so many scales."""
    zeros = torch.zeros(1, scales, 3)
    return invariants(Jets(zeros[..., 0], zeros, torch.zeros(1, scales, 3, 3))).shape[-1]


def invariants(jets: Jets) -> Tensor:
    """``(n, f)`` rotation-invariant numbers, each brought to the units of an image value by a signed root."""
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
