"""Scans carried to a start, and their masks."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.experiments.methods.near import NearScans
from DNetRegistrationLib.geometry.transforms import affine_matrix
from DNetRegistrationLib.imaging.volume import Volume
from scipy import ndimage
from scipy.spatial.transform import Rotation

# Oblique, left-handed, anisotropic and off the origin.
DIRECTION = Rotation.from_rotvec((0.4, -0.7, 0.2)).as_matrix() @ np.diag((1, 1, -1.0))
SPACING = np.array((0.08, 0.1, 0.09))


@pytest.fixture(scope="module")
def ball():
    """A hollow ball of bone of radius 1.2 mm, 0.25 mm thick, in air."""
    z, y, x = np.indices((40, 36, 42))
    index = np.stack((x, y, z), -1) - (np.array((42, 36, 40)) - 1) / 2
    radius = np.linalg.norm(index * SPACING, axis=-1)
    values = 3000 * np.clip((1.2 - radius) / 0.09 + 0.5, 0, 1) * np.clip((radius - 0.95) / 0.09 + 0.5, 0, 1)
    noise = np.random.default_rng(0).normal(0, 20, values.shape)
    return Volume.from_geometry((values + noise).astype(np.float32), SPACING, DIRECTION, (30, -40, 50)), radius


def test_masks_end_outside_or_within_the_surface(ball):
    scan, radius = ball
    for where, (most, least) in {"dilated": (1.5, 1.3), "eroded": (1.1, 0.9)}.items():
        mask = NearScans.of(scan, scan, np.eye(4), where).mask(scan)
        # The marrow is within.
        assert mask[radius < least].all(), where
        assert not mask[radius > most].any(), where
    assert NearScans.of(scan, scan, np.eye(4), "all").mask(scan) is None


def test_an_answer_is_carried_back(ball):
    scan, radius = ball
    start = affine_matrix(Rotation.from_rotvec((1.0, 0.3, -2.0)).as_matrix(), (5, 6, -7))
    near = NearScans.of(scan, scan, start, "all")
    middle = scan.to_world(np.array(ndimage.center_of_mass(radius < 1))[::-1])
    assert near.fixed.to_world(scan.to_index(middle)) == pytest.approx(np.zeros(3), abs=0.02)
    # The identity there is the start.
    assert near.answer(np.eye(4)) == pytest.approx(start)
    found = affine_matrix(Rotation.from_rotvec((0.02, 0.01, -0.03)).as_matrix(), (0.1, -0.2, 0.3))
    for index in np.random.default_rng(1).uniform(0, 30, (4, 3)):
        moved = found[:3, :3] @ near.fixed.to_world(index) + found[:3, 3]
        there = near.answer(found) @ (*scan.to_world(index), 1)
        # One voxel of the moving scan, in its own world and carried.
        assert scan.to_index(there[:3]) == pytest.approx(near.moving.to_index(moved))
