"""Whole cohorts: what is right in each row, what is not done again, and runs that were stopped."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import cohort_folders
import numpy as np
import places
import pytest
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.cohort import dask
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.result import CohortResult, needs_look
from DNetRegistrationLib.cohort.run import State, align_cohort, duration, find_pairs, processes_for
from DNetRegistrationLib.cohort.store import opened_results
from DNetRegistrationLib.cohort.survey import survey
from DNetRegistrationLib.core.errors import FileError, OptionError, RunError
from DNetRegistrationLib.geometry.transform_files import read_transform
from DNetRegistrationLib.imaging.turning import turn_grid
from DNetRegistrationLib.imaging.volume import write_volume

OPTIONS = CohortOptions(outputs={"transform": ".tfm"})


@pytest.fixture
def scans(small_pair, tmp_path):
    """A pair, the same turned round, and one that is alone."""
    folder = tmp_path / "scans"
    folder.mkdir()
    write_volume(small_pair.fixed, folder / "a_pre.nrrd")
    write_volume(small_pair.moving, folder / "a_post.nii.gz")
    write_volume(small_pair.moving, folder / "b_pre.mha")
    write_volume(small_pair.fixed, folder / "b_post.nrrd")
    write_volume(small_pair.fixed, folder / "c_post.nrrd")
    return folder


def rows(folder):
    with open(folder / "cohort.csv", newline="", encoding="utf-8") as stream:
        return {row["pair"]: row for row in csv.DictReader(stream)}


@pytest.mark.slow
def test_a_cohort_is_done_once_and_again_where_something_changed(scans, tmp_path, small_pair):
    states: list[State] = []
    results = tmp_path / "results"
    found = align_cohort(scans, results, OPTIONS, jobs=1, tell=states.append, command="typed")
    assert [(pair.name, pair.status) for pair in found.pairs] == [
        ("a", "accepted"), ("b", "accepted"), ("c", "failed")
    ]  # fmt: skip
    assert not any(state.again for state in states) and states[-1].counts.total() == states[-1].total == 3
    there, back = (np.array(pair.matrix).reshape(4, 4) for pair in found.pairs[:2])
    assert np.abs(there @ back - np.eye(4)).max() < 0.02
    assert {name: row["status"] for name, row in rows(results).items()} == {
        "a": "accepted", "b": "accepted", "c": "failed"
    }  # fmt: skip
    assert (results / "pairs/a/transform.tfm").is_file()
    record = CohortResult.from_dict(json.loads((results / "cohort.json").read_text()))
    assert record.command == "typed" and record.problems[0].kind == "partner" and "code" in record.versions
    # What is done stays as it is, and the partner that came is done.
    before = (results / "pairs/a/pair.json").stat().st_mtime_ns, record.pairs[0].seconds
    write_volume(small_pair.moving, scans / "c_pre.nrrd")
    states.clear()
    again = align_cohort(scans, results, OPTIONS, jobs=1, tell=states.append)
    assert {state.result.name: state.again for state in states} == {"a": True, "b": True, "c": False}
    assert again.accepted and again.pairs[2].matrix == again.pairs[1].matrix
    assert ((results / "pairs/a/pair.json").stat().st_mtime_ns, again.pairs[0].seconds) == before
    # A file that changed is done again, others are not.
    shutil.copy(scans / "b_post.nrrd", scans / "a_pre.nrrd")
    write_volume(small_pair.moving, scans / "b_pre.mha", compress=True)
    states.clear()
    align_cohort(scans, results, OPTIONS, jobs=1, tell=states.append)
    assert {state.result.name: state.again for state in states} == {"a": True, "b": False, "c": True}


@pytest.mark.slow
def test_three_scans_of_one_bone_measure_their_error_and_what_closes_the_loop_is_added(small_pair, tmp_path):
    later = turn_grid(small_pair.moving, np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])).scan
    for name, scan in (("before", small_pair.fixed), ("week 4", small_pair.moving), ("week 8", later)):
        write_volume(scan, tmp_path / f"{name}.nrrd")
    lines = [f"m01,{week},before.nrrd,{week}.nrrd" for week in ("week 4", "week 8")]
    (tmp_path / "list.csv").write_text("\n".join(["id,time,fixed,moving", *lines]))
    results, states = tmp_path / "results", []
    options = CohortOptions(outputs={"transform": ".tfm", "report": ".json"})
    found = align_cohort(tmp_path / "list.csv", results, options, jobs=1, tell=states.append)
    assert found.accepted and [pair.name for pair in found.pairs] == ["m01_week 4", "m01_week 8"]
    (added,) = found.closing
    assert added.name == "m01_week 4 moving to m01_week 8 moving" and added.status == "accepted"
    # It writes its transform alone, and counts nowhere.
    assert list(added.outputs) == ["transform"] and (results / added.outputs["transform"]).is_file()
    assert added.folder.startswith("loops/") and len(list((results / "pairs").iterdir())) == 2
    assert len(rows(results)) == states[-1].total == states[-1].counts.total() == sum(found.counts.values()) == 2
    for pair in found.pairs:
        assert pair.reference == str(tmp_path / "before.nrrd")
        carried = read_transform(results / pair.outputs["moving_to_reference"])
        np.testing.assert_allclose(carried, np.reshape(pair.matrix, (4, 4)), atol=1e-9)
    left = [pair.loop_error_um for pair in found.pairs]
    allowed = sum(pair.expected_error_um for pair in (*found.pairs, added))
    assert left[0] == left[1] and 0 < left[0] < allowed
    assert not any("loop" in pair.doubts for pair in found.pairs)
    written = [float(row["loop_error_um"]) for row in rows(results).values()]
    assert written == pytest.approx(left, rel=1e-3)
    middle = np.reshape(found.pairs[0].bone_points, (6, 3)).mean(0)
    true = small_pair.fixed.to_world(np.argwhere(small_pair.fixed_bone)[:, ::-1].mean(0))
    assert np.linalg.norm(middle - true) < 0.16
    record = CohortResult.from_dict(json.loads((results / "cohort.json").read_text()))
    assert [pair.name for pair in record.closing] == [added.name]
    # It is not done again, other outputs of the pairs or not; without loops nothing changes but that they are gone.
    before = (results / added.folder / "pair.json").stat().st_mtime_ns
    more = CohortOptions(outputs={"transform": ".tfm"})
    again = align_cohort(tmp_path / "list.csv", results, more, jobs=1)
    assert (results / added.folder / "pair.json").stat().st_mtime_ns == before
    assert [one.matrix for one in again.closing] == [added.matrix] and [
        pair.loop_error_um for pair in again.pairs
    ] == left
    states.clear()
    bare = CohortOptions(outputs={"transform": ".tfm"}, loops=False)
    alone = align_cohort(tmp_path / "list.csv", results, bare, jobs=1, tell=states.append)
    assert all(state.again for state in states) and alone.closing == () and not (results / "loops").exists()
    assert [pair.loop_error_um for pair in alone.pairs] == [None, None]


def test_two_runs_into_one_folder_refuse_each_other(scans, tmp_path):
    with opened_results(tmp_path / "results"):
        with pytest.raises(RunError, match="another run works in this folder"):
            align_cohort(scans, tmp_path / "results", OPTIONS)
    with opened_results(tmp_path / "results"):
        pass


def test_results_do_not_go_where_the_scans_are(scans):
    with pytest.raises(FileError, match="holds the scans"):
        align_cohort(scans, scans, OPTIONS)
    (scans / "d_pre" / "more").mkdir(parents=True)
    for inside in ("d_pre", "d_pre/more/results"):
        with pytest.raises(FileError, match=r"lies in the scan .*d_pre"):
            align_cohort(scans, scans / inside, OPTIONS)
    assert [*(scans / "d_pre").iterdir()] == [scans / "d_pre" / "more"] and not [*(scans / "d_pre/more").iterdir()]


def test_scans_that_are_not_there_leave_no_folder_of_results(tmp_path):
    with pytest.raises(FileError, match="there is no such folder of scans"):
        align_cohort(tmp_path / "scans", tmp_path / "results", OPTIONS)
    assert not [*tmp_path.iterdir()]


def test_a_pattern_is_of_no_use_with_a_list(tmp_path):
    (tmp_path / "list.csv").write_text("id,fixed,moving\na,b,c\n")
    assert find_pairs(tmp_path / "list.csv").pairs[0].name == "a"
    with pytest.raises(OptionError, match="is a list"):
        find_pairs(tmp_path / "list.csv", "{id}_{scan}")


def test_as_many_processes_as_processors_memory_and_pairs_allow(monkeypatch):
    run = "DNetRegistrationLib.cohort.run"
    monkeypatch.setattr(f"{run}.available_processors", lambda: 8)
    monkeypatch.setattr(f"{run}.available_memory", lambda: 10e9)
    assert processes_for([1e9] * 20, None) == 8
    assert processes_for([1e9] * 3, None) == 3
    assert processes_for([1e9] * 19 + [3e9], None) == 2
    assert processes_for([99e9], None) == 1
    assert processes_for([99e9] * 4, 4) == 4
    assert processes_for([0.0], None) == 1  # its headers could not be read


def test_durations():
    assert [duration(s) for s in (0.4, 89, 91, 3600, 5400, 86400)] == [
        "0 s", "89 s", "2 min", "60 min", "1 h 30 min", "24 h 0 min"
    ]  # fmt: skip


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Twelve pairs in seven kinds of file; five of them are wrong, each in its way."""
    folder = tmp_path_factory.mktemp("mixed") / "scans"
    return folder, cohort_folders.write_cohort(folder, 12, 48, first_seed=9100)


