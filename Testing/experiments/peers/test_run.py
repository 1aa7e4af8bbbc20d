"""The comparison: its pairs, its processes, what it keeps, and its tables, against hand-worked results."""

from __future__ import annotations

import csv
import dataclasses
import math
from argparse import ArgumentTypeError

import numpy as np
import pytest
from comparison_stand_ins import StandIn
from DNetRegistrationLib.cli.compare import _limited, _sizes
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.experiments.peers import methods as comparison_methods
from DNetRegistrationLib.experiments.peers import run as comparison
from DNetRegistrationLib.experiments.peers.figures import draw_cost, draw_errors, draw_success
from DNetRegistrationLib.experiments.peers.methods import METHODS
from DNetRegistrationLib.experiments.peers.pairs import BINS, growing, plan, read_scans, target_error_um, write_pair
from DNetRegistrationLib.experiments.peers.process import MethodProcess, Run
from DNetRegistrationLib.experiments.peers.results import Compared, Comparison, Terms, median, most, success_rate
from DNetRegistrationLib.experiments.peers.table import better_than_full, markdown, requirements, write_csv
from DNetRegistrationLib.experiments.store import ResultStore

TERMS = Terms(threads=1, limit=60.0, machine="a machine")


@pytest.fixture(scope="module")
def pair():
    return plan(1, 24, 1.0, True)[0]


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    place = tmp_path_factory.mktemp("pair")
    write_pair(pair, str(place))
    return str(place)


def result(method="full", number=0, bin=0, **values):
    usual = dict(
        version="1", pair=f"64-{number}", size=64, keep=1.0, contrast=True, angle_deg=15.0, threads=1,
        machine="m", error_um=4.0, rotation_error_deg=0.1, trusted="", seconds=1.0, peak_gb=0.5, before_gb=0.4,
        failure="", late=False, limit_s=600.0, matrix=tuple(np.eye(4).ravel()),
    )  # fmt: skip
    return Compared(method=method, bin=bin, **{**usual, **values})


def failed(method, number=0, bin=0, **values):
    nothing = dict(error_um=math.inf, rotation_error_deg=math.inf, matrix=(), failure="RuntimeError: no overlap")
    return result(method, number, bin, **{**nothing, **values})


# Pairs.


def test_pairs_fill_the_bins_evenly_and_are_turned_as_they_say():
    pairs = plan(12, 64, 1.0, True)
    assert [p.bin for p in pairs] == [0, 1, 2, 3, 4, 5] * 2
    assert len({p.name for p in pairs}) == 12
    for one in pairs:
        rotation = one.matrix[:3, :3]
        assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-12)
        angle = math.degrees(math.acos((np.trace(rotation) - 1) / 2))
        assert BINS[one.bin] <= angle <= BINS[one.bin + 1]
        assert np.abs(one.matrix[:3, 3]).max() <= 0.64
    assert not np.allclose(pairs[0].matrix, pairs[6].matrix)
    # One number is one pair, whichever is the first.
    assert plan(3, 64, 1.0, True, first=5) == plan(8, 64, 1.0, True)[5:]


def test_growing_volumes_are_one_pair():
    small, large = growing((128, 64), 1.0, True)
    assert (small.size, large.size) == (64, 128)
    assert np.array_equal(small.matrix, large.matrix)
    assert small.name not in {p.name for p in plan(10_000, 64, 1.0, True)}


def test_error_of_a_pair_by_hand(pair, folder):
    fixed, moving = read_scans(folder)
    assert fixed.voxels.shape == moving.voxels.shape == (24, 24, 24)
    assert fixed.extent == pytest.approx([5.12] * 3)
    assert target_error_um(pair, folder, pair.matrix) == pytest.approx(0, abs=1e-9)
    shifted = pair.matrix.copy()
    shifted[:3, 3] += (0.03, 0, 0.04)
    assert target_error_um(pair, folder, shifted) == pytest.approx(50)
    # Turned about a point: every voxel of bone, one by one.
    turned = pair.matrix @ np.diag((-1, -1, 1, 1))
    points = np.load(folder + "/points.npy")
    total = 0.0
    for point in points:
        there, truth = (m[:3, :3] @ point + m[:3, 3] for m in (turned, pair.matrix))
        total += math.dist(there, truth)
    assert target_error_um(pair, folder, turned) == pytest.approx(1000 * total / len(points))


