"""The contest runs: what is measured, kept, gone on with and left out."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.experiments.refinement import run as module
from DNetRegistrationLib.experiments.refinement import table
from DNetRegistrationLib.experiments.refinement.kinds import Kind, make
from DNetRegistrationLib.experiments.refinement.results import BOUND, ORACLE, START, RefinementResult
from DNetRegistrationLib.experiments.refinement.run import contest
from DNetRegistrationLib.experiments.store import ResultStore
from peer_stand_ins import StandIn

KINDS = {"tiny": Kind(20, 0.1, crop=True), "larger": Kind(22, 0.1, crop=True, contrast=False)}


@pytest.fixture
def tiny(monkeypatch):
    """Two small kinds of pairs without bounds and proposals, and methods that do one thing each."""
    methods = {
        "refine": StandIn("refine", "starts", near=True),
        "bright": StandIn("bright", "tells_brightness", near=True),
        "lost": StandIn("lost", "is missing", near=True),
        "slow": StandIn("slow", "sleeps", near=True),
        "sheared": StandIn("sheared", "shears_start", near=True),
        ORACLE: StandIn(ORACLE, "tells_brightness", near=True),
    }
    for one in (module, table):
        monkeypatch.setattr(one, "KINDS", KINDS)
        monkeypatch.setattr(one, "CONTESTANTS", methods)
    monkeypatch.setattr(module.ContestPair, "bound_um", lambda self: 0.5)
    monkeypatch.setattr(module, "_starts", lambda number: ("near",))
    return methods


@pytest.mark.slow
def test_a_contest(tiny, tmp_path):
    told = []
    arguments = dict(
        pairs=2, methods=("refine", "bright", "lost", "sheared", ORACLE), output=tmp_path / "out", tell=told.append
    )
    found = contest(**arguments)
    by = {(result.kind, result.seed, result.method): result for result in found.results}
    # A method that answers the start ends where it began.
    pair = make(KINDS["tiny"], 1)
    refined = by["tiny", 1, "refine"]
    assert (refined.error_um, refined.bias_um) == pytest.approx(pair.errors_um(pair.near_start()))
    assert by["tiny", 1, START].error_um == pytest.approx(refined.error_um) != by["tiny", 0, START].error_um
    assert by["larger", 0, BOUND].error_um == 0.5
    assert "not a rigid" in by["tiny", 0, "sheared"].failure and np.isinf(by["tiny", 0, "sheared"].error_um)
    # The oracle alone sees the moving scan without agent, and takes part only where there is agent.
    seen, unseen = (float(by["tiny", 0, key].failure.split()[-1]) for key in ("bright", ORACLE))
    assert unseen < make(KINDS["tiny"], 0).moving.voxels.mean() == pytest.approx(seen)
    assert ("larger", 0, ORACLE) not in by
    assert found.skipped == {"lost": "it is not there"}
    assert not found.holds and "## tiny" in told[0] and "it is not there" in told[0]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"refinement.csv", "refinement.md"}
    # All is there already: the same command measures nothing, and more pairs add to it.
    before = (tmp_path / "out" / "refinement.csv").read_bytes()
    # NaN is not itself, but reads the same.
    assert repr(contest(**arguments).results) == repr(found.results)
    assert (tmp_path / "out" / "refinement.csv").read_bytes() == before
    contest(**{**arguments, "pairs": 3, "kinds": ["tiny"]})
    after = (tmp_path / "out" / "refinement.csv").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == before.count(b"\n") + 2 + 4


def test_a_slow_method_is_spared_what_is_as_large(tiny):
    found = contest(pairs=2, methods=("slow",), limit=0.2)
    slow = [result for result in found.results if result.method == "slow"]
    assert [(result.kind, result.seed, result.late) for result in slow] == [("tiny", 0, True)]


def test_an_interrupted_contest_keeps_and_shows_what_there_is(tiny, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.MethodProcess, "align", interrupted)
    told = []
    with pytest.raises(KeyboardInterrupt):
        contest(pairs=1, kinds=["tiny"], output=tmp_path / "out", tell=told.append)
    assert "the start" in told[0]
    assert len(ResultStore(tmp_path / "out" / "refinement.csv", RefinementResult).results) == 2
    assert not list((tmp_path / "out").glob(".dnet-*"))


def test_the_proposal_is_tried_on_every_fourth_pair():
    assert [module._starts(number) for number in (0, 1, 4, 6)] == [
        ("near", "proposal"), ("near",), ("near", "proposal"), ("near",),
    ]  # fmt: skip


def test_what_is_unknown_is_refused(capsys):
    with pytest.raises(OptionError, match="'luck' is unknown; choose from 80 um plain") as raised:
        contest(kinds=["luck"])
    assert raised.value.setting.quantity == "kinds"
    with pytest.raises(OptionError, match="'luck' is unknown; choose from refine") as raised:
        contest(methods=["luck"])
    assert raised.value.setting.quantity == "methods"
    assert main(["benchmark", "--only", "refinement", "--kinds", "1 um"]) == 2
    assert "80 um plain" in capsys.readouterr().err


def test_the_command(tiny, monkeypatch, capsys):
    monkeypatch.setattr("DNetRegistrationLib.experiments.refinement.kinds.KINDS", KINDS)
    assert main(["benchmark", "--only", "refinement", "--kinds", "tiny", "--methods", "refine", "--pairs", "1"]) == 1
    assert "| Cramer-Rao bound" in capsys.readouterr().out
