"""The criteria of Table 1, on pairs whose answers are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.experiments.metrics import measure, target_error_um, translation_error_um

QUARTER = np.array(((0.0, -1, 0), (1, 0, 0), (0, 0, 1)))  # about z, x to y
THIRD = np.array(((0.0, 0, 1), (1, 0, 0), (0, 1, 0)))  # about (1, 1, 1), x to y to z
CENTER = np.array((100.0, -50.0, 20.0))
# Unit columns of an oblique grid (rotation by 36.87 degrees), and of its left-handed sister.
OBLIQUE = np.array(((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1)))
GRIDS = {"oblique": OBLIQUE, "left-handed": OBLIQUE * (1, 1, -1)}


def about(point, rotation, shift=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = point - rotation @ point + np.asarray(shift, float)
    return matrix


def box(axes, low=(3, 3, 3), spacing=0.1):
    """A box of 4 x 4 x 4 voxels of 0.1 mm in a grid of 12^3 voxels, far from the origin."""
    cortex = np.zeros((12, 12, 12), bool)
    z, y, x = low
    cortex[z : z + 4, y : y + 4, x : x + 4] = True
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = CENTER
    return CorticalBone(cortex, cortex, np.zeros(cortex.shape, np.float32), affine)


def test_turning_about_a_point_beside_the_centre_moves_the_centre():
    # The centre lies 1 mm in -x of the point it is turned about, by 90 degrees: it goes to 1 mm in -y of it.
    estimate = about(CENTER + np.array((1, 0, 0)), QUARTER)
    found = measure(estimate, np.eye(4), CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.te_um == pytest.approx(1000 * math.sqrt(2))
    assert found.re_deg == pytest.approx(90)


def test_translation_error_is_about_the_centre_not_the_origin():
    # Far from the world's origin the raw vectors differ by tens of mm; about the centre, by (30, 40, 0) um.
    truth = about(CENTER, THIRD, (0.4, 0.4, 0.4))
    estimate = about(CENTER, QUARTER, (0.43, 0.44, 0.4))
    assert np.linalg.norm(truth[:3, 3] - estimate[:3, 3]) > 10
    assert translation_error_um(estimate, truth, CENTER) == pytest.approx(50)


def test_rotation_error_between_oblique_turns():
    # tr(THIRD^T QUARTER) = R21 + R10 terms: entries that both have are (1, 0) alone, so the trace is 1: 90 degrees.
    assert np.trace(THIRD.T @ QUARTER) == 1
    found = measure(about(CENTER, QUARTER), about(CENTER, THIRD), CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.re_deg == pytest.approx(90)
    half = np.diag((1.0, -1, -1))
    assert measure(about(CENTER, half), np.eye(4), CENTER, (box(OBLIQUE),) * 2).re_deg == pytest.approx(180)


@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_dice_of_boxes(axes):
    fixed, moving = box(axes), box(axes, (3, 3, 4))
    # As they lie, 3 x 4 x 4 of 64 voxels overlap: 2 * 48 / 128.
    assert measure(np.eye(4), None, CENTER, (fixed, moving)).dice == pytest.approx(0.75)
    # The moving one lies a voxel further along the grid's first axis, which is oblique in the world.
    truth = np.eye(4)
    truth[:3, 3] = 0.1 * axes[:, 0]
    found = measure(np.eye(4), truth, CENTER, (fixed, moving))
    assert (found.dice, found.dice_true) == pytest.approx((0.75, 1.0))
    assert (found.te_um, found.re_deg, found.target_um) == pytest.approx((100, 0, 100))
    # Two voxels off along two axes, 2 x 2 x 4 are left: 2 * 16 / 128.
    off = truth.copy()
    off[:3, 3] += 0.2 * axes[:, 1] + 0.2 * axes[:, 2]
    assert measure(off, truth, CENTER, (fixed, moving)).dice == pytest.approx(0.25)


@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_a_box_turned_by_a_quarter_about_itself_lies_on_itself(axes):
    bone = box(axes)
    # About the grid's third axis, through the middle of the box.
    turn = axes @ QUARTER @ axes.T
    estimate = about(bone.center, turn)
    found = measure(estimate, np.eye(4), CENTER, (bone, bone))
    assert (found.dice, found.re_deg) == pytest.approx((1.0, 90))
    # A voxel at (x, y) from the axis moves by sqrt(2) of its distance; the mean by a loop over the 4 x 4.
    offsets = (-0.15, -0.05, 0.05, 0.15)
    mean = np.mean([math.sqrt(2) * math.hypot(x, y) for x in offsets for y in offsets])
    assert found.target_um == pytest.approx(1000 * mean)


def test_without_truth_only_the_overlap_is_known():
    found = measure(np.eye(4), None, CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.dice == 1 and all(math.isnan(v) for v in (found.te_um, found.re_deg, found.target_um, found.dice_true))
    nothing = CorticalBone(*(np.zeros((4, 4, 4), bool),) * 2, np.zeros((4, 4, 4), np.float32), np.eye(4))
    assert math.isnan(target_error_um(np.eye(4), np.eye(4), nothing))
