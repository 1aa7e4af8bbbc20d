"""The true cartilage: by hand, by the tables in float64, along lines, and in voxels."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from DNetRegistrationLib.synthesis.cartilage import true_cartilage
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.pairs import JOINT, make_pair
from DNetRegistrationLib.synthesis.random_bones import Variant
from DNetRegistrationLib.synthesis.scanner import scan
from DNetRegistrationLib.synthesis.session import Session
from DNetRegistrationLib.synthesis.shape import ANGLES, XY_HALF, XY_STEP, Z_LOW, Z_STEP
from DNetRegistrationLib.synthesis.tibia import Animal, TibiaModel
from poses import pose_at, rotation


@pytest.fixture(scope="module")
def animal():
    return Animal.draw(810_101, varied=True)


@pytest.fixture(scope="module")
def cartilage(animal):
    return true_cartilage(animal)


def test_inclined_plane_under_an_even_layer():
    """Thickness, normals and area by hand: a plane that rises by 0.3 a mm, under 50 um within 0.6 mm of its middle."""
    axis = np.arange(-XY_HALF, XY_HALF + XY_STEP / 2, XY_STEP)
    x, y = np.meshgrid(axis, axis)
    shape = Animal.draw(1).shape
    slope = np.full_like(x, 1 / np.sqrt(1 + 0.3**2))
    layer = np.where(np.hypot(x, y) < 0.6, 0.05, 0.0)
    plateau = replace(shape.plateau, top=0.3 * x, slope=slope, cartilage=layer, healthy=layer, rim=0.1)
    bone = SimpleNamespace(shape=replace(shape, plateau=plateau), left=False, cartilage=1.0)
    bone.model = lambda: TibiaModel(bone)
    found = true_cartilage(bone, 0.04)
    inner = np.hypot(*found.points[:, :2].T) < 0.5
    np.testing.assert_allclose(found.points[inner, 2], 0.3 * found.points[inner, 0], atol=2e-5)
    np.testing.assert_allclose(found.thickness_mm[inner], 0.05, atol=2e-5)
    normal = np.array([-0.3, 0, 1]) / np.sqrt(1.09)
    np.testing.assert_allclose(found.normals[inner], np.tile(normal, (inner.sum(), 1)), atol=1e-3)
    assert found.areas_mm2[inner].sum() == pytest.approx(np.pi * 0.5**2 * np.sqrt(1.09), rel=0.01)
    assert np.array_equal(found.medial, found.points[:, 0] > 0)
    # The middle column of the table is shared by both halves.
    np.testing.assert_allclose(found.volumes_mm3, layer.sum() / 2 * XY_STEP**2 * np.sqrt(1.09), rtol=0.01)


def _table(table, row, column):
    """Interpolates linearly between the four entries about a place, in float64."""
    r, c = int(np.floor(row)), int(np.floor(column))
    fr, fc = row - r, column - c
    return (1 - fr) * ((1 - fc) * table[r, c] + fc * table[r, c + 1]) + fr * (
        (1 - fc) * table[r + 1, c] + fc * table[r + 1, c + 1]
    )


def _layer_and_depth(shape, x, y, z):
    """Thickness of cartilage at a point of a right tibia, and its depth below the surface, from the tables alone."""
    height = (z - Z_LOW) / Z_STEP
    low, part = int(height), height - int(height)
    across = [(1 - part) * line[low] + part * line[low + 1] for line in shape.mantle.axis]
    dx, dy = x - across[0], y - across[1]
    column = (np.arctan2(dy, dx) + np.pi) * ANGLES / (2 * np.pi)
    side = _table(shape.mantle.radius, height, column) - np.hypot(dx, dy)
    side *= _table(shape.mantle.tilt, height, column)
    at = (y + XY_HALF) / XY_STEP, (x + XY_HALF) / XY_STEP
    top = (_table(shape.plateau.top, *at) - z) * _table(shape.plateau.slope, *at)
    inward = min(max((side - 0.05) / shape.plateau.rim, 0), 1)
    thickness = _table(shape.plateau.cartilage, *at) * (1 - (1 - inward) ** 2)
    return thickness, min(side, top) - max(0.16 - abs(side - top), 0) ** 2 / 0.64


def test_thickness_by_the_tables_alone(animal):
    """Every point's normal is followed in steps of a micrometre, in float64, until the layer ends."""
    right = replace(animal, left=False)
    found, shape = true_cartilage(right), right.shape
    chosen = np.random.default_rng(0).choice(np.flatnonzero(found.points[:, 2] > -0.6), 60, replace=False)
    steps = np.arange(0, 0.14, 0.001)
    for point, normal, thickness in zip(
        found.points[chosen], found.normals[chosen], found.thickness_mm[chosen], strict=True
    ):
        assert abs(_layer_and_depth(shape, *point)[1]) < 2e-5
        sums = [sum(_layer_and_depth(shape, *(point + step * normal))) for step in steps]
        end = next(i for i, value in enumerate(sums) if value <= 0)
        expected = 0.0 if end == 0 else steps[end - 1] + 0.001 * sums[end - 1] / (sums[end - 1] - sums[end])
        assert thickness == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "bone", [Animal.draw(810_102, varied=True), Animal.draw(3), Variant.draw("long", 4)], ids=["varied", "even", "long"]
)
def test_thickness_is_the_share_of_cartilage_along_the_normal(bone):
    found = true_cartilage(bone, 0.06)
    model, step = bone.model(), 0.002
    chosen = np.random.default_rng(1).choice(len(found.points), min(len(found.points), 400), replace=False)
    at = np.arange(-0.02, 0.2, step)
    line = found.points[chosen][:, None] + at[:, None] * found.normals[chosen][:, None]
    share = model.tissue(*line.reshape(-1, 3).T.astype(np.float32), 0.004).cartilage.reshape(line.shape[:2])
    apart = share.sum(1) * step - found.thickness_mm[chosen]
    assert np.abs(np.median(apart)) < 1e-4 and np.percentile(np.abs(apart), 90) < 1e-3
    assert found.thickness_mm.max() > 0.02


