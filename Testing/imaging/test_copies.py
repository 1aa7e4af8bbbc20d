"""Marks by which copies of a scan are known."""

import numpy as np
import pytest
from DNetRegistrationLib.imaging.copies import voxel_mark
from grids import noise

SCAN = noise(8, 9, 11)


@pytest.mark.parametrize(
    "copied",
    [
        lambda voxels: voxels.astype(np.float32),
        lambda voxels: voxels.astype(">i4"),
        lambda voxels: voxels[::-1, :, ::-1],
        lambda voxels: voxels.transpose(2, 0, 1),
        lambda voxels: np.asfortranarray(voxels),
    ],
)
def test_a_copy_has_the_mark_of_its_scan(copied):
    assert voxel_mark(copied(SCAN)) == voxel_mark(SCAN)


def test_other_scans_have_others():
    changed = SCAN.copy()
    changed[4, 2, 3] += 1
    others = [changed, SCAN[:, :, :-1], noise(8, 9, 11, seed=1), SCAN + 1]
    assert len({voxel_mark(one) for one in (SCAN, *others)}) == 5


def test_what_is_outside_the_field_of_view_is_of_one_kind():
    gaps = SCAN.astype(np.float32)
    gaps[0, :2] = np.nan
    other = gaps.copy()
    other[0, 0, 0] = -np.float32(np.nan)
    gaps[4, 4, 4], other[4, 4, 4] = 0.0, -0.0
    assert voxel_mark(gaps) == voxel_mark(other) != voxel_mark(SCAN)
