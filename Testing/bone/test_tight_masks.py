"""Masks of the bone itself reach past it, and those that show what surrounds it stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.bone.tight_masks import reaching_past
from DNetRegistrationLib.imaging.morphology import dilate_ball
from DNetRegistrationLib.imaging.volume import Volume
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
