"""What lies still in both scans is left out, whatever the grids, and the bone is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.holders import ScanPair
from DNetRegistrationLib.registration.refinement import refine
from DNetRegistrationLib.registration.verification import verify
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at
from two_bodies import AWAY, OBLIQUE, prepared, two_bodies

# Another grid about the same place in the world: mirrored, and not isotropic.
BESIDE = TURNS[3] @ np.diag((1.0, -1, 1)), (0.08, 0.1, 0.12), (74, 60, 50), OBLIQUE[3]


def scans(bone_moves, holder_moves=None, grids=(OBLIQUE, BESIDE)) -> tuple[ScanPair, np.ndarray, list[np.ndarray]]:
    """Two bodies beside each other, a bone and a holder; the bone's pose, and where the holder's middle is.

    Each moves about its own middle by a ``(4, 4)`` pose, or lies still.
    """
    bone, holder = (pose_at(TURNS[1], OBLIQUE[3]) @ pose_at(np.eye(3), way * AWAY / 2) for way in (-1, 1))
    moved = [one if by is None else one @ by for one, by in ((bone, bone_moves), (holder, holder_moves))]
    volumes = two_bodies(grids[0], bone, holder), two_bodies(grids[1], *moved)
    pair = prepared(*volumes)
    cortices = tuple(cortical_bone(volume, 0.4, 0.1) for volume in volumes)
    return ScanPair(*pair, cortices), moved[0] @ np.linalg.inv(bone), [holder[:3, 3], moved[1][:3, 3]]


TURNED = pose_at(TURNS[2], (0.1, -0.2, 0.1))


def test_a_holder_is_left_out_of_all_that_is_compared():
    pair, pose, places = scans(TURNED)
    found, share = pair.without_still(torch.as_tensor(pose))
    assert 0.35 < share < 0.65  # both bodies are of one size
    for before, after, place, bones in zip(
        (pair.fixed, pair.moving),
        (found.fixed, found.moving),
        places,
        zip(pair.bones, found.bones, strict=True),
        strict=True,
    ):
        for one, other in ((before.levels[-1], after.levels[-1]), (before.cube, after.cube)):
            values = (one.values if one is before.levels[-1] else one.image).numpy()
            index = np.argwhere(values > 0)
            points = index[:, ::-1] @ one.affine[:3, :3].T + one.affine[:3, 3]
            kept = other.inside.numpy()[tuple(index.T)] > 0.5
            of_holder = np.linalg.norm(points - place, axis=1) < AWAY[0] / 2
            assert (
                kept[of_holder].mean() < 0.05 and kept[~of_holder].mean() > 0.8
            )  # what touches the holder goes with it
        cortex = [np.count_nonzero(bone.cortex) for bone in bones]
        assert 0.3 < cortex[1] / cortex[0] < 0.7 and np.isnan(bones[1].grey).any()


def test_nothing_is_left_out_where_all_moved_along():
    pair, pose, _ = scans(TURNED, TURNED)
    assert pair.without_still(torch.as_tensor(pose)) is None


def test_a_bone_that_lay_still_is_not_left_out_for_a_pose_that_is_wrong():
    pair, _, _ = scans(None)
    middle = pose_at(TURNS[1], OBLIQUE[3]) @ pose_at(np.eye(3), -AWAY / 2)
    wrong = middle @ TURNED @ np.linalg.inv(middle)
    assert pair.without_still(torch.as_tensor(wrong)) is None


def test_a_pose_that_fits_what_lies_together_without_it_is_told():
    bone, holder = (pose_at(TURNS[1], OBLIQUE[3]) @ pose_at(np.eye(3), way * AWAY / 2) for way in (-1, 1))
    # Nothing moved; the two bodies are alike, so that one fits in the place of the other.
    still, _, _ = scans(None)
    assert still.fits_as_it_lay(torch.as_tensor(holder @ np.linalg.inv(bone)))
    # A true pose fits nothing that fitted before, and one that leaves all where it was is no other pose.
    moved, pose, _ = scans(TURNED, TURNED)
    assert not moved.fits_as_it_lay(torch.as_tensor(pose))
    assert not still.fits_as_it_lay(torch.as_tensor(pose_at(np.eye(3), (0.1, 0.2, 0))))


def test_a_holder_that_lies_in_another_medium_is_left_out_too():
    """Around it all is brighter in one scan, so that it stands out by half as much."""
    pair, pose, places = scans(TURNED)
    volumes = [one.grey for one in pair.bones]
    index = np.indices(volumes[1].shape)[::-1].reshape(3, -1).T
    points = index @ pair.bones[1].affine[:3, :3].T + pair.bones[1].affine[:3, 3]
    of_holder = (np.linalg.norm(points - places[1], axis=1) < AWAY[0] / 2).reshape(volumes[1].shape)
    brighter = Volume(np.where(of_holder, 0.45 + 0.5 * volumes[1], volumes[1]), pair.bones[1].affine)
    fixed = Volume(volumes[0], pair.bones[0].affine)
    changed = ScanPair(*prepared(fixed, brighter), tuple(cortical_bone(one, 0.4, 0.1) for one in (fixed, brighter)))
    alone = changed.without_still(torch.as_tensor(pose))
    assert alone is not None and 0.3 < alone[1] < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(740_147, marks=pytest.mark.xfail(reason="refused at a confidence of 0.57, though 1 um off")),
        740_437,
    ],
)
def test_a_tube_is_no_cortex_that_the_bone_lacks(seed):
    """A tube that lies in another medium in each scan; what is inside it once pulled by 11 and 18 um."""
    case = make_adversarial(seed, "holder")
    found = align(case.fixed, case.moving)
    assert found.accepted and 1000 * case.error_mm(found.matrix) < min(2, found.expected_error_um)


@pytest.mark.slow
def test_a_platform_that_looks_the_same_after_half_a_turn_is_not_the_bone():
    case = make_adversarial(750_002, "holder")
    found = align(case.fixed, case.moving, hypotheses="search", refine="working")
    assert not found.accepted and "stood still" in found.verdict


def test_a_pose_is_judged_without_the_holder():
    pair, pose, _ = scans(TURNED)
    refined = refine(pair.fixed, pair.moving, torch.as_tensor(pose), native=False)
    alone, _ = pair.without_still(refined.pose)
    verdict = verify(pair, refined)
    assert verdict.confidence == pytest.approx(verify(alone, refined).confidence, abs=0.02)
    assert verdict.evidence.similarity.correlation > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "told"),
    [
        # A tube in air, five times as large as the bone.
        (900_003, True),
        # A tube about as bright as the threshold: bone in one scan, and not in the other.
        pytest.param(900_012, False, marks=pytest.mark.slow),
        # A platform brighter than bone.
        pytest.param(900_018, True, marks=pytest.mark.slow),
    ],
)
def test_a_bone_in_a_holder_is_accepted_and_the_holder_told(seed, told):
    case = make_adversarial(seed, "holder")
    result = align(case.fixed, case.moving)
    assert result.accepted and case.error_mm(result.matrix) < 0.01
    assert ("lies still in both scans" in result.verdict) == told
