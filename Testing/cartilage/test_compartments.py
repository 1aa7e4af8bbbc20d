"""Compartments of a flat surface with two discs of cover, one of them worn."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.compartments import across, articular_cover, articular_within, parting
from DNetRegistrationLib.cartilage.filling import smooth_surface
from DNetRegistrationLib.cartilage.mesh import Mesh


def _plane(nx=120, ny=70, step=0.02):
    y, x = np.indices((ny, nx))
    points = np.stack((x * step, y * step, 0 * x), -1).reshape(-1, 3).astype(float)
    first = (y[:-1, :-1] * nx + x[:-1, :-1]).ravel()
    lower = np.stack((first, first + 1, first + nx), 1)
    upper = np.stack((first + 1, first + nx + 1, first + nx), 1)
    return Mesh(points, np.concatenate((lower, upper)))


MESH = _plane()
X, Y = MESH.points[:, 0], MESH.points[:, 1]
LEFT, RIGHT = (X - 0.6) ** 2 + (Y - 0.7) ** 2 < 0.45**2, (X - 1.75) ** 2 + (Y - 0.7) ** 2 < 0.5**2
HOLE = (X - 0.6) ** 2 + (Y - 0.75) ** 2 < 0.15**2
SPECK = (X - 0.1) ** 2 + (Y - 0.1) ** 2 < 0.08**2


def test_worn_places_belong_to_the_surface_and_specks_do_not():
    cover = articular_cover(MESH, ((LEFT & ~HOLE) | RIGHT | SPECK))
    wanted = LEFT | RIGHT
    assert MESH.areas[cover != wanted].sum() < 0.04 * MESH.areas[wanted].sum()
    assert cover[HOLE].all() and not cover[SPECK].any()


def test_a_notch_open_to_the_rim_is_no_worn_place():
    notch = (X - 0.6) ** 2 + (Y - 0.3) ** 2 < 0.15**2
    cover = articular_cover(MESH, (LEFT & ~notch) | RIGHT)
    assert MESH.areas[cover & notch].sum() < 0.1 * MESH.areas[notch].sum()


def _domes():
    """A thick and a thin dome of cartilage, um, on bare bone."""
    parts = ((X - 0.6) ** 2 + (Y - 0.7) ** 2) / 0.45**2, ((X - 1.75) ** 2 + (Y - 0.7) ** 2) / 0.5**2
    return np.maximum(60 * np.clip(1 - parts[0], 0, 1), 40 * np.clip(1 - parts[1], 0, 1))


@pytest.mark.parametrize("hidden", [Y > 0, Y > 0.7])
def test_the_border_stays_where_it_is_when_rims_are_hidden(hidden):
    thickness = _domes()
    whole = articular_within(MESH, smooth_surface(MESH, np.ones(len(X), bool), thickness))
    # What is left to be measured is thicker than all of it.
    known = ~(hidden & (thickness > 0) & (thickness < 20))
    found = articular_within(MESH, smooth_surface(MESH, known, thickness))
    assert MESH.areas[found].sum() == pytest.approx(MESH.areas[whole].sum(), rel=0.06)


def test_wear_does_not_move_the_border():
    thickness = _domes()
    whole = articular_within(MESH, thickness)
    worn = articular_within(MESH, np.where(HOLE, 0, thickness))
    # What is left is thinner in the mean over its volume, by some percent.
    assert MESH.areas[worn != whole].sum() < 0.04 * MESH.areas[whole].sum()


def test_nothing_covered_is_nothing():
    assert not articular_cover(MESH, np.zeros(len(X), bool)).any()
    assert not articular_within(MESH, np.zeros(len(X))).any()


def test_two_facets_are_parted_between_them_along_the_widest_direction():
    chosen = LEFT | RIGHT | (np.abs(Y - 0.7) < 0.03)
    mesh, _ = MESH.part(chosen)
    direction = across(mesh.points, mesh.areas, np.array((0.0, 0.0, 1.0)))
    assert abs(direction[0]) > 0.99
    place = parting(mesh.points, mesh.areas, np.array((1.0, 0.0, 0.0)))
    assert place == pytest.approx(1.15, abs=0.12)
