"""Varied agent: what is drawn, that it lies where it should, and that its voxels are box averages."""

from __future__ import annotations

from dataclasses import replace
from math import erf, exp
from types import SimpleNamespace

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.synthesis.agent import vary_agent
from DNetRegistrationLib.synthesis.fields import Cover, Tissue, Waves
from DNetRegistrationLib.synthesis.grid import Grid, Lattice
from DNetRegistrationLib.synthesis.hardening import Hardening
from DNetRegistrationLib.synthesis.pairs import JOINT, make_pair
from DNetRegistrationLib.synthesis.scanner import scan
from DNetRegistrationLib.synthesis.session import SCALES, Session
from DNetRegistrationLib.synthesis.soaking import Film, Uptake
from DNetRegistrationLib.synthesis.surroundings import covered
from DNetRegistrationLib.synthesis.tibia import Animal
from poses import pose_at, rotation

ALWAYS = Waves(np.zeros((3, 1)), np.zeros(1))  # sqrt(2) everywhere


def varied(seed, contrast=True):
    animal = Animal.draw(seed, varied=True)
    return animal, vary_agent(Session.draw(seed, animal, contrast=contrast, scale="attenuation"), animal, contrast)


def alone(animal, **changes):
    """Bone and what covers it, in air, seen sharply."""
    return replace(Session.draw(0, animal, clean=True, scale="attenuation"), **changes)


@pytest.mark.slow
def test_same_seed_same_pair_and_the_even_one_unlike():
    pair, again = (make_pair(810_201, size=24, spacing=0.2, agent="varied") for _ in range(2))
    assert np.array_equal(pair.fixed.voxels, again.fixed.voxels)
    assert np.array_equal(pair.moving.voxels, again.moving.voxels)
    even = make_pair(810_201, size=24, spacing=0.2)
    assert np.array_equal(pair.matrix, even.matrix)
    assert not np.array_equal(pair.fixed.voxels, even.fixed.voxels)
    assert (pair.drawn["agent"], even.drawn["agent"]) == ("varied", "even")
    with pytest.raises(OptionError, match="agent"):
        make_pair(1, agent="patchy")


@pytest.mark.slow
def test_draws_reach_from_faint_to_brighter_than_bone():
    drawn = [varied(seed) for seed in range(40)]
    sessions, films = [session for _, session in drawn], [session.film for _, session in drawn]
    relative = [session.uptake / session.bone for session in sessions]
    assert min(relative) < 0.15 and max(relative) > 1.2
    thickness = [film.thickness for film in films]
    assert min(thickness) < 0.03 and 0.12 < max(thickness) <= 0.2
    over = np.mean([film.joint > 0 for film in films])
    assert 0.1 < over < 0.5
    assert {len(session.strands) for session in sessions} >= {2, 3, 4, 5, 6}
    layers = [animal.shape.plateau.healthy.max() for animal, _ in drawn]
    assert min(layers) < 0.035 and 0.09 < max(layers) <= 0.12
    worn = [(a.shape.plateau.cartilage < 0.1 * a.shape.plateau.healthy).any() for a, _ in drawn]
    assert 0.1 < np.mean(worn) < 0.9  # bare bone in some


def test_what_sticks_to_the_bone_lasts_and_agent_is_in_one_scan_only():
    animal, plain = varied(5, contrast=False)
    twin = vary_agent(Session.draw(77, animal, contrast=True), animal, True)
    assert np.array_equal(plain.film.waves.phases, twin.film.waves.phases)
    assert 0.5 < twin.film.thickness / plain.film.thickness < 2
    for first, second in zip(plain.strands, twin.strands, strict=True):
        assert np.array_equal(first.start, second.start) and not np.array_equal(first.end, second.end)
    assert plain.film.agent == plain.uptake == plain.soaked == 0 < twin.film.agent
    assert plain.medium == Session.draw(5, animal, scale="attenuation").medium


def test_uptake_by_hand():
    """Halfway through, at both ends, and washed out to 1/e at its reach."""
    cover = Cover(*(np.array(v) for v in ([0.0, -0.02, -0.04], [0.04] * 3, [0.04] * 3, [1.0] * 3)))
    np.testing.assert_allclose(Uptake(0.5, 0.0, 0.01).factor(cover), [0.5, 1.0, 1.5])
    washed = Uptake(0.0, 0.8, 0.02).factor(cover)
    np.testing.assert_allclose(washed, [1 - 0.8 * exp(-2), 1 - 0.8 * exp(-1), 0.2])