# Processes.


def test_a_method_runs_in_its_process(folder, capfd):
    with MethodProcess(StandIn("a", "identity"), threads=1) as process:
        runs = [process.align(folder, limit=30) for _ in range(2)]
    for run in runs:
        assert run.matrix == tuple(np.eye(4).ravel())
        assert (run.trusted, run.failure, run.late) == ("yes", "", False)
        assert 0 <= run.seconds < 30
        assert run.peak_gb >= run.before_gb > 0.02
    with MethodProcess(StandIn("a", "prints"), threads=1) as process:
        assert not process.align(folder, limit=30).failure
    assert "noise" not in capfd.readouterr().out


def test_peak_memory_is_that_of_the_alignment(folder):
    with MethodProcess(StandIn("a", "takes_memory"), threads=1) as process:
        for _ in range(2):
            run = process.align(folder, limit=30)
            assert run.peak_gb - run.before_gb == pytest.approx(0.2, abs=0.02)
            assert run.trusted == "no"


def test_threads_reach_the_libraries(folder):
    with MethodProcess(StandIn("a", "tells_threads"), threads=3) as process:
        assert process.align(folder, limit=30).failure == "RuntimeError: 3 ['3']"


def test_what_goes_wrong_with_a_method_is_a_result_and_the_next_pair_is_tried(folder):
    with MethodProcess(StandIn("a", "fails"), threads=1) as process:
        assert process.align(folder, limit=30).failure == "RuntimeError: nothing overlaps"
    with MethodProcess(StandIn("a", "dies"), threads=1) as process:
        for _ in range(2):
            assert "ended by signal 9" in process.align(folder, limit=30).failure
    with MethodProcess(StandIn("a", "does not load"), threads=1) as process:
        assert process.align(folder, limit=30).failure == "ImportError: no such library"


def test_a_slow_method_is_ended(folder):
    with MethodProcess(StandIn("a", "sleeps"), threads=1) as process:
        run = process.align(folder, limit=0.2)
    assert run.late
    assert run.failure == "over the limit of 0.2 s"
    assert math.isinf(run.seconds)


# What is kept.


def test_results_are_measured_against_the_truth(pair, folder):
    method = StandIn("a", "identity")
    good = comparison.measured(method, pair, folder, Run(tuple(pair.matrix.ravel()), "yes"), TERMS)
    assert good.error_um == pytest.approx(0, abs=1e-6)
    assert good.rotation_error_deg == pytest.approx(0, abs=1e-6)
    assert good.success
    assert good.key == TERMS.key(method, pair)
    still = comparison.measured(method, pair, folder, Run(tuple(np.eye(4).ravel())), TERMS)
    assert still.rotation_error_deg == pytest.approx(still.angle_deg)
    assert still.unnoticed
    shear = np.eye(4)
    shear[0, 1] = 0.5
    sheared = comparison.measured(method, pair, folder, Run(tuple(shear.ravel())), TERMS)
    assert "not a rigid transform" in sheared.failure
    assert math.isinf(sheared.error_um)
    assert not sheared.unnoticed
    # A method that says itself that it failed has said so.
    assert not dataclasses.replace(still, trusted="no").unnoticed


def align_all(work, folder, limit=60.0):
    store = ResultStore(folder / "pairs.csv", Compared)
    said = []
    with comparison.Pairs(folder) as scans:
        comparison.align_all(work, scans, store, Terms(1, limit, "m"), lambda fraction, text: said.append(text))
    return store, said


def test_a_comparison_carries_on_and_notices_damage(tmp_path):
    pairs = plan(2, 24, 1.0, True)
    first, second = StandIn("a", "identity"), StandIn("b", "fails")
    store, said = align_all([(first, pairs)], tmp_path)
    assert (len(store.results), len(said)) == (2, 2)
    before = (tmp_path / "pairs.csv").read_bytes()
    # The process was killed within a line.
    (tmp_path / "pairs.csv").write_bytes(before + b"b,1,24-")
    store, said = align_all([(first, pairs), (second, pairs[:1])], tmp_path)
    assert (len(store.results), len(said)) == (3, 1)
    assert (tmp_path / "pairs.csv").read_bytes().startswith(before)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]
    # Another version of a method is another method.
    assert len(align_all([(dataclasses.replace(first, version="2"), pairs[:1])], tmp_path)[1]) == 1
    (tmp_path / "pairs.csv").write_bytes(before.replace(b"a,1,24-0", b"a,1,24-9"))
    with pytest.raises(ScanError, match="line 2 is damaged"):
        ResultStore(tmp_path / "pairs.csv", Compared)


