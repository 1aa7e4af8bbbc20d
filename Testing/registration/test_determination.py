"""Determination: what the scans fix is taken back by refinement, what they leave open is not."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.registration.determination import determination
from DNetRegistrationLib.registration.rivals import find_rival
from DNetRegistrationLib.registration.verification import DETERMINED
from DNetRegistrationLib.synthesis import solids
from scanned_solids import at_the_truth, scan_twice


def cone(points):
    x, y, z = np.moveaxis(points, -1, 0)
    return np.minimum(0.6 - 0.3 * z - np.hypot(x, y), 1.4 - np.abs(z))


def torus(points):
    x, y, z = np.moveaxis(points, -1, 0)
    return 0.35 - np.hypot(np.hypot(x, y) - 1.0, z)


def elliptic_shaft(points):
    """It can be shifted, not turned."""
    x, y, _ = np.moveaxis(points, -1, 0)
    return 0.6 - np.hypot(x, y / 0.75)


def bar(points):
    """It can be shifted, not turned."""
    return solids.box(0.5, 0.8, np.inf)(points)


UNDETERMINED = {
    "ball": solids.ball(1.2),
    "hollow ball": solids.hollow(solids.ball(1.2), 0.3),
    "shaft": solids.hollow(solids.cylinder(0.7), 0.2),
    "capped cylinder": solids.cylinder(0.7, 1.3),
    "capsule": solids.capsule(0.5, 1.0),
    "cone": cone,
    "torus": torus,
    "elliptic shaft": elliptic_shaft,
    "bar": bar,
}
# Radius, half length, bend, taper, flatness.
ULNAE = [(0.35, 1.8, 0.3, 0.6, 0.85), (0.3, 1.9, 0.5, 0.7, 0.8), (0.4, 1.7, 0.6, 0.5, 0.9)]


def determined(prepared) -> float:
    fixed, moving, pose = prepared
    return determination(fixed.levels[-1], moving.levels[-1], pose, fixed.cube.spacing)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("ball", "torus", "bar") else pytest.mark.slow) for name in UNDETERMINED],
)
def test_what_can_be_turned_or_shifted_unseen(name):
    """It stays about where it was put, or other poses fit as well."""
    for seed, noise in ((7_120_000, 30.0), (7_120_001, 200.0)):
        prepared = at_the_truth(scan_twice(UNDETERMINED[name], seed, noise=noise))
        rival = find_rival(*prepared)
        assert rival is not None and rival.fits_equally, noise
    assert determined(prepared) < 0.75 * DETERMINED


@pytest.mark.parametrize("measures", ULNAE)
def test_slender_bones_without_trabeculae(measures):
    solid = solids.hollow(solids.bent_tube(*measures), 0.14)
    for seed, stretch in ((7_120_010, 1.0), (7_120_011, 1.5)):
        assert determined(at_the_truth(scan_twice(solid, seed, size=60, stretch=stretch))) > 0.9, stretch


def test_tibiae(pair, cut_pair):
    for one in (pair, cut_pair):
        assert determined(at_the_truth(one)) > 0.95


def test_a_twist_determines_the_shift_of_a_bar():
    def twisted(points):
        angle = 0.8 * points[..., 2]
        x, y = points[..., 0], points[..., 1]
        turned = (x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))
        return solids.box(0.4, 0.8, 1.5)(np.stack((*turned, points[..., 2]), axis=-1))

    assert determined(at_the_truth(scan_twice(twisted, 7_120_020))) > 0.9
