"""Whole cohorts: what is right in each row, what is not done again, and runs that were stopped."""

import csv
import json
import shutil

import numpy as np
import pytest
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.result import CohortResult
from DNetRegistrationLib.cohort.run import State, align_cohort, duration, find_pairs, processes_for
from DNetRegistrationLib.cohort.store import opened_results
from DNetRegistrationLib.core.errors import FileError, OptionError, RunError
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
    told: list[State] = []
    results = tmp_path / "results"
    found = align_cohort(scans, results, OPTIONS, jobs=1, tell=told.append, command="typed")
    assert [(pair.name, pair.status) for pair in found.pairs] == [
        ("a", "accepted"), ("b", "accepted"), ("c", "failed")
    ]  # fmt: skip
    assert not any(state.again for state in told) and told[-1].counts.total() == told[-1].total == 3
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
    told.clear()
    again = align_cohort(scans, results, OPTIONS, jobs=1, tell=told.append)
    assert {state.result.name: state.again for state in told} == {"a": True, "b": True, "c": False}
    assert again.accepted and again.pairs[2].matrix == again.pairs[1].matrix
    assert ((results / "pairs/a/pair.json").stat().st_mtime_ns, again.pairs[0].seconds) == before
    # A file that changed is done again, others are not.
    shutil.copy(scans / "b_post.nrrd", scans / "a_pre.nrrd")
    write_volume(small_pair.moving, scans / "b_pre.mha", compress=True)
    told.clear()
    align_cohort(scans, results, OPTIONS, jobs=1, tell=told.append)
    assert {state.result.name: state.again for state in told} == {"a": True, "b": False, "c": True}


def test_two_runs_into_one_folder_refuse_each_other(scans, tmp_path):
    with opened_results(tmp_path / "results"):
        with pytest.raises(RunError, match="another run works in this folder"):
            align_cohort(scans, tmp_path / "results", OPTIONS)
    with opened_results(tmp_path / "results"):
        pass


def test_results_do_not_go_where_the_scans_are(scans):
    with pytest.raises(FileError, match="holds the scans"):
        align_cohort(scans, scans, OPTIONS)


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


def test_durations():
    assert [duration(s) for s in (0.4, 89, 91, 3600, 5400, 86400)] == [
        "0 s", "89 s", "2 min", "60 min", "1 h 30 min", "24 h 0 min"
    ]  # fmt: skip
