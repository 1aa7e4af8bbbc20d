"""The scanner: true box averages, whatever the slabs, and what a session promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.synthesis import scanner
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.synthesis.scanner import scan
from DNetRegistrationLib.synthesis.session import SCALES, Session
from DNetRegistrationLib.synthesis.tibia import Animal
from poses import pose_at
from scipy import ndimage


def clean_session(animal, **changes):
    return replace(Session.draw(0, animal, clean=True, scale="attenuation"), **changes)


def displacement(image, reference, spacing):
    """Least-squares shift (mm, along z, y, x) of an image against a reference, by the reference's gradient."""
    gradient = np.stack([g.ravel() for g in np.gradient(reference.astype(float))], 1)
    return np.linalg.lstsq(gradient, (reference - image).ravel().astype(float), rcond=None)[0] * spacing


@pytest.mark.parametrize("spacing, fine", [(0.08, 8), (0.025, 3)])
def test_voxels_are_box_averages(spacing, fine):
    """Against the same object sampled up to 8 times finer in each direction, and averaged."""
    animal = Animal.draw(2)
    session, pose = clean_session(animal), pose_at(3, (0.013, 0.02, -0.031), (0.5, 0.0, -0.7))
    coarse = scan(animal, session, Grid.centered(20, spacing), pose).voxels
    dense = scan(animal, session, Grid.centered(20 * fine, spacing / fine), pose).voxels
    reference = dense.reshape(20, fine, 20, fine, 20, fine).mean((1, 3, 5))
    bone = session.bone * SCALES["attenuation"][0]
    assert reference.max() > 0.9 * bone  # bone is there, not just air
    assert np.sqrt(((coarse - reference) ** 2).mean()) < 0.015 * bone
    assert abs((coarse - reference).mean()) < 0.001 * bone
    assert np.abs(displacement(coarse, reference, spacing)).max() < 0.0002


def test_position_is_unbiased_at_any_subvoxel_offset():
    """Two grids shifted by fractions of a voxel see the bone in one place, to well below a micrometre."""
    animal = Animal.draw(7)
    session, pose = clean_session(animal), pose_at(1, (0, 0, 0), (0.0, 0.0, -0.7))
    shift = np.array([0.37, -0.21, 0.44]) * 0.08
    # Blurred by a wide scanner, so that shifting by interpolation is next to exact.
    blurred = replace(session, blur=1.6)
    first = scan(animal, blurred, Grid.centered(44, 0.08), pose).voxels
    second = scan(animal, blurred, Grid.centered(44, 0.08, center=shift), pose).voxels
    back = ndimage.shift(second, shift[::-1] / 0.08, order=5, mode="nearest")
    inner = (slice(8, -8),) * 3
    assert np.abs(displacement(back[inner], first[inner], 0.08)).max() < 0.0005


def test_slabs_and_skipping_change_nothing(monkeypatch):
    animal = Animal.draw(3)
    session, pose, grid = clean_session(animal, blur=0.5), pose_at(8, (0, 0, 0)), Grid.centered((16, 18, 20), 0.16)
    expected = scan(animal, session, grid, pose)
    monkeypatch.setattr(scanner, "_SLAB", 5 * 16 * 18)
    monkeypatch.setattr(scanner, "_SHEET", 3 * 16 * 18)
    monkeypatch.setattr(scanner._Scanner, "_near_bone", _everywhere_near)
    got = scan(animal, session, grid, pose)
    np.testing.assert_allclose(got.voxels, expected.voxels, atol=1e-5)
    assert np.array_equal(got.bone, expected.bone)
    assert np.array_equal(got.cartilage, expected.cartilage)


def _everywhere_near(self):
    self.block = np.ones(3, int)
    return np.ones(self.lattice.size[::-1], bool)


def test_contrast_brightens_cartilage_only_in_the_twin():
    animal = Animal.draw(1)
    pose, grid = pose_at(2, (0, 0, 0), (0.0, 0.0, -0.1)), Grid.centered(60, 0.03)
    plain = Session.draw(1, animal, scale="hu", background="water")
    twin = Session.draw(1, animal, contrast=True, scale="hu", background="water")
    first, second = (scan(animal, replace(s, noise=0.0, rings=0.0, blur=0.0), grid, pose) for s in (plain, twin))
    assert np.array_equal(first.cartilage, second.cartilage)
    cartilage = first.cartilage > 250
    assert cartilage.sum() > 100 and not (cartilage & first.bone).any()
    assert abs(np.median(first.voxels[cartilage]) - plain.cartilage) < 50
    assert np.median(second.voxels[cartilage]) - np.median(first.voxels[cartilage]) > 0.6 * twin.uptake
    inside = ndimage.binary_erosion(first.bone)
    assert np.median(np.abs(first.voxels[inside].astype(int) - second.voxels[inside])) < 150


@pytest.mark.parametrize(
    "scale, dtype", [("hu", "int16"), ("raw", "uint16"), ("byte", "uint8"), ("attenuation", "float32")]
)
def test_scales(scale, dtype):
    pair = make_pair(3, size=32, spacing=0.16, scale=scale, background="fixative", contrast=False)
    assert pair.fixed.voxels.dtype == pair.moving.voxels.dtype == dtype
    solid = ndimage.binary_erosion(pair.fixed_bone)
    around = ~ndimage.binary_dilation(pair.fixed_bone, iterations=3)
    assert np.median(pair.fixed.voxels[solid]) > np.percentile(pair.fixed.voxels[around], 95)
    if scale == "raw":
        # The paper's threshold of 2000 parts them.
        assert np.median(pair.fixed.voxels[solid]) > 2300 and np.percentile(pair.fixed.voxels[around], 95) < 2000


def test_reconstruction_circle():
    pair = make_pair(3, size=24, spacing=0.2, scale="attenuation", circle=0.9)
    outside = np.isnan(pair.fixed.voxels)
    y, x = np.mgrid[:24, :24] - 11.5
    assert np.array_equal(outside, np.broadcast_to(np.hypot(x, y) > 0.9 * 12, outside.shape))
