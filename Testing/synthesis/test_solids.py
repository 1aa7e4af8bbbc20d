"""Solids: depths worked out by hand, and volumes known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.synthesis import solids
from poses import pose_at


def volume_of(solid, half=2.0):
    """By counting random points: a lattice lies along the faces of some."""
    points = np.random.default_rng(0).uniform(-half, half, (400_000, 3))
    return float((solid(points) > 0).mean() * (2 * half) ** 3)


@pytest.mark.parametrize(
    ("solid", "volume"),
    [
        (solids.ball(1.2), 4 / 3 * np.pi * 1.2**3),
        (solids.box(1.0, 0.5, 1.5), 8 * 0.75),
        (solids.cylinder(0.8, 1.1), np.pi * 0.64 * 2.2),
        (solids.cylinder(0.8), np.pi * 0.64 * 4),
        (solids.capsule(0.5, 1.0), np.pi * 0.25 * 2 + 4 / 3 * np.pi * 0.125),
        # The regular hexagon about a circle of radius r has the area 2 sqrt(3) r^2; the triangle 3 sqrt(3) r^2.
        (solids.prism(6, 0.9, 1.0), 2 * np.sqrt(3) * 0.81 * 2),
        (solids.prism(3, 0.6, 1.0), 3 * np.sqrt(3) * 0.36 * 2),
        # The ball within a regular tetrahedron of edge a has the radius a / sqrt(24), its volume is a^3 / sqrt(72).
        (solids.tetrahedron(0.5), (0.5 * np.sqrt(24)) ** 3 / np.sqrt(72)),
        # Three bars share a cube.
        (solids.cross(1.5, 0.4), 3 * 3 * 0.64 - 2 * 0.8**3),
        (solids.checkerboard(1.2, 0.6), 2.4**3 / 2),
        (solids.bent_tube(0.5, 1.5, 0.4, 1.0, 0.7), np.pi * 0.25 * 0.7 * 3),
        (solids.hollow(solids.ball(1.2), 0.4), 4 / 3 * np.pi * (1.2**3 - 0.8**3)),
    ],
)
def test_volumes(solid, volume):
    assert volume_of(solid) == pytest.approx(volume, rel=0.03)


def test_depths():
    assert solids.ball(1.0)(np.array([0.0, 0.6, 0.0])) == pytest.approx(0.4)
    assert solids.box(1.0, 2.0, 3.0)(np.array([[0.7, 0, 0], [0, -2.5, 0]])) == pytest.approx([0.3, -0.5])
    assert solids.capsule(0.5, 1.0)(np.array([0.3, 0.0, 1.4])) == pytest.approx(0.0)
    assert solids.hollow(solids.ball(1.0), 0.2)(np.array([[0.0, 0, 0.9], [0, 0, 0.5]])) == pytest.approx([0.1, -0.3])
    # Beside the shared edge of two full cells of a checkerboard lie two empty ones.
    board = solids.checkerboard(1.0, 0.5)
    inside = np.array([[0.25, 0.25, 0.3], [-0.25, -0.25, 0.3], [-0.25, 0.25, 0.3]])
    assert board(inside) == pytest.approx([0.2, 0.2, -0.2])


def test_a_bent_tube_bends_and_tapers():
    tube = solids.bent_tube(0.4, 2.0, 0.5, 0.25, 0.5)
    # The axis is off by 0.5 (z / 2)^2; the radius is 0.4 * 0.25^(1/2) at the upper end, twice 0.4 at the lower one.
    assert tube(np.array([[0.5, 0, 1.999], [0.0, 0, 1.9]])) == pytest.approx([0.001, 0.4 * 0.25**0.475 - 0.45125])
    assert tube(np.array([0.125 + 0.5, 0.0, -1.0])) == pytest.approx(0.4 * 0.25**-0.25 - 0.5)
    assert tube(np.array([0.0, 0.2, 0.0])) == pytest.approx(0.0)


def test_placed_carries_a_solid():
    pose, point = pose_at(3, (0.4, -0.2, 0.7), (0, 0, 0)), np.array([0.3, 0.1, -0.2])
    solid = solids.box(1.0, 0.6, 0.9)
    moved = pose[:3, :3] @ point + pose[:3, 3]
    assert solids.placed(solid, pose)(moved) == pytest.approx(solid(point))
