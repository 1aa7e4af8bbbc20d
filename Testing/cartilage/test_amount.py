"""Layers thinner than the blur, fitted as thicker and fainter ones: the amount tells how thick they are."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.amount import amount_tells, level_around, thickness_by_amount
from DNetRegistrationLib.cartilage.layer import Layers, responses
from DNetRegistrationLib.cartilage.mesh import Mesh
from scipy.special import ndtr

BLUR = 0.01


def _layers(thickness, level, beyond):
    nothing = np.zeros(len(thickness))
    return Layers(np.asarray(thickness), nothing, np.asarray(level), np.asarray(beyond), nothing, nothing, nothing)


@pytest.mark.parametrize("beyond", [0.0, 40.0, -30.0])
def test_fits_of_any_thickness_tell_that_of_the_layer(beyond):
    heights = np.arange(-0.03, 0.08, 0.005)
    true, level = 0.012, 100.0
    seen = level * responses(heights, np.array([true]), BLUR)[0] + beyond * ndtr((heights - true) / BLUR)
    tried = np.array([0.006, 0.009, 0.012, 0.018, 0.024])
    fitted = []
    for thickness in tried:
        basis = np.stack((responses(heights, np.array([thickness]), BLUR)[0], ndtr((heights - thickness) / BLUR)), 1)
        fitted.append(np.linalg.lstsq(basis, seen, rcond=None)[0])
    levels, beyonds = np.transpose(fitted)
    found = thickness_by_amount(_layers(tried, levels, beyonds), np.full(len(tried), level))
    np.testing.assert_allclose(found, true, atol=0.0012)


def test_what_is_not_brighter_than_what_lies_on_it_is_no_layer():
    found = thickness_by_amount(_layers([0.02, 0.02], [30.0, 60.0], [40.0, 60.0]), np.full(2, 100.0))
    np.testing.assert_array_equal(found, 0)


def test_no_amount_tells_under_something_about_as_bright_or_where_no_cartilage_is_seen():
    layers = _layers(np.full(4, 0.06), [100.0, 100.0, 100.0, 40.0], [-20.0, 69.0, 71.0, 0.0])
    assert amount_tells(layers, np.array([100.0, 100.0, 100.0, 0.0])).tolist() == [True, True, False, False]


def _plane(side=40, step=0.02):
    x, y = (one.ravel() * step for one in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    corner = np.arange(side * side).reshape(side, side)
    a, b, c, d = (one.ravel() for one in (corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]))
    return Mesh(np.stack((x, y, 0 * x), 1), np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))), x


def test_the_level_is_that_of_what_is_resolved_near_by():
    mesh, x = _plane()
    true = 100 + 20 * np.sin(4 * (x - 0.4))
    generator = np.random.default_rng(5)
    resolved = generator.random(len(x)) < 0.5
    levels = np.where(resolved, true * (1 + 0.1 * generator.standard_normal(len(x))), 250.0)
    np.testing.assert_allclose(level_around(mesh, np.ones(len(x), bool), resolved, levels), true, rtol=0.09)


def test_with_hardly_anything_resolved_all_that_is_seen_tells_the_level():
    mesh, x = _plane(side=8)
    seen, resolved = x > 0.05, x > 0.13
    levels = np.where(resolved, 60.0, 100.0)
    assert level_around(mesh, seen, resolved & (np.arange(64) == 60), levels).max() > 90
    none = np.zeros(64, bool)
    level = level_around(mesh, none, none, levels)
    np.testing.assert_array_equal(level, 0)
    np.testing.assert_array_equal(thickness_by_amount(_layers(np.full(64, 0.02), levels, 0 * levels), level), 0)
