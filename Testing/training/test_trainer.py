"""Iterations: what they depend on, what they leave behind, and that they can be gone on with to the same bits."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from DNetRegistrationLib.core.errors import RunError
from DNetRegistrationLib.networks.layers import NonLocalLink
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.regression import RegressionNetwork
from DNetRegistrationLib.training import trainer as training
from DNetRegistrationLib.training.losses import LOSSES, paper_loss, points_loss
from DNetRegistrationLib.training.trainer import Trainer
from DNetRegistrationLib.training.validation import errors, validate
from training_stand_ins import QUICK, Pairs, Small, SmallWithConvolutions, SmallWithLoss, same, steps, through_a_file

CPU = torch.device("cpu")


def trainer(recipe=QUICK, network=None, seed=0, **options):
    return Trainer(network or Small(), recipe, options.pop("pairs", None) or Pairs(), CPU, seed, **options)


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon"}, {"optimizer": "sgd", "ema_decay": 0.0}, {"both_directions": True}]
)
@pytest.mark.parametrize("kind", [Small, SmallWithConvolutions, SmallWithLoss])
@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_going_on_gives_the_same_bits(kind, changes, stop):
    recipe = replace(QUICK, **changes)
    whole = steps(trainer(recipe, kind()), 12).state()
    first = through_a_file(steps(trainer(recipe, kind()), stop).state())
    second = trainer(recipe, kind(seed=99))
    second.restore(first)
    torch.rand(5)  # what else the process draws does not matter
    assert same(steps(second, 12 - stop).state(), whole)
    assert not same(
        steps(trainer(recipe, kind(), seed=1 if kind is SmallWithLoss else 0, pairs=Pairs(1)), 12).state(), whole
    )


def test_muon_takes_the_convolution_between_channels():
    one = trainer(replace(QUICK, optimizer="muon"), SmallWithConvolutions())
    weights = one.network.look[2].weight
    before = weights.detach().clone()
    one.step()
    # However small the gradient, and unlike AdamW's, its step is the same in all directions.
    step = torch.linalg.svdvals((weights - before).flatten(1))
    assert len(one._optimizer.state_dict()) == 2 and len(one._optimizer.state_dict()[1]["state"]) == 1
    rate = QUICK.learning_rate_at(0)
    assert step.tolist() == pytest.approx([rate * 0.2 * 81**0.5] * len(step), rel=0.35)


@pytest.mark.slow
def test_going_on_with_a_real_network_gives_the_same_bits():
    recipe = replace(QUICK, batch=1, micro_batch=1, iterations=2)
    torch.manual_seed(0)
    network = build("me")
    whole = steps(trainer(recipe, copy.deepcopy(network)), 2).state()
    second = trainer(recipe, network)
    second.restore(through_a_file(steps(trainer(recipe, copy.deepcopy(network)), 1).state()))
    assert same(steps(second, 1).state(), whole)


def test_each_part_is_drawn_once_in_order():
    pairs = Pairs()
    steps(trainer(pairs=pairs), 12)
    assert [number for number, _, _ in pairs.drawn] == list(range(24))
    assert {count for _, count, _ in pairs.drawn} == {2}
    angles = [math.degrees(angle) for _, _, angle in pairs.drawn[::2]]
    assert angles == pytest.approx([90, 105, 120, 135, 150, 165, *[180] * 6])


def test_the_cost_of_an_iteration_is_that_of_all_its_parts():
    made = trainer()
    before = copy.deepcopy(made.network.state_dict())
    clock = itertools.count(10.0, 3.5)
    assert made.cost(5, lambda: next(clock)) == 3.5
    # Two parts of two pairs, from the pairs to the step.
    assert [drawn[:2] for drawn in made.pairs.drawn] == [(10, 2), (11, 2)]
    assert not same(made.network.state_dict(), before)


def test_parts_add_up_to_the_batch():
    """The gradient of parts is that of the mean loss of all their pairs."""
    recipe, pairs = replace(QUICK, batch=6, micro_batch=2, grad_clip=0.0), Pairs()
    one = trainer(recipe, pairs=pairs)
    for part in range(3):
        one.backward(pairs.draw(part, 2))
    batches = [pairs.draw(part, 2) for part in range(3)]
    network = Small()
    losses = [points_loss(network(b.fixed, b.moving), b.rotation, b.translation) for b in batches]
    torch.cat(losses).mean().backward()
    for found, expected in zip(one.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_paper_recipe_is_momentum_descent_on_the_mean_of_eq_6():
    recipe = replace(
        QUICK, loss="paper", optimizer="sgd", ema_decay=0, grad_clip=0, warmup=0, decay="none", micro_batch=4
    )
    one, reference, pairs = trainer(recipe), Small(), Pairs()
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for iteration in range(3):
        one.step()
        batch = pairs.draw(iteration, 4)
        loss = paper_loss(reference(batch.fixed, batch.moving), batch.rotation, batch.translation).mean()
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for p, v, g in zip(reference.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(recipe.learning_rate * v)
    for found, expected in zip(one.network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_both_directions_are_the_loss_of_both():
    batch = Pairs().draw(0, 3)
    network = Small()
    loss, figures = trainer(replace(QUICK, both_directions=True), network).loss(batch)
    inverse = batch.rotation.transpose(-1, -2)
    there = points_loss(network(batch.fixed, batch.moving), batch.rotation, batch.translation)
    back = points_loss(
        network(batch.moving, batch.fixed), inverse, -torch.einsum("bij,bj->bi", inverse, batch.translation)
    )
    assert loss.tolist() == pytest.approx(((there.mean() + back.mean()) / 2).tolist(), rel=1e-6)
    estimate = network.estimate(batch.fixed, batch.moving, batch.fixed_inside, batch.moving_inside)
    turned, shifted = errors(*estimate, batch)
    for name, values in (("re_deg", turned), ("te_um", shifted)):
        assert figures[name].tolist() == pytest.approx(values.mean().tolist(), rel=1e-5)


def test_bfloat16_leaves_loss_and_weights_in_float32():
    one = steps(trainer(replace(QUICK, precision="bfloat16")), 2)
    loss, _ = one.loss(Pairs().draw(0, 2))
    assert loss.dtype == torch.float32
    assert {value.dtype for value in one.network.state_dict().values()} == {torch.float32}
    exact = steps(trainer(), 2)
    difference = (one.network.head[2].weight - exact.network.head[2].weight).abs().max()
    assert 0 < difference < 0.02


def test_the_first_iterations_see_smaller_cubes():
    one, seen = trainer(replace(QUICK, iterations=5, resolution_schedule=(0.2, 0.4, 0.8))), []
    one.network.register_forward_pre_hook(lambda _, cubes: seen.extend(cube.shape[-1] for cube in cubes))
    steps(one, 5)
    each = 2 * QUICK.batch // QUICK.micro_batch
    assert seen == [8] * each + [16] * each + [32] * 2 * each + [64] * each


def test_links_sample_while_training_alone():
    one = trainer(replace(QUICK, linked_voxels=5), build("dnet"))
    links = [module for module in one.network.modules() if isinstance(module, NonLocalLink)]
    assert [link.sampled for link in links] == [5] * 4
    assert not any(module.training for module in one.trained.modules())


class Same(Pairs):
    """The same few pairs again and again."""

    def draw(self, number, count, *, max_angle=math.pi, reduction=1):
        return super().draw(0, count, max_angle=max_angle, reduction=reduction)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_learns(loss):
    one = trainer(replace(QUICK, iterations=60, micro_batch=4, loss=loss), pairs=Same())
    before = steps(one, 1).means().figures
    steps(one, 50).means()
    after = steps(one, 9).means().figures
    for name in ("loss", "re_deg", "te_um"):
        assert after[name] < 0.5 * before[name]
    assert set(after) == {"loss", "re_deg", "te_um", "gradient_norm"}


def test_averaged_weights():
    one, weights = trainer(replace(QUICK, ema_decay=0.9)), []
    first = Small().head[2].bias
    for _ in range(3):
        one.step()
        weights.append(one.network.head[2].bias.detach().clone())
    expected = first.detach()
    for made, value in enumerate(weights):
        decay = min(0.9, (1 + made) / (10 + made))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(one.trained.head[2].bias, expected)
    assert one.trained is not one.network and not one.trained.head[2].bias.requires_grad
    assert (plain := trainer(replace(QUICK, ema_decay=0.0))).trained is plain.network


def test_each_stage_averages_anew():
    recipe = replace(QUICK, ema_decay=0.999, iterations=80, resolution_schedule=(0.25, 0.5, 0.75))
    one = steps(trainer(recipe), 60)
    expected = one.trained.head[2].bias.clone()
    for made in range(3):  # the first on whole cubes; nearly nothing of what was before is left
        one.step()
        decay = (1 + made) / (10 + made)
        expected = decay * expected + (1 - decay) * one.network.head[2].bias.detach()
    torch.testing.assert_close(one.trained.head[2].bias, expected)


def test_weight_decay_spares_biases():
    one = trainer(replace(QUICK, weight_decay=0.5))
    decays = {p.ndim: g["weight_decay"] for g in one._optimizer.param_groups for p in g["params"]}
    assert decays == {2: 0.5, 1: 0.0}


class Poisoned(Pairs):
    """Gives NaN at these numbers."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers = set(numbers)

    def draw(self, number, count, *, max_angle=math.pi, reduction=1):
        batch = super().draw(number, count, max_angle=max_angle, reduction=reduction)
        return replace(batch, fixed=batch.fixed * math.nan) if number in self.numbers else batch


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted():
    one = steps(trainer(pairs=Poisoned([3])), 1)  # part 1 of iteration 1
    before = copy.deepcopy(one.state())
    one.step()
    after = one.state()
    assert (one.iteration, one.skipped) == (2, 1)
    for key in ("network", "averaged", "optimizer", "sums", "summed"):
        assert same(before[key], after[key]), key
    steps(one, 1)
    assert (one.iteration, one.skipped) == (3, 1)
    assert not same(one.state()["network"], before["network"])
    figures = one.means().figures
    assert math.isfinite(figures["loss"])
    assert one.means().figures == {}


