"""Synthetic scenes of several bones."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.geometry.transforms import rotation_error_deg
from DNetRegistrationLib.synthesis.joint_bones import JointBone
from DNetRegistrationLib.synthesis.knees import SCENES, make_knee
from DNetRegistrationLib.synthesis.tibia import CENTER
from scipy import ndimage

SMALL = {"size": 40, "spacing": 0.15}


@pytest.fixture(scope="module", params=SCENES)
def knee(request):
    return make_knee(9_100_002, scene=request.param, **SMALL)


@pytest.mark.slow
def test_each_matrix_takes_its_bone_onto_itself(knee):
    """Voxels of a bone, taken to the moving scan by its matrix, are the same bone's there; by another's few are."""
    for bone, matrix in enumerate(knee.matrices):
        points = knee.fixed.to_world(np.argwhere(knee.fixed_bones == bone + 1)[:, ::-1])
        if len(points) < 200:
            continue
        near = ndimage.binary_dilation(knee.moving_bones == bone + 1)

        def hits(through, points=points, near=near):
            moved = points @ through[:3, :3].T + through[:3, 3]
            index = np.rint(knee.moving.to_index(moved)).astype(int)
            index = index[((index >= 0) & (index < knee.moving.size)).all(1)]
            return np.mean(near[tuple(index[:, ::-1].T)])

        others = [hits(other) for number, other in enumerate(knee.matrices) if number != bone]
        assert hits(matrix) > 0.9 > max(others) + 0.1


def test_bones_turn_against_each_other_as_far_as_was_asked():
    for scene in ("legs", "phantom"):
        knee = make_knee(4, scene=scene, bend=(50, 60), size=12, spacing=0.15)
        assert 50 <= rotation_error_deg(knee.matrices[0], knee.matrices[1]) <= 60
    # A knee also twists and tilts, by less.
    knee = make_knee(4, bend=(50, 60), size=12, spacing=0.15)
    assert 40 < rotation_error_deg(knee.matrices[0], knee.matrices[1]) < 80


@pytest.mark.slow
def test_no_two_bones_are_in_one_place():
    """The frames of bones bring their surfaces close, and apart: there is bone of both kinds within 0.3 mm."""
    knee = make_knee(7, keep=1.0, clean=True, **SMALL)
    tibia, femur = (knee.fixed.to_world(np.argwhere(knee.fixed_bones == number)[:, ::-1]) for number in (1, 2))
    gaps = np.sqrt(((tibia[:, None] - femur[None, ::3]) ** 2).sum(-1)).min()
    assert 0.1 < gaps < 0.5


@pytest.mark.slow
def test_the_same_seed_the_same_scene():
    first, again, other = (make_knee(seed, size=16, spacing=0.15) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.fixed.voxels, again.fixed.voxels)
    np.testing.assert_array_equal(first.matrices, again.matrices)
    assert np.abs(first.matrices - other.matrices).max() > 0.1


def test_shares_and_the_error_of_a_bone(knee):
    counts = [(knee.fixed_bones == number + 1).sum() for number in range(len(knee.names))]
    np.testing.assert_allclose(knee.shares, np.array(counts) / sum(counts))
    shifted = knee.matrices[1].copy()
    shifted[:3, 3] += (0.3, 0.0, 0.4)
    assert knee.error(1, shifted) == pytest.approx(0.5)
    assert knee.error(1, knee.matrices[1]) == pytest.approx(0)


def test_a_phantom_is_solid():
    model = JointBone.draw("phantom", 3).model()
    points = [c.astype(np.float32) for c in np.random.default_rng(0).uniform(-2, 2, (3, 20_000)) + CENTER[:, None]]
    deep = model.depths(*points).outer > 0.05
    assert deep.sum() > 300
    assert model.tissue(*points, 0.05).bone[deep].min() == 1


def test_unknown_scenes():
    with pytest.raises(OptionError, match="scene 'hip'"):
        make_knee(1, scene="hip")
    with pytest.raises(OptionError, match="keep is 0"):
        make_knee(1, keep=0)
