"""The 24 rotations of a cube, which map its grid onto itself: cubes are turned by them without interpolation.

A network of Table 1 does not know that a pair that is turned is the same pair: its errors differ from turn to turn, and
their mean is smaller than each of them.
"""

from __future__ import annotations

import math
from itertools import permutations, product

import torch
from torch import Tensor

from ..core.errors import OptionError

#: How many pairings of turned cubes a network is asked about at most.
MOST_TURNS = 24


def _rotations() -> Tensor:
    """Signed permutation matrices of determinant +1: half turns first, then the others of a tetrahedron, then all."""
    found = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            matrix[range(3), order] = torch.tensor(signs, dtype=torch.float64)
            if torch.linalg.det(matrix) > 0:
                found.append(matrix)
    even = [matrix for matrix in found if matrix.abs().det() > 0]
    return torch.stack(even + [matrix for matrix in found if matrix.abs().det() < 0])


#: ``(24, 3, 3)`` float64, of vectors (x, y, z). The first is the identity, and the first four are 180 degrees apart.
ROTATIONS = _rotations()


def turned(cubes: Tensor, rotation: Tensor) -> Tensor:
    """Cubes ``(..., n, n, n)``, indexed [z, y, x], turned about their centre by one of `ROTATIONS`."""
    axes = rotation.abs().argmax(1).tolist()  # row r takes the coordinate axes[r], of x, y, z
    first = cubes.dim() - 3
    moved = cubes.permute(*range(first), *(first + 2 - axes[row] for row in (2, 1, 0)))
    return moved.flip([first + 2 - row for row in range(3) if rotation[row, axes[row]] < 0])


def pairings(turns: int) -> list[tuple[int, int]]:
    """So many pairs of turns, of the fixed and of the moving cube, as numbers of `ROTATIONS`; the first turns neither.

    Each cube is turned as few ways as can make them, about sqrt(turns): what a network sees in one cube alone is
    computed once for all its pairs. With as many ways as turns the median is hardly better.

    Raises:
        OptionError: `turns` is below 1 or above `MOST_TURNS`.
    """
    if not 1 <= turns <= MOST_TURNS:
        raise OptionError(f"turns is {turns}", f"give a whole number from 1 to {MOST_TURNS}")
    ways = math.ceil(math.sqrt(turns))
    return [(number % ways, (number + number // ways) % ways) for number in range(turns)]
