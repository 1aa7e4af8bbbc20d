"""Bones other than tibiae."""

from __future__ import annotations

import numpy as np
import pytest
from contact_sheet import draw_contact_sheet
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.synthesis.random_bones import KINDS, Variant, draw_animal
from scipy import ndimage

SIZE, SPACING = 40, 0.128


def points(seed=0, count=4000):
    spread = np.random.default_rng(seed).uniform(-2, 2, (3, count)) + np.array([[0], [0], [-1.45]])
    return [c.astype(np.float32) for c in spread]


@pytest.fixture(scope="module", params=KINDS)
def pair(request):
    return make_pair(5, kind=request.param, size=SIZE, spacing=SPACING, clean=True, contrast=False, scale="hu")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_the_same_bone(kind):
    at = points()
    first, again, other = (Variant.draw(kind, seed).model().tissue(*at, 0.05) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.bone, again.bone)
    assert np.abs(first.bone - other.bone).mean() > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_the_mirror_image(kind):
    variant = Variant.draw(kind, 4)
    x, y, z = points()
    plain = variant.model().tissue(x, y, z, 0.05)
    mirrored = variant.mirrored().model().tissue(-x, y, z, 0.05)
    np.testing.assert_allclose(mirrored.bone, plain.bone, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_no_more_than_the_distance(kind):
    """Where the scanner looks for bone depends on it: outside, no point may be said to be much farther than it is."""
    bone = Variant.draw(kind, 6).model()
    axis = np.arange(-2.2, 2.2, 0.08, dtype=np.float32)
    z, y, x = np.meshgrid(axis - 1.45, axis, axis, indexing="ij")
    depth = bone.depths(x.ravel(), y.ravel(), z.ravel()).outer.reshape(z.shape)
    assert 0.002 < (depth > 0).mean() < 0.6
    away = ndimage.distance_transform_edt(depth <= 0, 0.08)
    near = (depth < 0) & (away < 0.15)
    assert np.percentile(-depth[near] - away[near], 99) < 0.06


def test_fractions_are_fractions(pair):
    tissue = pair.fixed_animal.model().tissue(*points(1, 20_000), 0.06)
    for share in (tissue.filled, tissue.bone, tissue.density, tissue.cartilage):
        assert share.min() >= 0
        assert share.max() <= 1 + 1e-6
    assert (tissue.bone <= tissue.filled + 1e-6).all()
    assert (tissue.bone + tissue.cartilage <= 1 + 1e-5).all()


def test_a_pair_shows_one_bone_where_the_truth_says(pair):
    assert pair.drawn["kind"] == pair.fixed_animal.kind
    assert 200 < pair.fixed_bone.sum() < 0.5 * pair.fixed_bone.size
    index = np.argwhere(pair.fixed_bone)[:, ::-1]
    world = index @ pair.fixed.affine[:3, :3].T + pair.fixed.affine[:3, 3]
    arrived = world @ pair.matrix[:3, :3].T + pair.matrix[:3, 3]
    back = np.linalg.inv(pair.moving.affine)
    index = np.rint(arrived @ back[:3, :3].T + back[:3, 3]).astype(int)
    seen = ((index >= 0) & (index < SIZE)).all(1)
    assert seen.mean() > 0.4
    near = ndimage.binary_dilation(pair.moving_bone)
    assert near[tuple(index[seen].T[::-1])].mean() > 0.95
    assert near[tuple(index[seen].T)].mean() < 0.8


def test_kinds_by_name():
    assert draw_animal("tibia", 1).genes.shape
    with pytest.raises(ValueError, match="kind of bone 'horn' is unknown; give tibia, long, flat, irregular"):
        draw_animal("horn", 1)
    with pytest.raises(ValueError, match="no relatives"):
        make_pair(1, kind="flat", impostor="relative")
    assert not make_pair(1, kind="long", impostor="animal", size=16, spacing=0.32).same


@pytest.mark.slow
def test_contact_sheet(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    draw_contact_sheet(tmp_path / "bank.png", columns=1)
    picture = imread(tmp_path / "bank.png")
    assert picture.shape[0] > 500
    assert 0.05 < (picture[..., :3].max(-1) > 0.5).mean() < 0.9
