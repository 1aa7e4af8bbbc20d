"""Which alignments a program adds to close the loops of a cohort."""

import numpy as np
import pytest
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.cohort.closing import closing_pairs
from DNetRegistrationLib.cohort.pairs import FoundPairs, Pair
from DNetRegistrationLib.cohort.run import find_pairs
from DNetRegistrationLib.cohort.scan_file import ScanFile
from DNetRegistrationLib.cohort.survey import survey
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from grids import noise


def pair(name, fixed, moving, bone=(), **about):
    return Pair(name=name, fixed=ScanFile(fixed, **about), moving=ScanFile(moving, **about), bone=bone)


def added(*pairs):
    return [(one.fixed.path, one.moving.path) for one in closing_pairs(pairs)]


def test_two_scans_make_no_loop_and_bones_of_their_own_are_left_alone():
    assert added(pair("m1", "a", "b", ("m1",)), pair("m2", "c", "d", ("m2",))) == []
    assert added(pair("x", "a", "b"), pair("y", "c", "d")) == []  # whose bone nobody knows


def test_scans_of_several_times_go_onto_the_first_and_round():
    pairs = pair("m1 4w", "a", "b", ("m1",)), pair("m1 8w", "c", "d", ("m1",))
    found = closing_pairs(pairs)
    assert [(one.fixed.path, one.moving.path) for one in found] == [("a", "c"), ("a", "d"), ("b", "c"), ("d", "b")]
    assert all(one.closing and one.bone == ("m1",) and not one.columns for one in found)
    assert found[0].name == "m1 4w fixed to m1 8w fixed" and len({one.name for one in found}) == 4


def test_several_moving_scans_of_one_fixed_one_need_the_ring_alone_and_what_is_listed_is_not_done_twice():
    three = [pair(name, "r", name) for name in "abc"]
    assert added(*three[:2]) == [("a", "b")]
    assert added(*three) == [("a", "b"), ("b", "c"), ("c", "a")]
    # One of the ring is listed, against its direction.
    assert added(*three, pair("own", "b", "a")) == [("b", "c"), ("c", "a")]


def test_a_late_pair_joins_bones_and_scans_keep_what_is_said_of_them():
    pairs = pair("1", "a", "b", ("m1",)), pair("2", "c", "d", ("m2",)), pair("3", "a", "e", ("m2",), threshold=7.0)
    assert ("b", "c") in added(*pairs) and ("a", "b") not in added(*pairs)
    assert {one.moving.threshold for one in closing_pairs(pairs) if one.moving.path == "e"} == {7.0}


def test_one_file_under_two_paths_is_one_scan_and_two_bones_of_one_file_are_two():
    assert added(pair("1", "x/a", "b", ("m1",)), pair("2", "x/../x/a", "./b", ("m1",))) == []
    femur, tibia = pair("f", "a", "b", ("f",), segment="1"), pair("t", "a", "b", ("t",), segment="2")
    assert added(femur, tibia) == []


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        for word in ("pre", "post"):
            write_volume(
                Volume.from_geometry(noise(8, 9, 10 + number, dtype=np.uint16), 0.02),
                folder / f"m1_{number}_{word}.nrrd",
            )
    return folder


def test_the_dry_run_tells_how_many_and_none_of_scans_with_a_problem(scans, capsys):
    words = ["cohort", str(scans), "--dry-run", "--pattern", "{id}_{time}_{scan}"]
    assert main(words) == 0
    assert capsys.readouterr().out.endswith(
        "3 pairs, 3 of them without a problem; 0 problems; and 7 alignments to close loops\n"
    )
    assert main([*words, "--no-loops"]) == 0
    assert "close loops" not in capsys.readouterr().out
    # Another name for the part that tells scans of one bone apart says that they are not of one.
    assert main([*words[:-1], "{id}_{side}_{scan}"]) == 0
    assert "close loops" not in capsys.readouterr().out
    (scans / "m1_2_post.nrrd").write_bytes(b"NRRD")
    assert main(words) == 1
    assert "1 problem; and 4 alignments to close loops" in capsys.readouterr().out


def test_memory_of_added_pairs_is_that_of_their_own_scans(scans):
    found = survey(find_pairs(scans, "{id}_{time}_{scan}"))
    # 8 bytes a voxel for the work and 2 of its own, over what the process takes.
    one = next(one for one in found.closing if one.name == "m1_0 fixed to m1_2 moving")
    assert found.memory[one.name] == pytest.approx(0.8e9 + 10 * 8 * 9 * (10 + 12))


def test_a_list_has_one_bone_an_id(scans):
    rows = ["id,time,fixed,moving", "m1,0,m1_0_pre.nrrd,m1_0_post.nrrd", "m1,1,m1_0_pre.nrrd,m1_1_pre.nrrd"]
    (scans / "list.csv").write_text("\n".join(rows))
    found = survey(find_pairs(scans / "list.csv"))
    assert [one.name for one in found.closing] == ["m1_0 moving to m1_1 moving"]
    assert found.references == dict.fromkeys(["m1_0", "m1_1"], str(scans / "m1_0_pre.nrrd"))
    assert not survey(FoundPairs(found.pairs, []), loops=False).closing
