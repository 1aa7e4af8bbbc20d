"""Tibiae: the measures of a mouse, and no symmetry."""

from __future__ import annotations

import numpy as np
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.scanner import scan
from DNetRegistrationLib.synthesis.session import Session
from DNetRegistrationLib.synthesis.tibia import CENTER, Animal
from scipy import ndimage


def test_mirrored_bone_is_the_mirror_image():
    animal = Animal.draw(9)
    points = np.random.default_rng(0).uniform((-2, -1.5, -3), (2, 1.5, 0.5), (3000, 3)).astype(np.float32)
    x, y, z = points.T.copy()
    one = animal.model().tissue(x, y, z, 0.02)
    other = animal.mirrored().model().tissue(-x, y, z, 0.02)
    np.testing.assert_allclose(other.density, one.density, atol=1e-6)
    same_place = animal.mirrored().model().tissue(x, y, z, 0.02)
    assert np.abs(same_place.density - one.density).mean() > 0.05


def test_bone_has_no_rotational_symmetry():
    """Turned about its shaft by anything, a bone is unlike itself."""
    animal = Animal.draw(4)
    session, grid = Session.draw(0, animal, clean=True, scale="attenuation"), Grid.centered(28, 0.18)
    images = []
    for degrees in range(0, 360, 45):
        turn = np.deg2rad(degrees)
        pose = np.eye(4)
        pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        pose[:3, 3] = -CENTER
        images.append(ndimage.gaussian_filter(scan(animal, session, grid, pose).voxels, 1).ravel())
    assert np.corrcoef(images)[0, 1:].max() < 0.9


def test_measures_are_those_of_a_mouse():
    for seed in range(8):
        shape = Animal.draw(seed).shape
        mantle = shape.mantle
        z = np.linspace(-12.0, 0.8, mantle.radius.shape[0])
        head, shaft = np.abs(z + 0.4).argmin(), np.abs(z + 5.0).argmin()
        half = (mantle.radius.shape[1] - 1) // 2

        def width(row, mantle=mantle, half=half):
            return mantle.radius[row, : half + 1] + mantle.radius[row, half:]

        assert 2.5 < width(head).max() < 4.1 and 0.85 < width(shaft).min() < 1.4
        assert 0.1 < np.median(mantle.cortex[shaft]) < 0.3
        assert 0.03 < shape.plateau.cartilage.max() <= 0.11
        assert 0.03 < 2 * shape.spongiosa.strut < 0.07
