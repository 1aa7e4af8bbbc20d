"""Cortical bone and Dice, on shapes whose volumes and overlaps are known."""

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import CorticalBone, cortical_bone, dice
from DNetRegistrationLib.imaging.volume import Volume
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()
FAR = np.array((130.0, -75.0, 2040.0))


def draw(depth, size, spacing, direction=None, middle=(0, 0, 0), bone=1000.0, edge=0.04, dtype=np.float32):
    """A scan of the solid where `depth` (mm below its surface, of points (..., 3)) is positive; its edge is a ramp."""
    spacing = np.broadcast_to(spacing, 3).astype(float)
    size = np.broadcast_to(size, 3)
    direction = np.eye(3) if direction is None else direction
    origin = np.asarray(middle, float) - direction @ (spacing * (size - 1) / 2)
    volume = Volume.from_geometry(np.zeros(size[::-1], dtype), spacing, direction, origin)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    values = bone * np.clip(depth(volume.to_world(index)) / edge + 0.5, 0, 1)
    return Volume(values.transpose(2, 1, 0).astype(dtype), volume.affine)


def shell(center=(0.0, 0.0, 0.0), outer=1.0, inner=0.8):
    def depth(points):
        radius = np.linalg.norm(points - np.asarray(center), axis=-1)
        return np.minimum(outer - radius, radius - inner)

    return depth


def ball(volume):
    """Radius is the argument in mm; its volume in mm^3."""
    return 4 / 3 * np.pi * volume**3


def lens(a, b, distance):
    """Volume common to two balls of radii a and b whose centres are `distance` apart."""
    if distance <= abs(a - b):
        return ball(min(a, b))
    if distance >= a + b:
        return 0.0
    return np.pi * (a + b - distance) ** 2 * (distance**2 + 2 * distance * (a + b) - 3 * (a - b) ** 2) / (12 * distance)


def volume_of(mask, bone):
    return np.count_nonzero(mask) * np.prod(bone.spacing)


GRIDS = {
    "plain": dict(size=68, spacing=0.04),
    "oblique and far": dict(size=68, spacing=0.04, direction=OBLIQUE, middle=FAR),
    "left-handed": dict(size=68, spacing=0.04, direction=OBLIQUE @ np.diag((1, -1, 1)), middle=-FAR),
    "anisotropic": dict(size=(90, 68, 45), spacing=(0.03, 0.04, 0.06)),
    "fine": dict(size=136, spacing=0.02),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_hollow_ball_has_its_cortex_and_its_marrow(grid):
    bone = cortical_bone(draw(shell(grid.get("middle", (0, 0, 0))), **grid), 500.0, 0.08)
    assert volume_of(bone.cortex, bone) == pytest.approx(ball(1.0) - ball(0.8), rel=0.05)
    assert volume_of(bone.whole, bone) == pytest.approx(ball(1.0), rel=0.03)
    np.testing.assert_allclose(bone.center, grid.get("middle", (0, 0, 0)), atol=0.005)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.2, 0.5])
def test_dice_of_two_shells_is_what_their_volumes_say(shift):
    fixed = cortical_bone(draw(shell(), 100, 0.03), 500.0, 0.06)
    middle = FAR + np.array((0, 0, shift))
    moving = cortical_bone(
        draw(shell(middle), (110, 90, 70), (0.03, 0.035, 0.045), OBLIQUE @ np.diag((1, 1, -1)), middle), 500.0, 0.06
    )
    matrix = np.eye(4)
    matrix[:3, 3] = FAR
    common = lens(1, 1, shift) - 2 * lens(1, 0.8, shift) + lens(0.8, 0.8, shift)
    expected = common / (ball(1) - ball(0.8))
    assert dice(fixed, moving, matrix) == pytest.approx(expected, abs=0.04)


def test_dice_is_nearly_the_same_from_either_side():
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = OBLIQUE, (0.05, -0.08, 0.02)
    fixed = cortical_bone(draw(shell((0.1, 0, 0)), 70, 0.04), 500.0, 0.08)
    moving = cortical_bone(draw(shell((0.0, 0.1, 0)), (60, 80, 70), (0.05, 0.04, 0.04)), 500.0, 0.08)
    assert dice(fixed, moving, turn) == pytest.approx(dice(moving, fixed, np.linalg.inv(turn)), abs=0.02)


def test_before_is_as_the_scans_lie_and_zero_when_they_lie_apart():
    scans = draw(shell(), 68, 0.04), draw(shell((0.12, 0, 0)), 68, 0.04), draw(shell(FAR), 68, 0.04, middle=FAR)
    fixed, near, far = (cortical_bone(scan, 500.0, 0.08) for scan in scans)
    back = np.eye(4)
    back[0, 3] = 0.12
    apart = np.eye(4)
    apart[:3, 3] = FAR
    assert dice(fixed, near, np.eye(4)) < 0.8 and dice(fixed, near, back) > 0.97
    assert dice(fixed, far, np.eye(4)) == 0.0 and dice(fixed, far, apart) > 0.97


