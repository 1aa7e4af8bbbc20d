"""The rotations of a cube, which leave a voxel grid on itself."""

from __future__ import annotations

import itertools

import torch


def cube_rotations():
    """The 24 of them, each as its matrix (x, y, z) and what it does to an array ``(b, z, y, x)``."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = torch.zeros(3, 3)
            for row, (column, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[row, column] = sign
            if torch.linalg.det(matrix) > 0:
                axes = [0, *(3 - order[row] for row in (2, 1, 0))]
                yield matrix, lambda a, axes=axes, signs=signs: a.permute(axes).flip([3 - r for r in range(3) if signs[r] < 0])  # fmt: skip  # noqa: E501
