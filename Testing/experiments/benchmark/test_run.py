"""The benchmark runs: what is planned, what is kept and gone on with, and what is shown."""

from __future__ import annotations

import pytest
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.experiments.benchmark import run as module
from DNetRegistrationLib.experiments.benchmark.parts import CALIBRATION_SEEDS, PARTS, SEEDS_PER_PART, Outcome
from DNetRegistrationLib.experiments.benchmark.run import REPEATED, benchmark, plan
from DNetRegistrationLib.experiments.store import ResultStore


def test_plan():
    trials = plan(3, 2, 1, only=("success", "repeat"))
    assert {trial.part for trial in trials} == {"success", "repeat"}
    assert sum(trial.part == "success" for trial in trials) == 3
    assert sum(trial.part == "repeat" for trial in trials) == 2 * REPEATED
    without_networks = {
        name for name, part in PARTS.items() if all(way.get("hypotheses") != "dnet" for way in part.ways)
    }
    counts = {part: sum(trial.part == part for trial in plan(3, 2, 1)) for part in without_networks}
    assert all(counts.values())
    assert (counts["80 um plain"], counts["25 um contrast"], counts["impostors"]) == (2, 1, 3)


def test_networks_are_measured_where_their_weights_ship(monkeypatch):
    for shipped, ways in (((), {"auto"}), (("equivariant",), {"auto", "dnet"})):
        monkeypatch.setattr(module, "available_weights", lambda shipped=shipped: shipped)
        trials = plan(2, 1, 1, only=("network", "paper"))
        assert {PARTS[trial.part].ways[trial.run]["hypotheses"] for trial in trials} == ways
        assert not any(trial.part == "paper whole" for trial in trials)
    # The ways of one pair follow each other.
    assert [(trial.part, trial.number, trial.run) for trial in trials[:4]] == [
        ("network whole", 0, 0), ("network whole", 0, 1), ("network whole", 1, 0), ("network whole", 1, 1),
    ]  # fmt: skip


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(OptionError, match="'luck' is no part; choose from success"):
        benchmark(only=["luck"])
    with pytest.raises(OptionError, match="served calibration") as raised:
        benchmark(seed=CALIBRATION_SEEDS - 10)
    assert raised.value.setting.quantity == "seed"


def test_an_interrupted_benchmark_keeps_and_shows_what_there_is(tmp_path, monkeypatch):
    def measured(function, calls, jobs):
        yield [Outcome("success", 0, 0, "same", error_um=5.0)]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "completed_calls", measured)
    told = []
    with pytest.raises(KeyboardInterrupt):
        benchmark(2, only=["success"], output=tmp_path / "out", tell=told.append)
    assert "1 of 1, 100.00 %" in told[0]
    assert len(ResultStore(tmp_path / "out" / "pairs.csv", Outcome).results) == 1


@pytest.mark.slow
def test_benchmark_of_one_pair(tmp_path, capsys):
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
    outcome = ResultStore(folder / "pairs.csv", Outcome).results["success", 0, 0]
    assert outcome.success, outcome


def test_a_campaign_has_seeds_of_its_own(monkeypatch):
    """A shift beyond the number of pairs, up to what served calibration."""
    seeds = []

    def measured(function, calls, jobs):
        seeds.extend(trials[0].seed for (trials,) in calls)
        return
        yield

    monkeypatch.setattr(module, "completed_calls", measured)
    assert main(["benchmark", "--only", "adversarial", "--pairs", "3", "--seed", "500000", "--jobs", "1"]) == 0
    first = 500_000 + list(PARTS).index("adversarial") * SEEDS_PER_PART
    assert seeds == [first, first + 1, first + 2]
    assert main(["benchmark", "--only", "adversarial", "--seed", "900000"]) == 2
