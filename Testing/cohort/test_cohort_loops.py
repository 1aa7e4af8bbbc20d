"""Loops between the scans of a cohort."""

from dataclasses import replace

import numpy as np
import pytest
from cohort_results import failed_pair, made_pair
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cohort.loops import with_loops
from DNetRegistrationLib.cohort.reference import on_reference, to_reference
from DNetRegistrationLib.geometry.loops import spread_points, star_and_ring
from DNetRegistrationLib.geometry.transform_files import read_transform
from scipy.spatial.transform import Rotation

REFERENCE = ScanFile("x/r.nrrd")
BONE = np.random.default_rng(3).uniform(-2, 2, (40, 3))


def cohort(bone, scans, off=(), expected=2.0, seed=1):
    """Pairs of the scans of a bone; the transforms of some are put off by 40 um."""
    generator, poses = np.random.default_rng(seed), {}
    for scan in scans:
        poses[scan] = np.eye(4)
        poses[scan][:3, :3] = Rotation.random(random_state=generator).as_matrix()
        poses[scan][:3, 3] = generator.uniform(-30, 30, 3)
    found = []
    for fixed, moving in star_and_ring(list(scans)):
        matrix = poses[moving] @ np.linalg.inv(poses[fixed])
        if (fixed + moving) in off:
            matrix[:3, 3] += (0.024, 0, -0.032)
        points = BONE @ poses[fixed][:3, :3].T + poses[fixed][:3, 3]
        one = made_pair(f"{bone} {fixed}{moving}", expected_error_um=expected, warnings=(), doubts=())
        found.append(
            replace(
                one,
                fixed=f"{bone}/{fixed}.nrrd",
                moving=f"{bone}/{moving}.nrrd",
                identities=(f"{bone} {fixed}", f"{bone} {moving}"),
                matrix=tuple(matrix.ravel()),
                bone_points=tuple(spread_points(points).ravel()),
            )
        )
    return found


def test_pairs_that_make_no_loop_and_pairs_that_failed_stay_as_they_are():
    pairs = [*cohort("x", "ra"), failed_pair("y"), made_pair("z")]
    assert list(with_loops(pairs)) == pairs


def test_three_right_pairs_close_and_a_wrong_one_is_told_on_all_three():
    for pair in with_loops(cohort("x", "rab")):
        assert pair.loop_error_um == pytest.approx(0, abs=1e-6) and not pair.warnings and not pair.reserved
    for pair in with_loops(cohort("x", "rab", off=["ab"])):
        assert pair.loop_error_um == pytest.approx(40) and pair.reserved
        assert pair.doubts == ("loop",) and "leave 40.0 um" in pair.warnings[0]
    # The three expected errors are taken as independent: 40 um is sqrt(3) times 23.09 um.
    for expected, warned in ((23.0, True), (23.2, False)):
        found = with_loops(cohort("x", "rab", off=["rb"], expected=expected))
        assert [bool(pair.warnings) for pair in found] == [warned] * 3


def test_of_more_scans_the_wrong_pair_alone_is_warned_of_and_bones_are_told_apart():
    pairs = [*cohort("x", "rabcd", off=["rb"]), *cohort("y", "rabcd", off=["ab"], seed=2), *cohort("z", "rab", seed=3)]
    found = with_loops(pairs)
    assert [pair.name for pair in found] == [pair.name for pair in pairs]
    assert [pair.name for pair in found if pair.warnings] == ["x rb", "y ab"]
    assert all(pair.loop_error_um is not None for pair in found)


def test_two_bones_of_the_same_files_are_told_apart(tmp_path):
    """Their scans have the same paths; the loops of the one are open."""
    first, second = cohort("x", "rab", off=["ab"]), cohort("y", "rab", seed=2)
    second = [replace(two, fixed=one.fixed, moving=one.moving) for one, two in zip(first, second, strict=True)]
    found = with_loops([pair for two in zip(first, second, strict=True) for pair in two])
    assert [pair.loop_error_um for pair in found] == pytest.approx([40, 0] * 3, abs=1e-6)
    # Each is carried onto its own reference by its own transform.
    asked = [replace(pair, folder=pair.name) for pair in (first[2], second[2])]
    for pair in asked:
        (tmp_path / pair.folder).mkdir()
    reference = {pair.name: ScanFile("x/r.nrrd", segment=pair.name[0]) for pair in asked}
    named = [
        replace(pair, identities=(reference[asked[n].name].identity, pair.identities[1]))
        for n, pair in enumerate((first[0], second[0]))
    ]
    carried = on_reference(asked, named, reference, tmp_path, ".tfm")
    for pair, direct in zip(carried, named, strict=True):
        assert pair.reference == "x/r.nrrd"
        written = read_transform(tmp_path / pair.outputs["fixed_to_reference"])
        np.testing.assert_allclose(written, np.reshape(direct.matrix, (4, 4)), atol=1e-9)


