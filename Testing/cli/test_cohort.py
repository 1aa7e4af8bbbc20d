"""``dnet-registration cohort``: its dry run, its exit status, and what it prints."""

import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from importlib import import_module

import places
import pytest
from cohort_results import made_cohort, made_pair, refused_pair
from command import COMMAND, run
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.cohort.result import CohortResult
from DNetRegistrationLib.cohort.survey import Survey
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from grids import noise


@pytest.fixture
def scans(small_pair, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c")):  # no copies of each other
        for scan, word in ((small_pair.fixed, "pre"), (small_pair.moving, "post")):
            write_volume(replace(scan, voxels=scan.voxels + number), folder / f"{name}_{word}.nrrd")
    return folder


@pytest.fixture
def called(monkeypatch):
    """What `align_cohort` was called with, while it does nothing."""
    calls = []

    def align_cohort(*arguments, **options):
        calls.append((*arguments, options))
        return CohortResult(scans="", pairs=())

    monkeypatch.setattr(import_module("DNetRegistrationLib.cohort.run"), "align_cohort", align_cohort)
    return calls


def test_a_dry_run_lists_pairs_and_problems_with_the_options_that_mend_them(scans, capsys):
    assert main(["cohort", str(scans), "--dry-run"]) == 0
    assert "3 pairs, 3 of them without a problem" in capsys.readouterr().out
    (scans / "b_post.nrrd").unlink()
    write_volume(Volume.from_geometry(noise(9, 9, 9), 1.0), scans / "c_post.nrrd")
    assert main(["cohort", str(scans), "--dry-run"]) == 1
    out = capsys.readouterr().out
    assert "missing partner: " in out and "(--moving-spacing)" in out and "3 pairs, 1 of them" in out
    assert sorted(path.name for path in scans.parent.iterdir()) == ["scans"], "a dry run writes nothing"
    assert main(["cohort", str(scans), "--dry-run", "--moving-spacing", "0.16"]) == 1
    assert "3 pairs, 2 of them" in capsys.readouterr().out


def test_warnings_of_what_closes_loops_are_printed(called, monkeypatch, tmp_path, capsys):
    closing = made_pair("fine"), made_pair("m1 to m2", warnings=("Some slices are lost.",)), refused_pair("m1 to m3")
    result = made_cohort(made_pair("m1"), closing=closing)
    monkeypatch.setattr(import_module("DNetRegistrationLib.cohort.run"), "align_cohort", lambda *_, **__: result)
    assert main(["cohort", "scans", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "3 alignments to close loops; 1 not accepted, which measure nothing" in out
    assert "m1 to m2: Some slices are lost." in out and "m1 to m3: Not accepted: no pose" in out and "fine" not in out


@pytest.mark.parametrize(("outputs", "status"), [(["cartilage", "transform"], 1), (["transform"], 0)])
def test_cartilage_that_was_asked_for_and_not_measured_shows_in_the_exit_status(
    monkeypatch, tmp_path, capsys, outputs, status
):
    """The status was 0, and only the table told."""
    thick = ({"compartment": "all", "mean_thickness_um": 40.0},)
    result = made_cohort(made_pair("m1", compartments=thick), made_pair("m2"), options={"outputs": outputs})
    monkeypatch.setattr(import_module("DNetRegistrationLib.cohort.run"), "align_cohort", lambda *_, **__: result)
    assert main(["cohort", "scans", "--output", str(tmp_path)]) == status
    told = "could not be measured in 1 pair: m2; warnings in cohort.csv say why"
    assert (told in capsys.readouterr().out) == bool(status)


def test_outputs_that_are_removed_since_nobody_asks_for_them_are_named_before_the_work(monkeypatch, tmp_path, capsys):
    def align_cohort(*_, surveyed, **__):
        surveyed(Survey([], [], {}, {}, {}, dropped=list(dropped)))
        return CohortResult(scans="", pairs=())

    monkeypatch.setattr(import_module("DNetRegistrationLib.cohort.run"), "align_cohort", align_cohort)
    dropped = ["cartilage", "thickness"]
    main(["cohort", "scans", "--output", str(tmp_path)])
    assert "and removed: --cartilage, --thickness;" in "".join(capsys.readouterr())
    dropped.clear()
    main(["cohort", "scans", "--output", str(tmp_path)])
    assert "and removed" not in "".join(capsys.readouterr())


def test_options_are_those_of_align_for_all_pairs(called, tmp_path):
    words = ["--pattern", "{scan}/{id}", "--words", "a, b", "--jobs", "3", "--fixed-spacing", "0.01,0.01,0.02"]
    words += [
        "--moving-threshold",
        "7",
        "--resampled",
        "--subtraction",
        ".nii.gz",
        "--transform",
        ".h5",
        "--contrast",
        "fixed",
    ]
    words += [
        "--working-spacing",
        "0.05",
        "--bone",
        "largest",
        "--hypotheses",
        "search",
        "--weights",
        "dnet",
        "--anyway",
        "--check",
    ]
    assert main(["cohort", "in", "--output", str(tmp_path), *words]) == 0
    ((scans, output, options, given),) = called
    assert (scans, output) == ("in", str(tmp_path))
    assert (given["pattern"], given["words"], given["jobs"]) == ("{scan}/{id}", ("a", "b"), 3)
    assert options.scans == {"fixed_spacing": (0.01, 0.01, 0.02), "moving_threshold": 7.0}
    assert (
        options.outputs.items()
        >= {"resampled": ".nrrd", "subtraction": ".nii.gz", "transform": ".h5", "report": ".json"}.items()
    )
    assert (options.contrast, options.spacing, options.bone, options.anyway) == ("fixed", 0.05, "largest", True)
    assert (options.hypotheses, options.weights, options.check) == ("search", "dnet", True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none"], "(--output)"),
        (["none", "--output", "r"], "no such folder of scans"),
        (["none", "--output", "r", "--words", "pre"], "not two words"),
        ([".", "--output", "r", "--pattern", "{id}"], "(--pattern)"),
        (["none", "--output", "r", "--bone", "each"], "invalid choice"),
    ],
)
def test_bad_usage_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    assert main(["cohort", *words]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


@pytest.mark.slow
def test_three_pairs_and_what_is_printed(scans, tmp_path):
    shutil.copy(scans / "a_pre.nrrd", scans / "stray.nrrd")
    (scans / "c_pre.nrrd").write_bytes(b"NRRD")
    done = run("cohort", str(scans), "--output", str(tmp_path / "r"), "--jobs", "1")
    assert done.returncode == 1 and not done.stderr
    lines = done.stdout.splitlines()
    # What headers show is told before the work.
    assert lines[0].startswith("c: ") and "c_pre.nrrd: is not an image" in lines[0]
    assert lines[1].startswith("1 of 3 (1 accepted, 0 refused, 0 failed")
    assert any("c: Failed: " in line and "c_pre.nrrd" in line for line in lines)
    assert "3 pairs: 2 accepted, 0 refused, 1 failed" in lines
    assert any(line.startswith("left out") and "stray.nrrd" in line for line in lines)
    for name in ("cohort.html", "cohort.csv"):
        assert str(tmp_path / "r" / name) in done.stdout and (tmp_path / "r" / name).is_file()
    (scans / "c_pre.nrrd").unlink()
    shutil.copy(scans / "a_pre.nrrd", scans / "c_pre.nrrd")
    again = run("cohort", str(scans), "--output", str(tmp_path / "r"), "--jobs", "1")
    assert again.returncode == 0 and again.stdout.count("as before: ") == 2


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_a_run_that_is_interrupted_says_so_and_goes_on(scans, tmp_path):
    words = [*COMMAND, "cohort", str(scans), "--output", str(tmp_path / "r"), "--jobs", "1"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=places.environment(), text=True
    )
    assert process.stdout.readline().startswith("1 of 3")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error == "dnet-registration: interrupted\n"
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [".lock", "pairs"]
    again = subprocess.run(words, capture_output=True, text=True, env=places.environment())
    assert again.returncode == 0 and "a: as before: " in again.stdout


def test_a_help_that_names_what_results_are():
    done = run("cohort", "--help")
    assert done.returncode == 0 and "cohort.csv" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
