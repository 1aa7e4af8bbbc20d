"""What befalls a scan: grey values worked out by hand, and landmarks that stay on what they mark."""

from __future__ import annotations

import numpy as np
import pytest
from DNetRegistrationLib import Volume
from DNetRegistrationLib.synthesis import damage, solids
from DNetRegistrationLib.synthesis.damage import Seen
from DNetRegistrationLib.synthesis.solids import placed
from poses import pose_at, rotation

SPACING = np.array([0.1, 0.12, 0.2])


def oblique(voxels, sheared=False):
    """On an oblique, anisotropic, left-handed grid off the origin."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(5) @ np.diag((1, 1, -1.0)) * SPACING
    if sheared:
        affine[:3, 2] += 0.3 * affine[:3, 0]
    affine[:3, 3] = (40.0, -7.0, 3.0)
    return Volume(voxels, affine)


@pytest.fixture
def marked():
    """Every voxel has its own value, and some voxels are landmarks."""
    generator = np.random.default_rng(1)
    voxels = generator.permutation(10 * 11 * 12).reshape(10, 11, 12).astype(np.int16)
    index = generator.integers(0, (12, 11, 10), (40, 3)).astype(float)
    return Seen(oblique(voxels), index)


def values_at(seen):
    """Of the voxels that the landmarks are; None where they are none."""
    found = []
    for x, y, z in seen.landmarks:
        known = np.isfinite((x, y, z)).all() and all(
            0 <= c < n for c, n in zip((x, y, z), seen.volume.size, strict=True)
        )
        found.append(seen.volume.voxels[int(z), int(y), int(x)] if known else None)
    return found


def test_world_and_inside(marked):
    x, y, z = marked.landmarks[7]
    columns = marked.volume.affine[:3, :3]
    expected = marked.volume.origin + x * columns[:, 0] + y * columns[:, 1] + z * columns[:, 2]
    np.testing.assert_allclose(marked.world[7], expected)
    odd = Seen(marked.volume, np.array([[-0.4, 0, 0], [-0.6, 0, 0], [11.4, 10, 9], [11.6, 10, 9], [np.nan, 1, 1]]))
    assert odd.inside.tolist() == [True, False, True, False, False]


def test_cropping_and_padding_keep_the_places(marked):
    before = values_at(marked)
    cut = damage.cropped(marked, (2, 1, 3), (9, 11, 8))
    assert cut.volume.voxels.shape == (5, 10, 7)
    np.testing.assert_allclose(cut.world, marked.world)
    kept = [value is not None for value in values_at(cut)]
    assert 5 < sum(kept) < 35 and kept == cut.inside.tolist()
    assert all(now == was for now, was in zip(values_at(cut), before, strict=True) if now is not None)
    wide = damage.padded(marked, (3, 0, 1), (0, 2, 4), -7)
    assert wide.volume.voxels.shape == (15, 13, 15) and (wide.volume.voxels == -7).sum() == 15 * 13 * 15 - 1320
    np.testing.assert_allclose(wide.world, marked.world)
    assert values_at(wide) == before


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lost_slices(marked, axis):
    size = marked.volume.size[axis]
    order = [k for k in range(size) if k not in (3, 4)]
    shorter = damage.restacked(marked, axis, order)
    assert shorter.volume.size[axis] == size - 2
    for was, index, now in zip(values_at(marked), marked.landmarks, values_at(shorter), strict=True):
        assert now == (None if index[axis] in (3, 4) else was)
    assert np.array_equal(shorter.volume.affine, marked.volume.affine)


def test_repeated_and_reversed_slices(marked):
    order = [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    longer = damage.restacked(marked, 2, order)
    for (x, y, z), (u, v, w) in zip(marked.landmarks, longer.landmarks, strict=True):
        assert (u, v) == (x, y) and w == (z if z < 2 else 3 if z == 2 else z + 2)
    assert values_at(longer) == values_at(marked)
    # Between voxels, and outside of the field of view.
    odd = Seen(marked.volume, np.array([[1.0, 1, 4.25], [1, 1, -3], [1, 1, 12.5]]))
    np.testing.assert_allclose(damage.restacked(odd, 2, order).landmarks[:, 2], (6.25, -3, 14.5))
    backwards = damage.restacked(marked, 1, range(11)[::-1])
    assert np.array_equal(backwards.volume.voxels, marked.volume.voxels[:, ::-1])
    assert values_at(backwards) == values_at(marked)


@pytest.mark.parametrize("sheared", [False, True])
def test_a_wrong_grid_stretches_along_its_own_axes(sheared):
    seen = Seen(oblique(np.zeros((10, 11, 12)), sheared), np.array([[0.0, 0, 0], [11, 0, 0], [0, 10, 0], [0, 0, 9]]))
    linear = damage.in_axes(seen.volume, np.diag((1, 1, 1.06)))
    longer = damage.restated(seen, linear)
    edges, before = (np.linalg.norm(one.world[1:] - one.world[0], axis=1) for one in (longer, seen))
    np.testing.assert_allclose(edges / before, (1, 1, 1.06))
    np.testing.assert_allclose(longer.volume.center, seen.volume.center)
    assert longer.volume.voxels is seen.volume.voxels
    tilt = np.eye(3)
    tilt[1, 2] = 0.2
    if not sheared:
        tilted = damage.restated(seen, damage.in_axes(seen.volume, tilt))
        x, y, z = seen.volume.direction.T
        # Along z by 9 voxels of 0.2 mm, the slices drift along y by a fifth of it.
        np.testing.assert_allclose(tilted.world[3] - tilted.world[0], 1.8 * z + 0.36 * y, atol=1e-12)
        np.testing.assert_allclose(tilted.world[1] - tilted.world[0], 1.1 * x, atol=1e-12)


def test_a_larger_world(marked):
    np.testing.assert_allclose(damage.enlarged(marked, 12.5).world, 12.5 * marked.world)


def test_grey_values():
    voxels = np.arange(-4, 4, dtype=np.int16).reshape(2, 2, 2) * 100
    seen = Seen(Volume(voxels), np.empty((0, 3)))
    assert damage.clipped(seen, 120).volume.voxels.max() == 120
    assert damage.inverted(seen).volume.voxels.ravel().tolist() == [300, 200, 100, 0, -100, -200, -300, -400]
    # Values from 150 on begin anew at -400.
    assert damage.wrapped(seen, 150).volume.voxels.ravel().tolist() == [-400, -300, -200, -100, 0, 100, -350, -250]
    bytes_ = Seen(Volume(np.full((2, 2, 2), 100, np.uint8)), np.empty((0, 3)))
    assert damage.regraded(bytes_, lambda v: v * 3).volume.voxels.ravel().tolist() == [255] * 8
    assert damage.regraded(bytes_, lambda v: v - 0.6).volume.voxels.ravel().tolist() == [99] * 8
    gaps = Seen(Volume(np.where(voxels == 0, np.nan, voxels).astype(np.float32)), np.empty((0, 3)))
    for change in (damage.inverted, lambda s: damage.wrapped(s, 150), lambda s: damage.clipped(s, 120)):
        assert np.isnan(change(gaps).volume.voxels).sum() == 1


def test_kernels():
    edge = np.zeros((9, 9, 40), np.float32)
    edge[..., 20:] = 100
    seen = Seen(Volume(edge), np.empty((0, 3)))
    soft, sharp = damage.blurred(seen, 1.5).volume.voxels, damage.sharpened(seen, 1.0, 0.8).volume.voxels
    # A step seen through a Gaussian rises by 1 / (sigma sqrt(2 pi)) a voxel.
    assert soft[4, 4, 20] - soft[4, 4, 19] == pytest.approx(100 / (1.5 * np.sqrt(2 * np.pi)), rel=0.05)
    assert sharp.max() > 115 and sharp.min() < -15 and sharp[4, 4, 0] == pytest.approx(0, abs=1e-3)


def test_painting():
    seen = Seen(oblique(np.full((30, 40, 44), 10.0)), np.empty((0, 3)))
    pose = pose_at(2, (0, 0, 0), (0, 0, 0))
    pose[:3, 3] = seen.volume.center
    shown = damage.painted(seen, placed(solids.box(1.2, 0.7, 0.9), pose), 60).volume
    # Partial voxels add up to the volume of the solid.
    volume = (shown.voxels - 10).sum() / 50 * np.prod(SPACING)
    assert volume == pytest.approx(8 * 1.2 * 0.7 * 0.9, rel=0.02)
    corner = pose[:3, :3] @ (1.0, 0.5, 0.7) + pose[:3, 3]
    x, y, z = np.rint(shown.to_index(corner)).astype(int)
    assert shown.voxels[z, y, x] == 60
    assert (damage.painted(seen, solids.box(99, 99, 99), 5, "brighter").volume.voxels == 10).all()
    assert (damage.painted(seen, solids.box(99, 99, 99), 5, "darker").volume.voxels == 5).all()
    assert (damage.painted(seen, solids.box(99, 99, 99), 60, "darker").volume.voxels == 10).all()


def test_streaks():
    seen = Seen(Volume.from_geometry(np.zeros((9, 41, 41)), (0.1, 0.1, 0.5)), np.empty((0, 3)))
    voxels = damage.streaked(seen, np.array([2.0, 2.0, 2.0]), 0.6, 80.0, 2, 0.0).volume.voxels
    # Slices 4 - 1, 4 and 4 + 1 lie within 0.6 mm; two bright rays along x and two dark ones along y.
    assert [bool(one.any()) for one in voxels] == [False] * 3 + [True] * 3 + [False] * 3
    # 1.2 mm away, at twice the radius, they are half as strong.
    assert voxels[4, 20, 32] == pytest.approx(40) and voxels[4, 32, 20] == pytest.approx(-40)
    assert voxels[4, 20, 8] == pytest.approx(40)
