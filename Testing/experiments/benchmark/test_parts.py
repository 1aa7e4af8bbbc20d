"""The parts of the benchmark: seeds that are apart, and pairs that are aligned and compared with the truth."""

from __future__ import annotations

import math

import pytest
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.experiments.benchmark.parts import CALIBRATION_SEEDS, PARTS, Outcome, Trial, measure
from DNetRegistrationLib.experiments.store import ResultStore
from DNetRegistrationLib.registration import align as registration


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


def test_outcomes_are_kept(tmp_path):
    path = tmp_path / "pairs.csv"
    outcomes = [
        Outcome("success", 0, 0, "same", error_um=1 / 3, seconds_total=0.1),
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
