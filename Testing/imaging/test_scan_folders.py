"""Scans of a folder, paired by their names."""

import pytest
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.imaging.scan_folders import ScanPair, find_scans


@pytest.fixture
def folder(tmp_path):
    names = ("b_post.nrrd", "b_pre.MHA", "a.nii.gz", "pre.nrrd", "c_pre_post.tif", "c_pre_pre.nrrd", ".d_pre.nrrd",
             "e_moving.nhdr", "e_fixed.nrrd", "f_post.mhd", "f_post.raw", "log.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    for name in ("b.tfm", "e_truth.tfm", "a.tfm"):
        (tmp_path / name).touch()
    (tmp_path / "g_pre").mkdir()
    (tmp_path / "g_post").mkdir()
    return tmp_path


def test_names_tell_pairs_single_scans_and_scans_without_partner(folder):
    found = find_scans(folder)
    assert found.pairs == [
        ScanPair("b", folder / "b_pre.MHA", folder / "b_post.nrrd", folder / "b.tfm"),
        ScanPair("c_pre", folder / "c_pre_pre.nrrd", folder / "c_pre_post.tif"),
        ScanPair("e", folder / "e_fixed.nrrd", folder / "e_moving.nhdr", folder / "e_truth.tfm"),
        ScanPair("g", folder / "g_pre", folder / "g_post"),
    ]
    assert {name: path.name for name, path in found.singles.items()} == {"a": "a.nii.gz", "pre": "pre.nrrd"}
    assert not found.masks and found.unpaired == {folder / "f_post.mhd": "f_pre"} and not found.problems


def test_masks_are_no_scans(folder):
    """Those of `synthesize --truth`, and segmentations of Slicer: networks were trained on them as on bones."""
    before = find_scans(folder)
    names = ("e_fixed_bone.nrrd", "e_fixed_cartilage.nrrd", "b_pre_mask.nrrd", "b_pre.seg.nrrd", "Knee.seg.nrrd")
    for name in names:
        (folder / name).touch()
    found = find_scans(folder)
    assert sorted(path.name for path in found.masks) == sorted(names)
    assert (found.pairs, found.singles, found.unpaired) == (before.pairs, before.singles, before.unpaired)


def test_a_mask_of_a_single_scan_is_no_scan(folder):
    for name in ("a_mask.nrrd", "other_mask.nrrd"):
        (folder / name).touch()
    found = find_scans(folder)
    assert [path.name for path in found.masks] == ["a_mask.nrrd"]
    assert sorted(found.singles) == ["a", "other_mask", "pre"]


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