def test_no_finite_gradient_for_long_ends_it(monkeypatch):
    monkeypatch.setattr(training, "MOST_FAILURES", 3)
    one = trainer(pairs=Poisoned(range(2, 100)))
    steps(one, 3)
    with pytest.raises(RunError, match="3 iterations in a row, up to 4; use a smaller learning rate"):
        one.step()


def test_an_iteration_that_is_stopped_has_not_begun():
    one, asked = steps(trainer(), 1), iter([False, True])
    before = copy.deepcopy(one.state())
    assert one.step(lambda: next(asked)) is True  # before its second part
    assert same(one.state(), before)
    steps(one, 11)
    assert same(one.state(), steps(trainer(), 12).state())


def test_a_network_with_its_own_loss_and_estimate():
    one = steps(trainer(network=SmallWithLoss()), 2)
    figures = one.means().figures
    assert figures["matches"] == pytest.approx(0.25)
    assert figures["loss_of_matches"] == pytest.approx(figures["loss"], rel=1e-6)
    assert "re_deg" not in figures
    pairs = Pairs(5)
    found = validate(one.trained, pairs, 6, 3)
    assert found == validate(one.trained, pairs, 6, 3)
    assert found.pairs == 6


class Knowing(RegressionNetwork):
    """Is right but for some pairs: off by given angles about z, in degrees, and by 3 um along x."""

    def __init__(self, source, angles):
        super().__init__()
        self.truth, self.angles = source, itertools.cycle(angles)
        self.number = 0

    def forward(self, fixed, moving):
        batch = self.truth.draw(self.number, len(fixed))
        self.number += 1
        off = torch.tensor([math.radians(next(self.angles)) for _ in range(len(fixed))], dtype=torch.float64)
        zero = torch.zeros_like(off)
        turn = torch.stack(
            (off.cos(), -off.sin(), zero, off.sin(), off.cos(), zero, zero, zero, zero + 1), -1
        ).unflatten(-1, (3, 3))
        rotation = turn @ batch.rotation
        shift = batch.translation + torch.tensor([0.003, 0, 0])
        return torch.cat((shift, rotation.transpose(-1, -2).flatten(-2)), 1)

    def both_directions(self, fixed, moving):
        raise NotImplementedError


def test_figures_of_validation_by_hand():
    found = validate(Knowing(Pairs(), [1.0, 2.0, 30.0, 14.9, 0.1]), Pairs(), 5, 5)
    assert found.re_mean_deg == pytest.approx(9.6, rel=1e-6)
    assert found.re_median_deg == pytest.approx(2.0, rel=1e-6)
    assert found.te_mean_um == pytest.approx(3.0, rel=1e-6)
    assert found.te_median_um == pytest.approx(3.0, rel=1e-6)
    assert found.beyond == pytest.approx(0.2)
    assert found.pairs == 5
    assert str(found) == "RE 2.00 deg (mean 9.60), TE 3 um (mean 3), 20.0 % beyond 15 deg, 5 pairs"


def test_validation_can_be_called_off():
    asked = iter([False, True])
    assert validate(Small(), Pairs(), 6, 2, cancelled=lambda: next(asked)) is None
