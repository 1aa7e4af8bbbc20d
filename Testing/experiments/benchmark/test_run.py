"""The benchmark: its statistics by hand, and its record of what was measured."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from argparse import Namespace

import places
import pytest
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.experiments.benchmark import run as benchmark
from DNetRegistrationLib.experiments.benchmark.large import LargePair
from DNetRegistrationLib.experiments.benchmark.parts import CALIBRATION_SEEDS, PARTS, Outcome, Record, Task, measure
from DNetRegistrationLib.experiments.benchmark.table import Results, format_table, lines


def same(number=0, part="success", **values):
    standard = dict(
        dice_before=0.1, dice=0.9, error_um=5.0, angle_deg=0.01, accepted=True, confidence=0.9, expected_error_um=6.0
    )
    return Outcome(part, number, 0, "same", **{**standard, **values})


def impostor(number=0, kind="animal", **values):
    return Outcome("impostors", number, 0, kind, error_um=math.nan, angle_deg=math.nan, **values)


def line(outcomes, start, large=None):
    (found,) = [one for one in lines(Results(outcomes, large)) if one.what.strip().startswith(start)]
    return found


def test_success_counts_what_is_below_80_um():
    outcomes = [*(same(n) for n in range(198)), same(198, error_um=79.9, accepted=False), same(199, error_um=80.1)]
    found = line(outcomes, "success (")
    assert found.measured.startswith("199 of 200, 99.50 %")
    assert found.holds
    assert not line([*outcomes, same(200, error_um=math.inf)], "success (").holds
    # 80.1 um and accepted; 79.9 um and refused.
    assert line(outcomes, "accepted though wrong").measured == "1 of 200"
    assert line(outcomes, "successes refused").measured.startswith("1 of 199, 0.50 %")
    assert line(outcomes, "successes refused").holds
    assert not line([same(0), same(1, accepted=False)], "successes refused").holds


def test_accuracy_is_the_median():
    outcomes = [
        same(n, "25 um plain", error_um=e, angle_deg=a)
        for n, (e, a) in enumerate([(0.1, 0.05), (0.4, 0.02), (9, 0.01)])
    ]
    assert line(outcomes, "median error at 25 um, no contrast").measured.startswith("0.40 um")
    assert line(outcomes, "median error at 25 um, no contrast").holds
    assert line(outcomes, "its rotation error").measured == "0.0200 degrees"
    assert line(outcomes, "its rotation error").holds
    assert not line([same(0, "25 um plain", error_um=0.6)], "median error at 25 um").holds


def test_impostors_by_kind():
    outcomes = [impostor(0), impostor(1, accepted=True), impostor(2, "mirror")]
    found = line(outcomes, "impostors accepted")
    assert found.measured.startswith("1 of 3, ")
    assert not found.holds
    assert line(outcomes, "by kind").measured == "animal 1 of 2, mirror 0 of 1"


def test_brier_score():
    outcomes = [same(0, confidence=0.9), same(1, confidence=0.6, error_um=500), impostor(0, confidence=0.2)]
    # (0.1^2 + 0.6^2 + 0.2^2) / 3
    assert line(outcomes, "Brier").measured == "0.1367 (3 pairs)"


def test_repeat_compares_runs():
    pairs = [Outcome("repeat", seed, run, "same", digest=d) for seed, run, d in
             [(1, 0, "a"), (1, 1, "a"), (2, 0, "b"), (2, 1, "c"), (3, 0, "a")]]  # fmt: skip
    found = line(pairs, "same result twice")
    assert (found.measured, found.holds) == ("1 of 2", False)
    assert line(pairs[:2], "same result twice").holds
    # A failure is not the same result as another.
    failed = [Outcome("repeat", 4, run, "same", failure="ScanError: no bone") for run in (0, 1)]
    assert not line(failed, "same result twice").holds


def test_speed_leaves_out_the_first():
    seconds = [{"search": 9.0, "total": 10.0}, {"search": 0.5, "total": 0.9}, {"search": 0.4, "total": 0.7}]
    full = [dict.fromkeys(("preprocess", "dnet", "refine", "verify"), 0.0) | s for s in seconds]
    outcomes = [same(n, "speed", seconds=s) for n, s in enumerate(full)]
    assert line(outcomes, "time at 64^3").measured == "0.80 s (search 0.45)"
    assert line(outcomes, "time at 64^3").holds


def test_large_pair_against_its_memory():
    large = LargePair(7.5, {"search": 1.0}, 2.7, 0.5, 0.1, True, 2)
    assert line([], "time at 512", large).holds
    # 3 x 0.5 GB + 1 GB
    assert not line([], "peak memory", large).holds
    assert line([], "peak memory", large).required == "below 2.50 GB"


def test_table_is_markdown():
    rows = format_table(lines(Results([same(0), impostor(0)]))).splitlines()
    assert len({len(row) for row in rows}) == 1
    assert all(row.count("|") == 5 for row in rows)


def test_seeds_are_apart_and_not_those_of_calibration():
    tasks = [Task(part, number, 0, 10_000) for part in PARTS for number in (0, 9_999)]
    assert len({task.seed for task in tasks}) == len(tasks)
    assert max(task.seed for task in tasks) < CALIBRATION_SEEDS
    assert Task("success", 3, 0).seed == 3


def test_record_carries_on(tmp_path):
    path = tmp_path / "pairs.csv"
    record = Record(path)
    outcomes = [
        same(
            0, error_um=1 / 3, seconds=dict.fromkeys(("preprocess", "dnet", "search", "refine", "verify", "total"), 0.1)
        ),
        impostor(10_000, accepted=True, failure='odd, "quoted"\ntext'),
    ]
    for outcome in outcomes:
        record.add(outcome)
    content = path.read_bytes()
    # The process was killed in the midst of the next line.
    path.write_bytes(content + b"success,1,0,sa")
    again = Record(path)
    assert path.read_bytes() == content
    assert repr(again.outcomes[("success", 0, 0)]) == repr(outcomes[0])  # NaN is not itself
    assert again.outcomes[("impostors", 10_000, 0)].failure == outcomes[1].failure
    assert math.isnan(again.outcomes[("impostors", 10_000, 0)].error_um)
    assert again.of([Task("success", 0, 0), Task("success", 1, 0)]) == [again.outcomes[("success", 0, 0)]]
    path.write_bytes(content.replace(b"0.1.0", b"0.0.9"))
    with pytest.raises(ScanError, match=r"version 0\.0\.9"):
        Record(path)


def test_plan():
    options = Namespace(pairs=3, accuracy_pairs=2, fine_pairs=1, only=("success", "repeat"), seed=0)
    tasks = benchmark.plan(options)
    assert {task.part for task in tasks} == {"success", "repeat"}
    assert sum(task.part == "success" for task in tasks) == 3
    assert sum(task.part == "repeat" for task in tasks) == 2 * benchmark.REPEATED
    options.only = None
    shipped = {name for name, part in PARTS.items() if all(way.get("hypotheses") != "dnet" for way in part.ways)}
    assert {task.part for task in benchmark.plan(options)} >= shipped


def test_networks_are_measured_where_their_weights_ship(monkeypatch):
    options = Namespace(pairs=2, accuracy_pairs=1, fine_pairs=1, only=("network", "paper"), seed=0)
    for shipped, ways in (((), {"auto"}), (("equivariant",), {"auto", "dnet"})):
        monkeypatch.setattr(benchmark, "available_weights", lambda shipped=shipped: shipped)
        tasks = benchmark.plan(options)
        assert {PARTS[task.part].ways[task.run]["hypotheses"] for task in tasks} == ways
        assert not any(task.part == "paper whole" for task in tasks)
    # The ways of one pair follow each other.
    assert [(task.part, task.number, task.run) for task in tasks[:4]] == [
        ("network whole", 0, 0), ("network whole", 0, 1), ("network whole", 1, 0), ("network whole", 1, 1),
    ]  # fmt: skip


def test_network_alone_and_by_default():
    far = same(1, "network whole", angle_deg=16.0, error_um=300.0, dice=0.4, dice_true=0.9)
    alone = [same(0, "network whole", angle_deg=0.5, error_um=20.0, dice_true=0.95), far]
    found = [Outcome(**{**o.__dict__, "run": 0}) for o in alone]
    assert line(found, "network alone, whole views").measured.startswith("8.25 degrees")
    assert line(found, "beyond 15 degrees").measured.startswith("1 of 2")
    assert not line(found, "beyond 15 degrees").holds
    assert line(found, "median Dice").measured == "0.650 (0.925)"
    default = [
        same(0, "network whole", hypothesis="dnet"), same(1, "network whole", hypothesis="search"),
        same(2, "network whole", hypothesis="dnet", error_um=90.0),
    ]  # fmt: skip
    default = [Outcome(**{**o.__dict__, "run": 1}) for o in default]
    assert line(default, "network and refinement, no search").measured.startswith("1 of 3")
    assert line(default, "default path").measured.startswith("2 of 3")
    assert line(default, "the search had to help").measured == "1 of 3"


def test_an_alignment_that_fails_is_counted(monkeypatch):
    from DNetRegistrationLib.registration import align as alignment

    def fail(*arguments, **options):
        raise ScanError("no bone")

    monkeypatch.setattr(alignment, "align", fail)
    (outcome,) = measure([Task("success", 0, 0)])
    assert not outcome.success
    assert outcome.failure == "ScanError: no bone"


def test_peak_memory_grows():
    code = """
import numpy as np
from DNetRegistrationLib.core.processes import peak_memory
before = peak_memory()
np.ones(50_000_000)
print(peak_memory() - before)
"""
    environment = places.environment()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert float(result.stdout) == pytest.approx(4e8, rel=0.02)


def test_benchmark_of_two_pairs(tmp_path, capsys):
    """Processes of their own give what this one gives."""
    folder = tmp_path / "out"
    arguments = ["benchmark", "--only", "success", "--pairs", "1", "--jobs", "1", "--output", str(folder)]
    status = main(arguments)
    out = capsys.readouterr().out
    assert "success (" in out
    assert sorted(path.name for path in folder.iterdir()) == ["pairs.csv", "reliability.png", "table.md"]
    assert (folder / "table.md").read_text().strip() in out
    before = (folder / "pairs.csv").read_bytes()
    # All is there already: nothing is measured anew.
    assert main(arguments) == status
    assert (folder / "pairs.csv").read_bytes() == before
    outcome = Record(folder / "pairs.csv").outcomes[("success", 0, 0)]
    assert outcome.success, json.dumps(outcome.__dict__)
