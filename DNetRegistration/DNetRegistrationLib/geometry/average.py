"""The mean of several answers to one question: rigid motions, some of which may be far off."""

from __future__ import annotations

from torch import Tensor

from . import rigid

_ITERATIONS = 20


def displacement(first: Tensor, second: Tensor, radius: float) -> Tensor:
    """Root mean square distance in mm between points of a sphere moved by two motions ``(..., 4, 4)``.

    The sphere lies about the origin. For points x of it the mean of |A x + b|^2 is radius^2 |A|^2 / 3 + |b|^2, with the
    Frobenius norm of A.

    Args:
        first, second: motions in mm, broadcast against each other.
        radius: of the sphere in mm.
    """
    difference = first[..., :3, :] - second[..., :3, :]
    turned, shifted = difference.split((3, 1), dim=-1)
    return (radius**2 / 3 * turned.square().sum((-1, -2)) + shifted.square().sum((-1, -2))).sqrt()


def median_motion(motions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The geometric median of motions: the one from which their `displacement` is smallest in the sum.

    Up to half of them may be anywhere. It starts from the best one of them, and goes on by Weiszfeld's iteration, with
    means of rotations in the chordal sense (Hartley et al., Rotation averaging, IJCV 2013).

    Args:
        motions: ``(n, 4, 4)`` float64 in mm, one or more.
        radius: of the sphere about the origin whose points are displaced, in mm.

    Returns:
        The median ``(4, 4)``, and the displacement of each motion from it ``(n,)`` in mm.
    """
    between = displacement(motions[:, None], motions, radius)
    median = motions[between.sum(1).argmin()]
    for _ in range(_ITERATIONS):
        # None counts more than one that lies within a thousandth of the radius.
        weight = 1 / displacement(motions, median, radius).clamp(min=1e-3 * radius)
        mean = (weight[:, None, None] * motions).sum(0) / weight.sum()
        median = rigid.rigid(rigid.nearest_rotation(mean[:3, :3]), mean[:3, 3])
    return median, displacement(motions, median, radius)
