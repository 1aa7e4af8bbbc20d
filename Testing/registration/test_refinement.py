"""Gauss-Newton refinement: its derivatives against differences in float64, known motions on an analytic phantom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cube import BonePlace
from DNetRegistrationLib.bone.images import BoneImage, native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.geometry.rigid import apply, inverse, rotation_about, rotation_from_axis_angle
from DNetRegistrationLib.registration import refinement
from DNetRegistrationLib.registration.refinement import (
    Fit,
    distance,
    gauss_newton,
    motion,
    one_sided,
    refine,
    tukey,
)
from DNetRegistrationLib.registration.template import (
    edge_template,
    make_template,
    sample_through,
)
from DNetRegistrationLib.synthesis.pairs import make_pair, target_registration_error
from edge_phantom import GRIDS, two_scans


def put_off(pose, center, angle=0.06, shift=0.15) -> torch.Tensor:
    turn = rotation_from_axis_angle(torch.tensor((1.0, -2, 0.5)).double(), torch.tensor(angle).double())
    off = rotation_about(turn, torch.tensor(center).double())
    off[:3, 3] += shift * torch.tensor((0.6, 0.0, -0.8)).double()
    return pose @ off


def worst(first, second, center, radius=1.2) -> float:
    corners = torch.cat((torch.eye(3), -torch.eye(3))).double() * radius + torch.tensor(center).double()
    return float((apply(first, corners) - apply(second, corners)).norm(dim=-1).max())


@pytest.mark.parametrize("name", GRIDS)
def test_known_motion_is_recovered_to_a_twentieth_of_a_voxel(name):
    fixed, moving, truth = two_scans(name)
    template = edge_template(fixed, 8000)
    start = put_off(truth, template.center)
    assert worst(start, truth, template.center) > 0.15
    fit = gauss_newton(template, moving, start[None], 25, tolerance=1e-5)
    assert worst(fit.transforms[0], truth, template.center) < 0.05 * fixed.spacing.min()
    rotation = fit.transforms[0, :3, :3]
    assert (rotation.T @ rotation - torch.eye(3).double()).abs().max() < 1e-12


def test_derivatives_of_the_motion_agree_with_differences():
    """The columns that Gauss-Newton takes: local x gradient / radius for rotation, the gradient for translation."""
    generator = np.random.default_rng(0)
    center, radius, slope = generator.normal(size=3) + 50, 1.3, generator.normal(size=3)
    points = torch.tensor(center + generator.normal(size=(10, 3)))
    step = 1e-6
    numeric = np.empty((10, 6))
    for k in range(6):
        moved = [
            apply(motion(sign * step * torch.eye(6).double()[k : k + 1], center, radius)[0], points) for sign in (1, -1)
        ]
        numeric[:, k] = (moved[0] - moved[1]).numpy() @ slope / (2 * step)
    local = (points.numpy() - center) / radius
    analytic = np.hstack((np.cross(local, slope), np.broadcast_to(slope, (10, 3))))
    np.testing.assert_allclose(numeric, analytic, atol=1e-7)


def test_one_step_solves_the_weighted_normal_equations():
    generator = np.random.default_rng(1)
    jacobian, target, weight = generator.normal(size=(500, 6)), generator.normal(size=500), generator.random(500)
    step, gain = generator.normal(size=6) * 0.1, 0.8
    values = (target + jacobian @ step) / gain
    known = np.vstack((target, -jacobian.T))
    found, found_gain = refinement._solve(*[torch.tensor(x).float() for x in (known, values[None], weight[None])])
    np.testing.assert_allclose(found[0], step, atol=1e-4)
    assert float(found_gain) == pytest.approx(gain, abs=1e-4)
    noisy = values + generator.normal(size=500) * 0.1
    found, found_gain = refinement._solve(*[torch.tensor(x).float() for x in (known, noisy[None], weight[None])])
    root = np.sqrt(weight)[:, None]
    expected = np.linalg.lstsq(root * np.column_stack((-jacobian, noisy)), root[:, 0] * target, rcond=None)[0]
    np.testing.assert_allclose(np.append(found[0], found_gain), expected, atol=1e-4)


def test_the_gain_is_fitted():
    fixed, moving, truth = two_scans("plain")
    template = edge_template(fixed, 8000)
    gains = []
    for factor in (1, 1.3):
        image = BoneImage(factor * moving.values, moving.affine)
        fit = gauss_newton(template, image, put_off(truth, template.center)[None], 25)
        assert worst(fit.transforms[0], truth, template.center) < 0.005
        gains.append(float(fit.gain))
    # Interpolation flattens a little, so that even the same scan has a gain slightly above one.
    assert gains[0] == pytest.approx(1, abs=0.03) and gains[1] == pytest.approx(gains[0] / 1.3, rel=1e-3)


def test_starts_do_not_influence_each_other():
    fixed, moving, truth = two_scans("plain")
    template = edge_template(fixed, 2000)
    starts = torch.stack([put_off(truth, template.center), put_off(truth, template.center, 0.02, 0.3)])
    both = gauss_newton(template, moving, starts, 5).transforms
    alone = [gauss_newton(template, moving, start[None], 5).transforms[0] for start in starts]
    for one, other in zip(both, alone, strict=True):
        assert worst(one, other, template.center) < 1e-4


def test_tukey_is_that_of_a_loop():
    generator = np.random.default_rng(2)
    residual, prior = generator.normal(size=(2, 101)), (generator.random((2, 101)) < 0.7).astype(float)
    residual[1] *= 1e-4
    found = tukey(torch.tensor(residual), torch.tensor(prior)).numpy()
    for row, weight, counted in zip(residual, found, prior > 0, strict=True):
        sizes = sorted(abs(row[counted]))
        scale = max(1.4826 * sizes[(len(sizes) - 1) // 2], 0.03)
        for value, one in zip(row, weight, strict=True):
            u = value / (4.685 * scale)
            assert one == pytest.approx((1 - u * u) ** 2 if abs(u) < 1 else 0, abs=1e-9)
    assert torch.isfinite(tukey(torch.zeros(1, 3), torch.zeros(1, 3))).all()


def test_one_sided_marks_what_only_one_scan_shows():
    fixed, moving, truth = two_scans("plain")
    template = edge_template(fixed, 8000)
    aligned = gauss_newton(template, moving, truth[None], 0)
    assert one_sided(template, aligned, 0.1).mean() > 0.99
    # A bright layer on one side, as contrast agent makes it.
    world = template.local().numpy()
    patch = torch.tensor(world[:, 2] > np.quantile(world[:, 2], 0.9))
    stained = Fit(aligned.transforms, aligned.gain, aligned.residual + 0.3 * patch, aligned.seen)
    keep = one_sided(template, stained, 0.1)
    assert keep[patch].mean() < 0.2 and keep[~patch].mean() > 0.9


def test_one_sided_spares_a_pose_that_is_a_little_off():
    fixed, moving, truth = two_scans("plain")
    template = edge_template(fixed, 8000)
    off = gauss_newton(template, moving, put_off(truth, template.center, 0.0, 0.05)[None], 0)
    assert off.residual.abs().mean() > 0.05
    assert one_sided(template, off, 0.1).mean() > 0.8


def test_without_points_the_start_is_the_end():
    empty = torch.empty(0, 3)
    template = make_template(empty, np.eye(4), torch.empty(0), empty)
    image = BoneImage(torch.zeros(8, 8, 8), np.eye(4))
    assert len(edge_template(image, 10).values) == 0
    start = torch.eye(4).double().expand(2, 4, 4)
    assert torch.equal(gauss_newton(template, image, start, 5).transforms, start)


def test_a_single_point_ends_somewhere():
    """A rotation about it has no size."""
    grid = np.diag((0.5, 0.5, 0.5, 1.0))
    at, gradient = torch.tensor([[4.0, 3.0, 3.0]]), torch.tensor([[2.0, 0.0, 0.0]])
    template = make_template(at, grid, torch.tensor([4.0]), gradient)
    assert template.radius == 0.25
    ramp = BoneImage(torch.arange(8.0).expand(8, 8, 8).clone(), grid)
    assert gauss_newton(template, ramp, torch.eye(4).double()[None], 5).transforms.isfinite().all()


def test_points_that_see_nothing_do_not_move():
    fixed, moving, truth = two_scans("plain")
    template = edge_template(fixed, 500)
    away = truth.clone()
    away[:3, 3] += 100
    fit = gauss_newton(template, moving, away[None], 3)
    assert fit.transforms.isfinite().all() and worst(fit.transforms[0], away, template.center) < 1e-6
    values, inside = sample_through(template, moving, away[None])
    assert not values.any() and not inside.any()


@pytest.fixture(scope="module")
def pair():
    return make_pair(9, size=100, spacing=0.05)


@pytest.fixture(scope="module")
def prepared(pair):
    scans = (pair.fixed, pair.moving)
    return prepare(*[native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in scans])


@pytest.mark.parametrize("native", [False, True])
def test_refinement_is_the_same_there_and_back(pair, prepared, native):
    fixed, moving = prepared
    start = put_off(torch.tensor(pair.matrix), fixed.place.center, 0.03, 0.1)
    there = refine(fixed, moving, start, native)
    back = refine(moving, fixed, inverse(start), native)
    assert distance(there.pose, inverse(back.pose), fixed.place) < 1e-3
    assert there.disagreement == pytest.approx(back.disagreement, rel=0.2, abs=1e-4)
    assert target_registration_error(pair, there.pose.numpy()) < 0.01
    assert there.spacing == pytest.approx(0.05)
    assert torch.equal(refine(fixed, moving, start, native).pose, there.pose)


def test_check_is_told_of_the_fraction_and_may_end_it(pair, prepared):
    told = []
    refine(*prepared, torch.tensor(pair.matrix), True, told.append)
    assert told == sorted(told) and told[0] == 0 and told[-1] < 1 and len(told) > 10

    def check(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine(*prepared, torch.tensor(pair.matrix), False, check)


def test_distance_by_hand():
    place = BonePlace(np.array((100.0, 0, 0)), 2.0)
    eye = torch.eye(4).double()
    shifted = eye.clone()
    shifted[:3, 3] = torch.tensor((3.0, 0, 4))
    assert distance(eye, shifted, place) == pytest.approx(5)
    half_turn = rotation_about(
        rotation_from_axis_angle(torch.tensor((0.0, 0, 1)).double(), torch.tensor(np.pi).double()),
        torch.tensor(place.center),
    )
    # Four of the six points, 2 mm from the axis, move by 4 mm.
    assert distance(eye, half_turn, place) == pytest.approx(4 * np.sqrt(4 / 6))
