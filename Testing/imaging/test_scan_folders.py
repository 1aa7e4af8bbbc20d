"""Scans of a folder, paired by their names."""

import pytest
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.imaging.scan_folders import ScanPair, find_scans

WORDS = (("pre", "post"), ("fixed", "moving"))


@pytest.fixture
def folder(tmp_path):
    names = ("b_post.nrrd", "b_pre.MHA", "a.nii.gz", "pre.nrrd", "c_pre_post.tif", "c_pre_pre.nrrd", ".d_pre.nrrd",
             "e_moving.nhdr", "e_fixed.nrrd", "f_post.mhd", "f_post.raw", "log.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "g_pre").mkdir()
    (tmp_path / "g_post").mkdir()
    return tmp_path


def test_names_tell_pairs_single_scans_and_scans_without_partner(folder):
    found = find_scans(folder)
    assert found.pairs == [
        ScanPair("b", folder / "b_pre.MHA", folder / "b_post.nrrd"),
        ScanPair("c_pre", folder / "c_pre_pre.nrrd", folder / "c_pre_post.tif"),
        ScanPair("g", folder / "g_pre", folder / "g_post"),
    ]
    assert {name: path.name for name, path in found.singles.items()} == {
        "a": "a.nii.gz", "e_fixed": "e_fixed.nrrd", "e_moving": "e_moving.nhdr", "pre": "pre.nrrd"
    }  # fmt: skip
    assert found.unpaired == {folder / "f_post.mhd": "f_pre"} and not found.problems


def test_other_words_make_pairs_too(folder):
    found = find_scans(folder, WORDS)
    assert ScanPair("e", folder / "e_fixed.nrrd", folder / "e_moving.nhdr") in found.pairs
    assert set(found.singles) == {"a", "pre"}


def test_without_slices_only_files_that_store_their_voxel_size_are_scans(folder):
    found = find_scans(folder, slices=False)
    assert [pair.name for pair in found.pairs] == ["b"]
    assert found.unpaired[folder / "c_pre_pre.nrrd"] == "c_pre_post"


def test_of_two_scans_of_one_name_the_second_is_a_problem(folder):
    (folder / "b_pre.nrrd").touch()
    found = find_scans(folder)
    (problem,) = found.problems
    assert str(problem) == f"{folder / 'b_pre.MHA'}: b_pre.nrrd beside it has the same name; keep one of them"
    assert found.pairs[0].pre.name == "b_pre.MHA"


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "log.txt").touch()
    with pytest.raises(FileError, match="holds no scans"):
        find_scans(tmp_path)
    with pytest.raises(FileError, match="there is no such folder of scans"):
        find_scans(tmp_path / "nowhere")
