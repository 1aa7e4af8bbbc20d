"""The benchmark of cartilage: what its table makes of results, and one pair."""

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.experiments.benchmark import cartilage, cases
from DNetRegistrationLib.experiments.benchmark.cartilage import CartilageResult, CartilageTable, benchmark_cartilage


def _table(errors, kind="20 um", **more):
    return CartilageTable(
        [
            CartilageResult(
                kind, seed, True, True, pair, (40.0,) * len(pair), 3.0, 0.1, 0.9, 0.0,
                (40.0 + pair[0], np.nan), (2.0, np.nan), (40.0, 40.0),
                (0.04 + pair[0] / 1000, np.nan), (0.04, 0.04), **more,
            )
            for seed, pair in enumerate(errors)
        ]
    )  # fmt: skip


def test_bias_and_spread_are_those_of_the_compartments():
    findings = _table([(3.0, 5.0), (4.0,)]).findings()
    assert findings[0].measured == "4.00 um" and findings[0].holds
    assert findings[1].measured == "1.00 um" and findings[1].holds
    assert _table([(3.0, 5.0), (4.0,)]).holds


def test_a_pair_of_which_no_point_is_measured_says_nothing_of_points():
    table = _table([(3.0, 5.0), (4.0,)])
    table.results.append(
        CartilageResult(
            "20 um",
            9,
            True,
            True,
            stated_um=(np.nan,) * 2,
            stated_true_um=(np.nan,) * 2,
            standard_errors_um=(np.nan,) * 2,
            volumes_mm3=(np.nan,) * 2,
            true_volumes_mm3=(0.0,) * 2,
        )
    )
    found = next(one for one in table.findings() if "error of a point" in one.what)
    assert found.measured == "3.0 um" and found.holds


def test_means_are_held_against_twice_their_standard_error():
    """One of 20 may be off by more; what was not measured does not count."""
    for off, holds in ((1, True), (2, False)):
        table = _table([(4.5 if number < off else 3.5,) for number in range(20)])
        found = next(one for one in table.findings() if "twice their standard error" in one.what)
        assert found.measured.startswith(f"{off} of 20") and found.holds is holds


def test_animals_scanned_twice_give_coefficients_of_variation():
    """40 and 44 um: 6.7 % by hand, (44 - 40) / sqrt(2) / 42; 40 and 42: 3.4 %; together 5.4 %."""
    table = _table([(0.0,), (0.0,)])
    table.results += _table([(4.0,), (2.0,)], cartilage.AGAIN).results
    table.results += _table([(9.0,)] * 3, cartilage.AGAIN).results[2:]  # scanned once
    thickness, volume = (one for one in table.findings() if "coefficient of variation" in one.what)
    assert thickness.measured == volume.measured == "5.4 %"
    assert not thickness.holds and not volume.holds
    # The truth is 40 um each time: all of it is error.
    assert [one.measured for one in table.findings() if "over the truth" in one.what] == ["5.4 %"]


def test_groups_are_told_apart_if_errors_are_small():
    small, large = ([(sign * size,) for sign in (-1.0, 1.0) * 10] for size in (2.0, 9.0))
    for errors, holds in ((small, True), (large, False)):
        found = next(one for one in _table(errors).findings() if "told apart" in one.what)
        assert found.holds is holds


def test_too_few_measurements_are_told_and_do_not_hold():
    table = _table([(1.0,)])
    table.results += _table([(1.0,)], cartilage.AGAIN).results + _table([(1.0,)], "20 um varied").results
    found = [(one.what, one.measured) for one in table.findings() if one.required == "at least 2"]
    measured = "compartments whose mean thickness is measured"
    assert found[:2] == [(f"{kind}: {measured}", "1") for kind in ("20 um", cartilage.AGAIN)]
    assert len(found) == 4 and not table.holds
    assert CartilageTable([]).findings() == []


def test_edges_of_bare_bone_are_means_over_pairs():
    """What differs in sign between pairs is no edge."""
    rows = [
        CartilageResult(cartilage.EDGES, seed, edges=(-1.0, 3.0, *after))
        for seed, after in enumerate([(0.9, 1), (-0.7, 3)])
    ]
    inside, outside = CartilageTable(rows).findings()
    assert inside.measured == "0.10 %, was 1.00 %" and inside.holds
    assert outside.measured == "2.00 %, was 3.00 %" and outside.holds is False