@pytest.fixture(scope="session")
def unbroken(mixed, tmp_path_factory):
    """The results of the twelve pairs, done in one run."""
    results = tmp_path_factory.mktemp("unbroken")
    return results, align_cohort(mixed[0], results, OPTIONS, jobs=2)


@pytest.mark.slow
def test_the_right_verdict_in_each_row_and_what_needs_a_look_first(mixed, unbroken):
    folder, written = mixed
    results, found = unbroken
    assert {pair.name: pair.status for pair in found.pairs} == written.status
    assert {problem.pair: problem.kind for problem in found.problems} == written.kinds
    assert not any("unexpected" in pair.verdict for pair in found.pairs)
    assert {row["pair"]: row["status"] for row in rows(results).values()} == written.status
    wrong = {name for name, status in written.status.items() if status != "accepted"}
    assert {pair.name for pair in needs_look(found.pairs)[:5]} == wrong and len(wrong) == 5
    assert survey(find_pairs(folder)).problems == list(found.problems)


@pytest.mark.long
@pytest.mark.slow
def test_a_cohort_on_dask_gives_the_same(mixed, unbroken, tmp_path):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dnet-registration[dask]'")
    found = align_cohort(mixed[0], tmp_path / "dask", OPTIONS, jobs=2, dask="local")
    assert told(found) == told(unbroken[1])