def test_volume_is_that_of_the_voxels(animal, cartilage):
    """Cartilage fractions of an oblique, anisotropic scan, parted by the side of the animal's frame."""
    pose = pose_at(5, (0.2, -0.1, 0.3), JOINT)
    grid = Grid.centered((100, 110, 90), (0.044, 0.04, 0.05), rotation(7), pose[:3, :3] @ JOINT + pose[:3, 3])
    share = scan(animal, Session.draw(0, animal, clean=True), grid, pose).cartilage / 255
    index = np.argwhere(share > 0)
    inverse = np.linalg.inv(pose) @ grid.affine
    side = index[:, ::-1] @ inverse[0, :3] + inverse[0, 3]
    medial = (side > 0) != animal.left
    parts = [share[tuple(index[mask].T)].sum() * np.prod(grid.spacing) for mask in (medial, ~medial)]
    np.testing.assert_allclose(parts, cartilage.volumes_mm3, rtol=0.02)
    # To first order, it is area times thickness too.
    for mask, volume in zip((cartilage.medial, ~cartilage.medial), cartilage.volumes_mm3, strict=True):
        assert (cartilage.areas_mm2 * cartilage.thickness_mm)[mask].sum() == pytest.approx(volume, rel=0.1)


def test_coarser_points_tell_the_same(animal, cartilage):
    coarser = true_cartilage(animal, 0.05)
    assert coarser.mean_um() == pytest.approx(cartilage.mean_um(), rel=0.02)
    assert coarser.areas_mm2.sum() == pytest.approx(cartilage.areas_mm2.sum(), rel=0.02)


def test_thinned_cartilage_is_thinner_and_ends_where_it_did(animal, cartilage):
    thinned = true_cartilage(replace(animal, cartilage=0.85))
    np.testing.assert_allclose(thinned.points, cartilage.points)
    assert thinned.mean_um() == pytest.approx(0.85 * cartilage.mean_um(), rel=0.01)


@pytest.mark.slow
def test_pair_knows_its_cartilage_in_the_world_of_the_fixed_scan():
    pair = make_pair(810_103, agent="varied", size=60, spacing=0.036, focus=JOINT)
    found = pair.cartilage
    thick = found.thickness_mm > 0.06
    middle = found.points + 0.5 * found.thickness_mm[:, None] * found.normals
    for world, fraction, bone, matrix in (
        (pair.fixed, pair.fixed_cartilage, pair.fixed_bone, np.eye(4)),
        (pair.moving, pair.moving_cartilage, pair.moving_bone, pair.matrix),
    ):
        at = world.to_index(middle[thick] @ matrix[:3, :3].T + matrix[:3, 3])
        seen = np.rint(at).astype(int)
        seen = seen[np.all((seen >= 0) & (seen < world.size), axis=1)][:, ::-1]
        assert len(seen) > 200
        assert np.median(fraction[tuple(seen.T)]) > 200 and bone[tuple(seen.T)].mean() < 0.02


@pytest.mark.slow
def test_touched_cartilage_lies_under_something_in_the_moving_scan():
    """Told by a film that covers all of the joint, and by none."""
    pair = make_pair(810_103, agent="varied", size=16, spacing=0.3)
    film = replace(pair.moving_session.film, thickness=0.1, level=9.0)
    bare = replace(pair.moving_session, muscle=-9.0, strands=(), fragments=())
    for joint, touched in ((1.0, True), (0.0, False)):
        session = replace(bare, film=replace(film, joint=joint))
        found = true_cartilage(pair.fixed_animal, 0.06, session)
        thick = found.healthy_mm > 0.02
        assert np.mean(found.touched[thick] == touched) > 0.99