def test_what_is_over_the_limit_is_spared_larger_volumes_and_tried_again_with_more_time(tmp_path):
    pairs = growing((24, 32, 40), 1.0, True)
    method = StandIn("a", "sleeps_at_32")
    store, _ = align_all([(method, pairs)], tmp_path, limit=1.0)
    assert [(r.size, r.late) for r in store.results.values()] == [(24, False), (32, True)]
    # The same limit changes nothing; without the slow size in the way, more time does.
    store, said = align_all([(method, pairs[:2])], tmp_path, limit=1.0)
    assert said == []
    store, said = align_all([(method, pairs[:2])], tmp_path, limit=1.5)
    assert len(said) == 1
    assert [r.limit_s for r in store.results.values() if r.late] == [1.5]


# Tables.


def four_methods():
    """Two bins; this project aligns all, elastix one of four but more closely, ANTs half of its two, slowly."""
    turns = [
        result("full", n, n % 2, error_um=e, seconds=s) for n, (e, s) in enumerate([(2, 1), (4, 1), (6, 2), (8, 2)])
    ]
    turns += [result("elastix", 0, 0, error_um=1.0, seconds=0.5, peak_gb=0.9)]
    turns += [result("elastix", n, n % 2, error_um=900.0, seconds=0.5, peak_gb=1.1) for n in (1, 2, 3)]
    turns += [result("ants", 0, 0, error_um=50.0, seconds=90.0), failed("ants", 1, 1, seconds=110.0)]
    growth = [result("full", 9, size=64, seconds=1.0), result("full", 9, size=128, seconds=3.0, peak_gb=2.0)]
    growth += [result("elastix", 9, size=64, seconds=0.5, error_um=700.0), result("elastix", 9, size=128, peak_gb=1.0)]
    growth += [failed("ants", 9, size=64, late=True, seconds=math.inf, failure="over the limit of 600 s")]
    return Comparison(turns, growth, {"dnet": "no weights"})


def test_rates_medians_and_common_pairs():
    found = four_methods()
    assert found.methods() == ["full", "elastix", "ants"]
    rate = success_rate(found.of("elastix"))
    assert (rate.count, rate.total) == (1, 4)
    # Wilson's interval of 1 in 4, by its formula.
    z, n, p = 1.959963984540054, 4, 0.25
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert (rate.low, rate.high) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    )
    assert (success_rate(found.of("elastix", 1)).count, success_rate(found.of("elastix", 1)).total) == (0, 2)
    ours, theirs = found.both("full", "ants")
    assert [r.pair for r in ours] == [r.pair for r in theirs] == ["64-0", "64-1"]
    assert median([1.0, math.nan, 3.0]) == 2.0
    assert median([1.0, math.inf, math.inf]) == math.inf
    assert math.isnan(median([]))
    assert most([1.0, math.nan, 3.0]) == 3.0


def test_requirements_by_hand():
    success, error, faster = requirements(four_methods())
    assert success.measured == "elastix 1 against 4 of 4; ANTs 1 against 2 of 2"
    # Medians: 900 um of elastix against 5 of all four; ANTs' second is infinite, against 3 um of the first two.
    assert error.measured == "elastix 900 against 5.00; ANTs no result against 3.00"
    assert faster.measured == "100 times (2 pairs)"
    assert success.holds and error.holds and faster.holds
    slow = Comparison([result("full", 0, seconds=10.0), result("ants", 0, seconds=100.0, error_um=1.0)], [], {})
    assert [one.holds for one in requirements(slow)] == [True, False, False]
    lost = Comparison([failed("full"), result("simpleitk")], [], {})
    assert [one.holds for one in requirements(lost)] == [False, False, None]
    alone = Comparison([result("full")], [], {})
    assert [one.holds for one in requirements(alone)] == [None, None, None]