def test_a_subtraction_of_bare_bone_shows_less_of_its_edge(monkeypatch):
    monkeypatch.setattr(cartilage, "_EDGES", {**cartilage._EDGES, "size": 40, "spacing": 0.05})
    before_in, before_out, after_in, after_out = cartilage.measure_pair(cartilage.EDGES, 5).edges
    assert before_in < -0.5 and before_out > 1
    assert abs(after_in) < 0.6 * abs(before_in) and abs(after_out) < 0.6 * before_out


def test_without_agent_hardly_any_surface_may_be_given_a_thickness():
    """An answer that is not accepted says nothing of cartilage."""
    for share, holds in ((0.01, True), (0.03, False)):
        rows = [
            CartilageResult(cartilage.WITHOUT, 1, True, given=0.0),
            CartilageResult(cartilage.WITHOUT, 2, True, True, given=2 * share - 0.001),
            CartilageResult(cartilage.WITHOUT, 3, False, given=1.0),
        ]
        rows.append(CartilageResult(cartilage.WITHOUT, 4, True, failure="ScanError: a bright layer"))
        found, said, failed = CartilageTable(rows).findings()
        assert failed.measured == "1 of 4"
        assert found.measured == f"{100 * share - 0.05:.2f} %" and found.holds is holds
        assert said.measured == "1 of 2"


def test_pairs_without_agent_that_all_fail_do_not_hold():
    assert not CartilageTable([CartilageResult(cartilage.WITHOUT, 1, True, failure="ScanError: a layer")]).holds


def test_cartilage_off_the_joint_does_not_hold():
    for share, holds in ((0.005, True), (0.02, False)):
        table = _table([(1.0, 2.0), (1.0, 3.0)])
        table.results[:] = [replace(one, other=share) for one in table.results]
        found = next(one for one in table.findings() if "off the joint" in one.what)
        assert found.measured == f"{100 * share:.2f} %" and found.holds is holds


@pytest.mark.parametrize("errors", [[(4.5, 5.5)], [(-9.0, 9.0)]])
def test_a_bias_or_a_spread_that_is_too_large_does_not_hold(errors):
    assert not _table(errors).holds


def test_of_varied_pairs_only_standard_errors_are_required_and_failures_are_counted():
    table = _table([(3.0, 60.0)], "20 um varied")
    table.results.append(CartilageResult("20 um varied", 99, failure="ScanError: no bone"))
    assert table.holds
    assert table.findings()[-1].measured == "1 of 2"
    assert not _table([(40.0, 60.0)], "20 um varied").holds


@pytest.mark.slow
def test_a_pair_is_measured_and_kept(tmp_path, monkeypatch):
    small = {"size": 64, "spacing": 0.04, "agent": "even"}
    monkeypatch.setattr(cartilage, "KINDS", {"40 um": (small, 300_000, (None, None, None, None))})
    result = cartilage.measure_pair("40 um", 300_003)
    assert result.accepted and result.agent and not result.failure
    assert len(result.errors_um) == len(result.true_um) == 2
    assert np.abs(result.errors_um).max() < 15 and 0 < result.point_error_um < 15
    assert 0 < result.processor_s < 100 and result.edges == ()
    assert 0.1 < result.given < 1 and result.other < 0.01
    assert np.subtract(result.stated_um, result.stated_true_um) == pytest.approx(0, abs=15)
    assert np.divide(result.volumes_mm3, result.true_volumes_mm3) == pytest.approx(1, abs=0.4)
    monkeypatch.setattr(cases, "completed_calls", lambda function, calls, jobs: (function(*call) for call in calls))
    calls = []
    kept = {result.key: result, (cartilage.EDGES, 3): CartilageResult(cartilage.EDGES, 3, edges=(-1.0, 2.0, 0.0, 1.0))}
    monkeypatch.setattr(cartilage, "measure_pair", lambda *key: calls.append(key) or kept[key])
    told = []
    for _ in range(2):  # The second time, nothing is missing.
        benchmark_cartilage(pairs=1, seed=3, output=tmp_path, tell=told.append)
    assert calls == [("40 um", 300_003), (cartilage.EDGES, 3)]
    assert told[0] == told[1] and (tmp_path / "cartilage.md").read_text() == told[0] + "\n"
