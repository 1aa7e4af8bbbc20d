"""Soft tissue beside a joint: on a plane, the joint in its middle."""

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.layer import Layers
from DNetRegistrationLib.cartilage.mesh import Mesh
from DNetRegistrationLib.cartilage.surroundings import look_beside

SIDE, STEP = 61, 0.03


def _plane():
    y, x = np.indices((SIDE, SIDE))
    points = np.stack((x * STEP, y * STEP, 0 * x), -1).reshape(-1, 3).astype(float)
    first = (y[:-1, :-1] * SIDE + x[:-1, :-1]).ravel()
    lower = np.stack((first, first + 1, first + SIDE), 1)
    return Mesh(points, np.concatenate((lower, np.stack((first + 1, first + SIDE + 1, first + SIDE), 1))))


MESH = _plane()
X = MESH.points[:, 0]
FACING = (X > 0.4) & (X < 1.4)
LEFT = X < 0.4


def _layers(level, thickness_mm, **others):
    evidence = np.where(level > 0, 100.0, 0.0)
    every = dict.fromkeys(("error_mm", "beyond", "misfit"), np.ones(len(X)))
    values = dict(thickness_mm=thickness_mm, level=level, evidence=evidence, closed=evidence)
    return Layers(**{**every, **values, **others})


def _beside(layers):
    return look_beside(MESH, FACING, layers, 16.0, 1000.0, 0.04)


def test_cartilage_that_ends_at_the_rim_has_nothing_beside_it():
    found = _beside(_layers(np.where(FACING, 1000.0, 0), np.where(FACING, 0.04, 0)))
    assert found.share == 0 and (found.near == 0).all()


def test_a_film_on_one_side_is_near_the_points_of_that_side():
    found = _beside(_layers(np.where(FACING | LEFT, 900.0, 0), np.full(len(X), 0.035)))
    beside = (X < 0.4 - 0.05 + 1e-9) | (X > 1.4 + 0.05 - 1e-9)
    assert found.share == pytest.approx(MESH.areas[beside & LEFT].sum() / MESH.areas[beside].sum(), abs=0.06)
    joint = X[FACING]
    assert (found.near[joint < 0.6] > 0.85).all() and (found.near[joint > 1.2] < 0.1).all()


UNLIKE = [(300, 0.04, 100), (2600, 0.04, 100), (900, 0.015, 100), (900, 0.04, 5)]


@pytest.mark.parametrize("level, thickness, closed", UNLIKE)
def test_what_is_unlike_the_layer_on_the_joint_is_not_taken_for_it(level, thickness, closed):
    like = _layers(np.full(len(X), 900.0), np.full(len(X), 0.04))
    assert _beside(like).share == pytest.approx(1)
    unlike = replace(
        like,
        level=np.where(FACING, 1000.0, level),
        thickness_mm=np.where(FACING, 0.04, thickness),
        closed=np.where(FACING, 100.0, closed),
    )
    assert _beside(unlike).share == 0


def test_where_no_bone_beside_the_joint_is_seen_nothing_is_said():
    everywhere = np.ones(len(X), bool)
    found = look_beside(MESH, everywhere, _layers(np.full(len(X), 900.0), np.full(len(X), 0.04)), 16.0, 1000.0, 0.04)
    assert found.share == 0 and found.near.shape == (len(X),)
