"""The benchmark of loops: what its table makes of results, and one triplet."""

import pytest
from DNetRegistrationLib.experiments.benchmark import cases, loops
from DNetRegistrationLib.experiments.benchmark.loops import LoopResult, LoopTable, benchmark_loops


def result(seed, loop, true=(1.0, 2.0, 2.0), expected=(2.0, 3.0, 6.0), least=38.0, accepted=True):
    return LoopResult(seed, accepted, loop, true, expected, (41.0, least, 40.0))


def test_ranks_and_sums_are_those_of_the_accepted_triplets():
    expected = [(2.0, 3.0, 6.0 + n) for n in range(4)]
    found = [result(n, 1.0 + n, (3.0 * n, 4.0 * n, 0.0), expected[n]) for n in range(4)]
    found += [result(9, 500.0, accepted=False, least=0.0), LoopResult(10, failure="ScanError: no bone")]
    table = LoopTable(found)
    text = {one.what: one.measured for one in table.findings()}
    assert text["triplets; all three accepted"] == "6; 4"
    assert text["what a loop leaves, median, largest"] == "2.50, 4.00 um"
    assert text["root sum of squares of the true errors"] == "7.50, 15.00 um"  # by hand: 5 n
    assert text["rank correlation of the two"] == "1.00" and table.holds
    # 1 to 4 um, where sqrt(4 + 9 + 36) = 7 and more are allowed.
    assert text["a loop leaves more than its expected errors"] == "0 of 4"


@pytest.mark.parametrize(("order", "least"), [((0, 3, 1, 2), 38.0), ((0, 1, 2, 3), 20.0 - 1e-3)])
def test_a_weak_correlation_or_one_wrong_transform_that_is_not_seen_does_not_hold(order, least):
    found = [result(n, 1.0 + rank, (float(n), 0.0, 0.0), (1.0, 2.0, 1.0 + n), least) for n, rank in enumerate(order)]
    assert not LoopTable(found).holds


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_triplets_are_told_and_do_not_hold(count):
    table = LoopTable([*(result(n, 1.0) for n in range(count)), result(9, 1.0, accepted=False)])
    (found,) = table.findings()
    assert (found.what, found.measured, found.required) == (
        "triplets; all three accepted",
        f"{count + 1}; {count}",
        "at least 3",
    )
    assert not table.holds


@pytest.mark.slow
def test_a_triplet_is_measured():
    found = loops.measure_triplet(loops.FIRST_SEED)
    assert found.accepted and not found.failure
    assert 0 < found.loop_um < sum(found.true_um) and max(found.true_um) < 20
    assert all(abs(value - loops.PUT_OFF_UM) < 3 * max(found.loop_um, 1) for value in found.put_off_um)


def test_triplets_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "completed_calls", lambda function, calls, jobs: (function(*call) for call in calls))
    calls, told = [], []
    monkeypatch.setattr(
        loops, "measure_triplet", lambda seed: calls.append(seed) or result(seed, seed, (seed, 0, 0), (1, 1, seed))
    )
    for _ in range(2):  # The second time, nothing is missing.
        benchmark_loops(pairs=3, seed=5, output=tmp_path, tell=told.append)
    assert calls == [340_005, 340_006, 340_007]
    assert told[0] == told[1] and (tmp_path / "loops.md").read_text() == told[0] + "\n"
    assert "| 3; 3 " in told[0]
