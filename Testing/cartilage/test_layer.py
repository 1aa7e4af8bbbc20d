"""Layers of known thickness, blurred by an explicit sum, against what is fitted."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.layer import Profiles, Shape, _different, fit_layers, responses
from scipy import sparse

HEIGHTS = np.arange(-0.06, 0.22, 0.005)
BLUR = 0.006


def _blurred(level, heights=HEIGHTS, blur=BLUR):
    """A profile through a Gaussian, by the trapezoidal rule in steps of 0.1 um; `level` is a function of height."""
    fine = np.arange(-0.2, 0.4, 0.0001)
    values = level(fine)
    return np.array(
        [
            (values * np.exp(-0.5 * ((h - fine) / blur) ** 2)).sum() * 0.0001 / (blur * np.sqrt(2 * np.pi))
            for h in heights
        ]
    )


@pytest.mark.parametrize("shape", [Shape(), Shape(0.4), Shape(-0.3, 0.5, 0.02)])
def test_responses_are_the_blurred_layer(shape):
    thickness = 0.043

    def level(z):
        depth = 1 + shape.gradient * (2 * z / thickness - 1)
        washed = 1 - shape.washed * np.exp((z - thickness) / shape.reach)
        return np.where((z > 0) & (z < thickness), depth * washed, 0)

    found = responses(HEIGHTS, np.array([thickness]), BLUR, shape)[0]
    assert found == pytest.approx(_blurred(level), abs=0.02)


def _fitted(profiles, plain=None, noise=20.0):
    return _fit(profiles, plain, noise)[0]


def _fit(profiles, plain=None, noise=20.0):
    count = len(profiles)
    generator = np.random.default_rng(1)
    profiles = profiles + noise * generator.standard_normal(profiles.shape)
    bone = 2000 * _blurred(lambda z: (z < 0).astype(float))
    plain = (bone if plain is None else plain) + noise * generator.standard_normal(profiles.shape)
    near = sparse.csr_matrix(np.full((count, count), 1 / count))
    return fit_layers(
        Profiles(profiles, noise, 30.0, True, BLUR), Profiles(plain, noise, 30.0, False, BLUR), HEIGHTS, near, 0.005
    )


@pytest.mark.parametrize("thickness", [0.012, 0.030, 0.055, 0.090])
@pytest.mark.parametrize("beyond", [0.0, 300.0, -900.0])
def test_a_layer_has_its_thickness_and_its_level(thickness, beyond):
    profile = _blurred(lambda z: np.where(z < 0, 0, np.where(z < thickness, 1500, beyond)))
    layers = _fitted(np.tile(profile, (40, 1)))
    assert layers.thickness_mm.mean() == pytest.approx(thickness, abs=0.001)
    if thickness > 4 * BLUR:
        assert layers.level.mean() == pytest.approx(1500, rel=0.03)
    assert (layers.evidence > 100).all() and (layers.closed > 100).all()
    # The standard error is that of the scatter.
    assert 0.4 < layers.error_mm.mean() / layers.thickness_mm.std() < 2.5


def test_bare_bone_shows_no_layer_whatever_lies_beyond():
    for beyond in (0.0, 500.0):
        profile = _blurred(lambda z, level=beyond: np.where(z < 0, 0, level))
        layers = _fitted(np.tile(profile, (40, 1)))
        assert np.median(layers.evidence) < 12


def test_something_without_an_end_is_not_closed():
    profile = _blurred(lambda z: np.where(z < 0, 0, 1500.0))
    assert np.median(_fitted(np.tile(profile, (40, 1))).closed) < 12


def test_the_plain_scan_tells_where_the_layer_ends_in_air_when_the_difference_does_not():
    # What agent adds to the layer is what liquid adds over the air of the plain scan: the difference has no edge.
    difference = _blurred(lambda z: np.where(z < 0, 0, 1000.0))
    plain = _blurred(lambda z: np.where(z < 0, 3000, np.where(z < 0.05, 100, -900)))
    layers = _fitted(np.tile(difference, (40, 1)), np.tile(plain, (40, 1)))
    assert layers.thickness_mm.mean() == pytest.approx(0.05, abs=0.001)


def test_where_noise_leaves_the_shape_open_thickness_is_less_certain():
    """A layer that fades outwards looks like a thinner one, unless its profile is seen clearly."""
    profile = np.tile(_blurred(lambda z: np.where((z > 0) & (z < 0.03), 1500.0, 0.0)), (40, 1))
    layers, doubt = _fit(profile, noise=100.0)
    assert 0.0008 < doubt < 0.004
    assert layers.thickness_mm.mean() == pytest.approx(0.03, abs=doubt)
    assert _fit(profile, noise=20.0)[1] < 0.0001


@pytest.mark.parametrize("columns", [1, 8, 64, 65, 130])
def test_different_windows_are_those_of_numpy_in_its_order(columns):
    generator = np.random.default_rng(columns)
    rows = generator.random((7, columns)) > 0.4
    rows = rows[generator.integers(0, 7, 200)]
    expected, numbers = np.unique(rows, axis=0, return_inverse=True)
    found, number = _different(rows)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(number, numbers.reshape(-1))
