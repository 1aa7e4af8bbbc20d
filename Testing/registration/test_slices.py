"""Slices: what is missing from a scan, or there twice, is found where it is, and nothing elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import PreparedScan, prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.slices import Jump, find_jump
from DNetRegistrationLib.synthesis.adversarial import make_adversarial

FIRST, COUNT = 30, 5


def prepared(*scans: Volume) -> tuple[PreparedScan, PreparedScan]:
    return prepare(*(native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in scans))


def restacked(scan: Volume, axis: int, missing: bool) -> Volume:
    """The scan without `COUNT` slices along an axis, or with these twice. Those before are where they were."""
    repeats = np.ones(scan.size[axis], int)
    repeats[FIRST : FIRST + COUNT] = 0 if missing else 2
    return replace(scan, voxels=np.repeat(scan.voxels, repeats, 2 - axis))


@pytest.mark.parametrize(("role", "axis", "missing"), [("moving", 2, True), ("fixed", 2, False), ("moving", 0, False)])
def test_a_place_where_slices_are_missing_or_doubled_is_found(pair, role, axis, missing):
    scans = {"fixed": pair.fixed, "moving": pair.moving}
    scans[role] = restacked(scans[role], axis, missing)
    # The true pose holds below that place.
    jump = find_jump(*prepared(scans["fixed"], scans["moving"]), torch.tensor(pair.matrix))
    assert (jump.scan, jump.axis) == (role, "xyz"[axis])
    assert jump.shift == pytest.approx(COUNT * 0.08, abs=0.041)
    assert FIRST - 3 <= jump.index <= FIRST + 2 * COUNT
    # The bone beyond it, voxel by voxel, in the scan that was not changed.
    index = np.argwhere(pair.fixed_bone)[:, ::-1]
    if role == "moving":
        index = pair.moving.to_index(pair.fixed.to_world(index) @ pair.matrix[:3, :3].T + pair.matrix[:3, 3])
    assert jump.share == pytest.approx((index[:, axis] > FIRST + COUNT / 2).mean(), abs=0.12)
    assert jump.error == jump.share * jump.shift
    assert f"along {jump.axis} of the {role} scan" in jump.sentence and "missing or there twice" in jump.sentence


def test_scans_without_a_jump_have_none(pair, cut_pair):
    for one in (pair, cut_pair):
        assert find_jump(*prepared(one.fixed, one.moving), torch.tensor(one.matrix)) is None


@pytest.mark.slow
def test_less_than_a_slice_is_not_missing():
    """5 % of the bone was said to lie 120 um off along an axis whose slices are 147 um apart."""
    case = make_adversarial(710_031, "thick")
    assert "slices" not in align(case.fixed, case.moving).doubts


def test_the_sentence_says_where_and_how_far():
    assert Jump("fixed", "z", 38.9, 0.132, 0.4).sentence == (
        "13 % of the bone, on one side of slice 39 along z of the fixed scan, lies 400 um off: check whether slices of "
        "the scan are missing or there twice."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"), [("missing", 820_014), ("doubled", 820_015), ("missing", 740_498), ("missing", 750_150)]
)
def test_lost_slices_are_named_and_counted_as_error_or_refused(kind, seed):
    case = make_adversarial(seed, kind)
    found = align(case.fixed, case.moving)
    named = "slices" in found.doubts and "missing or there twice" in found.verdict
    assert not found.accepted or (named and 1000 * case.error_mm(found.matrix) < 2 * found.expected_error_um)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param("doubled", 640_156, marks=pytest.mark.slow),
        pytest.param("doubled", 820_015, marks=pytest.mark.slow),
        pytest.param("missing", 991_002, marks=pytest.mark.slow),
    ],
)
def test_slices_are_named_where_the_pose_is_refused(kind, seed):
    """The first one was accepted, 103 um off: what the doubled slices stretch fits with no shift, and hid the rest. The
    second one was told that no pose makes the bones agree, 52 um off.
    """
    case = make_adversarial(seed, kind)
    found = align(case.fixed, case.moving)
    assert not found.accepted and found.doubts[0] == "slices" and "missing or there twice" in found.verdict
