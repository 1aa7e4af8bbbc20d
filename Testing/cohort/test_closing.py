"""Which alignments a program adds to close the loops of a cohort."""

import os
from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.cohort.closing import closing_pairs, references
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import FoundPairs, Pair
from DNetRegistrationLib.cohort.run import find_pairs
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
    # A third scan of each: bones that masks or their segments part are closed each by themselves.
    for parts in ({"segment": "1"}, {"segment": "2"}), ({"mask": "x"}, {"mask": "y"}):
        pairs = [pair(f"{n}{to}", "a", to, **part) for n, part in enumerate(parts) for to in "bc"]
        found = closing_pairs(pairs)
        assert [(one.fixed.path, one.moving.path) for one in found] == [("b", "c")] * 2
        assert [{name: getattr(found[n].fixed, name) for name in parts[n]} for n in (0, 1)] == list(parts)
        assert [reference.identity for reference in references(pairs).values()] == [
            ScanFile("a", **part).identity for part in parts for _ in "bc"
        ]


def test_the_scans_of_one_file_are_scans_and_two_masks_of_one_scan_are_not():
    first, second = ScanFile("a", series="1"), ScanFile("a", series="2")
    one = Pair(name="1", fixed=first, moving=second, bone=("m",))
    (found,) = closing_pairs([one, Pair(name="2", fixed=first, moving=ScanFile("b"), bone=("m",))])
    assert (found.fixed, found.moving) == (second, ScanFile("b"))
    assert closing_pairs([one, replace(one, name="2", fixed=replace(first, mask="x"))]) == []


def test_a_pair_of_one_scan_is_a_problem_whichever_way_its_path_is_written(scans):
    rows = [
        "id,fixed,moving,moving_series",
        "same,m1_0_pre.nrrd,./m1_0_pre.nrrd,",
        "series,m1_0_pre.nrrd,m1_0_pre.nrrd,2",
    ]
    (scans / "list.csv").write_text("\n".join(rows))
    found = survey(find_pairs(scans / "list.csv"))
    # The other scan of that file is no copy, but the file holds none.
    assert [(one.kind, one.pair) for one in found.problems] == [("duplicate", "same"), ("unreadable", "series")]
    assert (
        found.pairs[0].blocked == found.problems[0] and "both scans of same are the same" in found.problems[0].problem
    )
    assert "holds one scan, and '2' of it was asked for" in found.problems[1].problem
    others = survey(find_pairs(scans / "list.csv"), CohortOptions(scans={"moving_series": "1"})).problems
    assert [(one.kind, one.pair) for one in others] == [("duplicate", "same"), ("unreadable", "series")]


def test_an_identity_is_of_the_scan_and_not_of_the_way_its_path_is_written():
    ways = [dict(path="x/../a", mask="m"), dict(path="./a", mask="./m"), dict(path=os.path.abspath("a"), mask="m")]
    assert len({ScanFile(**way).identity for way in ways}) == 1
    others = [ScanFile("a", **about) for about in ({}, {"series": "2"}, {"mask": "1"}, {"segment": "1"})]
    assert len({other.identity for other in others}) == 4
    assert ScanFile("a", threshold=3.0, spacing=(1.0,), flip="x").identity == ScanFile("a").identity


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number in range(3):
        for word in ("pre", "post"):
            write_volume(
                Volume.from_geometry(noise(8, 9, 10 + number, dtype=np.uint16, seed=len(word)), 0.02),
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
    assert found.references == dict.fromkeys(["m1_0", "m1_1"], ScanFile(str(scans / "m1_0_pre.nrrd")))
    assert not survey(FoundPairs(found.pairs, []), CohortOptions(loops=False)).closing
