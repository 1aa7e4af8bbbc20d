"""The scans of an evaluation: how they are found, and that all that is wrong with them is told at once."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.experiments.paper.cohort import CohortError, check_bones, find_bones, write_bones
from DNetRegistrationLib.experiments.paper.run import evaluate
from DNetRegistrationLib.experiments.paper.settings import EvaluationRecord
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from DNetRegistrationLib.synthesis.dataset import synthesize


def ball(path, seed, size=16):
    """A scan of a bright ball, no two alike."""
    z, y, x = np.ogrid[:size, :size, :size]
    near = (z - size / 2) ** 2 + (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 3) ** 2
    noise = np.random.default_rng(seed).normal(size=near.shape)
    affine = np.diag((0.1, 0.1, 0.1, 1))
    write_volume(Volume((1000 * near + 10 * noise).astype(np.float32), affine), path)


@pytest.fixture
def folders(tmp_path):
    """Two folders of two bones each."""
    for number, (fold, name) in enumerate((f, n) for f in "AB" for n in ("one", "two")):
        (tmp_path / fold).mkdir(exist_ok=True)
        for role, seed in (("pre", 2 * number), ("post", 2 * number + 1)):
            ball(tmp_path / fold / f"{fold}-{name}_{role}.nrrd", seed)
    return tmp_path / "A", tmp_path / "B"


def test_two_folders(folders):
    (folders[0] / "A-one.tfm").write_text("")
    (folders[0] / "notes.txt").write_text("ignored")
    found = find_bones(folders, least=2)
    assert not found.problems
    assert [(bone.name, bone.animal, bone.fold) for bone in found.bones] == [
        ("A-one", "A-one", "A"), ("A-two", "A-two", "A"), ("B-one", "B-one", "B"), ("B-two", "B-two", "B"),
    ]  # fmt: skip
    assert Path(found.bones[0].pre.path).name == "A-one_pre.nrrd" and found.bones[0].post.path.endswith(
        "A-one_post.nrrd"
    )
    assert found.bones[0].transform.name == "A-one.tfm" and found.bones[1].transform is None


def test_everything_wrong_is_told_before_anything_runs(folders, tmp_path):
    a, b = folders
    (a / "A-one_post.nrrd").unlink()  # a partner is missing
    ball(a / "A-two_pre.mha", 50)  # a second one of this name
    ball(a / "spare.nrrd", 51)  # an odd name
    (b / "B-one_pre.nrrd").write_bytes(b"NRRD0004\ngarbage")  # unreadable
    (b / "B-two_post.nrrd").write_bytes((b / "B-two_pre.nrrd").read_bytes())  # twice the same scan
    with pytest.raises(CohortError, match=r"^5 problems with the scans; correct them first$") as caught:
        evaluate(output=tmp_path / "out", scans=folders, quick=True)
    problems = caught.value.problems
    assert len(problems) == 5
    for name, cause, remedy in (
        ("A-one_pre.nrrd", "its partner A-one_post.* is missing", "add it"),
        ("A-two_pre.mha", "A-two_pre.nrrd beside it has the same name", "keep one"),
        ("spare.nrrd", "neither NAME_pre nor NAME_post", "rename it"),
        ("B-one_pre.nrrd", "", ""),
        ("B-two_post.nrrd", "the same voxels as", "put the right scan there"),
    ):
        (found,) = [problem for problem in problems if name in problem.problem.split(":")[0]]
        assert cause in found.problem and remedy in found.remedy
    assert not list((tmp_path / "out").iterdir())


def test_an_animal_in_both_halves(folders):
    for seed, role in enumerate(("pre", "post"), 40):
        ball(folders[1] / f"A-one_{role}.nrrd", seed)
    (problem,) = find_bones(folders).problems
    assert str(problem).startswith("A-one: there are 2 bones of this name")


def test_too_few_bones_to_train_on(folders):
    for role in ("pre", "post"):
        (folders[1] / f"B-two_{role}.nrrd").unlink()
    assert not find_bones(folders, least=1).problems
    (problem,) = find_bones(folders, least=2).problems
    assert "too few bones in B (1); give at least 2" in str(problem)


def test_one_folder_is_split_by_a_draw(tmp_path):
    for number in range(6):
        for role in ("pre", "post"):
            (tmp_path / f"m{number}_{role}.nrrd").write_text("")
    first, again, other = (find_bones([tmp_path], seed).bones for seed in (0, 0, 1))
    assert first == again != other
    assert Counter(bone.fold for bone in first) == {"A": 3, "B": 3}


def table(path, lines):
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def test_a_table(tmp_path, folders):
    lines = [
        {"name": f"bone {k}", "animal": f"mouse {k // 2}", "pre": f"{k}.nrrd", "post": f"A/../{k}c.nrrd"}
        for k in range(8)
    ]
    for line in lines:
        for role in ("pre", "post"):
            (tmp_path / line[role]).write_text("")
    found = find_bones([table(tmp_path / "t.csv", lines)])
    assert not found.problems and found.bones[3].pre == ScanFile(str(tmp_path / "3.nrrd"))
    # Both bones of an animal are in one half.
    halves = {(bone.animal, bone.fold) for bone in found.bones}
    assert len(halves) == 4 and Counter(fold for _, fold in halves) == {"A": 2, "B": 2}


def test_a_table_says_of_each_scan_what_a_list_of_pairs_does(tmp_path):
    for number in range(4):
        ball(tmp_path / f"{number}.nrrd", number)
    half = np.zeros((16, 16, 16), np.uint8)
    half[:9] = 1
    write_volume(Volume(half, np.diag((0.1, 0.1, 0.1, 1))), tmp_path / "mask.nrrd")
    row = {
        "pre_spacing": "0.2",
        "post_mask": "mask.nrrd",
        "post_segment": "1",
        "pre_threshold": "400",
        "post_flip": "x",
    }
    lines = [{"name": "a", "pre": "0.nrrd", "post": "1.nrrd", **row}]
    lines += [{**dict.fromkeys(row, ""), "name": "b", "pre": "2.nrrd", "post": "3.nrrd"}]
    found = find_bones([table(tmp_path / "t.csv", lines)])
    assert not found.problems
    (bone,) = (bone for bone in found.bones if bone.name == "a")
    assert bone.pre == ScanFile(str(tmp_path / "0.nrrd"), spacing=(0.2,), threshold=400.0)
    assert bone.post.about == {"mask": str(tmp_path / "mask.nrrd"), "segment": "1", "flip": "x"}
    # The same by the names of a list of pairs.
    called = {"name": "id", "pre": "fixed", "post": "moving"}
    names = [called.get(one, one.replace("pre_", "fixed_").replace("post_", "moving_")) for one in lines[0]]
    listed = [{new: line[old] for old, new in zip(lines[0], names, strict=True)} for line in lines]
    assert find_bones([table(tmp_path / "u.csv", listed)]).bones == found.bones
    # All of it is read, and counts for what an evaluation is of.
    problems, before = check_bones(found.bones)
    assert not problems
    others = [replace(one, post=replace(one.post, segment=None)) for one in found.bones]
    assert check_bones(others)[1] != before
    problems, _ = check_bones([replace(bone, post=replace(bone.post, segment="7"))])
    assert "has no voxel of the label 7" in str(problems[0])
    # A record holds it, and gives it back.
    record = EvaluationRecord({}, {"a": bone}, {}, "", "")
    record.save(tmp_path)
    assert EvaluationRecord.load(tmp_path).bones == {"a": bone}
    lines[0]["pre_spacing"] = "wide"
    assert any("'wide' as pre_spacing" in str(one) for one in find_bones([table(tmp_path / "t.csv", lines)]).problems)


def test_a_table_of_a_spreadsheet(tmp_path):
    """Parted by semicolons, with capitals in the header, an empty row, and an umlaut in Latin-1."""
    for name in ("ä1.nrrd", "ä2.nrrd"):
        (tmp_path / name).write_text("")
    text = "sep=;\nName;Pre;Post\nbone;ä1.nrrd;ä2.nrrd\n;;\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    found = find_bones([tmp_path / "t.csv"], least=0)
    assert not found.problems and [(bone.name, bone.pre.path) for bone in found.bones] == [
        ("bone", str(tmp_path / "ä1.nrrd"))
    ]
    (tmp_path / "t.csv").write_text("name,pre,post\nbone,ä1.nrrd,ä2.nrrd,more\n")
    (problem,) = find_bones([tmp_path / "t.csv"], least=0).problems
    assert "line 2 has more cells than there are columns" in str(problem)


def test_a_table_with_mistakes(tmp_path):
    (tmp_path / "x.nrrd").write_text("")
    lines = [
        {"name": "a", "pre": "x.nrrd", "post": "missing.nrrd", "fold": "A", "colour": "red", "animal": ""},
        {"name": "b", "pre": "x.nrrd", "post": "x.nrrd", "fold": "C", "colour": "", "animal": ""},
        {"name": "", "pre": "x.nrrd", "post": "", "fold": "", "colour": "", "animal": ""},
    ]
    problems = find_bones([table(tmp_path / "t.csv", lines)]).problems
    for part in (
        "missing.nrrd: there is no such file (", "colour is unknown", "line 3 has the fold 'C'",
        "line 4 has no name and no post", "x.nrrd: is given 3 times",
    ):  # fmt: skip
        assert any(part in str(problem) for problem in problems), part
    with pytest.raises(FileError, match="lacks post, pre"):
        find_bones([table(tmp_path / "u.csv", [{"name": "a"}])])


def test_paths_that_are_not_there(tmp_path):
    with pytest.raises(FileError, match="there is no such folder of scans"):
        find_bones([tmp_path / "A", tmp_path])
    with pytest.raises(FileError, match="one too many"):
        find_bones([tmp_path] * 3)


def test_what_synthesize_writes_will_do(tmp_path):
    for fold, seed in (("A", 0), ("B", 1)):
        (tmp_path / fold).mkdir()
        synthesize(tmp_path / fold, 1, seed, size=24, spacing=0.2, clean=True)
        for path in list((tmp_path / fold).glob("0001_*")):
            path.rename(path.with_name(path.name.replace("0001", f"{fold}1")))
    found = find_bones([tmp_path / "A", tmp_path / "B"])
    assert not found.problems
    assert [(Path(bone.pre.path).name, bone.transform.name) for bone in found.bones] == [
        ("A1_fixed.nrrd", "A1_truth.tfm"), ("B1_fixed.nrrd", "B1_truth.tfm"),
    ]  # fmt: skip


@pytest.mark.slow
def test_made_up_bones_go_on_and_have_a_fingerprint(tmp_path):
    folders = write_bones(tmp_path, 2, 0, 24, 0.2)
    bones = find_bones(folders).bones
    assert [bone.fold for bone in bones] == ["A", "B"] and all(bone.transform for bone in bones)
    paths = [Path(bone.pre.path) for bone in bones]
    first = paths[0].read_bytes()
    problems, fingerprint = check_bones(bones)
    assert not problems
    # What was lost is made again, the same; what is there stays.
    paths[0].unlink()
    stamp = paths[1].stat().st_mtime_ns
    write_bones(tmp_path, 2, 0, 24, 0.2)
    assert paths[0].read_bytes() == first and paths[1].stat().st_mtime_ns == stamp
    assert check_bones(bones) == ([], fingerprint)
    ball(paths[0], 3)
    assert check_bones(bones)[1] != fingerprint