def test_a_dask_scheduler_that_does_not_answer_is_an_error_in_words(scans, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dnet-registration[dask]'")
    monkeypatch.setattr(dask, "_PATIENCE", 1)
    with pytest.raises(RunError, match="no Dask scheduler answers there"):
        align_cohort(scans, tmp_path / "r", OPTIONS, dask="tcp://127.0.0.1:1")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(mixed, unbroken, tmp_path):
    """Whatever is half written is begun anew, and what was done is not."""
    folder, results = mixed[0], tmp_path / "results"
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from DNetRegistrationLib import CohortOptions, align_cohort\n"
        'if __name__ == "__main__":\n'
        '    options = CohortOptions(outputs={"transform": ".tfm"})\n'
        '    tell = lambda state: print("again" if state.again else "done", flush=True)\n'
        "    align_cohort(sys.argv[1], sys.argv[2], options, jobs=2, tell=tell)\n"
    )
    random = np.random.default_rng(7)
    kept = 0
    for _ in range(4):
        words = [sys.executable, script, folder, results]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=places.environment(), text=True)
        lines = [process.stdout.readline() for _ in range(kept + 2)]
        time.sleep(random.uniform(0, 1.5))
        process.kill()
        process.communicate()
        again = lines.count("again\n")
        assert again >= kept - 1, "what was done is not done again"  # that which failed is tried again
        kept = len(list((results / "pairs").glob("*/pair.json")))
    found = align_cohort(folder, results, OPTIONS, jobs=2)
    assert told(found) == told(unbroken[1])
    files = {path.relative_to(results) for path in results.rglob("*") if path.is_file()}
    assert files == {path.relative_to(unbroken[0]) for path in unbroken[0].rglob("*") if path.is_file()}
    for path in files:
        if path.suffix == ".tfm":
            assert (results / path).read_bytes() == (unbroken[0] / path).read_bytes()


def told(found: CohortResult):
    """What a cohort gave, to the last digit, but for times."""
    return [replace(pair, seconds=0.0).to_dict() for pair in found.pairs], found.problems


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_with_quotes_line_breaks_formulas_and_bytes_that_are_no_text(scans, tmp_path, capsys):
    names = ['it\'s "one" <hr>', "two\nlines", "=1+1", os.fsdecode(b"caf\xe9")]
    for name in names:
        for word, ending in (("pre", ".nrrd"), ("post", ".nii.gz")):
            shutil.copy(scans / f"a_{word}{ending}", scans / f"{name}_{word}{ending}")
    for path in list(scans.glob("[abc]_*")):
        path.unlink()
    assert main(["cohort", str(scans), "--dry-run"]) == 1
    assert "odd name: " in capsys.readouterr().out
    assert main(["cohort", str(scans), "--output", str(tmp_path / "r"), "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "two\\nlines: Accepted" in out and "caf\\udce9: Failed" in out
    status = {name: row["status"] for name, row in rows(tmp_path / "r").items()}
    assert status == {
        'it\'s "one" <hr>': "accepted", "two\nlines": "accepted", "'=1+1": "accepted", "caf\\udce9": "failed"
    }  # fmt: skip
    record = CohortResult.from_dict(json.loads((tmp_path / "r/cohort.json").read_text(encoding="utf-8")))
    assert len(record.pairs) == 4
    page = (tmp_path / "r/cohort.html").read_text(encoding="utf-8")
    assert "<hr>" not in page
    folders = {path.name for path in (tmp_path / "r/pairs").iterdir()}
    assert len(folders) == 4 and all(name.isascii() for name in folders)
    assert main(["cohort", str(scans), "--output", str(tmp_path / "r"), "--jobs", "1"]) == 1
    assert capsys.readouterr().out.count("as before: Accepted") == 3
