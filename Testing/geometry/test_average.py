"""The median of motions against sums over points, and against outliers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.geometry.average import displacement, median_motion

RADIUS = 1.3


def motions(count, seed, largest=math.pi, shift=1.0):
    """``(count, 4, 4)`` turned by up to `largest` radians about any axis, and shifted."""
    generator = torch.Generator().manual_seed(seed)
    axes, shifts = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    angles = largest * torch.rand(count, generator=generator, dtype=torch.float64)
    return rigid.rigid(rigid.rotation_from_axis_angle(axes, angles), shift * shifts)


def test_displacement_is_that_of_points_of_a_sphere():
    first, second = motions(2, 0)
    # Six points on the axes have the mean squares of the whole sphere.
    squares = []
    for axis in np.eye(3):
        for sign in (1, -1):
            x = sign * RADIUS * axis
            one, other = (motion[:3, :3] @ x + motion[:3, 3] for motion in (first.numpy(), second.numpy()))
            squares.append(((one - other) ** 2).sum())
    assert float(displacement(first, second, RADIUS)) == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-12)


def test_one_motion_is_its_own_median():
    motion = motions(1, 1)
    median, apart = median_motion(motion, RADIUS)
    torch.testing.assert_close(median, motion[0])
    assert float(apart) < 1e-9


def test_the_median_is_where_the_sum_of_displacements_is_smallest():
    given = motions(9, 2, largest=0.3, shift=0.1)
    median, apart = median_motion(given, RADIUS)
    assert float(torch.linalg.det(median[:3, :3])) == pytest.approx(1)
    torch.testing.assert_close(apart, displacement(given, median, RADIUS))
    for nudge in motions(50, 3, largest=0.02, shift=0.01):
        assert displacement(given, nudge @ median, RADIUS).sum() > apart.sum() * (1 - 1e-6)


def test_four_of_ten_answers_may_be_anywhere():
    truth = motions(1, 4)[0]
    right = motions(6, 5, largest=0.05, shift=0.02) @ truth
    given = torch.cat((motions(4, 6), right))
    median, apart = median_motion(given, RADIUS)
    assert float(displacement(median, truth, RADIUS)) < 0.1
    assert (
        float(
            displacement(
                rigid.rigid(rigid.nearest_rotation(given.mean(0)[:3, :3]), given.mean(0)[:3, 3]), truth, RADIUS
            )
        )
        > 0.3
    )
    assert apart[:4].min() > apart[4:].max()


def test_the_median_moves_with_the_motions():
    given, (before, after) = motions(7, 7, largest=0.5), motions(2, 8, shift=0)
    median = median_motion(given, RADIUS)[0]
    torch.testing.assert_close(median_motion(after @ given @ before, RADIUS)[0], after @ median @ before)
