"""Strain: known errors of grids found and named, and none found where contrast agent only looks like it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import PreparedScan, prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.refinement import refine
from DNetRegistrationLib.registration.similarity import similarity
from DNetRegistrationLib.registration.strain import Strain, _Problem, find_strain
from DNetRegistrationLib.registration.strain_cause import COLUMNS, ROWS, Cause, find_cause
from DNetRegistrationLib.registration.template import edge_template
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import GRIDS, TURNS, two_scans
from scipy.linalg import polar

# What a grid's axes say, times this, is what they should have said.
ERRORS = {
    "z": np.diag((1, 1, 1.06)),
    "x": np.diag((0.95, 1, 1)),
    "uniform": 1.03 * np.eye(3),
    "in plane": np.diag((1.04, 1.04, 1)),
    "sheared": np.array([[1, 0, 0.05], [0, 1, 0], [0, 0, 1.0]]),
    "any": np.array([[1.05, 0.02, 0], [0, 0.96, 0.02], [0, 0, 1.02]]),
}


def with_error(volume: Volume, error: np.ndarray) -> tuple[Volume, np.ndarray]:
    """The scan with an error along its grid's axes about its middle, and the ``(4, 4)`` map that does it to points."""
    spacing, middle = np.diag(volume.spacing), np.append((np.array(volume.size) - 1) / 2, 1)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] @ np.linalg.inv(spacing) @ error @ spacing
    affine[:3, 3] += ((volume.affine - affine) @ middle)[:3]
    return replace(volume, affine=affine), affine @ np.linalg.inv(volume.affine)


def prepared(fixed: Volume, moving: Volume) -> tuple[PreparedScan, PreparedScan]:
    scans = [native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in (fixed, moving)]
    return prepare(*scans)


def measured(fixed: Volume, moving: Volume, matrix: np.ndarray) -> tuple[Strain, np.ndarray]:
    """The strain found from the refined rigid pose, and that pose."""
    scans = prepared(fixed, moving)
    pose = refine(*scans, torch.tensor(matrix), native=True).pose
    return find_strain(*scans, pose), pose.numpy()


def check_found(pair, error: np.ndarray, words: str) -> None:
    moving, change = with_error(pair.moving, error)
    strain, pose = measured(pair.fixed, moving, pair.matrix)
    truth = change @ pair.matrix
    np.testing.assert_allclose(strain.tensor, polar(truth[:3, :3])[1] - np.eye(3), atol=0.015)
    assert strain.significant and words in strain.sentence
    # The mean distance of a bone point to its partner, point by point.
    apart = []
    for index in np.argwhere(pair.fixed_bone)[::50, ::-1]:
        point = np.append(pair.fixed.to_world(index), 1)
        apart.append(np.linalg.norm((truth @ point - pose @ point)[:3]))
    assert 0.6 < np.mean(apart) / strain.error < 1.4
    assert 0.5 * strain.error < strain.displacement < 1.2 * strain.error


def test_a_wrong_slice_distance_is_found_and_named(pair):
    check_found(pair, ERRORS["z"], "% longer along z than the fixed one: check the slice distance of")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x", "% shorter along x than the fixed one: check the voxel size"),
        ("uniform", "% larger than the fixed one"),
        ("sheared", "sheared by"),
        ("in plane", "longer along x and y"),
    ],
)
def test_other_errors_of_a_grid_are_found_and_named(pair, name, words):
    check_found(pair, ERRORS[name], words)


@pytest.mark.slow
def test_a_strain_of_fifteen_percent_is_found(cut_pair):
    moving, change = with_error(cut_pair.moving, np.diag((1, 1.15, 1)))
    strain, _ = measured(cut_pair.fixed, moving, cut_pair.matrix)
    true = polar((change @ cut_pair.matrix)[:3, :3])[1] - np.eye(3)
    np.testing.assert_allclose(strain.tensor, true, atol=0.03)
    assert strain.significant


def test_contrast_agent_is_no_strain(pair):
    strain, _ = measured(pair.fixed, pair.moving, pair.matrix)
    assert strain.sentence is None and strain.largest < 0.015
    assert strain.displacement < 0.25 * 0.08


