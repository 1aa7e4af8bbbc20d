"""Masks of the bone itself reach past it, and those that show what surrounds it stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.bone.tight_masks import reaching_past
from DNetRegistrationLib.imaging.morphology import dilate_ball
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.synthesis.pairs import make_pair, target_registration_error
from scipy import ndimage


def balls(*centers, size=60, spacing=0.04, radius=0.4) -> Volume:
    """Balls of 2000 in 100, centred at points of an axis in mm, with a blurred surface."""
    z, y, x = np.indices((size, 30, 30)) * spacing
    distance = np.min([np.hypot(np.hypot(z - c, y - 0.6), x - 0.6) for c in centers], axis=0)
    share = np.clip((radius - distance) / spacing + 0.5, 0, 1)
    return Volume((100 + 1900 * share).astype(np.int16), np.diag((spacing,) * 3 + (1.0,)))


@pytest.mark.parametrize("threshold", [1050.0, None])
@pytest.mark.parametrize("past", [0.0, 0.08, 0.16])
def test_a_mask_of_the_bone_itself_reaches_past_it(past, threshold):
    scan = balls(1.2)
    bone = scan.voxels > 1050
    mask = dilate_ball(bone, scan.spacing[::-1], past)
    wider = reaching_past(scan, mask, threshold)
    away = ndimage.distance_transform_edt(~bone, sampling=0.04)
    assert wider[away < 0.28].all() and not wider[away > 0.56].any() and wider[mask].all()
    assert find_bone_scale(scan, mask=wider).threshold == pytest.approx(1050, rel=0.05)


def test_one_that_shows_what_surrounds_the_bone_is_left_as_it_is():
    scan = balls(1.2)
    mask = dilate_ball(scan.voxels > 1050, scan.spacing[::-1], 0.3)
    assert reaching_past(scan, mask) is mask
    # A crop ends on the bone in part.
    half = np.zeros_like(mask)
    half[30:] = True
    assert reaching_past(scan, half) is half
    nothing = np.zeros_like(mask)
    nothing[:5] = True
    for seen in (None, nothing):
        assert reaching_past(scan, seen) is seen


def test_another_bone_stays_outside():
    """Two bones 0.2 mm apart, one of them masked: the other one and its blurred rim are not looked at."""
    scan = balls(0.6, 1.6)
    bone = scan.voxels > 1050
    mask = bone.copy()
    mask[27:] = False
    wider = reaching_past(scan, mask)
    other = dilate_ball(bone & ~mask, scan.spacing[::-1], 0.06)
    assert wider.sum() > 2 * mask.sum() and not (wider & other).any()


ROD = (0.6, 0.9, 1.2, 1.5, 1.8)


@pytest.mark.parametrize("normal", [(1, 0, 0), (-1, 0, 0), (0.8, 0.6, 0), (0.6, 0.48, 0.64)])
def test_a_cut_through_bone_stays_where_it_is(normal):
    """What is marked on purpose ends there, also where the bone's surface beside it is to be seen."""
    scan = balls(*ROD)
    bone = scan.voxels > 1050
    z, y, x = np.indices(bone.shape) * 0.04
    past = np.tensordot(normal, (z - 1.2, y - 0.6, x - 0.6), 1)
    mask = bone & (past < 0)
    wider = reaching_past(scan, mask)
    assert not (wider & bone)[past > 0.05].any() and wider[mask].all()
    away = ndimage.distance_transform_edt(~mask, sampling=0.04)
    assert wider[(away < 0.28) & (past < -0.05)].all()


def test_a_mask_that_falls_short_of_the_surface_all_around_reaches_past_it():
    scan = balls(*ROD)
    bone = scan.voxels > 1050
    wider = reaching_past(scan, ~dilate_ball(~bone, scan.spacing[::-1], 0.08))
    assert wider[ndimage.distance_transform_edt(~bone, sampling=0.04) < 0.15].all()


def test_a_stray_voxel_of_another_bone_does_not_let_it_in():
    scan = balls(0.6, 1.6)
    bone = scan.voxels > 1050
    mask = bone.copy()
    mask[27:] = False
    stray = mask.copy()
    stray[tuple(np.argwhere(bone & ~mask)[0])] = True
    assert (reaching_past(scan, stray) & bone)[27:].sum() <= 1


@pytest.mark.parametrize(("size", "spacing"), [(30, 0.16), ((40, 40, 20), (0.12, 0.12, 0.24))])
def test_in_coarse_voxels_a_mask_reaches_as_many_of_them_past_the_bone(size, spacing):
    pair = make_pair(60, contrast=False, size=size, spacing=spacing)
    scan, bone = pair.fixed, pair.fixed_bone
    away = ndimage.distance_transform_edt(~bone, sampling=scan.spacing[::-1])
    voxel = np.prod(scan.spacing) ** (1 / 3)
    wider = reaching_past(scan, bone)
    assert wider[away < 3 * voxel].mean() > 0.98 and not wider[away > 6 * voxel].any()


def test_pairs_of_coarse_voxels_are_aligned_with_masks_of_the_bones_themselves():
    """Reaching two voxels past the bone, as 0.32 mm are, one was 3.4 mm off."""
    pair = make_pair(203, contrast=False, size=30, spacing=0.16)
    found = align(pair.fixed, pair.moving, fixed_mask=pair.fixed_bone, moving_mask=pair.moving_bone)
    assert found.accepted and target_registration_error(pair, found.matrix) < 0.02
