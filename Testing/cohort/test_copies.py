"""Copies among the scans of a cohort are told on every pair that they concern."""

import csv
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cohort_results import failed_pair, made_pair
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.cohort.copies import same_files, with_copies
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import Pair
from DNetRegistrationLib.cohort.result import CohortResult, Problem
from DNetRegistrationLib.cohort.run import align_cohort, find_pairs
from DNetRegistrationLib.cohort.survey import survey
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from grids import noise


def scan(path, seed, **options):
    write_volume(Volume.from_geometry(noise(16, 17, 18, seed=seed), 0.02), path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Four pairs, all scans of one length."""
    for number, name in enumerate(("m01", "m02", "m03", "m04")):
        scan(tmp_path / f"{name}_pre.nrrd", 2 * number)
        scan(tmp_path / f"{name}_post.nrrd", 2 * number + 1)
    return tmp_path


def told(found):
    return [(one.pair, os.path.basename(one.problem.partition(": ")[0])) for one in found if one.kind == "duplicate"]


def test_scans_of_their_own_are_no_copies(folder):
    assert same_files(find_pairs(folder).pairs) == []


def test_the_scan_of_one_animal_given_as_that_of_another_is_told_on_both(folder):
    shutil.copy(folder / "m01_pre.nrrd", folder / "m02_pre.nrrd")
    shutil.copy(folder / "m03_pre.nrrd", folder / "m04_post.nrrd")  # and in the other role
    found = survey(find_pairs(folder))
    assert told(found.problems) == [
        ("m01", "m01_pre.nrrd"), ("m02", "m02_pre.nrrd"), ("m03", "m03_pre.nrrd"), ("m04", "m04_post.nrrd")
    ]  # fmt: skip
    assert "same bytes as the moving scan of m04 (" in found.problems[2].problem
    # One of the two may be right.
    assert not any(pair.blocked for pair in found.pairs)


def test_a_pair_of_a_scan_and_its_copy_is_not_aligned(folder):
    shutil.copy(folder / "m02_pre.nrrd", folder / "m02_post.nrrd")
    found = survey(find_pairs(folder))
    assert told(found.problems) == [("m02", "m02_pre.nrrd")]
    assert [pair.name for pair in found.pairs if pair.blocked] == ["m02"]


def test_folders_of_slices_are_compared_slice_by_slice(tmp_path):
    for name, change in (("a_pre", 0), ("a_post", 0), ("b_pre", 1), ("b_post", 0)):
        (tmp_path / name).mkdir()
        for number in range(5):
            content = bytearray(noise(300_000, dtype=np.uint8, seed=number).tobytes())
            content[150_000] += change * (number == 3)  # neither at an end nor in the middle slice
            (tmp_path / name / f"{name}_{number}.bmp").write_bytes(content)
    pairs = find_pairs(tmp_path).pairs
    assert {one.pair for one in same_files(pairs)} == {"a", "b"}
    assert all("b_pre" not in one.problem for one in same_files(pairs))


def test_a_pair_that_is_listed_under_two_names_is_told_on_both(folder):
    rows = [
        "id,fixed,moving,fixed_series",
        "m01,m01_pre.nrrd,m01_post.nrrd",
        "m02,m01_pre.nrrd,m01_post.nrrd",
        "m03,m01_post.nrrd,m01_pre.nrrd,1",
        "m04,m01_pre.nrrd,m04_post.nrrd",
    ]
    (folder / "list.csv").write_text("\n".join(rows))
    found = survey(find_pairs(folder / "list.csv"))
    assert [one.pair for one in found.problems] == ["m01", "m02", "m03"] and found.copies == found.problems
    assert found.problems[0].problem.endswith("are both scans of m02, m03 too")
    assert not any(pair.blocked for pair in found.pairs)


def test_what_is_meant_is_no_problem(folder):
    def pair(name, fixed, moving, bone, **about):
        return Pair(
            name=name, fixed=ScanFile(str(folder / fixed), **about), moving=ScanFile(str(folder / moving)), bone=bone
        )

    first, second = "m01_pre.nrrd", "copy.nrrd"
    shutil.copy(folder / first, folder / second)
    other = "m02_post.nrrd"
    # The same scan for every time of one bone, by one path or by copies; not of another bone.
    weeks = pair("w4", first, "m01_post.nrrd", ("m01",)), pair("w8", second, other, ("m01",))
    assert same_files(weeks) == []
    assert same_files([weeks[0], pair("x", first, other, ("m02",))]) == []
    assert len(same_files([weeks[0], pair("x", second, other, ("m02",))])) == 2
    # Copies of one scan are told also where each has a mask of its own.
    parts = [
        pair(name, path, f"{name}_post.nrrd", (name,), mask=name) for name, path in (("m01", first), ("m02", second))
    ]
    assert [one.pair for one in same_files(parts)] == ["m01", "m02"]
    bones = [replace(one, fixed=replace(one.fixed, path=parts[0].fixed.path)) for one in parts]
    assert same_files(bones) == []
    # What cannot be read, and what is empty, is told elsewhere.
    for name in ("m03_pre.nrrd", "m04_pre.nrrd"):
        (folder / name).write_bytes(b"")
    (folder / "m03_post.nrrd").unlink()
    assert same_files(find_pairs(folder).pairs) == []


def result(name, *marks, **paths):
    return replace(made_pair(name), marks=marks, warnings=(), doubts=(), **paths)


def test_the_same_voxels_in_two_pairs_are_told_on_both():
    pairs = [result("m01", "A", "B"), result("m02", "A", "C"), result("m03", "D", "C"), failed_pair("m04")]
    found = with_copies(pairs)
    assert [len(pair.warnings) for pair in found] == [1, 2, 1, 0] and found[3] is pairs[3]
    assert found[0].warnings[0].startswith("The fixed scan holds the same voxels as the fixed scan of m02:")
    assert found[2].warnings[0].startswith("The moving scan holds the same voxels as the moving scan of m02:")
    assert not found[0].reserved  # the alignment is none the worse
    # A scan that several pairs share is none, nor is what one pair says itself.
    assert not any(pair.warnings for pair in with_copies([result(name, "A", name, fixed="/x/a") for name in "bcd"]))
    assert not with_copies([result("m01", "A", "A")])[0].warnings
    # A copy may lie in a pair that was not read to its end.
    problem = Problem(kind="duplicate", pair="m04", problem="x: holds the same bytes as y")
    assert with_copies(pairs, [problem])[3].warnings == ("x: holds the same bytes as y.",)
    assert with_copies(pairs, [replace(problem, pair="m01")])[0] == found[0]
    many = with_copies([result(f"m{n}", "A", str(n), fixed=str(n)) for n in range(6)])
    assert "as the fixed scan of m1, the fixed scan of m2, the fixed scan of m3 and 2 more:" in many[0].warnings[0]


@pytest.mark.slow
def test_copies_reach_row_page_and_terminal(small_pair, tmp_path, capsys):
    """The moving scan of another time is a copy in another kind of file: only an added alignment sees both."""
    scans, results = tmp_path / "scans", tmp_path / "results"
    scans.mkdir()
    write_volume(small_pair.fixed, scans / "m01_w4_pre.nrrd")
    write_volume(small_pair.moving, scans / "m01_w4_post.nrrd")
    write_volume(Volume(small_pair.fixed.voxels + 1, small_pair.fixed.affine), scans / "m01_w8_pre.nrrd")
    write_volume(small_pair.moving, scans / "m01_w8_post.nii.gz")
    options = CohortOptions(outputs={"transform": ".tfm"})
    found = align_cohort(scans, results, options, pattern="{id}_{time}_{scan}", jobs=1)
    assert len(found.closing) == 4 and not found.problems
    with open(results / "cohort.csv", newline="", encoding="utf-8") as stream:
        rows = {row["pair"]: row["warnings"] for row in csv.DictReader(stream)}
    for name, other in (("m01_w4", "m01_w8"), ("m01_w8", "m01_w4")):
        text = f"The moving scan holds the same voxels as the moving scan of {other}:"
        assert text in rows[name]
        assert (results / "cohort.html").read_text(encoding="utf-8").count(text) == 1
    again = CohortResult.from_dict(found.to_dict())
    assert again.pairs == found.pairs and all(pair.marks[1] == found.pairs[0].marks[1] for pair in again.pairs)
    # Copies by their bytes are told before anything is aligned.
    (scans / "m01_w8_post.nii.gz").unlink()
    shutil.copy(scans / "m01_w4_post.nrrd", scans / "m02_w8_post.nrrd")
    (scans / "m01_w8_pre.nrrd").rename(scans / "m02_w8_pre.nrrd")
    arguments = ["cohort", str(scans), "--pattern", "{id}_{time}_{scan}"]
    assert main([*arguments, "--dry-run"]) == 1
    assert "duplicate: " in capsys.readouterr().out
    assert main([*arguments, "--output", str(results), "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("m01_w4: ") and "holds the same bytes as the moving scan of m02_w8" in lines[0]
    assert lines[1].startswith("m02_w8: ") and lines[2].startswith("1 of 2")
