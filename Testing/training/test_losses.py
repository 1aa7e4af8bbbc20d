"""Losses against numbers worked out by hand, in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from DNetRegistrationLib.geometry.rigid import random_rotations, rotation_from_axis_angle
from DNetRegistrationLib.networks.equivariant import MatchPrediction, Scores
from DNetRegistrationLib.networks.keypoints import Keypoints
from DNetRegistrationLib.networks.regression import BONE_RADIUS
from DNetRegistrationLib.training.losses import LOSSES, geodesic_loss, matching_loss, paper_loss, points_loss

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def numbers(*values):
    return torch.tensor([values], dtype=torch.float64)


def turn(axis, degrees):
    return rotation_from_axis_angle(
        torch.tensor([axis], dtype=torch.float64), torch.tensor([math.radians(degrees)], dtype=torch.float64)
    )


def columns(rotation):
    return rotation.transpose(-1, -2).flatten(-2)


def test_paper_loss_by_hand():
    # True: nothing turned, moved by (0.3, 0, 0.4) mm: |t|^2 = 0.25. Off by (0.1, 0, 0): 0.01.
    estimate = numbers(0.4, 0.0, 0.4, *IDENTITY)
    rotation, translation = torch.eye(3, dtype=torch.float64)[None], numbers(0.3, 0.0, 0.4)
    assert float(paper_loss(estimate, rotation, translation)) == pytest.approx(0.5 * 0.01 / 0.26, rel=1e-12)
    # The third column counts too, and a column that is twice as long is not as good as one of length 1.
    estimate = numbers(0.3, 0.0, 0.4, *IDENTITY[:8], 3.0)
    assert float(paper_loss(estimate, rotation, translation)) == pytest.approx(0.5 * 4.0, rel=1e-12)
    estimate = numbers(0.3, 0.0, 0.4, 2.0, *IDENTITY[1:])
    assert float(paper_loss(estimate, rotation, translation)) == pytest.approx(0.5 * 1.0, rel=1e-12)
    # Where nothing moved, epsilon is what divides.
    still = paper_loss(numbers(0.0, 0.2, 0.0, *IDENTITY), rotation, numbers(0.0, 0.0, 0.0))
    assert float(still) == pytest.approx(0.5 * 0.04 / 0.01, rel=1e-12)


def test_paper_loss_takes_the_columns_one_after_another():
    # A quarter turn about z carries x to y: its columns are (0, 1, 0), (-1, 0, 0), (0, 0, 1).
    translation = numbers(0.1, 0.2, 0.3)
    right = numbers(0.1, 0.2, 0.3, 0, 1, 0, -1, 0, 0, 0, 0, 1)
    transposed = numbers(0.1, 0.2, 0.3, 0, -1, 0, 1, 0, 0, 0, 0, 1)
    quarter = turn((0.0, 0.0, 1.0), 90)
    assert float(paper_loss(right, quarter, translation)) == pytest.approx(0, abs=1e-30)
    assert float(paper_loss(transposed, quarter, translation)) == pytest.approx(0.5 * 8, rel=1e-12)


def test_points_loss_by_hand():
    rotation, translation = torch.eye(3, dtype=torch.float64)[None], numbers(0.1, 0.2, 0.3)
    # Moved too far by (0.3, 0, 0.4): every point by 0.5 mm.
    assert float(points_loss(numbers(0.4, 0.2, 0.7, *IDENTITY), rotation, translation)) == pytest.approx(0.5)
    # Half a turn about z, as the first six numbers say: four of six points go to the other side, 2 radii away.
    half = numbers(0.1, 0.2, 0.3, -5, 0, 0, 0, -0.1, 0, 9, 9, 9)
    assert float(points_loss(half, rotation, translation)) == pytest.approx(4 * 2 * BONE_RADIUS / 6)
    # A small turn by a about z and a shift s along z: points on x and y are off by hypot(r a, s), those on z by s.
    a, s = 1e-4, 2e-4
    small = torch.cat((numbers(0.1, 0.2, 0.3 + s), columns(turn((0.0, 0.0, 1.0), math.degrees(a)))), 1)
    expected = (4 * math.hypot(BONE_RADIUS * a, s) + 2 * s) / 6
    assert float(points_loss(small, rotation, translation)) == pytest.approx(expected, rel=1e-6)


def test_geodesic_loss_by_hand():
    rotation, translation = turn((0.0, 1.0, 0.0), 10), numbers(0.0, 0.0, 0.0)
    estimate = torch.cat((numbers(0.0, 0.0, 0.64), 3 * columns(turn((0.0, 1.0, 0.0), -20))), 1)
    found = float(geodesic_loss(estimate, rotation, translation))
    assert found == pytest.approx(math.radians(30) + 0.64 / BONE_RADIUS, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_zero_at_the_truth_one_number_a_pair_and_a_gradient_that_finds_it(name):
    generator = torch.Generator().manual_seed(3)
    rotation = random_rotations(5, generator)
    translation = torch.rand(5, 3, generator=generator, dtype=torch.float64) - 0.5
    truth = torch.cat((translation, columns(rotation)), 1)
    loss = LOSSES[name]
    assert loss(truth, rotation, translation).tolist() == pytest.approx([0] * 5, abs=1e-7)
    estimate = (truth + 0.1 * torch.randn(5, 12, generator=generator, dtype=torch.float64)).requires_grad_()
    before = loss(estimate, rotation, translation)
    assert before.shape == (5,) and (before > 0).all()
    (gradient,) = torch.autograd.grad(before.sum(), estimate)
    after = loss(estimate - 1e-3 * gradient, rotation, translation)
    assert (after < before).all()
    # Each pair's number is its own.
    alone = loss(estimate[2:3], rotation[2:3], translation[2:3])
    assert alone.tolist() == pytest.approx(before[2:3].tolist(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_finite_gradient_at_the_truth_and_at_half_a_turn(name):
    rotation, translation = torch.eye(3)[None], torch.zeros(1, 3)
    for diagonal in ((1.0, 1.0, 1.0), (-1.0, -1.0, 1.0)):
        estimate = torch.cat((torch.zeros(1, 3), torch.diag(torch.tensor(diagonal)).reshape(1, 9)), 1).requires_grad_()
        loss = LOSSES[name](estimate, rotation, translation)
        assert loss.dtype == torch.float32
        (gradient,) = torch.autograd.grad(loss.sum(), estimate)
        assert gradient.isfinite().all()


def test_matching_loss_by_hand():
    # Three places, a quarter turn about z (x to y, y to -x), then moved by (1, 2, 3) voxels; the fourth has no partner.
    places = torch.tensor([[5.0, 0, 0], [0, 7, 0], [0, 0, 9], [-9, -9, -9]])
    arrived = torch.tensor([[1.0, 7, 3], [-6, 2, 3], [1, 2, 12]])
    batch = SimpleNamespace(rotation=turn((0.0, 0.0, 1.0), 90), translation=0.08 * numbers(1.0, 2.0, 3.0))

    def loss_of(sure, lonely):
        """Matches `sure` of each place's partner; logits `lonely` of the place without one, and 0 of the others."""
        log_matches = torch.full((1, 4, 3), -60.0)
        log_matches[0, range(3), range(3)] = sure
        fixed_logits = torch.tensor([[0.0, 0, 0, lonely]])
        sides = [Keypoints(at[None], None, None, torch.ones(1, len(at), dtype=torch.bool)) for at in (places, arrived)]
        prediction = MatchPrediction(*sides, Scores(log_matches, fixed_logits, torch.zeros(1, 3)))
        loss, figures = matching_loss(prediction, batch)
        assert float(loss) == pytest.approx(float(figures["matching"] + figures["unmatched"]))
        return float(figures["matching"]), float(figures["unmatched"])

    assert loss_of(0.0, -40.0) == pytest.approx((0, 0), abs=1e-6)
    assert loss_of(-2.0, -40.0) == pytest.approx((2, 0), abs=1e-6)
    assert loss_of(0.0, 3.0) == pytest.approx((0, 0.5 * math.log1p(math.exp(3))), abs=1e-6)
