"""The Cramer-Rao bound against numbers worked by hand and independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DNetRegistrationLib.experiments.refinement.bound import efficient_error, fisher_information, relative_covariance


def edge(lines=20, step=0.01, blur=0.04, height=3000.0):
    """A straight edge across x, blurred by a Gaussian: points, gradient and values on lines of voxels."""
    x = np.arange(-1, 1 + step / 2, step)
    slope = height / (blur * math.sqrt(2 * math.pi)) * np.exp(-((x / blur) ** 2) / 2)
    values = np.array([height * (1 + math.erf(v / blur / math.sqrt(2))) / 2 for v in x])
    y = step * np.arange(lines)
    points = np.stack(np.broadcast_arrays(x, y[:, None], 0.0), -1).reshape(-1, 3)
    gradient = np.stack((np.tile(slope, lines), *np.zeros((2, lines * len(x)))), -1)
    return points, gradient, np.tile(values, lines)


def test_a_straight_edge():
    """By hand: lines (height / noise)^2 / (2 sqrt(pi) blur step), 20 900 / (2 sqrt(pi) 0.04 0.01) = 1.2694e7 / mm^2."""
    points, gradient, values = edge()
    information = fisher_information(points, gradient, 0 * values, noise=100.0)
    assert information[3, 3] == pytest.approx(1.26943e7, rel=1e-4)
    # An estimate of where the edge lies scatters by 0.28 um at least.
    assert 1000 / math.sqrt(information[3, 3]) == pytest.approx(0.28067, rel=1e-4)
    # Along the edge nothing tells.
    assert np.all(information[4:, 4:] == 0)
    # It turns about z with the mean square arm along y.
    arm = (0.01 * np.arange(20)) ** 2
    assert information[2, 2] == pytest.approx(1.26943e7 * arm.mean(), rel=1e-3)
    # Twice the noise tells a quarter; half the blur tells twice as much.
    assert fisher_information(points, gradient, 0 * values, 200.0)[3, 3] == pytest.approx(1.26943e7 / 4, rel=1e-4)
    assert fisher_information(*edge(blur=0.02)[:2], 0 * values, 100.0)[3, 3] == pytest.approx(2.53886e7, rel=1e-4)


def test_an_unknown_gain_takes_from_it():
    """By hand: about the gain a line tells (height / noise)^2 (1 mm - blur / sqrt(pi)) / step.

    It shares (height / noise)^2 / (2 step) with the shift.
    """
    points, gradient, values = edge()
    information = fisher_information(points, gradient, values, 100.0)[3, 3]
    square = 20 * 900 / 0.01
    # The last voxel is half within the millimetre.
    own = square * (1 - 0.04 / math.sqrt(math.pi) + 0.005)
    assert information == pytest.approx(1.26943e7 - (square / 2) ** 2 / own, rel=1e-4)


def test_a_gain_is_eliminated_as_a_seventh_parameter():
    generator = np.random.default_rng(3)
    points, gradient, values = (generator.normal(size=shape) for shape in ((40, 3), (40, 3), 40))
    whole = np.zeros((7, 7))
    for x, g, v in zip(points, gradient, values, strict=True):
        turned = [x[1] * g[2] - x[2] * g[1], x[2] * g[0] - x[0] * g[2], x[0] * g[1] - x[1] * g[0]]
        row = np.array([*turned, *g, v]) / 0.3
        whole += np.outer(row, row)
    expected = np.linalg.inv(np.linalg.inv(whole)[:6, :6])
    assert fisher_information(points, gradient, values, 0.3) == pytest.approx(expected)


def test_two_scans_scatter_twice_as_much():
    information = np.diag((1.0, 2, 3, 4, 5, 6))
    found = relative_covariance(information, 2 * information)
    assert np.diag(found) == pytest.approx(1.5 / np.arange(1, 7))


def test_an_efficient_estimate():
    points = np.random.default_rng(0).normal(size=(3000, 3))
    shift = np.diag((1e-20, 1e-20, 1e-20, 4.0, 4.0, 4.0))
    # The median of the length of three standard normal numbers.
    assert efficient_error(shift, points) == pytest.approx(2 * 1.53817, rel=0.03)
    turn = np.diag((1e-20, 1e-20, 1e-6, 1e-20, 1e-20, 1e-20))
    circle = np.stack((np.cos(points[:, 0]), np.sin(points[:, 0]), points[:, 1]), -1)
    # Of one: 0.67449, at the radius 1 mm.
    assert efficient_error(turn, circle) == pytest.approx(0.67449e-3, rel=0.03)
    # Errors that depend on each other: a turn about an axis at a distance moves nothing there.
    about = np.array([0, 0, 1.0, 0, -5.0, 0]) * 1e-3
    covariance = np.outer(about, about) + 1e-16 * np.eye(6)
    assert efficient_error(covariance, np.array([[5.0, 0, 0]])) < 1e-6
