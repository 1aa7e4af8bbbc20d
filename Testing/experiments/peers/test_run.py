"""A comparison runs: what is aligned, kept and gone on with, left out, and shown."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentTypeError
from types import SimpleNamespace

import numpy as np
import pytest
from DNetRegistrationLib.cli.compare import _limited, _sizes
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.core.errors import OptionError, PackageError
from DNetRegistrationLib.experiments import methods
from DNetRegistrationLib.experiments.method_process import MethodProcess, MethodRun
from DNetRegistrationLib.experiments.methods import METHODS
from DNetRegistrationLib.experiments.pair_files import PairFiles
from DNetRegistrationLib.experiments.peers.pairs import PairFolders, growing_pairs, turned_pairs
from DNetRegistrationLib.experiments.peers.results import Conditions, MethodResult
from DNetRegistrationLib.experiments.peers.run import ComparisonOptions, align_all, compare
from DNetRegistrationLib.experiments.store import ResultStore
from DNetRegistrationLib.imaging.volume import Volume
from peer_stand_ins import StandIn


@pytest.fixture
def empty_scans(monkeypatch):
    """Pairs have scans of their size without a bone, which are quick to make, and stand-ins do not look at them."""

    def files(self, pair):
        found = PairFiles(self._home / pair.name)
        if not found.folder.exists():
            found.folder.mkdir()
            voxels = np.zeros((pair.size,) * 3, np.uint8)
            scan = Volume(voxels)
            found.write(SimpleNamespace(fixed=scan, moving=scan, fixed_bone=voxels == 0, matrix=pair.matrix))
        return found

    monkeypatch.setattr(PairFolders, "files", files)


def aligned(work, folder, limit=60.0):
    store = ResultStore(folder / "pairs.csv", MethodResult)
    said = []
    with PairFolders(folder) as folders:
        align_all(work, folders, store, Conditions(1, limit, "m"), lambda fraction, text: said.append(text))
    return store, said


def test_a_comparison_carries_on(tmp_path, empty_scans):
    pairs = turned_pairs(2, 24, 1.0, True)
    first, second = StandIn("a", "identity"), StandIn("b", "fails")
    store, said = aligned([(first, pairs)], tmp_path)
    assert (len(store.results), len(said)) == (2, 2)
    before = (tmp_path / "pairs.csv").read_bytes()
    # The process was killed within a line.
    (tmp_path / "pairs.csv").write_bytes(before + b"b,1,24-")
    store, said = aligned([(first, pairs), (second, pairs[:1])], tmp_path)
    assert (len(store.results), len(said)) == (3, 1)
    assert (tmp_path / "pairs.csv").read_bytes().startswith(before)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]
    # Another version of a method is another method.
    assert len(aligned([(dataclasses.replace(first, version="2"), pairs[:1])], tmp_path)[1]) == 1


@pytest.mark.slow
def test_what_is_over_the_limit_is_spared_larger_volumes_and_tried_again_with_more_time(tmp_path, empty_scans):
    pairs = growing_pairs((24, 32, 40), 1.0, True)
    method = StandIn("a", "sleeps_at_32")
    store, _ = aligned([(method, pairs)], tmp_path, limit=1.0)
    assert [(r.size, r.late) for r in store.results.values()] == [(24, False), (32, True)]
    # The same limit changes nothing; without the slow size in the way, more time does.
    store, said = aligned([(method, pairs[:2])], tmp_path, limit=1.0)
    assert said == []
    store, said = aligned([(method, pairs[:2])], tmp_path, limit=1.5)
    assert len(said) == 1
    assert [r.limit_s for r in store.results.values() if r.late] == [1.5]


@pytest.mark.slow
def test_the_command_compares_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(methods, "_installed", lambda package: "" if package == "itk-elastix" else "0", raising=True)
    folder = tmp_path / "out"
    arguments = ["compare", "--methods", "simpleitk,elastix", "--pairs", "1", "--size", "32", "--growth", "none",
                 "--threads", "1", "--limit", "300", "--output", str(folder)]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "left out: elastix, itk-elastix is not installed; install it: pip install itk-elastix" in out
    assert "| elastix | itk-elastix is not installed" in (folder / "comparison.md").read_text()
    names = {"pairs.csv", "comparison.md", "comparison.csv", "success.png", "errors.png"}
    assert {path.name for path in folder.iterdir()} == names
    before = (folder / "pairs.csv").read_bytes()
    assert before.count(b"\n") == 2
    # All is there: nothing is aligned anew, and all is drawn again.
    (folder / "comparison.md").unlink()
    assert main(arguments) == 0
    assert (folder / "pairs.csv").read_bytes() == before
    assert "| SimpleITK" in (folder / "comparison.md").read_text()
    capsys.readouterr()
    (folder / "pairs.csv").write_bytes(before.replace(b"simpleitk", b"simpleITK"))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "line 2 is damaged" in error


def test_bad_usage_is_told_in_one_line(tmp_path, capsys):
    for words in (["--methods", "magic"], ["--at-most", "magic=3"], ["--growth", "64,none"], ["--pairs", "-1"], []):
        output = ["--output", str(tmp_path / "out")] if words else []
        assert main(["compare", *words, *output]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert _sizes("none") == ()
    assert _sizes("128,64,64") == (64, 128)
    assert _limited("ants=3") == ("ants", 3)
    with pytest.raises(ArgumentTypeError):
        _limited("ants=x")


def test_networks_without_weights_are_left_out(monkeypatch):
    monkeypatch.setattr(methods, "available_weights", lambda: ("equivariant",))
    assert METHODS["dnet"].missing() == "no weights of the network dnet ship with this version"
    assert METHODS["equivariant"].missing() is None
    assert METHODS["full"].missing() is None
    assert "weights" in METHODS["full"].version


def test_an_interrupted_command_keeps_and_shows_what_there_is(tmp_path, capsys, monkeypatch, empty_scans):
    calls = []

    def align(self, files, limit):
        calls.append(files)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return MethodRun(tuple(np.eye(4).ravel()), "", 1.0, 0.5, 0.4)

    monkeypatch.setattr(MethodProcess, "align", align)
    folder = tmp_path / "out"
    arguments = ["compare", "--methods", "simpleitk", "--pairs", "3", "--size", "24", "--growth", "none"]
    assert main([*arguments, "--output", str(folder)]) == 130
    assert "| SimpleITK" in capsys.readouterr().out
    assert (folder / "pairs.csv").read_bytes().count(b"\n") == 2
    names = {"pairs.csv", "comparison.md", "comparison.csv", "success.png", "errors.png"}
    assert {path.name for path in folder.iterdir()} == names
    assert main([*arguments, "--output", str(folder)]) == 0
    assert len(calls) == 4


@pytest.mark.slow
def test_from_python(tmp_path):
    told = []
    options = ComparisonOptions(methods=["simpleitk"], pairs=1, size=24, growth=(), threads=1)
    found = compare(tmp_path / "out", options, ["by hand"], tell=told.append)
    (result,) = found.turned
    assert result.method == "simpleitk" and np.isfinite(result.error_um)
    assert "## Success" in told[0] and "- by hand" in told[0]


def test_methods_that_cannot_run_are_refused(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="'magic' is no method; choose from full"):
        compare(tmp_path / "out", ComparisonOptions(methods=["magic"]))
    monkeypatch.setattr(methods, "_installed", lambda package: "")
    with pytest.raises(PackageError, match="itk-elastix is not installed") as raised:
        compare(tmp_path / "out", ComparisonOptions(methods=["elastix"]))
    assert raised.value.setting.quantity == "methods"
    assert not (tmp_path / "out").exists()
