"""Results of a cohort go to JSON and back, and are put in the order in which a person looks at them."""

import json
import math
from dataclasses import fields

import pytest
from DNetRegistrationLib.cohort.result import CohortResult, PairResult, Pictures, Problem, needs_look


def pair(name: str, status: str = "accepted", **values) -> PairResult:
    return PairResult(name=name, fixed=f"{name}_pre", moving=f"{name}_post", status=status, verdict="said", **values)


def same(one: PairResult, other: PairResult) -> bool:
    """NaN is equal to NaN here."""
    values = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(PairResult)]
    return all(a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)) for a, b in values)


def test_a_cohort_goes_to_json_and_back():
    full = pair(
        "a",
        columns={"group": "=1+1", "time": "4 w"},
        doubts=("strain",),
        warnings=("w",),
        surroundings="s",
        confidence=0.9,
        expected_error_um=2.5,
        matrix=tuple(range(16)),
        compartments=({"name": "medial", "mean_thickness_um": 40.5},),
        seconds=3.0,
        outputs={"transform": "a/transform.tfm"},
        pictures=Pictures(before="a/before.png"),
        loop_error_um=1.5,
    )
    problem = Problem(kind="partner", pair="b", files=("b_pre.nrrd",), problem="is alone", remedy="add it")
    cohort = CohortResult(
        scans="in", pairs=(full, pair("b", "failed")), problems=(problem,), options={"bone": "largest"}
    )
    again = CohortResult.from_dict(json.loads(json.dumps(cohort.to_dict(), allow_nan=False)))
    assert all(same(one, other) for one, other in zip(again.pairs, cohort.pairs, strict=True))
    assert (again.problems, again.options, again.scans) == (cohort.problems, cohort.options, "in")
    assert math.isnan(again.pairs[1].dice) and again.pairs[1].check_error_um is None
    assert again.counts == {"accepted": 1, "refused": 0, "failed": 1} and not again.accepted


@pytest.mark.parametrize(
    ("options", "unmeasured"),
    [
        ({}, ["empty"]),  # as where Python was asked
        ({"outputs": ["transform"]}, ["empty"]),
        ({"outputs": ["thickness"]}, ["accepted", "empty"]),
        ({"outputs": ["cartilage"], "anyway": True}, ["accepted", "refused", "empty"]),
    ],
)
def test_cartilage_that_was_asked_for_and_not_measured_is_known(options, unmeasured):
    rows = [({"mean_thickness_um": mean}, {"mean_thickness_um": math.nan}) for mean in (math.nan, 40.0)]
    pairs = [pair(name, name) for name in ("accepted", "refused", "failed")]
    pairs += [pair("empty", compartments=rows[0]), pair("measured", compartments=rows[1])]
    result = CohortResult(scans="in", pairs=tuple(pairs), options=options)
    assert [one.name for one in result.unmeasured] == unmeasured
    again = CohortResult.from_dict(json.loads(json.dumps(result.to_dict(), allow_nan=False)))
    assert [one.name for one in again.unmeasured] == unmeasured


def test_a_status_that_is_unknown_is_an_error():
    with pytest.raises(ValueError, match="unknown"):
        PairResult.from_dict({**pair("a").to_dict(), "status": "good"})


def test_pairs_that_need_a_look_come_first():
    sure, less_sure = pair("sure", confidence=0.99), pair("less sure", confidence=0.8)
    reserved = pair("reserved", confidence=0.999, doubts=("strain",))
    open_loop = pair("open loop", confidence=0.95, expected_error_um=2.0, loop_error_um=30.0, doubts=("loop",))
    # Whether it is open the three expected errors of a loop say; see `geometry.loops.suspects`.
    closed_loop = pair("closed loop", confidence=0.95, expected_error_um=2.0, loop_error_um=3.0)
    refused, failed = pair("refused", "refused", confidence=0.1), pair("failed", "failed")
    warned = pair("warned", confidence=0.999, warnings=("The scan ends at the border of the cartilage.",))
    pairs = [sure, closed_loop, warned, reserved, failed, open_loop, less_sure, refused]
    order = [one.name for one in needs_look(pairs)]
    assert order == ["failed", "refused", "open loop", "reserved", "warned", "less sure", "closed loop", "sure"]
    assert [one.reserved for one in (reserved, open_loop, warned, sure)] == [True, True, False, False]
