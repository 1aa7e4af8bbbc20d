"""The alignments on record: a new torch, machine or arrangement of the code changes none of them."""

from __future__ import annotations

import golden_cases
import pytest

SYNTHETIC = {case.name: case for case in golden_cases.synthetic()}


def check(case: golden_cases.Golden) -> None:
    old, limit = golden_cases.recorded()[case.name], golden_cases.tolerance()
    answer = case.aligned()
    assert (answer.accepted, answer.mirrored) == (old["accepted"], old["mirrored"])
    assert answer.confidence == pytest.approx(old["confidence"], abs=limit["confidence"])
    assert answer.dice_before == pytest.approx(old["dice_before"], abs=limit["dice"])
    # Of an answer that is refused, the pose is one of many that fit as badly: the last bit of a voxel chooses it.
    if answer.accepted:
        assert answer.hypothesis == old["hypothesis"]
        assert answer.apart_um(old) < limit["apart_um"]
        assert answer.expected_error_um == pytest.approx(old["expected_error_um"], rel=limit["expected_error_share"])
        assert answer.dice == pytest.approx(old["dice"], abs=limit["dice"])


@pytest.mark.parametrize("name", ["whole 0", "oblique 3"])
def test_some_pairs(name):
    check(SYNTHETIC[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_pairs(name):
    check(SYNTHETIC[name])


@pytest.mark.slow
def test_real_scans(shared_data):
    for case in golden_cases.real(shared_data):
        check(case)


def test_each_pair_is_on_record(shared_data):
    assert {*SYNTHETIC, *(case.name for case in golden_cases.real(shared_data))} == set(golden_cases.recorded())
    assert len(SYNTHETIC) == 60
