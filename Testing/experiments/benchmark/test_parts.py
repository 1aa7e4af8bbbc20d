"""The parts of the benchmark: seeds that are apart, and pairs that are aligned and compared with the truth."""

from __future__ import annotations

import json
import math

import pytest
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.experiments.benchmark.parts import CALIBRATION_SEEDS, PARTS, Outcome, Trial, measure
from DNetRegistrationLib.experiments.store import ResultStore
from DNetRegistrationLib.registration import align as registration
from DNetRegistrationLib.synthesis import pairs
from DNetRegistrationLib.synthesis.adversarial import KINDS


def test_seeds_are_apart_and_not_those_of_calibration():
    trials = [Trial(part, number, 0, 10_000) for part in PARTS for number in (0, 9_999)]
    assert len({trial.seed for trial in trials}) == len(trials)
    assert max(trial.seed for trial in trials) < CALIBRATION_SEEDS
    assert Trial("success", 3, 0).seed == 3


def test_an_alignment_that_fails_is_counted(monkeypatch):
    def fail(*arguments, **options):
        raise ScanError("no bone")

    monkeypatch.setattr(registration, "align", fail)
    (outcome,) = measure([Trial("success", 0, 0)])
    assert not outcome.success
    assert outcome.failure == "ScanError: no bone"


def test_an_adversarial_pair_that_fails_keeps_what_it_is(monkeypatch):
    def fail(*arguments, **options):
        raise ScanError("no bone")

    monkeypatch.setattr(registration, "align", fail)
    number = list(KINDS).index("slender")
    (outcome,) = measure([Trial("adversarial", number + len(KINDS), 0)])
    assert (outcome.kind, outcome.answerable, outcome.right) == ("slender", True, False)
    assert (
        json.loads(outcome.drawn)["seed"]
        == outcome.seed
        == list(PARTS).index("adversarial") * 10_000 + number + len(KINDS)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("part", "number"), [("adversarial", 0), ("coverage cut", 1), ("impostors", 2)])
def test_an_alignment_is_compared_with_the_truth(part, number):
    (outcome,) = measure([Trial(part, number, 0)])
    assert not outcome.failure and outcome.voxel_um == pytest.approx(80) and outcome.seconds_total > 0
    if part == "impostors":
        assert (outcome.kind, outcome.accepted, outcome.answerable, outcome.right) == ("mirror", False, False, False)
        assert outcome.doubts and math.isnan(outcome.error_um)
    else:
        assert outcome.accepted and outcome.right and outcome.answerable and outcome.errors_um == (outcome.error_um,)
        assert outcome.kind == ("plain" if part == "adversarial" else "same")


def test_coverage_is_measured_with_and_without_contrast_agent(monkeypatch):
    drawn = []

    def record(seed, **options):
        drawn.append(options)
        raise InterruptedError

    monkeypatch.setattr(pairs, "make_pair", record)
    for number in range(4):
        with pytest.raises(InterruptedError):
            measure([Trial("coverage cut", number, 0)])
    assert [one["contrast"] for one in drawn] == [True, False, True, False]
    assert {one["keep"] for one in drawn} == {0.5}


def test_outcomes_are_kept(tmp_path):
    path = tmp_path / "pairs.csv"
    outcomes = [
        Outcome("success", 0, 0, "same", error_um=1 / 3, seconds_total=0.1),
        Outcome("adversarial", 3, 0, "two bones", errors_um=(1 / 3, 2.5), doubts="a; b", drawn='{"a": [1, "x, y"]}'),
        Outcome("impostors", 10_000, 0, "mirror", error_um=math.nan, accepted=True, failure='odd, "quoted" text'),
    ]
    for outcome in outcomes:
        ResultStore(path, Outcome).add(outcome)
    # NaN is not itself, but reads the same.
    assert repr(list(ResultStore(path, Outcome).results.values())) == repr(outcomes)
    assert next(iter(ResultStore(path, Outcome).results)) == Trial("success", 0, 0).key


@pytest.mark.parametrize(("part", "run", "alone"), [("network whole", 0, True), ("network whole", 1, False)])
def test_a_network_alone_is_told_from_the_default(part, run, alone):
    assert Outcome(part, 0, run, "same").alone is alone
