"""Metal in the scanner, a few times as bright as bone, is not passed off as the bone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.moved_rest import find_moved_rest
from DNetRegistrationLib.synthesis.pairs import make_pair
from scipy.ndimage import map_coordinates

SHEARED = np.array([[0.1, 0.01, 0, 3], [0, 0.1, -0.005, 1], [0, 0, 0.12, -7], [0, 0, 0, 1]])


def scan(x: float) -> Volume:
    """A bar of 9000, and a ball of 3000 whose centre is at x, in noise; voxels on a sheared grid."""
    k, j, i = np.indices((32, 36, 48))
    ball = np.clip(8.5 - np.sqrt((i - x) ** 2 + (j - 22) ** 2 + (k - 16) ** 2), 0, 1)
    voxels = 3000 * ball + np.random.default_rng(int(x)).normal(0, 20, ball.shape)
    voxels[4:28, 3:9, 4:10] += 9000
    return Volume(voxels.astype(np.float32), SHEARED)


def rest_of(first: Volume, second: Volume, shift: float = 0.0):
    scans = [native_scan(v, find_bone_scale(v), None, torch.device("cpu")) for v in (first, second)]
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = shift
    return find_moved_rest(*prepare(*scans, spacing=0.1), (first, second), pose)


def test_the_ball_beside_a_bar_that_stood_still():
    # The bar is brightest, and three times as bright as the ball: neither is named as metal.
    first, second = scan(18), scan(34)
    assert find_bone_scale(first).threshold > 4000
    rest = rest_of(first, second)
    assert rest is not None
    for one, x in zip(rest, (18, 34), strict=True):
        assert one.threshold == pytest.approx(1500, abs=200)
        assert not one.mask[4:28, 3:9, 4:10].any() and one.mask[16, 22, x]
        center = np.argwhere(one.where.voxels == 1)[:, ::-1].mean(0)
        np.testing.assert_allclose(
            one.where.to_world(center), SHEARED[:3, :3] @ (x, 22, 16) + SHEARED[:3, 3], atol=0.02
        )


def test_what_did_not_move_and_another_pose_are_none():
    assert rest_of(scan(18), scan(18.9)) is None
    assert rest_of(scan(18), scan(34), shift=0.5) is None


def with_bar(volume: Volume) -> Volume:
    """Three bars in a corner, at the scanner, three times as bright as dense bone."""
    scale, voxels = find_bone_scale(volume), volume.voxels.copy()
    grey = scale.threshold + 3 * (scale.maximum - scale.threshold)
    for cut in ((slice(10, 34), slice(5, 13), slice(5, 13)), (slice(10, 18), slice(5, 29), slice(5, 13)),
                (slice(10, 18), slice(5, 13), slice(5, 21))):  # fmt: skip
        voxels[cut] = grey
    return replace(volume, voxels=voxels)


@pytest.mark.slow
@pytest.mark.parametrize("seed, scale", [(9_200_001, "hu"), (9_200_002, "raw")])
def test_a_bar_in_the_scanner_is_refused_and_said_why(seed, scale):
    """The bone lies 2.4 mm elsewhere, and the bar fits to the last voxel."""
    pair = make_pair(seed, scale=scale)
    alignment = align(with_bar(pair.fixed), with_bar(pair.moving))
    assert not alignment.accepted and alignment.doubts[0] == "standstill"
    assert "a less bright piece moved" in alignment.verdict


@pytest.mark.slow
def test_a_bone_that_stood_still_while_all_else_moved_is_accepted():
    pair = make_pair(9_400_000, scale="hu", background="air")
    i = np.moveaxis(np.indices(pair.fixed.voxels.shape)[::-1], 0, -1)
    world = pair.fixed.to_world(i) @ pair.matrix[:3, :3].T + pair.matrix[:3, 3]
    at = np.moveaxis(pair.moving.to_index(world), -1, 0)[::-1]
    voxels = map_coordinates(pair.moving.voxels.astype(float), at, order=1, cval=np.median(pair.moving.voxels))
    assert align(pair.fixed, replace(pair.fixed, voxels=voxels)).accepted
