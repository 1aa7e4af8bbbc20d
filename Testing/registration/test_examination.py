"""Examination: what speaks against an answer that agrees well is found, told, and lowers what is believed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.bone.cube import canonical_cube
from DNetRegistrationLib.bone.threshold import HIGHEST
from DNetRegistrationLib.registration import examination
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.blur import blurred
from DNetRegistrationLib.registration.evidence import Evidence, grey_image
from DNetRegistrationLib.registration.pieces import Piece
from DNetRegistrationLib.registration.similarity import Similarity
from DNetRegistrationLib.registration.verdict import Verdict
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at
from two_bodies import OBLIQUE, prepared, two_bodies

GOOD = Verdict(0.98, 0.003, Evidence(Similarity(0.95, 0.9, 0.8, 0.9), 0.02, 0.08))
SCAN = SimpleNamespace(cube=SimpleNamespace(spacing=0.08))
PAIR = SimpleNamespace(fixed=SCAN, moving=SCAN, bare=False)


def examined(
    monkeypatch,
    verdict=GOOD,
    rival=None,
    strained=0.0,
    certain=True,
    pieces=(),
    pair=PAIR,
    jump=None,
    bowed=None,
    vouched=True,
):
    """A verdict examined with findings that are given: the strain by the mean error in mm that it means."""
    monkeypatch.setattr(examination, "find_jump", lambda *arguments: jump)
    significant = strained > 0 and certain
    told = "It is longer." if significant else None
    expected = strained if significant else strained / 2
    strain = SimpleNamespace(significant=significant, sentence=told, expected_error=expected)
    monkeypatch.setattr(examination, "find_rival", lambda *arguments: rival)
    monkeypatch.setattr(examination, "find_strain", lambda *arguments: strain)
    bowing = None if bowed is None else SimpleNamespace(apart=bowed)
    monkeypatch.setattr(examination, "_bowing", lambda *arguments: bowing)
    monkeypatch.setattr(examination, "check_pieces", lambda *arguments: list(pieces))
    monkeypatch.setattr(examination, "unvouched", lambda *arguments: not vouched)
    return examination.examine(verdict, pair, torch.eye(4).double())[0]


def test_nothing_found_changes_nothing(monkeypatch):
    for rival in (None, SimpleNamespace(fits_equally=False)):
        verdict = examined(monkeypatch, rival=rival)
        assert verdict.confidence == pytest.approx(GOOD.confidence) and verdict.doubts == ()
        assert verdict.expected_error == GOOD.expected_error


def test_what_one_scan_alone_shows_is_another_bone_only_where_a_layer_was_left_out(monkeypatch):
    center = np.zeros(3)
    pieces = [Piece(0.8, True, 0.0, False, center), Piece(0.2, False, np.nan, True, center)]
    for bare in (False, True):
        pair = SimpleNamespace(fixed=SCAN, moving=SCAN, bare=bare, without_still=lambda pose: None)
        verdict = examined(monkeypatch, pieces=pieces, pair=pair)
        assert verdict.accepted and [doubt.kind for doubt in verdict.doubts] == ["other bone"] * bare


@pytest.mark.parametrize(
    ("error", "share", "strained", "told"),
    [(0.078, 0.33, 0.0, "little in common"), (0.078, 0.9, 0.0, "undetermined"), (0.03, 0.33, 0.08, "strain")],
)
def test_a_pose_that_is_hardly_known_to_within_a_voxel_says_why(monkeypatch, error, share, strained, told):
    """A strain of some percent was told where none was found."""
    evidence = replace(GOOD.evidence, similarity=replace(GOOD.evidence.similarity, share=share))
    verdict = examined(monkeypatch, replace(GOOD, evidence=evidence, expected_error=error), None, 2 * strained, False)
    assert not verdict.accepted and verdict.doubts[0].kind == told


def test_a_pose_with_a_rival_is_refused(monkeypatch):
    verdict = examined(monkeypatch, rival=SimpleNamespace(fits_equally=True))
    assert not verdict.accepted and [doubt.kind for doubt in verdict.doubts] == ["symmetry"]
    assert "one of several poses that fit equally" in verdict.sentence


@pytest.mark.parametrize(("bowed", "told"), [(0.0, False), (0.04, False), (0.052, True), (0.2, True)])
def test_slender_bones_of_another_shape_are_refused(monkeypatch, bowed, told):
    verdict = examined(monkeypatch, bowed=bowed)
    assert verdict.accepted != told and [doubt.kind for doubt in verdict.doubts] == ["shape"] * told
    assert ("as those of two animals do" in verdict.sentence) == told


def test_an_accepted_answer_says_that_nothing_vouches_for_one_animal(monkeypatch):
    verdict = examined(monkeypatch, vouched=False)
    assert verdict.confidence == pytest.approx(GOOD.confidence)
    assert [doubt.kind for doubt in verdict.doubts] == ["identity"]
    assert "Make sure that both scans are of the same bone" in verdict.sentence
    # Of what is refused for something else, that is to be mended first.
    refused = examined(monkeypatch, replace(GOOD, expected_error=0.12), vouched=False)
    assert not refused.accepted and "identity" not in [doubt.kind for doubt in refused.doubts]


def test_an_answer_that_fits_what_stood_still_is_refused(monkeypatch):
    pair = SimpleNamespace(fixed=SCAN, moving=SCAN, bare=False, fits_as_it_lay=lambda pose: True)
    lay = replace(GOOD, evidence=replace(GOOD.evidence, dice_before=0.7))
    verdict = examined(monkeypatch, lay, pair=pair)
    assert not verdict.accepted and [doubt.kind for doubt in verdict.doubts] == ["standstill"]
    # Where the cortices did not lie together, nothing stood still.
    assert examined(monkeypatch, replace(GOOD, evidence=replace(GOOD.evidence, dice_before=0.1)), pair=pair).accepted


@pytest.mark.parametrize(("share", "told"), [(0.45, True), (0.55, False)])
def test_an_answer_for_less_than_half_of_the_bone_says_so(monkeypatch, share, told):
    evidence = replace(GOOD.evidence, similarity=replace(GOOD.evidence.similarity, share=share))
    verdict = examined(monkeypatch, replace(GOOD, evidence=evidence))
    assert verdict.accepted and ([doubt.kind for doubt in verdict.doubts] == ["part"]) == told


@pytest.mark.parametrize(("strained", "accepted"), [(0.02, True), (0.05, True), (0.09, False), (0.5, False)])
def test_a_strain_is_told_and_counts_as_error(monkeypatch, strained, accepted):
    verdict = examined(monkeypatch, strained=strained)
    assert verdict.accepted == accepted
    assert verdict.expected_error == pytest.approx((strained**2 + 0.003**2) ** 0.5)
    assert [doubt.kind for doubt in verdict.doubts] == ["strain"] and "it is longer." in verdict.sentence.lower()


def test_a_strain_that_cannot_be_told_for_certain_counts_too(monkeypatch):
    small = examined(monkeypatch, strained=0.04, certain=False)
    assert small.accepted and small.doubts == () and small.expected_error > 0.02
    large = examined(monkeypatch, strained=0.2, certain=False)
    assert not large.accepted and "voxel sizes" in large.sentence


@pytest.mark.parametrize(("error", "accepted"), [(0.04, True), (0.09, False)])
def test_slices_that_are_missing_are_told_and_count_as_error(monkeypatch, error, accepted):
    verdict = examined(monkeypatch, jump=SimpleNamespace(error=error, sentence="Slices are missing."))
    assert verdict.accepted == accepted and "slices are missing." in verdict.sentence.lower()
    assert [doubt.kind for doubt in verdict.doubts] == ["slices"]
    assert verdict.expected_error == pytest.approx((error**2 + 0.003**2) ** 0.5)


def test_rival_and_strain_are_looked_for_in_images_of_like_blur(monkeypatch):
    """The greys of each scan are blurred by its own covariance and cut at the threshold; its cube is made of them."""
    bone = pose_at(TURNS[1], OBLIQUE[3])
    volume = two_bodies(OBLIQUE, bone, bone)
    scan = prepared(volume, volume)[0]
    cortex = cortical_bone(volume, 0.4, 0.1)
    seen = {}

    def note(name):
        return lambda fixed, moving, *others: seen.update({name: (fixed, moving)})

    monkeypatch.setattr(examination, "_bowing", lambda *arguments: None)
    monkeypatch.setattr(examination, "check_pieces", lambda *arguments: [])
    monkeypatch.setattr(examination, "find_jump", lambda *arguments: None)
    monkeypatch.setattr(examination, "find_rival", note("rival"))
    strain = SimpleNamespace(significant=False, sentence=None, expected_error=0.0)
    monkeypatch.setattr(examination, "find_strain", lambda *arguments: note("strain")(*arguments) or strain)
    blurs = np.zeros((3, 3)), np.diag((0.0, 0.01, 0.03))
    pair = SimpleNamespace(fixed=scan, moving=scan, bones=(cortex, cortex), bare=False)
    examination.examine(replace(GOOD, evidence=replace(GOOD.evidence, blurs=blurs)), pair, torch.eye(4).double())
    grey = grey_image(scan, cortex)
    for scans in seen.values():
        for one, blur in zip(scans, blurs, strict=True):
            expected = blurred(grey, blur).values.clamp(0, HIGHEST)
            assert torch.equal(one.levels[-1].values, expected)
            cube = canonical_cube([replace(grey, values=expected)], scan.place, 0.1)
            assert torch.equal(one.cube.image, cube.image) and torch.equal(one.cube.inside, cube.inside)
    assert set(seen) == {"rival", "strain"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("thick", 750_055), ("clinical", 740_492)])
def test_what_thick_slices_leave_unexplained_is_no_symmetry(kind, seed):
    case = make_adversarial(seed, kind)
    found = align(case.fixed, case.moving)
    assert "symmetry" not in found.doubts and case.error_mm(found.matrix) < found.working_spacing


def test_an_answer_that_rests_on_little_of_the_bone_says_so(monkeypatch):
    similarity = replace(GOOD.evidence.similarity, share=0.29)
    verdict = examined(monkeypatch, replace(GOOD, evidence=replace(GOOD.evidence, similarity=similarity)))
    assert verdict.accepted and [doubt.kind for doubt in verdict.doubts] == ["part"]
    assert "rests on 29 % of the bone" in verdict.sentence


def test_what_is_refused_is_not_examined(monkeypatch):
    refused = replace(GOOD, confidence=0.2).because("no agreement")
    assert examined(monkeypatch, refused, rival=SimpleNamespace(fits_equally=True), strained=1.0) == refused


@pytest.mark.slow
def test_a_strain_that_is_hardly_better_than_none_still_counts():
    """A crop of a shaft, 0.16 mm off: the strain of 3 % that is not there says that the pose is."""
    case = make_adversarial(860_008, "crop")
    assert not align(case.fixed, case.moving).accepted


def test_an_ordinary_pair_stands_the_examination(alignment):
    assert alignment.accepted and alignment.doubts == [] and alignment.verdict.startswith("Accepted: ")


def test_what_lies_still_is_told_and_left_out(monkeypatch):
    moved_on_its_own = Piece(0.4, False, np.nan, False, np.zeros(3))
    monkeypatch.setattr(examination, "find_rival", lambda fixed, *others: SimpleNamespace(fits_equally=fixed is SCAN))
    strain = SimpleNamespace(significant=False, sentence=None, expected_error=0.0)
    monkeypatch.setattr(examination, "find_strain", lambda *arguments: strain)
    monkeypatch.setattr(examination, "find_jump", lambda *arguments: None)
    monkeypatch.setattr(examination, "_bowing", lambda *arguments: None)
    monkeypatch.setattr(examination, "unvouched", lambda *arguments: False)
    monkeypatch.setattr(examination, "check_pieces", lambda fixed, *others: [moved_on_its_own] if fixed is SCAN else [])
    alone = SimpleNamespace(cube=SCAN.cube)
    left = SimpleNamespace(fixed=alone, moving=alone, bare=False)
    pair = SimpleNamespace(fixed=SCAN, moving=SCAN, bare=False, without_still=lambda pose: (left, 0.42))
    verdict, without = examination.examine(GOOD, pair, torch.eye(4).double())
    assert without is left
    assert verdict.accepted and [doubt.kind for doubt in verdict.doubts] == ["other bone"]
    assert "42 % of what is as bright as bone lies still in both scans" in verdict.sentence


def test_a_wrong_slice_distance_is_named(pair):
    affine = pair.moving.affine @ np.diag((1, 1, 1.06, 1))
    result = align(pair.fixed, replace(pair.moving, affine=affine))
    assert "strain" in result.doubts and "along z" in result.verdict
    # Half a box of bone 2.5 mm away from its middle is 6 % of that off at its ends.
    assert result.expected_error_um > 25


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        (7_401_000, "symmetric"),
        pytest.param(7_401_001, "ball", marks=pytest.mark.slow),
        # Noise and interpolation tell a pose of this ball a little better than another.
        pytest.param(740_447, "ball", marks=pytest.mark.slow),
        pytest.param(7_401_002, "symmetric", marks=pytest.mark.slow),
        pytest.param(7_401_003, "shaft", marks=pytest.mark.slow),
        pytest.param(7_401_004, "capped", marks=pytest.mark.slow),
        pytest.param(7_401_005, "plate", marks=pytest.mark.slow),
        pytest.param(7_401_006, "refilled", marks=pytest.mark.slow),
    ],
)
def test_poses_that_are_not_determined_are_refused(seed, kind):
    case = make_adversarial(seed, kind)
    assert not align(case.fixed, case.moving).accepted


@pytest.mark.parametrize(
    "seed", [7_402_000, *(pytest.param(7_402_000 + n, marks=pytest.mark.slow) for n in range(1, 5))]
)
def test_metal_is_not_what_is_aligned(seed):
    case = make_adversarial(seed, "metal")
    result = align(case.fixed, case.moving)
    assert not result.accepted or case.error_mm(result.matrix) < 0.08 or "metal" in result.doubts


@pytest.mark.slow
def test_one_bone_of_two_is_named():
    case = make_adversarial(7_403_000, "two bones")
    result = align(case.fixed, case.moving)
    assert not result.accepted or "other bone" in result.doubts