def test_where_a_peer_is_better_it_says_so():
    found = better_than_full(four_methods())
    assert found == [
        "elastix: a lower median error where both aligned, 1.00 um against 2.00 um (1 pair)",
        "elastix: faster, with 1 aligned against 4, 0.50 s against 1.50 s (4 pairs)",
        "elastix: faster at 64^3, 0.50 s against 1.00 s, but it did not align that pair",
        "elastix: faster at 128^3, 1.00 s against 3.00 s",
        "elastix: less memory at 128^3, 1.00 GB against 2.00 GB",
    ]
    better = Comparison([failed("full", 0, 3, trusted="no"), result("axes", 0, 3)], [], {})
    texts = better_than_full(better)
    assert any("more pairs aligned, 1 against 0" in text for text in texts)
    assert any("more pairs aligned at 90-120 degrees, 1 against 0" in text for text in texts)
    late = Comparison([], [failed("full", size=64, late=True, failure="over the limit of 5 s"), result("axes")], {})
    assert (
        "principal axes recipe: faster at 64^3, 1.00 s against a failure (over the limit of 5 s)"
        in better_than_full(late)
    )
    closer = Comparison([], [result("full", size=128, error_um=3.0), result("ants", size=128, error_um=1.0)], {})
    assert "ANTs: a lower error at 128^3, 1.00 um against 3.00 um" in better_than_full(closer)
    assert better_than_full(Comparison([result("full")], [], {})) == []


def test_the_text_tells_it_all(tmp_path):
    text = markdown(four_methods(), ["measured by hand"])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
             for line in lines[lines.index("## Error, time and memory"):] if line.startswith("| elastix")}  # fmt: skip
    assert "- measured by hand" in lines
    assert any(
        line.startswith("| elastix") and "1 of 4" in line and "1/2 [9, 91] | 0/2 [0, 66]" in line for line in lines
    )
    assert cells["elastix"] == ["0.5 s, 0.50 GB, not aligned", "1.0 s, 1.00 GB, 4.00 um"]
    assert any(line.startswith("| ANTs") and "over the limit of 600 s | not tried after 64^3" in line for line in lines)
    assert "- ANTs, 1 time: RuntimeError: no overlap" in lines
    assert "- its network dnet alone: no weights" in lines
    # Tables are tables: as many cells in each of their lines.
    for start in (n for n, line in enumerate(lines) if line.startswith("| method") or line.startswith("| required")):
        table = [line for line in lines[start : lines.index("", start)]]
        assert len({line.count("|") for line in table}) == 1
    write_csv(four_methods(), tmp_path / "numbers.csv")
    with open(tmp_path / "numbers.csv", newline="") as stream:
        rows = {(row["method"], row["group"], row["value"]): row for row in csv.DictReader(stream)}
    row = rows["elastix", "angle", "all"]
    assert (row["pairs"], row["aligned"], row["median_error_um"], row["wrong_unnoticed"]) == ("4", "1", "900", "3")
    assert rows["ants", "size", "64"]["over_limit"] == "1"
    assert rows["full", "angle", "0-30"]["median_error_um"] == "4"


def test_pictures_are_drawn_also_of_failures(tmp_path):
    pytest.importorskip("matplotlib")
    for found in (four_methods(), Comparison([failed("ants")], [failed("ants", late=True)], {})):
        for draw in (draw_success, draw_errors, draw_cost):
            draw(found, tmp_path / "picture.png")
            assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
            assert (tmp_path / "picture.png").stat().st_size > 5000


# The command.


def test_the_command_compares_and_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        comparison_methods, "_installed", lambda package: "" if package == "itk-elastix" else "0", raising=True
    )
    folder = tmp_path / "out"
    arguments = ["compare", "--methods", "simpleitk,elastix", "--pairs", "1", "--size", "32", "--growth", "none",
                 "--threads", "1", "--limit", "300", "--output", str(folder)]  # fmt: skip
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "left out: elastix, itk-elastix is not installed; install it: pip install itk-elastix" in out
    assert "- elastix: itk-elastix is not installed" in (folder / "comparison.md").read_text()
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
    monkeypatch.setattr(comparison_methods, "available_weights", lambda: ("equivariant",))
    assert METHODS["dnet"].missing() == "no weights of the network dnet ship with this version"
    assert METHODS["equivariant"].missing() is None
    assert METHODS["full"].missing() is None
    assert "weights" in METHODS["full"].version


def test_an_interrupted_command_keeps_and_shows_what_there_is(tmp_path, capsys, monkeypatch):
    calls = []

    def align(self, folder, limit):
        calls.append(folder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return Run(tuple(np.eye(4).ravel()), "", 1.0, 0.5, 0.4)

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
