"""An alignment checked by turning the moving scan and aligning again."""

import dataclasses

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib import Alignment, Volume, align, check_alignment
from DNetRegistrationLib.core.errors import OptionError, ScanError
from DNetRegistrationLib.registration import check
from DNetRegistrationLib.registration.result import Bone, Check, Repeat
from scipy.spatial.transform import Rotation

TRUTH = np.eye(4)
TRUTH[:3, :3], TRUTH[:3, 3] = Rotation.from_rotvec((0.4, -1.2, 0.7)).as_matrix(), (12.0, -3.0, 40.0)


@pytest.fixture
def scans():
    """Two small blocks of "bone" on unequal oblique grids."""
    generator = np.random.default_rng(2)
    found = []
    for shape, spacing, place in (((9, 10, 12), (0.1, 0.1, 0.2), 5.0), ((10, 12, 8), (0.08, 0.1, 0.1), -30.0)):
        axes = Rotation.from_rotvec((0.1, 0.2, -0.3)).as_matrix()
        found.append(Volume.from_geometry(generator.normal(1000, 10, shape), spacing, axes, (place, 1, 2)))
    return found


@pytest.fixture
def answered(monkeypatch, scans):
    """Stands in for the alignment: it knows how the scan was turned, and is off by what is given."""
    calls, offs = [], []

    def answer(fixed, moving, **options):
        calls.append(dict(options, fixed=fixed, moving=moving))
        off = offs[len(calls) - 1]
        if isinstance(off, Exception):
            raise off
        turned = turns[len(calls) - 1]
        shift = np.eye(4)
        shift[:3, 3] = (0, 0.6 * off[0] / 1000, 0.8 * off[0] / 1000)
        return made_alignment(turned @ shift @ TRUTH, accepted=off[1])

    monkeypatch.setattr(check, "align", answer)
    turns = [turn(scans[1], None).matrix for turn in check.TURNS.values()]
    return calls, offs


def test_the_error_is_the_distance_between_the_answers_in_the_scan_that_was_not_turned(scans, answered):
    calls, offs = answered
    offs += [(0.5, True), (2.0, True), (1.0, False)]
    alignment = made_alignment(TRUTH, expected_error_um=3.0)
    told = []
    found = check_alignment(alignment, *scans, initial=TRUTH, weights="w", progress=lambda f, m: told.append(f))
    assert [one.error_um for one in found.check.repeats] == pytest.approx([0.5, 2.0, 1.0])
    assert [one.accepted for one in found.check.repeats] == [True, True, False]
    assert found.check.error_um == pytest.approx(2.0)
    took = found.seconds["check"]
    assert took > 0 and found.seconds["total"] == pytest.approx(alignment.seconds["total"] + took)
    assert dataclasses.replace(found, check=None, seconds=alignment.seconds).to_dict() == alignment.to_dict()
    assert told == sorted(told) and told[0] == 0
    for call in calls:
        assert call["weights"] == "w" and call["fixed"] is not None and call["moving"].voxels.size >= 960
        # What was known of the scan is known of the turned one.
        np.testing.assert_allclose(
            np.linalg.inv(call["initial"])[:3, :3] @ call["initial"][:3, :3], np.eye(3), atol=1e-9
        )
    assert np.isfinite(calls[0]["moving"].voxels).all() and np.isnan(calls[2]["moving"].voxels).any()


def test_the_error_counts_over_the_bone_and_only_where_the_mask_is(scans, answered, monkeypatch):
    calls, offs = answered
    offs += [(0.0, True)] * 3
    fixed, moving = scans
    seen = []
    monkeypatch.setattr(check, "mean_point_error", lambda a, b, points: seen.append(points) or 0.0)
    mask = np.zeros(fixed.voxels.shape, bool)
    mask[2, 3, 4] = mask[7, 1, 9] = mask[5, 5, 5] = True
    fixed.voxels[5, 5, 5] = 0  # no bone
    moving_mask = np.zeros(moving.voxels.shape, bool)
    moving_mask[:, :, :3] = True
    check_alignment(made_alignment(TRUTH), fixed, moving, fixed_mask=mask, moving_mask=moving_mask)
    np.testing.assert_allclose(seen[0], fixed.to_world([(4, 3, 2), (9, 1, 7)]))
    assert [call["moving_mask"].sum() for call in calls[:2]] == [moving_mask.sum()] * 2
    # Of a bone that moved on its own, its own masks are taken.
    calls.clear()
    own = (~mask, ~moving_mask)
    (one,) = check_alignment([made_alignment(TRUTH, bone=Bone(1, 2, 0.5, np.zeros(3), own))], fixed, moving)
    np.testing.assert_array_equal(calls[0]["fixed_mask"], ~mask)
    assert calls[0]["moving_mask"].sum() == (~moving_mask).sum() and one.check.error_um == 0
    with pytest.raises(OptionError, match="masks"):
        check_alignment(made_alignment(TRUTH, bone=Bone(1, 2, 0.5, np.zeros(3))), fixed, moving)


def checked(*repeats, **changes):
    """An answer with an expected error of 3.4 um at a working voxel of 80 um."""
    return check.with_check(made_alignment(**changes), Check(tuple(Repeat("x", *one) for one in repeats)))


def test_beyond_the_expected_error_it_warns():
    within = checked((3.4, True), (1.0, True))
    assert within.accepted and not within.warnings and not within.doubts
    beyond = checked((3.5, True), (1.0, True), warnings=["Before."], doubts=["part"])
    assert beyond.accepted and beyond.doubts == ["check", "part"] and beyond.warnings[0] == "Before."
    assert "up to 3.5 um" in beyond.warnings[1]
    # One that is itself refused says little.
    lost = checked((900.0, False), (1.0, True))
    assert lost.accepted and lost.doubts == ["check"]


def test_of_two_accepted_answers_that_differ_by_more_than_a_working_voxel_neither_is():
    two = checked((900.0, False), (80.1, True))
    assert not two.accepted and two.confidence == 0 and two.doubts == ["check"]
    assert two.reason.startswith("turned and aligned again,") and "80.1 um" in two.reason
    assert two.verdict == f"Not accepted: {two.reason}"
    assert checked((79.9, True)).accepted
    refused = checked((900.0, True), accepted=False, verdict="Not accepted: other.", confidence=0.1)
    assert refused.verdict == "Not accepted: other." and refused.confidence == 0.1 and not refused.doubts


def test_a_scan_that_cannot_be_aligned_when_turned_is_told(scans, answered):
    _, offs = answered
    offs += [(0.5, True), ScanError("no bone", "look"), (1.0, True)]
    found = check_alignment(made_alignment(TRUTH), *scans)
    assert found.check.error_um == np.inf and found.accepted and "could not be aligned again" in found.warnings[0]
    again = Alignment.from_dict(found.to_dict())
    assert again.check == found.check and again.to_dict() == found.to_dict()
    assert found.to_dict()["check"]["error_um"] is None


@pytest.mark.slow
def test_a_small_pair_is_repeated_to_a_fraction_of_its_expected_error(small_pair):
    alignment = align(small_pair.fixed, small_pair.moving, hypotheses="dnet", refine="working")
    found = check_alignment(alignment, small_pair.fixed, small_pair.moving, hypotheses="dnet", refine="working")
    assert all(0 < one.error_um < alignment.expected_error_um for one in found.check.repeats)
    assert found.accepted == alignment.accepted and not found.doubts
