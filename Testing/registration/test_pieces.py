"""Which parts of the bone a pose holds for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration import each_bone
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.pieces import Piece, check_pieces, compare, holds_for_all, surely_held, told
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from DNetRegistrationLib.synthesis.knees import make_knee
from DNetRegistrationLib.synthesis.pairs import random_rotation
from edge_phantom import TURNS, pose_at
from two_bodies import AWAY, GRIDS, OBLIQUE, pair_of_bodies, prepared, two_bodies


def checked(fixed: Volume, moving: Volume, pose) -> list[Piece]:
    return check_pieces(*prepared(fixed, moving), torch.as_tensor(np.asarray(pose, float)))


def found(fixed: Volume, moving: Volume, pose) -> list[Piece]:
    """As `checked`, with thresholds that are found."""
    scans = (native_scan(volume, find_bone_scale(volume), None, torch.device("cpu")) for volume in (fixed, moving))
    return check_pieces(*prepare(*scans), torch.as_tensor(pose))


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_it_holds_for_all_where_nothing_moved_on_its_own(grids):
    fixed, moving, pose = pair_of_bodies(*grids, np.eye(4))
    (piece,) = checked(fixed, moving, pose)
    assert piece.holds and piece.share > 0.98 and piece.moved == 0
    assert holds_for_all([piece]) and told([piece]) == ""


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_a_body_that_turned_is_found(grids):
    fixed, moving, pose = pair_of_bodies(*grids, pose_at(random_rotation(np.random.default_rng(8)), (0, 0, 0)))
    held, other = checked(fixed, moving, pose)
    assert held.holds and not other.holds and np.isnan(other.moved) and not other.one_sided
    # Both are of one size, and its middle is where the second body is.
    assert 0.4 < other.share < 0.6
    middle = (pose_at(TURNS[1], grids[0][3]) @ np.append(AWAY / 2, 1))[:3]
    assert np.linalg.norm(other.center - middle) < 0.5
    assert not holds_for_all([held, other])
    assert "moved on its own" in told([held, other])


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_a_pose_of_one_body_of_two_surely_holds_for_it(grids):
    turned, still = pose_at(random_rotation(np.random.default_rng(8)), (0, 0, 0)), np.eye(4)
    held = []
    for between in (turned, still):
        fixed, moving, pose = pair_of_bodies(*grids, between)
        held.append(surely_held(*prepared(fixed, moving), torch.as_tensor(pose)))
    assert 0.4 < held[0] < 0.6 and held[1] is None
    # Where no body lies right, none is said to.
    wrong = pose @ pose_at(random_rotation(np.random.default_rng(9)), (0.3, 0.2, 0.1))
    assert surely_held(*prepared(fixed, moving), torch.as_tensor(wrong)) is None


def test_a_pose_that_fits_one_bone_of_a_knee_is_refused_with_what_to_do():
    """Nothing was said but that no pose makes the bones agree."""
    case = make_adversarial(881_009, "two bones")
    found = align(case.fixed, case.moving, threads=1)
    assert not found.accepted and found.doubts[0] == "several bones"
    assert "Align each bone by itself" in found.verdict
    assert case.errors_mm(found.matrix).min() < 0.02 < case.errors_mm(found.matrix).max()


@pytest.mark.slow
def test_bones_are_not_to_be_looked_for_where_none_was_found(monkeypatch):
    case = make_adversarial(881_009, "two bones")
    monkeypatch.setattr(each_bone, "find_motions", lambda *arguments: [])
    (alone,) = align(case.fixed, case.moving, threads=1, bone="each")
    assert not alone.accepted and "several bones" not in alone.doubts


@pytest.mark.parametrize("factor", (1.0, 0.7))
def test_a_body_that_turned_does_not_change_the_gain_of_the_other(factor):
    """The factor between both scans is that of the body which lies right."""
    fixed, moving, pose = pair_of_bodies(
        OBLIQUE, OBLIQUE, pose_at(random_rotation(np.random.default_rng(8)), (0, 0, 0))
    )
    first, second = prepared(fixed, moving)
    image = replace(second.levels[-1], values=factor * second.levels[-1].values)
    view = compare(first.cube, image, torch.as_tensor(pose))
    assert view.gain == pytest.approx(1 / factor, rel=0.03)


def test_a_body_that_moved_by_a_voxel_is_found_with_how_far():
    for shift in (0.04, 0.12):
        fixed, moving, pose = pair_of_bodies(OBLIQUE, OBLIQUE, pose_at(np.eye(3), np.array((0.6, -0.8, 0)) * shift))
        pieces = checked(fixed, moving, pose)
        assert holds_for_all(pieces) == (shift < 0.05)
        if shift > 0.05:
            assert pieces[1].moved == pytest.approx(shift, rel=0.35)
            assert f"lies {1000 * pieces[1].moved:.0f} um off" in told(pieces)


def test_a_body_that_only_one_scan_shows_contradicts_nothing():
    here, away = pose_at(np.eye(3), (0, 0, 0)), pose_at(np.eye(3), (100, 0, 0))
    both = two_bodies(OBLIQUE, pose_at(TURNS[1], OBLIQUE[3]), pose_at(TURNS[1], OBLIQUE[3]) @ pose_at(TURNS[3], AWAY))
    alone = two_bodies(OBLIQUE, pose_at(TURNS[1], OBLIQUE[3]), away)
    for fixed, moving in ((both, alone), (alone, both)):
        pieces = checked(fixed, moving, here)
        assert [piece.holds for piece in pieces] == [True, False] and pieces[1].one_sided
        assert holds_for_all(pieces)
        assert told(pieces) == ""


def test_nothing_is_said_of_a_body_outside_the_other_field_of_view():
    fixed, moving, pose = pair_of_bodies(OBLIQUE, OBLIQUE, pose_at(TURNS[0], (0, 0, 0)))
    # What lies beyond the first body is cut away.
    positions = np.stack(np.unravel_index(np.arange(moving.voxels.size), moving.voxels.shape)[::-1], -1)
    in_first = (positions @ moving.affine[:3, :3].T + moving.affine[:3, 3]) @ np.linalg.inv(
        pose_at(TURNS[2], OBLIQUE[3])
    )[:3, :3].T + np.linalg.inv(pose_at(TURNS[2], OBLIQUE[3]))[:3, 3]
    cut = np.where(in_first[:, 0].reshape(moving.voxels.shape) < 0, moving.voxels, np.nan).astype(np.float32)
    pieces = checked(fixed, Volume(cut, moving.affine), pose)
    assert [piece.holds for piece in pieces] == [True]


@pytest.fixture(scope="module")
def knee():
    return make_knee(9_100_002, size=48, spacing=0.12, keep=1.0)


@pytest.mark.parametrize("bone", (0, 1))
def test_bones_of_a_knee_are_told_apart(knee, bone):
    """Tibia and femur touch, and are like in size: the pose of one holds for it, and not for the other."""
    held, other = found(knee.fixed, knee.moving, knee.matrices[bone])
    assert held.holds and not other.holds and not other.one_sided
    assert min(held.share, other.share) > 0.25


def test_one_bone_is_one_piece(pair, cut_pair):
    """Its fibula, the growth plate, fragments and contrast agent are no pieces that moved on their own."""
    for made in (pair, cut_pair):
        pieces = found(made.fixed, made.moving, made.matrix)
        assert holds_for_all(pieces) and pieces[0].share > 0.9


def test_the_words():
    center = np.zeros(3)
    larger, smaller = Piece(0.6, True, 0.0, False, center), Piece(0.4, True, 0.0, False, center)
    moved, off = Piece(0.4, False, np.nan, False, center), Piece(0.6, False, 0.0637, False, center)
    seen = "Of the bone that both scans show, it holds for"
    away = f"{seen} 60 %; another piece of 40 % moved on its own. Align each bone by itself."
    assert told([larger, moved]) == away
    assert told([smaller, off]) == f"{seen} 40 %; another piece of 60 % lies 64 um off."
    unsure = f"{seen} 60 %; another piece of 40 % may have moved on its own."
    assert told([larger, moved], sure=False) == unsure
    # Shares are of either scan, and add to more than all.
    assert told([Piece(0.97, True, 0.0, False, center), off]).startswith(f"{seen} 40 %")
    assert told([moved, off]) == "It holds for no large piece of bone."
