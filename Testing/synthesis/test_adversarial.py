"""Adversarial pairs: every kind is what it says, and its truth is that of what the scans show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.synthesis.adversarial import KINDS, AdversarialPair, make_adversarial
from DNetRegistrationLib.synthesis.kinds import _Refilled
from DNetRegistrationLib.synthesis.tibia import Animal
from poses import pose_at
from scipy import ndimage

UNLIKE = ("mirrored", "other", "littermate", "littermate crop", "slender relative", "refilled")
# Grey values tell no more where bone is, or only part of it.
DISGUISED = ("inverted", "wrapped", "padding", "metal", "resorbed")
QUICK = ("strain", "ball", "symmetric", "slender")
EACH = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def bone_at(volume, points):
    """The share of points in the field of view that lie in bright voxels."""
    index = volume.to_index(points)[:, ::-1]
    inside = ((index > 0) & (index < np.array(volume.voxels.shape) - 1)).all(1)
    values = ndimage.map_coordinates(volume.voxels.astype(float), index[inside].T, order=1)
    dark, bright = np.percentile(volume.voxels, 40), np.median(values)
    return inside.sum(), float((values > 0.6 * dark + 0.4 * bright).mean()), bright > dark


@pytest.mark.parametrize("kind", EACH)
def test_kind(kind):
    pair = make_adversarial(500_000, kind)
    again = make_adversarial(500_000, kind)
    assert np.array_equal(pair.moving.voxels, again.moving.voxels, equal_nan=True)
    assert np.array_equal(pair.partners, again.partners)
    assert json.loads(json.dumps(pair.drawn)) == pair.drawn and pair.drawn["kind"] == kind
    assert pair.kind == kind
    unlike = kind in UNLIKE
    assert len(pair.points) == len(pair.partners) == len(pair.bones)
    assert (len(pair.points) == 0) == unlike
    if unlike:
        assert pair.error_mm(np.eye(4)) == np.inf and not pair.answerable
        return
    assert np.isfinite(pair.points).all() and np.isfinite(pair.partners).all() and len(pair.points) > 300
    # The best rigid motion of the points themselves is the answer that is right.
    first = pair.bones == pair.bones[0]
    best = fitted(pair.points[first], pair.partners[first])
    assert pair.errors_mm(best)[0] < 0.5 * pair.error_mm(np.eye(4))
    if kind not in DISGUISED:
        for volume, points in ((pair.fixed, pair.points), (pair.moving, pair.partners)):
            count, share, bright = bone_at(volume, points)
            assert count > 200 and share > 0.85 and bright, (kind, count, share)


def fitted(points, partners):
    """The rigid motion that takes points to partners best (Kabsch), by NumPy alone."""
    p, q = points.mean(0), partners.mean(0)
    u, _, vh = np.linalg.svd((points - p).T @ (partners - q))
    turn = vh.T @ np.diag((1, 1, np.linalg.det(vh.T @ u.T))) @ u.T
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, q - turn @ p
    return matrix


def test_errors_are_those_of_each_bone():
    points = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [4, 0, 0]])
    partners = np.add(points, [[0, 0, 0.1], [0, 0, 0.3], [0, 0.4, 0], [0.8, 0, 0]])
    pair = AdversarialPair("two bones", None, None, points, partners, np.array([0, 0, 1, 1]), False, {})
    assert pair.errors_mm(np.eye(4)) == pytest.approx([0.2, 0.6])
    assert pair.error_mm(np.eye(4)) == pytest.approx(0.6)
    moved = np.eye(4)
    moved[2, 3] = 0.3
    assert pair.errors_mm(moved) == pytest.approx([0.1, (0.5 + np.hypot(0.8, 0.3)) / 2])


def test_the_truth_of_a_plain_pair_is_a_rigid_motion():
    pair = make_adversarial(3, "slender")
    assert pair.answerable
    assert pair.error_mm(fitted(pair.points, pair.partners)) < 1e-9
    # An answer that is off by a motion is off by the mean length of that motion.
    off = pose_at(4, (0.2, 0.1, 0.0), (0, 0, 0)) @ fitted(pair.points, pair.partners)
    far = [np.linalg.norm(off[:3, :3] @ p + off[:3, 3] - q) for p, q in zip(pair.points, pair.partners, strict=True)]
    assert pair.error_mm(off) == pytest.approx(np.mean(far))


@pytest.mark.slow
def test_a_strained_pair_is_right_nowhere_but_in_the_middle():
    drawn = [make_adversarial(seed, "strain") for seed in range(8)]
    for pair in drawn:
        assert pair.answerable == (abs(pair.drawn["amount"]) <= 0.01)
        if pair.drawn["form"] == "uniform":
            # The best motion keeps the middle; what remains grows with the distance from it.
            true = pair.partners if pair.drawn["scan"] == "fixed" else pair.points
            far = np.linalg.norm(true - true.mean(0), axis=1).mean()
            assert pair.error_mm(fitted(pair.points, pair.partners)) == pytest.approx(
                abs(pair.drawn["amount"]) * far, rel=1e-6
            )
    assert "uniform" in {pair.drawn["form"] for pair in drawn}


def test_a_refilled_tibia_keeps_its_outline():
    animal, donor = Animal.draw(1), Animal.draw(2)
    other = _Refilled(animal.genes, animal.structure, animal.left, donor)
    generator = np.random.default_rng(3)
    x, y, z = generator.uniform((-1.5, -1.5, -2.5), (1.5, 1.5, 0.2), (20000, 3)).astype(np.float32).T.copy()
    models = animal.model(), other.model()
    assert np.array_equal(*(model.depths(x, y, z).outer for model in models))
    spongy = [model.tissue(x, y, z, 0.04).bone for model in models]
    inside = models[0].depths(x, y, z).outer > 0.3
    assert np.corrcoef(spongy[0][inside], spongy[1][inside])[0, 1] < 0.5
    assert other.mirrored().left != other.left and other.mirrored().donor is donor


def test_an_unknown_kind_is_named():
    with pytest.raises(OptionError, match="'unicorn' is unknown"):
        make_adversarial(1, "unicorn")


def test_kinds_are_drawn():
    # The kind that is drawn alters nothing of what follows.
    seed = next(s for s in range(200) if drawn_kind(s) == "ball")
    assert make_adversarial(seed).kind == "ball"
    assert np.array_equal(make_adversarial(seed).fixed.voxels, make_adversarial(seed, "ball").fixed.voxels)


def drawn_kind(seed):
    return str(np.random.default_rng([seed, 31]).choice(list(KINDS)))