def test_what_was_added_closes_loops_but_is_told_of_nowhere_else():
    first, second, third = cohort("x", "rab")
    found = with_loops([first, second], [third])
    assert [pair.name for pair in found] == [first.name, second.name, third.name]
    assert all(pair.loop_error_um == pytest.approx(0, abs=1e-6) for pair in found)
    # One that is not accepted measures nothing, and is no fault of the others.
    _, _, wrong = cohort("x", "rab", off=["ab"])
    refused = replace(wrong, status="refused")
    assert with_loops([first, second], [refused]) == (first, second, refused)
    assert all("loop" in pair.doubts for pair in with_loops([first, second], [wrong]))
    # Where the added one alone explains what is open, no other is warned of.
    pairs = cohort("y", "rabcd", off=["bc"])
    asked, added = pairs[:4], pairs[4:]
    assert [pair.name for pair in with_loops(asked, added) if pair.warnings] == ["y bc"]


def test_both_scans_of_each_pair_are_carried_onto_the_reference(tmp_path):
    pairs = cohort("x", "rab")
    (tmp_path / "pairs").mkdir()
    pairs = [replace(pair, folder=f"pairs/{number}") for number, pair in enumerate(pairs)]
    for pair in pairs:
        (tmp_path / pair.folder).mkdir()
    own = {pair.name: np.reshape(pair.matrix, (4, 4)) for pair in pairs}
    reference = dict.fromkeys(own, REFERENCE)
    pairs = [
        replace(pair, identities=tuple(one if one[-1] != "r" else REFERENCE.identity for one in pair.identities))
        for pair in pairs
    ]
    # The pair a to b lies on r by way of that of r and a, which closes a loop and is no pair of the cohort.
    found = on_reference(pairs[1:], pairs[:1], reference, tmp_path, ".tfm")
    assert [pair.reference for pair in found] == ["x/r.nrrd"] * 2
    wanted = {"x rb": (np.eye(4), own["x rb"]), "x ab": (own["x ra"], own["x ab"] @ own["x ra"])}
    for pair in found:
        for role, matrix in zip(("fixed", "moving"), wanted[pair.name], strict=True):
            written = read_transform(tmp_path / pair.outputs[f"{role}_to_reference"])
            np.testing.assert_allclose(written, matrix, atol=1e-9)
    # By way of the pair and directly is the same place, since these are right.
    np.testing.assert_allclose(wanted["x ab"][1], own["x rb"], atol=1e-9)
    # Against the direction in which it was aligned.
    back = replace(pairs[0], matrix=tuple(np.linalg.inv(own["x ra"]).ravel()))
    found = to_reference(pairs[2], REFERENCE.identity, {pairs[0].identities[::-1]: back})
    np.testing.assert_allclose(found["fixed"], own["x ra"], atol=1e-9)
    # Parts that are refused, or that a loop speaks against, carry nothing; and what an earlier run wrote goes.
    for wrong in (replace(pairs[0], status="refused"), replace(pairs[0], doubts=("loop",))):
        (left,) = on_reference(pairs[2:], [wrong], reference, tmp_path, ".tfm")
        assert left == pairs[2] and not list((tmp_path / left.folder).iterdir())
    refused = replace(pairs[2], status="refused")
    (half,) = on_reference([refused], pairs[:1], reference, tmp_path, ".tfm")
    assert [path.name for path in (tmp_path / half.folder).iterdir()] == ["fixed-to-reference.tfm"]
    assert on_reference(pairs, [], {}, tmp_path, None) == tuple(pairs)