def test_film_by_hand():
    """Its share of cubes that it fills, halves or misses, on bare bone and on cartilage."""
    film = Film(0.1, -0.5, ALWAYS, 0.0, 100.0, 1000.0, 0.5)
    outer = np.array([0.01, 0.0, -0.05, -0.05, -0.1, -0.12])
    healthy = np.array([0.0, 0.0, 0.0, 0.05, 0.0, 0.0])
    cover = Cover(outer, 0 * outer, healthy, np.ones_like(outer))
    taken = np.clip(outer / 0.01 + 0.5, 0, 1)
    share, values = film.layer(np.full(6, 1.5), taken, cover, 0.01)
    # Inside the bone, at its surface, in the film, on a worn joint surface that it leaves free, at its end, beyond it.
    np.testing.assert_allclose(share, [0, 0.5, 1, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(values[[1, 2, 4]], [600, 1100, 1600])
    thin, _ = film.layer(np.full(6, 0.75), taken, cover, 0.01)
    np.testing.assert_allclose(thin, [0, 0.5, 0, 0, 0, 0], atol=1e-6)  # a quarter as thick: it ends at 25 um


@pytest.mark.parametrize("spacing, fine", [(0.08, 8), (0.02, 2)])
def test_voxels_of_film_and_cartilage_are_box_averages(spacing, fine):
    animal, session = varied(7)
    film = replace(session.film, thickness=0.06, level=1.0, joint=0.5, agent=3000.0)
    session = alone(animal, film=film, profile=session.profile, uptake=3000.0)
    grid = Grid.centered(18, spacing), Grid.centered(18 * fine, spacing / fine)
    pose = pose_at(3, (0.013, 0.02, -0.031), (0.5 if not animal.left else -0.5, 0.0, 0.1))
    coarse, dense = (scan(animal, session, one, pose).voxels for one in grid)
    reference = dense.reshape(18, fine, 18, fine, 18, fine).mean((1, 3, 5))
    bone = session.bone * SCALES["attenuation"][0]
    assert np.sqrt(((coarse - reference) ** 2).mean()) < 0.02 * bone
    assert abs((coarse - reference).mean()) < 0.002 * bone
    bare = scan(animal, replace(session, film=None, profile=None, uptake=0.0), grid[0], pose).voxels
    assert (coarse - bare).mean() > 0.02 * bone  # there is a film, and agent in cartilage


def test_film_lies_around_the_whole_bone_and_spares_the_joint():
    animal = Animal.draw(8, varied=True)
    film = Film(0.15, 0.0, ALWAYS, 0.0, 0.0, 2000.0, 0.0)
    pose, grid = pose_at(2, (0, 0, 0), JOINT), Grid.centered(50, 0.06)
    bare, soaked = (
        scan(animal, alone(animal, film=one, profile=profile, uptake=0.0, cartilage=0.0), grid, pose)
        for one, profile in ((None, None), (film, Uptake(0, 0, 1)))
    )
    brighter = (soaked.voxels - bare.voxels) / SCALES["attenuation"][0] > 1500
    points = np.argwhere(brighter)[:, ::-1] @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    local = (points - pose[:3, 3]) @ pose[:3, :3]
    cover = animal.model().cover(*local.T.astype(np.float32))
    assert len(points) > 2000
    assert (cover.outer < 0.03).all() and (cover.outer > -0.19).all()
    assert (cover.healthy * cover.share < 0.02).mean() > 0.99
    # Front, back, both sides.
    assert all((part > 0.3).any() and (part < -0.3).any() for part in local.T[:2])
    assert np.array_equal(bare.cartilage, soaked.cartilage) and np.array_equal(bare.bone, soaked.bone)


def test_what_is_covered_is_what_a_scan_shows():
    """Points in air beside the bone against voxels: of muscle, film, ligaments and debris, all above -500 HU."""
    animal, session = varied(810_204)
    rest = {"medium": -1000.0, "surface": None, "tube": None, "blur": 0.0, "noise": 0.0, "rings": 0.0, "cupping": 0.0}
    session = replace(session, hardening=0.0, gain=1.0, scale="hu", **rest)
    pose, grid = pose_at(6, (1.0, 2.0, 3.0), JOINT), Grid.centered(70, 0.03, rotation(3), (1, 2, 3))
    seen = scan(animal, session, grid, pose).voxels
    index = np.random.default_rng(0).integers(0, 70, (20_000, 3))
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    points = (points - pose[:3, 3]) @ pose[:3, :3]
    cover = animal.model().cover(*points.T.astype(np.float32))
    outside = cover.outer + cover.thickness < -0.03
    told = covered(session, points[outside], Cover(*(part[outside] for part in vars(cover).values())))
    shown = seen[tuple(index[outside, ::-1].T)] > -500
    assert 0.05 < shown.mean() < 0.95
    # They differ within half a voxel of surfaces only.
    assert (told == shown).mean() > 0.97


@pytest.mark.parametrize("axis, reach", [(0, 0.4), (1, 0.4), (2, 0.12)])
def test_hardening_of_a_half_space(axis, reach):
    """A Gaussian integral of what is bright: wide in the slice, narrow across it; 32 and 16 voxels a block's axis."""
    grid = Grid.centered((48, 40, 44), (0.08, 0.1, 0.09), rotation(4), (5.0, -3.0, 2.0))
    pose = np.eye(4)
    lattice = Lattice(grid, pose, 2)
    normal = grid.affine[:3, axis] / grid.spacing[axis]
    half = SimpleNamespace(tissue=lambda x, y, z, width: _half(normal, grid.center, x, y, z, width))
    session = SimpleNamespace(hardening=0.1, spread=0.4, bone=3000.0, uptake=0.0)
    slab = np.full((20, 44, 52), 50.0, np.float32)
    Hardening(session, half, lattice).add(slab, 10)
    inner = slab[:, 2:-2, 2:-2]
    for index in ((3, 20, 24), (12, 10, 30), (15, 33, 5)):
        point = grid.affine[:3, :3] @ np.array([index[2], index[1], index[0] + 10]) + grid.affine[:3, 3]
        height = (point - grid.center) @ normal
        expected = 50 - 300 * 0.5 * (1 + erf(height / reach / 2**0.5))
        assert inner[index] == pytest.approx(expected, abs=12)


def _half(normal, center, x, y, z, width):
    depth = (np.stack((x, y, z), 1) - center) @ normal
    filled = np.clip(depth / width + 0.5, 0, 1)
    return Tissue(filled, filled, filled, np.zeros_like(filled))
