"""Pairs that are found by the names of files and folders, and what is said of names that do not fit."""

import os
from pathlib import Path

import pytest
from DNetRegistrationLib.cohort.naming import pairs_by_name
from DNetRegistrationLib.core.errors import FileError, OptionError


def place(folder: Path, *names: str) -> Path:
    """Makes files; a name that ends in a slash is a folder with a slice in it."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
            (path / "1.bmp").touch()
        else:
            path.touch()
    return folder


def told(found):
    """Names of the pairs with those of their scans, and the kinds and files of the problems."""
    scans = {
        pair.name: tuple(None if scan is None else Path(scan.path).name for scan in (pair.fixed, pair.moving))
        for pair in found.pairs
    }
    return scans, {(one.kind, one.pair, tuple(Path(file).name for file in one.files)) for one in found.problems}


def test_names_that_end_in_pre_and_post_are_pairs_of_any_kind(tmp_path):
    place(tmp_path, "m10_pre.nii.gz", "m10_POST/", "m2_pre.nrrd", "m2_post.MHA", "a_b_pre.ISQ", "a_b_post.dcm")
    place(tmp_path, ".m3_pre.nrrd", "notes.txt", "m2_post.raw", "m2_pre.log")
    scans, problems = told(pairs_by_name(tmp_path))
    assert list(scans.items()) == [
        ("a_b", ("a_b_pre.ISQ", "a_b_post.dcm")),
        ("m2", ("m2_pre.nrrd", "m2_post.MHA")),
        ("m10", ("m10_pre.nii.gz", "m10_POST")),
    ]
    assert not problems


def test_each_problem_of_names_is_told(tmp_path):
    place(tmp_path, "a_pre.nrrd", "a_pre.tif", "a_post.nrrd")  # twice
    place(tmp_path, "b_pre.nrrd", "b_pots.nrrd")  # misspelled
    place(tmp_path, "c_post/", "stray.mha", "d_pre.nrrd", "d_post.vff")
    found = pairs_by_name(tmp_path)
    scans, problems = told(found)
    assert scans["a"] == ("a_pre.nrrd", "a_post.nrrd") and scans["b"] == ("b_pre.nrrd", None)
    assert problems == {
        ("duplicate", "a", ("a_pre.nrrd", "a_pre.tif")),
        ("partner", "b", ("b_pre.nrrd",)),
        ("partner", "c", ("c_post",)),
        ("partner", "d", ("d_pre.nrrd",)),
        ("name", "", ("b_pots.nrrd", "stray.mha")),
        ("unreadable", "", ("d_post.vff",)),
    }
    assert all(pair.blocked is not None for pair in found.pairs)
    (missing,) = (one for one in found.problems if one.pair == "b")
    assert missing.remedy.endswith("is it b_pots.nrrd?")
    (foreign,) = (one for one in found.problems if one.kind == "unreadable")
    assert "VFF" in foreign.problem and "DICOM" in foreign.remedy


def test_many_names_that_fit_to_no_pair_are_one_problem_that_lists_them(tmp_path):
    place(tmp_path, "a_pre.nrrd", "a_post.nrrd", "late/", "x.mha", "y.tif", "b_pre.vff", "b_post.vff", "c_pre.txm")
    found = pairs_by_name(tmp_path)
    names, vff, txm = found.problems
    assert names.problem == f"{tmp_path / 'late'}, x.mha, y.tif: their names fit to no pair"
    assert [Path(file).name for file in names.files] == ["late", "x.mha", "y.tif"]
    assert vff.problem.startswith(f"{tmp_path / 'b_post.vff'}, b_pre.vff: each is a scan of GE")
    assert txm.problem.startswith(f"{tmp_path / 'c_pre.txm'}: is a scan of Zeiss")


def test_a_pattern_names_the_parts_of_names_in_folders(tmp_path):
    place(tmp_path, "drug/7_4w_contrast.nrrd", "drug/7_4w_plain/", "drug/7_8w_plain.tif", "drug/7_8w_contrast.tif")
    place(tmp_path, "sham/7_4w_contrast.nrrd", "sham/7_4w_plain.nrrd", "results/x.csv", "readme.txt")
    found = pairs_by_name(tmp_path, "{group}/{id}_{time}_{scan}", ("plain", "contrast"))
    scans, problems = told(found)
    assert list(scans) == ["drug_7_4w", "drug_7_8w", "sham_7_4w"] and not problems
    assert scans["drug_7_4w"] == ("7_4w_plain", "7_4w_contrast.nrrd")
    assert found.pairs[1].columns == {"group": "drug", "id": "7", "time": "8w"}


def test_a_pattern_may_begin_with_the_scan_and_skip_text(tmp_path):
    place(tmp_path, "dicom/m1/", "bmp/m1/", "dicom/m2/", "bmp/m2/")
    assert list(told(pairs_by_name(tmp_path, "{scan}/{id}", ("dicom", "bmp")))[0]) == ["m1", "m2"]
    place(tmp_path / "b", "m1_20240102_pre.nrrd", "m1_20240103_post.nrrd")
    assert told(pairs_by_name(tmp_path / "b", "{id}_*_{scan}"))[0] == {
        "m1": ("m1_20240102_pre.nrrd", "m1_20240103_post.nrrd")
    }


def test_of_words_of_which_one_begins_with_the_other_the_longer_counts(tmp_path):
    place(tmp_path, "m1_scan.nrrd", "m1_scan2.nrrd")
    assert told(pairs_by_name(tmp_path, words=("scan", "scan2")))[0] == {"m1": ("m1_scan.nrrd", "m1_scan2.nrrd")}


@pytest.mark.parametrize("pattern", ["{id}", "{scan}", "{id}_{id}_{scan}", "{id}_{scan}_{}", "{a b}_{id}_{scan}"])
def test_a_pattern_without_its_parts_is_refused(tmp_path, pattern):
    with pytest.raises(OptionError, match="does not name the parts"):
        pairs_by_name(place(tmp_path, "a_pre.nrrd"), pattern)


def test_characters_of_a_pattern_stand_for_themselves(tmp_path):
    place(tmp_path, "m1.a(pre).nrrd", "m1.a(post).nrrd", "m1xa(pre).nrrd")
    scans, problems = told(pairs_by_name(tmp_path, "{id}.a({scan})"))
    assert scans == {"m1": ("m1.a(pre).nrrd", "m1.a(post).nrrd")} and len(problems) == 1


@pytest.mark.parametrize("words", [("pre", "PRE"), ("", "post")])
def test_words_that_tell_no_two_scans_apart_are_refused(tmp_path, words):
    with pytest.raises(OptionError, match="not the words"):
        pairs_by_name(place(tmp_path, "a_pre.nrrd"), words=words)


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(FileError, match="holds no scans"):
        pairs_by_name(place(tmp_path, "a.txt"))
    with pytest.raises(FileError, match="no such folder"):
        pairs_by_name(tmp_path / "none")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_with_quotes_line_breaks_and_bytes_that_are_no_text(tmp_path):
    names = ['it\'s "one"', "two\nlines", os.fsdecode(b"caf\xe9")]
    for name in names:
        place(tmp_path, f"{name}_pre.nrrd", f"{name}_post.nrrd")
    found = pairs_by_name(tmp_path)
    assert {pair.name for pair in found.pairs} == set(names) and not found.problems


def test_results_among_the_scans_are_no_scans(tmp_path):
    place(tmp_path, "a_pre.nrrd", "a_post.nrrd", "results/.lock", "results/pairs/a_pre/", "done/cohort.json")
    found = pairs_by_name(tmp_path)
    assert [pair.name for pair in found.pairs] == ["a"] and not found.problems


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{id} {scan}", ("M 1 vor.nrrd", "M 1 nach.nrrd", "M 2 vor.nrrd")),
        ("{id}-{scan}", ("1-vor/", "1-Nach/")),
        ("{scan}_{id}", ("vor_1.tif", "nach_1.nrrd")),
        ("{id}/{scan}", ("m1/vor.nrrd", "m1/nach.nrrd", "m2/vor/", "m2/nach/")),
        ("{id}/*{scan}", ("m1/scan_vor.nrrd", "m1/scan_nach.nrrd")),
    ],
)
def test_a_pattern_that_fits_is_proposed(tmp_path, pattern, names):
    place(tmp_path, *names)
    (odd,) = pairs_by_name(tmp_path, words=("vor", "nach")).problems
    assert odd.remedy == f"if vor and nach tell the two scans of a pair, give the pattern {pattern}"
    assert len(pairs_by_name(tmp_path, pattern, ("vor", "nach")).pairs) >= 1


def test_two_folders_of_scans_of_the_same_names_are_told_how_to_be_paired(tmp_path):
    place(tmp_path, "dicom/m1/", "dicom/m2/", "bmp/m1/", "bmp/.hidden")
    found = pairs_by_name(tmp_path)
    (odd,) = found.problems
    assert odd.kind == "name" and "the pattern {scan}/{id} and the words bmp and dicom" in odd.remedy
    scans, problems = told(pairs_by_name(tmp_path, "{scan}/{id}", ("dicom", "bmp")))
    assert scans["m1"] == ("m1", "m1") and [kind for kind, *_ in problems] == ["partner"]
    # Folders of slices by other names, and two that hold nothing alike, are called otherwise.
    place(tmp_path / "other", "bmp/m1/", "dicom/m3/")
    assert (
        "the two scans of a pair NAME_pre and NAME_post, give" in pairs_by_name(tmp_path / "other").problems[0].remedy
    )
