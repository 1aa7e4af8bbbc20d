"""A pair is done again when its files, its options or the way of aligning change, and only then."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cohort import store
from DNetRegistrationLib.cohort.fingerprint import content_hash, options_of, stamp
from DNetRegistrationLib.cohort.options import CohortOptions, folder_name
from DNetRegistrationLib.cohort.pairs import Pair
from DNetRegistrationLib.cohort.result import PairResult
from DNetRegistrationLib.cohort.store import opened_results
from DNetRegistrationLib.cohort.task import Done
from DNetRegistrationLib.core.errors import FileError

OPTIONS = CohortOptions(outputs={"report": ".json"})


@pytest.fixture
def pair(tmp_path):
    scans = tmp_path / "scans"
    (scans / "b" / "deep").mkdir(parents=True)
    (scans / "a.nrrd").write_bytes(b"one")
    (scans / "b" / "deep" / "1.dcm").write_bytes(b"two")
    return Pair(name="m", fixed=ScanFile(str(scans / "a.nrrd")), moving=ScanFile(str(scans / "b")))


def work(results, pair, options=OPTIONS, **done):
    """Does a pair as the work would, and keeps it."""
    before = stamp(pair, options)
    task = results.task(pair, options)
    (Path(task.work) / "report.json").write_text(done.pop("text", "{}"))
    result = PairResult(
        name=pair.name, fixed=pair.fixed.path, moving=pair.moving.path, status="accepted", verdict="good", dice=0.5,
        folder=task.folder, outputs={"report": f"{task.folder}/report.json"},
    )  # fmt: skip
    content = content_hash(pair, options)
    results.keep(task, Done(result, **{"lasting": True, "content": content, **done}), before)


def test_nothing_changed(tmp_path, pair):
    with opened_results(tmp_path / "r") as results:
        assert results.done(pair, OPTIONS) is None
        work(results, pair)
        assert results.done(pair, OPTIONS).dice == 0.5
    with opened_results(tmp_path / "r") as results:
        assert results.done(replace(pair, columns={"group": "x"}), OPTIONS).columns == {"group": "x"}


def test_names_that_differ_in_the_case_of_letters_have_folders_of_their_own(tmp_path, pair):
    first, second = replace(pair, name="Mouse 1"), replace(pair, name="mouse 1")
    with opened_results(tmp_path / "r") as results:
        work(results, first)
        work(results, second)
    folders = sorted(path.name for path in (tmp_path / "r/pairs").iterdir())
    assert folders == ["Mouse 1", folder_name("mouse 1", taken=True)]
    with opened_results(tmp_path / "r") as results:  # in the other order
        assert [results.done(one, OPTIONS).folder for one in (second, first)] == [
            f"pairs/{folders[1]}",
            "pairs/Mouse 1",
        ]


def test_names_of_two_runs_that_differ_in_the_case_of_letters(tmp_path, pair):
    """Where file systems pass over the case of letters, results that are copied there would lose one of them."""
    for name in ("Mouse 1", "mouse 1"):
        with opened_results(tmp_path / "r") as results:
            work(results, replace(pair, name=name))
    folders = sorted(path.name for path in (tmp_path / "r/pairs").iterdir())
    assert folders == ["Mouse 1", folder_name("mouse 1", taken=True)]
    (tmp_path / "r/pairs/MINE").mkdir()
    with opened_results(tmp_path / "r") as results:
        assert results.task(replace(pair, name="mine"), OPTIONS).folder == "pairs/" + folder_name("mine", taken=True)


@pytest.mark.parametrize("turned", [False, True])
def test_a_pair_that_is_called_as_the_folder_of_another_has_one_of_its_own(tmp_path, pair, turned):
    names = ["a/b", folder_name("a/b")][:: -1 if turned else 1]
    for name in names:
        with opened_results(tmp_path / "r") as results:
            work(results, replace(pair, name=name))
    assert len(list((tmp_path / "r/pairs").iterdir())) == 2
    with opened_results(tmp_path / "r") as results:
        done = [results.done(replace(pair, name=name), OPTIONS) for name in names]
    assert [one.name for one in done] == names


def test_a_record_that_is_damaged_is_none(tmp_path, pair):
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
    (record,) = (tmp_path / "r/pairs").glob("*/pair.json")
    for text in ("[" * 100_000, "[]", "null", '{"result": {"name": 1}}', "\x00"):
        record.write_text(text)
        with opened_results(tmp_path / "r") as results:
            assert results.done(pair, OPTIONS) is None


def test_the_folder_of_a_name_that_earlier_versions_changed_otherwise_is_found(tmp_path, pair):
    pair = replace(pair, name="con ")
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
    now = folder_name("con ")
    earlier = now.removeprefix("_")
    (tmp_path / "r/pairs" / now).rename(tmp_path / "r/pairs" / earlier)
    record = tmp_path / "r/pairs" / earlier / "pair.json"
    record.write_text(record.read_text().replace(f"pairs/{now}", f"pairs/{earlier}"))
    with opened_results(tmp_path / "r") as results:
        assert results.done(pair, OPTIONS).folder == f"pairs/{earlier}"


def test_going_on_reads_each_record_once(tmp_path, pair, monkeypatch):
    pairs = [replace(pair, name=name) for name in ("a", "b", "c")]
    with opened_results(tmp_path / "r") as results:
        for one in pairs:
            work(results, one)
    read, text = [], Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, *args, **more: (read.append(path), text(path, *args, **more))[1]
    )
    with opened_results(tmp_path / "r") as results:
        assert all(results.done(one, OPTIONS) for one in pairs)
    assert sorted(path.parent.name for path in read if path.name == "pair.json") == ["a", "b", "c"]


def test_the_folder_of_an_earlier_run_is_used_again(tmp_path, pair):
    """Earlier versions changed names with capitals or spaces."""
    pair = replace(pair, name="Mouse 1")
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
    earlier = folder_name("Mouse 1", taken=True)
    (tmp_path / "r/pairs/Mouse 1").rename(tmp_path / "r/pairs" / earlier)
    record = tmp_path / "r/pairs" / earlier / "pair.json"
    record.write_text(record.read_text().replace("pairs/Mouse 1", f"pairs/{earlier}"))
    with opened_results(tmp_path / "r") as results:
        assert results.done(pair, OPTIONS).folder == f"pairs/{earlier}"
        assert results.task(pair, OPTIONS).folder == f"pairs/{earlier}"


def test_files_that_were_copied_or_touched_are_the_same_and_others_are_not(tmp_path, pair):
    file = Path(pair.moving.path) / "deep" / "1.dcm"
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
        os.utime(file, ns=(1, 1))
        assert results.done(pair, OPTIONS) is not None
        # The new time was noted: the content is not read again.
        before = stamp(pair, OPTIONS)
        assert before in (tmp_path / "r/pairs/m/pair.json").read_text()
        file.write_bytes(b"TWO")
        os.utime(file, ns=(1, 2))
        assert results.done(pair, OPTIONS) is None
        file.write_bytes(b"two")
        assert results.done(pair, OPTIONS) is not None
        (file.parent / "2.dcm").write_bytes(b"")
        assert results.done(pair, OPTIONS) is None


def test_scans_that_were_moved_are_the_same(tmp_path, pair):
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
        (tmp_path / "scans").rename(tmp_path / "elsewhere")
        moved = [ScanFile(scan.path.replace("/scans/", "/elsewhere/")) for scan in (pair.fixed, pair.moving)]
        found = results.done(replace(pair, fixed=moved[0], moving=moved[1]), OPTIONS)
        assert found.fixed == moved[0].path and found.dice == 0.5


@pytest.mark.parametrize(
    "change",
    [
        lambda pair, options: (replace(pair, fixed=replace(pair.fixed, threshold=1.0)), options),
        lambda pair, options: (replace(pair, moving=replace(pair.moving, spacing=(0.1,))), options),
        lambda pair, options: (replace(pair, contrast="fixed"), options),
        lambda pair, options: (replace(pair, medial=(1.0, 2.0, 3.0)), options),
        lambda pair, options: (replace(pair, region_segment="2"), options),
        lambda pair, options: (pair, replace(options, refine="working")),
        lambda pair, options: (pair, replace(options, outputs={"report": ".json", "transform": ".h5"})),
    ],
)
def test_other_options_are_other_results(tmp_path, pair, change):
    changed = change(pair, OPTIONS)
    assert options_of(*changed) != options_of(pair, OPTIONS)
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
        assert results.done(*changed) is None and results.done(pair, OPTIONS) is not None


def test_a_detached_data_file_a_mask_and_weights_count(tmp_path, pair):
    header = tmp_path / "c.mhd"
    header.write_text("ElementDataFile = c.raw\n")
    files = [tmp_path / name for name in ("c.raw", "mask.nrrd", "w.pt", "start.tfm", "region.nrrd")]
    for file in files:
        file.write_bytes(b"1")
    pair = replace(pair, fixed=ScanFile(str(header), mask=str(files[1])), initial=str(files[3]))
    pair = replace(pair, region=str(files[4]))
    options = replace(OPTIONS, weights=str(files[2]))
    before = content_hash(pair, options)
    for file in files:
        file.write_bytes(b"2")
        after = content_hash(pair, options)
        assert after != before, file
        before = after


def test_another_way_of_aligning_is_another_result(tmp_path, pair, monkeypatch):
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
    monkeypatch.setattr(store, "way_of_aligning", lambda: "another")
    with opened_results(tmp_path / "r") as results:
        assert results.done(pair, OPTIONS) is None


def test_an_output_that_is_gone_and_a_record_that_is_damaged(tmp_path, pair):
    folder = tmp_path / "r/pairs/m"
    with opened_results(tmp_path / "r") as results:
        work(results, pair)
        (folder / "report.json").unlink()
        assert results.done(pair, OPTIONS) is None
        work(results, pair, text="new")
        assert (folder / "report.json").read_text() == "new"
    (folder / "pair.json").write_text("{")
    with opened_results(tmp_path / "r") as results:
        assert results.done(pair, OPTIONS) is None


def test_a_failure_that_might_not_happen_again_is_tried_again(tmp_path, pair):
    with opened_results(tmp_path / "r") as results:
        work(results, pair, lasting=False)
        assert results.done(pair, OPTIONS) is None


def test_a_folder_that_is_not_of_this_program_is_not_replaced(tmp_path, pair):
    mine = tmp_path / "r/pairs/m/thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with opened_results(tmp_path / "r") as results, pytest.raises(FileError, match="not of this program"):
        results.task(pair, OPTIONS)
    assert mine.read_text() == "years of work"


def test_what_a_killed_run_left_is_cleared(tmp_path, pair):
    left = tmp_path / "r/.work-old/m"
    left.mkdir(parents=True)
    (left / "half").touch()
    with opened_results(tmp_path / "r"):
        assert not left.parent.exists()
    assert [path.name for path in (tmp_path / "r").iterdir()] == [".lock"]