def test_a_straight_shaft_feigns_no_strain_along_it():
    """The tube's ends are nowhere in view: an error along it stays unseen, one across it is found."""
    _, y, x = np.indices((48, 40, 40))
    radius = np.hypot(y - 19.5, 1.3 * (x - 19.5))
    tube = 3000 / (1 + np.exp((np.abs(radius - 11) - 2.5) / 0.5))
    noise = np.random.default_rng(8).normal(0, 60, (2, *tube.shape))
    fixed, moving = (Volume.from_geometry((tube + one).astype(np.float32), 0.08, np.eye(3), (0, 0, 0)) for one in noise)
    along, _ = measured(fixed, with_error(moving, np.diag((1, 1, 1.1)))[0], np.eye(4))
    assert np.abs(along.tensor).max() < 0.01 and not along.significant
    across, _ = measured(fixed, with_error(moving, np.diag((1.08, 1, 1)))[0], np.eye(4))
    assert across.tensor[0, 0] == pytest.approx(0.08, abs=0.015) and across.significant


@pytest.mark.parametrize("grids", GRIDS)
def test_steps_and_their_derivatives_agree(grids):
    image, other, _ = two_scans(grids)
    template = edge_template(image, 50)
    problem = _Problem(template, other, torch.eye(4).double(), torch.zeros(50), lambda: None)
    points = template.local().double().numpy()
    size = 1e-5
    for number in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[number] = size
        moved = problem._motion(step).numpy()
        for point, gradient, column in zip(points, template.gradient.numpy(), problem.lines.T.numpy(), strict=True):
            world = point + template.center
            shift = moved[:3, :3] @ world + moved[:3, 3] - world
            assert shift @ gradient / size == pytest.approx(column[number], abs=1e-3)


@pytest.mark.parametrize(
    ("scan", "error", "kind", "axes", "amount"),
    [
        ("moving", ERRORS["z"], "length", "z", 0.06),
        ("fixed", ERRORS["z"], "length", "z", 0.06),
        ("moving", ERRORS["x"], "length", "x", -0.05),
        ("fixed", ERRORS["in plane"], "length", "xy", 0.04),
        ("moving", ERRORS["uniform"], "size", "xyz", 0.03),
        ("moving", ERRORS["sheared"], "shear", "xz", 0.05),
        ("moving", ERRORS["any"], "other", "", 0.0),
    ],
)
@pytest.mark.parametrize("mirrored", [1, -1])
def test_the_grid_at_fault_is_named(scan, error, kind, axes, amount, mirrored):
    """Oblique, anisotropic, sheared and mirrored grids, by the polar decomposition of what the error does to points."""
    fixed, moving = np.eye(4), np.eye(4)
    fixed[:3, :3] = TURNS[1] @ np.diag((0.1, 0.2, mirrored * 0.3))
    moving[:3, :3] = TURNS[2] @ np.array([[1, 0, 0.1], [0, 1, 0], [0, 0, 1]]) @ np.diag((mirrored * 0.2, 0.1, 0.1))
    rotation = TURNS[3]
    grid = (fixed if scan == "fixed" else moving)[:3, :3]
    unit = grid / np.linalg.norm(grid, axis=0)
    change = unit @ error @ np.linalg.inv(unit)
    truth = rotation @ np.linalg.inv(change) if scan == "fixed" else change @ rotation
    tensor = polar(truth)[1] - np.eye(3)
    assert tensor[ROWS, COLUMNS] @ tensor[ROWS, COLUMNS] > 0
    cause = find_cause(tensor, 1e-6 * np.eye(6), rotation, fixed, moving)
    assert (cause.kind, cause.axes) == (kind, axes)
    assert cause.amount == pytest.approx(amount, abs=0.004)
    if kind not in ("size", "other"):
        assert cause.scan == scan


def test_grids_with_common_axes_are_both_named():
    cause = find_cause(np.diag((0, 0, 0.06)), 1e-6 * np.eye(6), np.eye(3), np.eye(4), np.eye(4))
    assert cause.sentence(0.06) == (
        "The moving scan is about 6 % longer along z than the fixed one: check the slice distance of both scans."
    )


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (0.032, "about 3 % larger than"),
        (-0.006, "about 0.6 % smaller than"),
        (0.25, "about 25 % larger than"),
        (0.97, "about 2.0 times as large as"),
        (-0.5, "about 50 % smaller than"),
    ],
)
def test_a_size_is_told_no_finer_than_it_is_known(amount, told):
    sentence = f"The moving scan is {told} the fixed one: check the voxel size of both."
    assert Cause("size", amount=amount).sentence(0.1) == sentence


def test_a_length_that_is_wrong_by_far_is_told_as_a_factor():
    told = "The fixed scan is about 2.0 times as long along z as the moving one: check the slice distance of the fixed"
    assert Cause("length", "fixed", "z", 0.97).sentence(0.1) == f"{told} scan."


