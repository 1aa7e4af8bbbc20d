"""Thickness where it was not measured, against energies written out edge by edge and values known exactly."""

import numpy as np
from DNetRegistrationLib.cartilage.filling import carried_on, smooth_surface
from DNetRegistrationLib.cartilage.mesh import Mesh


def _plane(side=24, step=0.02, apart=0.0):
    x, y = (one.ravel() * step for one in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    corner = np.arange(side * side).reshape(side, side)
    a, b, c, d = (one.ravel() for one in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    triangles = np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))
    # Oblique, off the origin.
    points = np.stack((x + 5, y - 3, 0.3 * x - 0.2 * y + apart), 1)
    return Mesh(points, triangles), x, y


def _energy(mesh, known, values, surface):
    edges = {tuple(sorted((int(t[i]), int(t[j])))) for t in mesh.triangles for i, j in ((0, 1), (1, 2), (2, 0))}
    slopes = sum((surface[i] - surface[j]) ** 2 for i, j in edges)
    return ((surface - values)[known] ** 2).sum() + 0.08**2 / mesh.areas.mean() * slopes


def test_no_other_surface_has_less_energy():
    mesh, x, _ = _plane(side=9)
    generator = np.random.default_rng(4)
    known = generator.random(len(x)) < 0.6
    values = generator.normal(40, 10, len(x))
    found = smooth_surface(mesh, known, values)
    least = _energy(mesh, known, values, found)
    for _ in range(20):
        assert _energy(mesh, known, values, found + generator.normal(0, 0.3, len(x))) > least


def test_what_is_even_is_filled_as_it_is_and_what_is_unknown_is_not_looked_at():
    mesh, x, y = _plane()
    hidden = np.hypot(x - 0.25, y - 0.2) < 0.1
    found = smooth_surface(mesh, ~hidden, np.where(hidden, np.nan, 40.0))
    np.testing.assert_allclose(found, 40, rtol=1e-4)


def test_a_hole_lies_between_its_sides():
    mesh, x, _ = _plane()
    hidden = (x > 0.16) & (x < 0.3)
    found = smooth_surface(mesh, ~hidden, np.where(x < 0.2, 60.0, 20.0))
    across = found.reshape(24, 24)[:, 12]
    inside = across[9:15]
    assert (np.diff(across) < 1e-6).all() and 20 < inside.min() and inside.max() < 60
    assert abs(inside.mean() - 40) < 4


def test_a_piece_of_which_nothing_is_known_stays_at_0():
    first, _, _ = _plane(side=6)
    second, _, _ = _plane(side=6, apart=1.0)
    both = Mesh(np.concatenate((first.points, second.points)), np.concatenate((first.triangles, second.triangles + 36)))
    known = np.arange(72) < 36
    found = smooth_surface(both, known, np.full(72, 50.0))
    np.testing.assert_allclose(found, np.where(known, 50, 0), atol=1e-3)


def test_uneven_agent_is_carried_on_into_and_a_step_is_not():
    mesh, x, y = _plane(side=48)
    # A dome, and agent that fades smoothly towards the end of x: there it is doubted.
    thickness, level = 70 - 60 * (x - 0.5) ** 2, 100 - 45 * np.clip((x - 0.3) / 0.6, 0, 1)
    faint = level < 75
    film = ~faint & (y > 0.6)
    thickness, level = thickness + 25 * film, np.where(film, 70, level)
    generator = np.random.default_rng(1)
    thickness = thickness + 2 * generator.standard_normal(len(x))
    level = level * (1 + 0.05 * generator.standard_normal(len(x)))
    found = carried_on(mesh, ~faint & ~film, faint | film, thickness, level)
    assert found[faint & (y < 0.5)].mean() > 0.95
    assert not found[film & (x < 0.4)].any()


def test_nothing_is_carried_on_from_nothing():
    mesh, x, _ = _plane(side=6)
    none = np.zeros(len(x), bool)
    assert not carried_on(mesh, none, ~none, np.full(len(x), 40.0), np.full(len(x), 100.0)).any()
