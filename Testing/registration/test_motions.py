"""Bones that moved on their own are told apart, and aligned one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.geometry.transforms import mean_point_error
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.answers import Answer
from DNetRegistrationLib.registration.interior import refine_fully
from DNetRegistrationLib.registration.motions import Motion, find_motions
from DNetRegistrationLib.registration.verification import verify
from DNetRegistrationLib.synthesis.knees import make_knee
from DNetRegistrationLib.synthesis.pairs import random_rotation, target_registration_error
from edge_phantom import TURNS, pose_at
from two_bodies import AWAY, GRIDS, pair_of_bodies, prepared

TURNED = pose_at(random_rotation(np.random.default_rng(8)), (0, 0, 0))


def proposes(*poses):
    """A source of poses that knows these, each half a voxel off, and some wrong ones."""
    wrong = [poses[0] @ pose_at(random_rotation(np.random.default_rng(seed)), (0.3, 0, 0)) for seed in range(3)]
    near = [pose_at(np.eye(3), (0.03, -0.02, 0.03)) @ pose for pose in poses]
    return lambda first, second: torch.as_tensor(np.array([*wrong, *near]))


def middles(grid, turn):
    """World positions of the middles of the first and of the second body."""
    place = pose_at(turn, grid[3])
    return [(place @ np.append(sign * AWAY / 2, 1))[:3] for sign in (-1, 1)]


@pytest.mark.parametrize(
    "grids",
    [pytest.param(one, id=name, marks=pytest.mark.slow if name == "oblique" else ()) for name, one in GRIDS.items()],
)
def test_two_motions_are_found_with_the_places_of_each(grids):
    fixed, moving, pose = pair_of_bodies(*grids, TURNED)
    # The frame of the second body lies beside that of the first, in which `pose` acts.
    fixed_second = pose_at(TURNS[1], grids[0][3]) @ pose_at(np.eye(3), -AWAY / 2) @ pose_at(TURNS[3], AWAY)
    second = pose @ fixed_second @ TURNED @ np.linalg.inv(fixed_second)
    rounds = []

    def prepare(masks, thresholds, spacing):
        rounds.append(masks)
        assert spacing is None or masks is None or spacing == pytest.approx(0.1)
        return prepared(fixed, moving, masks)

    motions = find_motions(prepare, proposes(pose, second))
    assert len(motions) == 2
    # What the first pose holds for is taken away, and the rest is prepared by itself.
    assert rounds[0] is None
    parts = [inside(fixed, rounds[1][0], middle) for middle in middles(grids[0], TURNS[1])]
    assert min(parts) < 0.05 and max(parts) > 0.95
    assert sum(motion.share for motion in motions) == pytest.approx(1, abs=0.05)
    assert motions[0].share >= motions[1].share > 0.4
    seen = set()
    for motion in motions:
        errors = [mean_point_error(motion.pose.numpy(), true, fixed_points(fixed)) for true in (pose, second)]
        body = int(np.argmin(errors))
        seen.add(body)
        assert errors[body] < 0.02
        assert np.linalg.norm(motion.center - middles(grids[0], TURNS[1])[body]) < 0.5
        for mask, volume, turn, grid in zip(motion.masks, (fixed, moving), TURNS[1:3], grids, strict=True):
            here, there = (inside(volume, mask, middle) for middle in middles(grid, turn)[:: 1 if body == 0 else -1])
            assert here > 0.95 and there < 0.05
    assert seen == {0, 1}


def fixed_points(volume):
    return volume.to_world(np.argwhere(volume.voxels > 0.4)[:, ::-1])


def inside(volume, mask, middle):
    """The share of what lies within 1.1 mm of a middle, and is bone, that a mask holds."""
    index = np.argwhere(volume.voxels > 0.4)
    near = np.linalg.norm(volume.to_world(index[:, ::-1]) - middle, axis=1) < 1.1
    assert near.sum() > 200
    return mask[tuple(index[near].T)].mean()


def test_wrong_poses_are_no_motions():
    fixed, moving, pose = pair_of_bodies(*GRIDS["oblique"], TURNED)
    wrong = proposes(pose)(None, None)[:3]
    assert find_motions(lambda masks, *_: prepared(fixed, moving, masks), lambda first, second: wrong) == []


def test_no_proposal_is_no_motion():
    fixed, moving, _ = pair_of_bodies(*GRIDS["oblique"], TURNED)
    assert (
        find_motions(lambda masks, *_: prepared(fixed, moving, masks), lambda first, second: torch.empty(0, 4, 4)) == []
    )


@pytest.fixture(scope="module")
def knee():
    return make_knee(9_100_002, size=64, keep=0.8)


@pytest.mark.slow
def test_each_bone_of_a_knee_is_aligned(knee):
    told = []
    found = align(knee.fixed, knee.moving, bone="each", progress=lambda fraction, message: told.append(fraction))
    assert told == sorted(told) and told[-1] == 1
    large = [alignment for alignment in found if alignment.bone.share > 0.2]
    assert [alignment.bone.number for alignment in found] == list(range(1, len(found) + 1))
    assert all(alignment.accepted for alignment in large)
    errors = np.array([[knee.error(bone, alignment.matrix) for alignment in large] for bone in (0, 1)])
    # Tibia and femur, each by another one, below half a voxel.
    assert sorted(errors.argmin(0)) == [0, 1] and errors.min(0).max() < 0.04
    for alignment in large:
        true = knee.fixed_bones == 1 + errors[:, large.index(alignment)].argmin()
        assert (alignment.bone.masks[0] & true).sum() > 0.75 * true.sum()
    largest = align(knee.fixed, knee.moving, bone="largest", refine="working")
    assert largest.bone.number == 1 and largest.bone.count == len(found)
    assert min(knee.error(bone, largest.matrix) for bone in (0, 1)) < 0.04


# A femur that rolled in its place, by 0.3 mm only; a thin-walled tibia, more than half of it below the threshold that a
# dense femur gives both; a tibia of a seventh of all bone; a field of view that cuts a femur to half; a tibia of which
# the scans have little in common.
@pytest.mark.slow
@pytest.mark.parametrize("seed", (700_002, 700_008, 700_015, 700_020, 710_008))
def test_bones_of_unlike_density_and_size_are_found(seed):
    knee = make_knee(seed, size=64)
    found = align(knee.fixed, knee.moving, bone="each")
    errors = np.array([[knee.error(bone, alignment.matrix) for alignment in found] for bone in (0, 1)])
    assert errors.min(1).max() < 0.04
    assert all(found[number].accepted for number in errors.argmin(1))
    # The masks part the bones where they touch. Of the cut femur, what only one scan shows belongs to none.
    for bone, number in enumerate(errors.argmin(1)):
        own, other = (found[number].bone.masks[0][knee.fixed_bones == one + 1].mean() for one in (bone, 1 - bone))
        assert own > (0.4 if seed == 710_008 else 0.7) and other < 0.1


def test_one_bone_is_the_only_one(small_pair, monkeypatch):
    # Of bones that are aligned one by one, one may stand still: that another moved does not speak against it.
    monkeypatch.setattr("DNetRegistrationLib.registration.one_pair._stood_still", lambda *_: True)
    (alignment,) = align(small_pair.fixed, small_pair.moving, bone="each", refine="working")
    assert alignment.accepted and alignment.hypothesis == "search"
    assert (alignment.bone.number, alignment.bone.count) == (1, 1) and alignment.bone.share > 0.9
    assert 1000 * target_registration_error(small_pair, alignment.matrix) < 80


@pytest.mark.slow
def test_a_motion_that_may_be_chance_has_to_be_accepted_and_the_rest_is_told(small_pair, monkeypatch):
    upper, true = np.arange(len(small_pair.fixed.voxels))[:, None, None] > 30, torch.from_numpy(small_pair.matrix)
    wrong = true @ torch.as_tensor(pose_at(TURNS[2], (0.5, 0, 0)))

    def masks(where):
        return np.broadcast_to(where, small_pair.fixed.voxels.shape), np.ones(small_pair.moving.voxels.shape, bool)

    # The whole bone stands for 0.6 of it here, and a pose that fits nowhere for the rest.
    right = Motion(true, True, masks(upper | True), 0.6, np.zeros(3))
    chance = Motion(wrong, False, masks(~upper), 0.4, np.zeros(3))
    monkeypatch.setattr("DNetRegistrationLib.registration.each_bone.find_motions", lambda *_: [right, chance])
    monkeypatch.setattr("DNetRegistrationLib.registration.one_pair.best_answer", answered_by_start)
    (alignment,) = align(small_pair.fixed, small_pair.moving, bone="each", refine="working")
    assert (alignment.bone.number, alignment.bone.count) == (1, 1) and alignment.accepted
    assert any("40 % of the bone in the fixed scan belongs to no bone" in warning for warning in alignment.warnings)


def answered_by_start(pair, inputs, watch):
    """The start pose alone is refined and judged: no search mends it."""
    refined = refine_fully(pair, inputs.initial, False)
    return Answer("initial", refined, verify(pair, refined), pair)


@pytest.mark.slow
def test_two_animals_have_no_bone_in_common(other_pair):
    """All of the bone is aligned then, and refused; no piece of it passes for a bone of its own."""
    found = align(other_pair.fixed, other_pair.moving, bone="each", refine="working")
    assert not any(alignment.accepted for alignment in found)


@pytest.mark.parametrize("bone", ("second", 2, np.ones((3, 3, 3))))
def test_other_values_are_refused(small_pair, bone):
    with pytest.raises(OptionError, match="bone") as raised:
        align(small_pair.fixed, small_pair.moving, bone=bone)
    assert raised.value.setting.quantity == "bone" and raised.value.remedy
