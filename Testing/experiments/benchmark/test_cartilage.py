"""The benchmark of cartilage: what its table makes of results, and one pair."""

import numpy as np
import pytest
from DNetRegistrationLib.experiments.benchmark import cartilage, cases
from DNetRegistrationLib.experiments.benchmark.cartilage import CartilageResult, CartilageTable, benchmark_cartilage


def _table(errors, kind="20 um", **more):
    return CartilageTable(
        [
            CartilageResult(kind, seed, True, True, pair, (40.0,) * len(pair), 3.0, 0.1, 5.0, **more)
            for seed, pair in enumerate(errors)
        ]
    )


def test_bias_and_spread_are_those_of_the_compartments():
    findings = _table([(3.0, 5.0), (4.0,)]).findings()
    assert findings[0].measured == "4.00 um" and findings[0].holds
    assert findings[1].measured == "1.00 um" and findings[1].holds
    assert _table([(3.0, 5.0), (4.0,)]).holds


@pytest.mark.parametrize("errors", [[(4.5, 5.5)], [(-9.0, 9.0)]])
def test_a_bias_or_a_spread_that_is_too_large_does_not_hold(errors):
    assert not _table(errors).holds


def test_of_varied_pairs_nothing_is_required_and_failures_are_counted():
    table = _table([(40.0, 60.0)], "20 um varied")
    table.results.append(CartilageResult("20 um varied", 99, failure="ScanError: no bone"))
    assert table.holds
    assert table.findings()[-1].measured == "1 of 2"


def test_a_pair_is_measured_and_kept(tmp_path, monkeypatch):
    small = {"size": 64, "spacing": 0.04, "agent": "even"}
    monkeypatch.setattr(cartilage, "KINDS", {"40 um": (small, 300_000, (None, None, None))})
    result = cartilage.measure_pair("40 um", 300_003)
    assert result.accepted and result.agent and not result.failure
    assert len(result.errors_um) == len(result.true_um) == 2
    assert np.abs(result.errors_um).max() < 15 and 0 < result.point_error_um < 15
    monkeypatch.setattr(cases, "completed_calls", lambda function, calls, jobs: (function(*call) for call in calls))
    calls = []
    monkeypatch.setattr(cartilage, "measure_pair", lambda *key: calls.append(key) or result)
    told = []
    for _ in range(2):  # The second time, nothing is missing.
        benchmark_cartilage(pairs=1, seed=3, output=tmp_path, tell=told.append)
    assert calls == [("40 um", 300_003)]
    assert told[0] == told[1] and (tmp_path / "cartilage.md").read_text() == told[0] + "\n"