@pytest.mark.parametrize(
    ("chi_square", "unexplained", "share"),
    [(0.0, 0.5, 0.0), (6.0, 0.5, 0.0), (8.0, 0.5, 0.5), (600.0, 0.99, 0.995), (600.0, 1.0, 0.0)],
)
def test_what_chance_makes_of_an_error_is_taken_out(chi_square, unexplained, share):
    measures = {"chi_square": chi_square, "displacement": 0.01, "error": 0.04, "voxel": 0.08}
    strain = Strain(np.eye(3), np.eye(3), **measures, cause=Cause("size"), matrix=np.eye(4), unexplained=unexplained)
    assert strain.likely_error == pytest.approx(0.04 * share, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [
        740_114,
        pytest.param(
            750_201,
            marks=[
                pytest.mark.slow,
                pytest.mark.xfail(reason="right, but blur of 1.3 voxels moves its inner surfaces"),
            ],
        ),
        pytest.param(750_549, marks=pytest.mark.slow),
    ],
)
def test_blur_that_differs_is_no_strain(seed):
    """One scan is sharpened or blurred more than the other, and the grids are true.

    In 750549 one direction alone would tell a shear, under which the edges agree hardly better.
    """
    case = make_adversarial(seed, "kernel")
    result = align(case.fixed, case.moving)
    assert result.accepted and "strain" not in result.doubts
    assert 1000 * case.error_mm(result.matrix) < 2 * result.expected_error_um


@pytest.mark.slow
def test_one_direction_tells_a_strain_where_the_other_goes_astray():
    """With agent on the bone of one scan the two directions differ by 13 % of stretch, and their mean tells nothing."""
    case = make_adversarial(203_303, "strain")
    result = align(case.fixed, case.moving)
    assert 1000 * case.error_mm(result.matrix) < 2 * result.expected_error_um
    assert "strain" in result.doubts and "longer along z" in result.reason


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kind"), [(620_112, "inverted"), (620_173, "overlap")])
def test_a_direction_that_leaves_the_view_tells_no_strain(seed, kind):
    """Its errors were 0, which no matrix of errors can be inverted with."""
    case = make_adversarial(seed, kind)
    result = align(case.fixed, case.moving)
    assert not result.accepted and "strain" not in result.doubts


def test_a_strain_is_believed_where_the_edges_agree_better_under_it(pair):
    """The map is the true one to some tenths of a voxel, and what it leaves is worked out from the images."""
    moving, change = with_error(pair.moving, ERRORS["uniform"])
    scans = prepared(pair.fixed, moving)
    pose = refine(*scans, torch.tensor(pair.matrix), native=True).pose
    strain = find_strain(*scans, pose)
    places = pair.fixed.to_world(np.argwhere(pair.fixed_bone)[::50, ::-1])
    apart = places @ (strain.matrix - change @ pair.matrix)[:3, :3].T + (strain.matrix - change @ pair.matrix)[:3, 3]
    assert np.linalg.norm(apart, axis=1).mean() < 0.02
    images = [scan.levels[-1] for scan in scans]
    bones = [CorticalBone(np.zeros(one.shape, bool), np.zeros(one.shape, bool), None, one.affine) for one in images]
    left = [1 - similarity(*images, one, bones, images).edge_correlation for one in (torch.tensor(strain.matrix), pose)]
    assert strain.unexplained == pytest.approx(left[0] / left[1], rel=1e-4)
    assert strain.unexplained < 0.8 and strain.significant


@pytest.mark.parametrize(
    ("chi_square", "unexplained", "cause", "told", "expected"),
    [
        (100, 0.8, "size", True, 0.04),
        (100, 0.88, "size", True, 0.04),
        # No one number of a grid explains it.
        (100, 0.8, "other", True, 0.04),
        (100, 0.88, "other", False, 0.04),
        (100, 0.95, "size", False, 0.04),
        (100, 1.0, "size", False, 0.0),
        (8, 0.8, "size", False, 0.01),
    ],
)
def test_what_is_expected_of_a_strain_follows_how_well_it_is_known(chi_square, unexplained, cause, told, expected):
    """Within chance half of what chance leaves of it; beyond chance all of it, unless the edges speak against it."""
    measures = {"chi_square": chi_square, "displacement": 0.03, "error": 0.04, "voxel": 0.08, "cause": Cause(cause)}
    strain = Strain(0.02 * np.eye(3), np.eye(3), **measures, matrix=np.eye(4), unexplained=unexplained)
    assert strain.significant == told and strain.expected_error == pytest.approx(expected)
