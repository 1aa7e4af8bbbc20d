"""Rotations and rigid transforms as torch tensors.

A rigid transform is a ``(..., 4, 4)`` matrix that acts on column vectors of world coordinates (LPS, mm). The functions
keep batch dimensions, dtype and device, and are differentiable (`nearest_rotation` only where singular values differ).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rotation_from_6d(parameters: Tensor) -> Tensor:
    """Rotations ``(..., 3, 3)`` of six or more numbers ``(..., >= 6)``, by Gram-Schmidt (Eq. 1); the rest is unused.

    The first three numbers give the first column, the next three the second, and the third column is their cross
    product (the determinant of Eq. 1). Where the two are zero or parallel, other axes are taken, so that the result is
    a rotation and its gradient finite. At zero that gradient is zero: a network's last layer must not start there.

    Source: Eq. 1; Zhou et al., On the continuity of rotation representations in neural networks, CVPR 2019.
    """
    first, second = parameters[..., :3], parameters[..., 3:6]
    # Scaled by the largest entry, so that the squares of tiny and huge numbers stay in range.
    first, second = _scaled(first), _scaled(second)
    x = _unit(first, fallback=torch.eye(3, dtype=first.dtype, device=first.device)[0].expand_as(first))
    rest = second - (x * second).sum(-1, keepdim=True) * x
    # A second pass removes the part of x that rounding leaves when the two are nearly parallel.
    rest = rest - (x * rest).sum(-1, keepdim=True) * x
    y = _unit(rest, fallback=_perpendicular(x), tolerance=1e-5 if rest.dtype != torch.float64 else 1e-12)
    return torch.stack((x, y, torch.linalg.cross(x, y)), dim=-1)


def _scaled(vector: Tensor) -> Tensor:
    size = vector.detach().abs().amax(-1, keepdim=True)
    # The gradient grows as the reciprocal of the size. Where that would overflow, there is none.
    vector = torch.where(size > torch.finfo(size.dtype).tiny ** 0.5, vector, vector.detach())
    return vector / torch.where(size > 0, size, torch.ones_like(size))


def _unit(vector: Tensor, fallback: Tensor, tolerance: float = 0.0) -> Tensor:
    squared = (vector * vector).sum(-1, keepdim=True)
    usable = squared > tolerance**2
    # `where` on the input too: the gradient of an unused branch must not be NaN.
    safe = torch.where(usable, squared, torch.ones_like(squared))
    return torch.where(usable, vector * safe.rsqrt(), fallback)


def _perpendicular(unit: Tensor) -> Tensor:
    """A unit vector at right angles to each of ``(..., 3)`` unit vectors."""
    axis = torch.nn.functional.one_hot(unit.detach().abs().argmin(-1), 3).to(unit)
    other = torch.linalg.cross(unit.detach(), axis)
    return other / other.norm(dim=-1, keepdim=True)


def rotation_from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations ``(..., 3, 3)`` about axes ``(..., 3)`` of any length but zero, by angles ``(...)`` in radians."""
    x, y, z = (axis / axis.norm(dim=-1, keepdim=True)).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    sine, versine = angle.sin()[..., None, None], (1 - angle.cos())[..., None, None]
    return torch.eye(3, dtype=x.dtype, device=x.device) + sine * cross + versine * (cross @ cross)


def random_rotations(
    count: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Tensor:
    """``(count, 3, 3)`` rotations, uniform on SO(3) (Haar measure): unit quaternions from a normal distribution."""
    return rotation_from_quaternion(torch.randn(count, 4, generator=generator, dtype=dtype))


def rotation_from_quaternion(quaternion: Tensor) -> Tensor:
    """Rotations ``(..., 3, 3)`` from quaternions ``(..., 4)`` (w, x, y, z) of any length but zero."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack(
        (
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ),
        dim=-1,
    ).unflatten(-1, (3, 3))  # fmt: skip


def spiral_rotations(count: int) -> Tensor:
    """``(count, 3, 3)`` float64 rotations spread evenly over SO(3) by the super-Fibonacci spiral (Alexa, CVPR 2022)."""
    phi, psi = math.sqrt(2.0), 1.533751168755204288118041413
    s = torch.arange(count, dtype=torch.float64) + 0.5
    outer, inner = (s / count).sqrt(), (1 - s / count).sqrt()
    alpha, beta = 2 * math.pi * s / phi, 2 * math.pi * s / psi
    quaternion = torch.stack((outer * alpha.sin(), outer * alpha.cos(), inner * beta.sin(), inner * beta.cos()), dim=-1)
    return rotation_from_quaternion(quaternion)


def geodesic_angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle in radians, 0 to pi, of the rotation between two ``(..., 3, 3)`` rotations: the paper's RE (Sec. 2.5).

    It is computed from chord and trace together (atan2): arccos alone resolves only 0.02 degrees in float32, and its
    gradient is infinite at zero.
    """
    relative = first.transpose(-1, -2) @ second
    skew = torch.stack(
        (
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ),
        dim=-1,
    )
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    squared = (skew * skew).sum(-1) / 4
    sine = torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0 * squared)
    return torch.atan2(sine, cosine)


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """``(..., 4, 4)`` transforms x -> R x + t from ``(..., 3, 3)`` rotations and ``(..., 3)`` translations in mm."""
    # `torch.broadcast_shapes` would load SymPy, which takes a third of a second.
    moved, _ = torch.broadcast_tensors(translation, rotation[..., 0])
    top = torch.cat((rotation.expand(*moved.shape, 3), moved[..., None]), dim=-1)
    bottom = top.new_tensor((0.0, 0.0, 0.0, 1.0)).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, bottom), dim=-2)


def inverse(transform: Tensor) -> Tensor:
    """The inverses of ``(..., 4, 4)`` rigid transforms, by transposition."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    return rigid(rotation, -(rotation @ transform[..., :3, 3:])[..., 0])


def apply(transform: Tensor, points: Tensor) -> Tensor:
    """Points ``(..., n, 3)`` in mm moved by ``(..., 4, 4)`` transforms."""
    if points.ndim == transform.ndim == 2:
        # Lines of x, y and z take a third of the time that rows of three do.
        return torch.addmm(transform[:3, 3:], transform[:3, :3], points.T).T
    return points @ transform[..., :3, :3].transpose(-1, -2) + transform[..., None, :3, 3]


def rotation_about(rotation: Tensor, center: Tensor) -> Tensor:
    """``(..., 4, 4)`` transforms that turn about `center` ``(..., 3)``, a world position in mm."""
    return rigid(rotation, center - (rotation @ center[..., None])[..., 0])


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation nearest to each ``(..., 3, 3)`` matrix in the Frobenius norm, determinant +1 (Kabsch, by SVD)."""
    u, _, vh = torch.linalg.svd(matrix)
    sign = torch.linalg.det(u @ vh).sign()
    return torch.cat((u[..., :2], u[..., 2:] * sign[..., None, None]), dim=-1) @ vh