def test_dice_counts_only_what_both_scans_have_seen():
    whole = cortical_bone(draw(shell(), 68, 0.04), 500.0, 0.08)
    half = draw(shell(), 68, 0.04)
    half = Volume(half.voxels[:34], half.affine)
    assert dice(whole, cortical_bone(half, 500.0, 0.08), np.eye(4)) > 0.95
    blanked = draw(shell(), 68, 0.04)
    mask = np.zeros(blanked.voxels.shape, bool)
    mask[:34] = True
    assert dice(whole, cortical_bone(blanked, 500.0, 0.08, mask), np.eye(4)) > 0.95
    blanked.voxels[34:] = np.nan
    assert dice(whole, cortical_bone(blanked, 500.0, 0.08), np.eye(4)) > 0.95


def tube(axis, outer=0.5, inner=0.3):
    """An endless shaft through the origin."""
    axis = np.asarray(axis, float) / np.linalg.norm(axis)

    def depth(points):
        radius = np.linalg.norm(points - (points @ axis)[..., None] * axis, axis=-1)
        return np.minimum(outer - radius, radius - inner)

    return depth


@pytest.mark.parametrize("axis", [(0, 0, 1), (1, 0, 0), (0.5, -0.4, 1), (1, 1, 1)])
def test_marrow_of_a_shaft_that_the_field_of_view_cuts_stays_inside(axis):
    scan = draw(tube(axis), 60, 0.04)
    bone = cortical_bone(scan, 500.0, 0.08)
    index = np.argwhere(np.ones_like(bone.whole))
    points = index[:, ::-1] @ bone.affine[:3, :3].T + bone.affine[:3, 3]
    radius = np.linalg.norm(np.cross(points, axis), axis=-1) / np.linalg.norm(axis)
    radius = radius.reshape(bone.whole.shape)
    marrow = bone.whole & ~bone.cortex
    # All the way to the border, where the marrow lies open.
    assert marrow[radius < 0.2].mean() > 0.98
    assert bone.cortex[(radius > 0.36) & (radius < 0.44)].mean() > 0.99
    assert not bone.whole[radius > 0.6].any()


def test_trabeculae_pores_and_gaps_do_not_shape_the_cortex():
    plain = shell(outer=1.0, inner=0.8)

    def depth(points):
        x, y, z = np.moveaxis(points, -1, 0)
        rods = [0.05 - np.hypot(a - s, b - t) for a, b in ((x, y), (y, z)) for s in (-0.3, 0.3) for t in (-0.3, 0.3)]
        inside = np.minimum(np.max(rods, axis=0), 0.9 - np.linalg.norm(points, axis=-1))
        foramen = np.minimum(np.hypot(x, y) - 0.06, 1.0)
        return np.maximum(np.minimum(plain(points), np.where(z > 0, foramen, 1.0)), inside)

    bone = cortical_bone(draw(depth, 136, 0.02), 500.0, 0.08)
    reference = cortical_bone(draw(plain, 136, 0.02), 500.0, 0.08)
    assert dice(reference, bone, np.eye(4)) > 0.97
    assert volume_of(bone.whole, bone) == pytest.approx(ball(1.0), rel=0.03)


def test_small_fragments_are_dropped_and_a_fibula_is_kept():
    def depth(points):
        fibula = 0.12 - np.hypot(points[..., 0] - 0.95, points[..., 1])
        fragment = 0.1 - np.linalg.norm(points + np.full(3, 0.9), axis=-1)
        return np.maximum.reduce((tube((0, 0, 1))(points), fibula, fragment))

    scan = draw(depth, 70, 0.04)
    bone = cortical_bone(scan, 500.0, 0.08)
    labels = {name: tuple(np.rint(scan.to_index(p)).astype(int)[::-1]) for name, p in
              {"shaft": (0.4, 0, 0), "fibula": (0.95, 0, 0), "fragment": (-0.9, -0.9, -0.9)}.items()}  # fmt: skip
    assert bone.cortex[labels["shaft"]] and bone.cortex[labels["fibula"]]
    assert scan.voxels[labels["fragment"]] > 500 and not bone.cortex[labels["fragment"]]


def test_nothing_above_the_threshold_is_an_empty_cortex_not_an_error():
    scan = draw(shell(), 68, 0.04)
    empty = cortical_bone(scan, 5000.0, 0.08)
    assert not empty.cortex.any() and not empty.whole.any()
    assert dice(empty, empty, np.eye(4)) == 0.0
    np.testing.assert_allclose(empty.center, scan.center, atol=1e-9)


def test_the_thickness_of_a_shell_is_the_mean_depth_of_its_voxels():
    bone = cortical_bone(draw(shell(inner=0.7), 130, 0.02, OBLIQUE), 500.0, 0.08, resolution=0.02)
    radius = np.linspace(0.7, 1, 10_001)
    assert bone.thickness == pytest.approx(np.average(1 - radius, weights=radius**2), abs=0.01)
    empty = CorticalBone(np.zeros_like(bone.cortex), bone.whole, bone.grey, bone.affine)
    assert np.isnan(empty.thickness)
