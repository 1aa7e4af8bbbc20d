"""Two pieces that a plane across the voxels parts, of one bone and of two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.severed import severed
from DNetRegistrationLib.synthesis.pairs import make_pair


@pytest.mark.parametrize("axis", range(3))
def test_one_bone_goes_on_through_the_plane_and_two_do_not(axis):
    """A rod of 40 voxels; two balls that touch; two rods side by side."""
    index = np.moveaxis(np.indices((48, 48, 48)), 0, -1) - 23.5
    along, across = index[..., 0], np.linalg.norm(index[..., 1:], axis=-1)
    rod = (across < 8) & (np.abs(along) < 20)
    balls = [np.linalg.norm(index - (middle, 0, 0), axis=-1) < 10 for middle in (-10, 10)]
    beside = [(np.hypot(index[..., 1] - y, index[..., 2]) < 5) & (np.abs(along) < 20) for y in (-8, 8)]
    shapes = {
        "rod": (rod, along < -2, along > 2),
        "balls": (balls[0] | balls[1], along < 0, along > 0),
        "beside": (beside[0] | beside[1], *beside),
    }
    found = {name: severed(*(np.moveaxis(one, 0, axis) for one in shape)) for name, shape in shapes.items()}
    assert found == {"rod": True, "balls": False, "beside": False}
    assert not severed(rod, along < -2, np.zeros_like(rod))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["lost", "moved"])
def test_a_bone_that_lost_slices_is_not_passed_off_as_two(what):
    """Its halves were two bones, both accepted without a doubt."""
    pair = make_pair(501, size=64, spacing=0.08, contrast=False)
    voxels = pair.moving.voxels.copy()
    middle = len(voxels) // 2
    if what == "lost":
        voxels = np.concatenate((voxels[: middle - 4], voxels[middle + 4 :]))
    else:
        voxels[middle:] = np.roll(voxels[middle:], (6, 3), (1, 2))
    moving = replace(pair.moving, voxels=voxels)
    whole = align(pair.fixed, moving, threads=1)
    assert not whole.accepted and "slices are missing" in whole.verdict
    for one in align(pair.fixed, moving, threads=1, bone="each"):
        assert "slices" in one.doubts
