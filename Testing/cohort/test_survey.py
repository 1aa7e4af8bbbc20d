"""Headers tell every problem of a cohort, in one table of lines that can be printed."""

import os
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from command import run
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cohort.listing import pairs_of_list
from DNetRegistrationLib.cohort.naming import pairs_by_name
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import FoundPairs, Pair
from DNetRegistrationLib.cohort.result import Problem, told_once
from DNetRegistrationLib.cohort.run import find_pairs
from DNetRegistrationLib.cohort.survey import rows, shown, survey, table
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.imaging.nrrd import write_nrrd
from DNetRegistrationLib.imaging.volume import Volume, read_volume, write_volume
from grids import noise


def scan(path, spacing=0.02, shape=(10, 11, 12), dtype=np.uint16):
    voxels = noise(*shape, dtype=dtype, seed=zlib.crc32(path.name.encode()))
    write_volume(Volume.from_geometry(voxels, spacing), path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("good", "lost", "long", "cut", "alone"):
        scan(tmp_path / f"{name}_pre.nrrd")
        if name != "alone":
            scan(tmp_path / f"{name}_post.mha", spacing={"lost": 1.0, "long": 0.5}.get(name, 0.02))
    os.truncate(tmp_path / "cut_pre.nrrd", 1500)
    return tmp_path


def test_it_needs_neither_torch_nor_what_comes_with_it(folder):
    """In Slicer, a check does not wait until PyTorch is installed."""
    script = """
        import sys
        sys.modules |= dict.fromkeys(("torch", "jinja2", "filelock"))
        from DNetRegistrationLib.cohort.run import find_pairs
        from DNetRegistrationLib.cohort.survey import survey
        print(len(survey(find_pairs(sys.argv[1])).problems))
        """
    assert run(folder, code=script).stdout == "4\n"


def test_each_problem_is_told_of_its_pair(folder):
    found = survey(pairs_by_name(folder))
    told = [(one.kind, one.pair) for one in found.problems]
    assert told == [("partner", "alone"), ("unreadable", "cut"), ("spacing", "long"), ("spacing", "lost")]
    assert all(one.problem and one.remedy for one in found.problems)
    assert [found.settings[number].quantity for number in sorted(found.settings)] == ["spacing", "spacing"]
    assert set(found.sizes) == {"good", "long"}
    # Who has a list gives it there.
    assert all(one.remedy.endswith("in a list as moving_spacing") for one in found.problems if one.pair == "lost")


def test_files_that_a_row_names_beside_its_scans_are_looked_for(folder):
    row = "good,good_pre.nrrd,good_post.mha"
    (folder / "list.csv").write_text(f"id,fixed,moving,region,initial\n{row},joint.nrrd,\nagain,{row[5:]},,start.tfm\n")
    found = survey(pairs_of_list(folder / "list.csv")).problems
    told = [one.problem for one in found if one.kind in ("given", "unreadable")]
    assert told == [
        f"the region of the joint: {folder / 'joint.nrrd'}: there is no such file or folder",
        f"{folder / 'start.tfm'}: there is no such transform file",
    ]


WRONG = {
    "no image": ({"region": "text.nrrd"}, {}, "the region of the joint: .*text.nrrd"),
    "no segment": ({"region": "segments.seg.nrrd", "region_segment": "femur"}, {}, "has no segment 'femur'"),
    "a segment of nothing": ({"region_segment": "2"}, {}, "the region of the joint: .*the segment 2 is given"),
    "a label by name": ({"fixed_mask": "mask.nrrd", "fixed_segment": "bone"}, {}, "has labels without names"),
    "a segment of no mask": ({"moving_segment": "2"}, {}, "the segment 2 is given, but no mask"),
    "elsewhere": ({"moving_mask": "far.nrrd"}, {}, "far.nrrd: the mask lies elsewhere.*good_post.mha"),
    "a region elsewhere": ({"region": "far.nrrd"}, {}, "far.nrrd: the region of the joint lies elsewhere"),
    "no place": ({"fixed_mask": "bare"}, {"fixed_mask": "bare"}, "the mask states no voxel size"),
    "mirrored": ({"initial": "mirror.txt"}, {}, "mirrors"),
    "far point": ({"medial": "100 100 100"}, {"outputs": {"cartilage": ".csv"}}, "mm outside "),
    "sheared": ({"fixed": "sheared.nrrd"}, {"outputs": {"resampled": ".nii.gz"}}, "NIfTI cannot hold"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_the_alignment_would_refuse_is_told_by_headers(folder, wrong):
    (folder / "text.nrrd").write_text("no image")
    (folder / "mirror.txt").write_text("-1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    mask = read_volume(folder / "good_pre.nrrd")
    write_volume(mask, folder / "mask.nrrd")
    write_volume(replace(mask, affine=mask.affine + np.eye(4, k=3)), folder / "far.nrrd")
    write_volume(
        replace(mask, affine=mask.affine @ (np.eye(4) + np.eye(4, k=1) * 0.5 * (np.arange(4) < 2))),
        folder / "sheared.nrrd",
    )
    write_nrrd(
        folder / "segments.seg.nrrd",
        np.ones((10, 11, 12), np.uint8),
        (10, 11, 12),
        np.dtype(np.uint8),
        mask.affine,
        {"Segment0_ID": "s1", "Segment0_Name": "tibia", "Segment0_Layer": "0", "Segment0_LabelValue": "1"},
    )
    (folder / "bare").mkdir()
    for number in range(9):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((7, 7), np.uint8)), str(folder / f"bare/{number}.png"))
    cells, options, words = WRONG[wrong]
    row = {"id": "good", "fixed": "good_pre.nrrd", "moving": "good_post.mha"} | cells
    (folder / "list.csv").write_text(f"{','.join(row)}\n{','.join(row.values())}\n")
    chosen = CohortOptions(outputs=options.get("outputs", {}))
    (problem,) = survey(find_pairs(folder / "list.csv"), chosen).problems
    if {"region", "medial", "fixed_mask"} & cells.keys():
        assert problem.kind == "given"
    assert problem.pair == "good" and re.search(words, problem.problem) and problem.remedy


def test_the_dry_run_looks_into_masks_and_regions(folder):
    mask = read_volume(folder / "good_pre.nrrd")
    write_volume(replace(mask, voxels=np.zeros_like(mask.voxels)), folder / "empty.nrrd")
    row = "good,good_pre.nrrd,good_post.mha,empty.nrrd,empty.nrrd"
    (folder / "list.csv").write_text(f"id,fixed,moving,fixed_mask,region\n{row}\n")
    found = find_pairs(folder / "list.csv")
    told = [f"{one.problem}; {one.remedy}" for one in survey(found, masks=True).problems]
    empty, remedy = folder / "empty.nrrd", "mark where to look, or leave it out, in a list as"
    assert told == [
        f"{empty}: the mask is empty; {remedy} fixed_mask",
        f"{empty}: the region of the joint is empty; {remedy} region",
    ]
    assert not survey(found).problems  # by headers alone


def test_what_headers_tell_of_masks_is_no_more_than_the_alignment_refuses(folder):
    mask = read_volume(folder / "good_pre.nrrd")
    write_volume(replace(mask, affine=mask.affine + 0.1 * np.eye(4, k=3)), folder / "mask.nrrd")
    layers = np.ones((10, 11, 12, 2), np.uint8)
    segments = {"Segment0_ID": "s1", "Segment0_Name": "tibia", "Segment0_Layer": "1", "Segment0_LabelValue": "1"}
    write_nrrd(folder / "joint.seg.nrrd", layers, layers.shape, layers.dtype, mask.affine, segments)
    columns = "id,fixed,moving,fixed_mask,fixed_segment,region,region_segment,medial"
    row = "good,good_pre.nrrd,good_post.mha,mask.nrrd,1,joint.seg.nrrd,tibia,0.1 0.1 0.1"
    (folder / "list.csv").write_text(f"{columns}\n{row}\n")
    assert not survey(find_pairs(folder / "list.csv"), CohortOptions(outputs={"cartilage": ".csv"})).problems


def test_weights_that_are_not_there_are_told_before_any_pair(folder):
    found = pairs_by_name(folder)
    with pytest.raises(FileError, match="nosuch: no such weights file"):
        survey(found, CohortOptions(weights="nosuch"))
    assert survey(found, CohortOptions(weights="nosuch", hypotheses="search")).pairs  # it asks no network
    assert survey(found, CohortOptions(weights="dnet")).pairs


def test_the_table_has_a_row_for_each_pair_and_the_remedies(folder):
    found = survey(pairs_by_name(folder))
    lines = table(found, {number: f"SET {number}" for number in found.settings}).splitlines()
    assert len(lines) == 1 + 5 + 1
    rows = {line.split()[0]: line for line in lines}
    assert rows["good"].split() == [
        "good",
        "good_pre.nrrd",
        "good_post.mha",
        *"12 x 11 x 10 of 0.02 x 0.02 x 0.02 mm -".split(),
    ]
    assert "voxel size: " in rows["lost"] and "(SET 3)" in rows["lost"]
    assert "missing partner: " in rows["alone"]
    assert lines[-1] == "5 pairs, 1 of them without a problem; 4 problems"


def test_the_same_remedy_is_told_once(tmp_path):
    for name in ("a", "b", "c"):
        scan(tmp_path / f"{name}_pre.nrrd")
        scan(tmp_path / f"{name}_post.mha", spacing=1.0)
    for name in ("x.nrrd", "y.nrrd", "z.nrrd"):
        scan(tmp_path / name)
    found = survey(pairs_by_name(tmp_path))
    lines = table(found, {number: "SET" for number in found.settings}).splitlines()
    told = {name: next(line for line in lines if line.startswith(f"{name} ")) for name in "abc"}
    remedy = f"{found.problems[1].remedy} (SET)"
    assert told["a"].endswith(f"; {remedy}")
    assert told["b"].endswith("; as for a") and "b_post.mha: its voxels are 1 mm" in told["b"]
    assert told["c"].endswith("; as for a")
    (odd,) = (line for line in lines if "odd name: " in line)
    assert (
        "x.nrrd, y.nrrd, z.nrrd: their names fit to no pair; name the two scans of a pair NAME_pre and NAME_post" in odd
    )


def test_a_pair_with_two_remedies_does_not_stand_for_one_of_them():
    def remedies(*problems):
        return told_once([Problem(kind="list", pair=pair, problem="lost", remedy=remedy) for pair, remedy in problems])

    two = ("b", "mend it"), ("b", "give it")
    assert remedies(("a", "give it"), *two, ("c", "mend it")) == ["give it", "mend it", "as for a", "mend it"]
    # Also where the second one comes later.
    assert remedies(*two, ("c", "mend it"), ("d", "mend it")) == ["mend it", "give it", "mend it", "as for c"]
    assert remedies(("b", ""), ("b", "give it"), ("c", "give it")) == ["", "give it", "as for b"]


def test_another_option_is_another_remedy(tmp_path):
    for name, lost in (("a", "pre"), ("b", "post")):
        for word in ("pre", "post"):
            scan(tmp_path / f"{name}_{word}.nrrd", spacing=1.0 if word == lost else 0.02)
    found = survey(pairs_by_name(tmp_path))
    text = table(found, {number: f"SET {setting.scan}" for number, setting in found.settings.items()})
    assert "(SET fixed)" in text and "(SET moving)" in text and "as for" not in text


@pytest.mark.parametrize(("fixed", "moving", "role"), ((0.05, 50, "moving"), (50, 0.05, "fixed"), (50, 50, "fixed")))
def test_micrometres_in_a_list_are_told_of_the_scan_that_has_them(folder, fixed, moving, role):
    row = f"good,good_pre.nrrd,good_post.mha,{fixed},{moving}"
    (folder / "list.csv").write_text(f"id,fixed,moving,fixed_spacing,moving_spacing\n{row}\n")
    (told,) = [one for one in survey(pairs_of_list(folder / "list.csv")).problems if one.pair == "good"]
    assert told.kind == "spacing" and f"the voxels of the {role} scan are 50 x 50 x 50 mm" in told.problem
    assert told.remedy.endswith(f"in a list as {role}_spacing")


def test_what_is_given_for_all_mends_what_no_list_gave(folder):
    about = {"moving_spacing": (0.02,)}
    found = survey(pairs_by_name(folder), CohortOptions(scans=about))
    assert [one.pair for one in found.problems] == ["alone", "cut"]
    assert {pair.moving.spacing for pair in found.pairs if pair.moving} == {(0.02,)}
    own = Pair(name="p", fixed=None, moving=ScanFile("x", spacing=(0.5,)))
    assert own.with_scans(about).moving.spacing == (0.5,)


def test_a_voxel_size_given_for_all_is_told_where_a_file_contradicts_it(folder):
    """In a folder of mixed kinds it is meant for the scans that lack one."""
    (row,) = (
        row
        for row in rows(survey(pairs_by_name(folder), CohortOptions(scans={"moving_spacing": (0.03,)})))
        if row[0] == "good"
    )
    one, other = row[3].split(", ")
    assert one == "12 x 11 x 10 of 0.02 x 0.02 x 0.02 mm"
    assert other == "12 x 11 x 10 of 0.03 x 0.03 x 0.03 mm (given; the file states 0.02 x 0.02 x 0.02)"


def test_a_larger_pair_may_take_more_memory(tmp_path):
    for name, shape, dtype in (
        ("a", (10, 10, 10), np.uint16),
        ("b", (20, 10, 10), np.uint16),
        ("c", (20, 10, 10), np.float32),
    ):
        scan(tmp_path / f"{name}_pre.nrrd", shape=shape, dtype=dtype)
        scan(tmp_path / f"{name}_post.nrrd", shape=shape, dtype=dtype)
    memory = survey(pairs_by_name(tmp_path)).memory
    assert memory["c"] - memory["b"] == 2 * 2000 * 2
    assert 0 < memory["a"] < memory["b"] < memory["c"]


def test_a_mask_that_is_not_there_is_told(tmp_path):
    paths = [str(scan(tmp_path / name)) for name in ("a.nrrd", "b.nrrd")]
    pair = Pair(name="p", fixed=ScanFile(paths[0]), moving=ScanFile(paths[1], mask=str(tmp_path / "none.nrrd")))
    (problem,) = survey(FoundPairs([pair], [])).problems
    assert "none.nrrd" in problem.problem


def test_lines_hold_no_line_breaks_and_can_be_printed():
    assert shown("two\nlines caf\udce9 ok ä") == "two\\nlines caf\\udce9 ok ä"
    shown("caf\udce9\x1b[31m").encode("utf-8")
    assert "\x1b" not in shown("\x1b[31m")
