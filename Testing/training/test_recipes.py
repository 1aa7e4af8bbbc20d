"""Recipes: the paper's numbers, and what follows from the number of the iteration."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.networks import registry
from DNetRegistrationLib.training import recipes
from DNetRegistrationLib.training.losses import LOSSES
from DNetRegistrationLib.training.recipes import NETWORKS, RECIPES, recipe_for
from DNetRegistrationLib.training.session import TrainingOptions
from training_stand_ins import QUICK


def test_the_paper_is_followed():
    paper = recipe_for("paper", "dnet")
    assert (paper.optimizer, paper.learning_rate, paper.iterations) == ("sgd", 1e-4, 120_000)
    assert (paper.loss, paper.rotations, paper.placement) == ("paper", "axis-angle", "center")
    assert (paper.grad_clip, paper.ema_decay, paper.weight_decay, paper.cut_share) == (0, 0, 0, 0)
    assert {paper.learning_rate_at(i) for i in (0, 1, 50_000, 119_999)} == {1e-4}
    assert {paper.largest_angle_at(i) for i in (0, 119_999)} == {math.pi}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", RECIPES)
def test_each_network_has_its_recipe(name, network):
    if (name, network) == ("paper", "equivariant"):
        with pytest.raises(OptionError, match="take 'fast'"):
            recipe_for(name, network)
        return
    recipe = recipe_for(name, network)
    assert recipe.name == name
    assert recipe.loss in (("matching",) if network == "equivariant" else tuple(LOSSES))
    assert recipe.in_micro_batches(1, 16).micro_batch in (8, 16)


def test_networks_are_those_that_can_be_built():
    assert set(registry.NETWORKS) == set(NETWORKS)
    for name in NETWORKS:
        assert registry.build(name).name == name


def test_unknown_names():
    with pytest.raises(OptionError, match="slow"):
        recipe_for("slow", "dnet")
    with pytest.raises(OptionError, match="resnet"):
        recipe_for("fast", "resnet")


def test_learning_rate_rises_and_falls():
    recipe = replace(QUICK, iterations=100, warmup=0.1, learning_rate=2.0)
    assert [recipe.learning_rate_at(i) for i in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert recipe.learning_rate_at(55) == pytest.approx(1.0)  # half way down
    assert 0 < recipe.learning_rate_at(99) < 1e-2
    rates = [recipe.learning_rate_at(i) for i in range(10, 100)]
    assert rates == sorted(rates, reverse=True)
    assert replace(recipe, warmup=0.0).learning_rate_at(0) == 2.0
    assert replace(recipe, decay="none").learning_rate_at(99) == 2.0
    linear = replace(recipe, decay="linear")
    assert [linear.learning_rate_at(i) for i in (0, 9, 50, 99)] == pytest.approx([0.2, 1.82, 1.0, 0.02])
    stages = replace(linear, pose_pretraining=0.5)  # rises in both, each time to what is left
    assert [stages.learning_rate_at(i) for i in (0, 4, 49, 50, 54)] == pytest.approx([0.4, 1.92, 1.02, 0.2, 0.92])


def test_a_stage_begins_where_cubes_or_aim_change():
    recipe = replace(QUICK, iterations=101, resolution_schedule=(0.2, 0.4, 0.8), pose_pretraining=0.5)
    began = [i for i in range(101) if recipe.stage_at(i) == i]
    assert began == [0, 21, 41, recipe.pose_iterations, 81]
    for i in range(1, 101):
        same = recipe.reduction_at(i) == recipe.reduction_at(i - 1) and i != recipe.pose_iterations
        assert (recipe.stage_at(i) == recipe.stage_at(i - 1)) == same
    assert replace(recipe, resolution_schedule=(0.0, 0.0, 0.0), pose_pretraining=0.0).stage_at(100) == 0


@pytest.mark.parametrize("shares", [(0.2, 0.4, 0.8), (0.0, 0.0, 0.0), (0.333, 0.333, 1.0), (0.0, 0.1, 0.1)])
@pytest.mark.parametrize("iteration", [0, 1, 20, 34, 57, 100, 101])
def test_iterations_that_are_left_at_each_resolution(shares, iteration):
    recipe = replace(QUICK, iterations=101, resolution_schedule=shares)
    counted = Counter(recipe.reduction_at(i) for i in range(iteration, 101))
    assert recipe.reductions_from(iteration) == {reduction: counted[reduction] for reduction in (8, 4, 2, 1)}


def test_stages():
    plain = replace(QUICK, initial_angle=180.0, angle_curriculum=0.0)
    assert not plain.in_stages
    for change in (
        {"initial_angle": 90.0, "angle_curriculum": 0.5},
        {"pose_pretraining": 0.5},
        {"resolution_schedule": (0.0, 0.0, 0.5)},
    ):
        assert replace(plain, **change).in_stages


def test_range_of_rotations_widens():
    recipe = replace(QUICK, iterations=100, initial_angle=30.0, angle_curriculum=0.5)
    angles = [math.degrees(recipe.largest_angle_at(i)) for i in (0, 25, 50, 99)]
    assert angles == pytest.approx([30, 105, 180, 180])
    assert recipe.largest_angle_at(50) == math.pi


def test_learning_rate_of_two_stages():
    """It rises in both, and falls in the second alone."""
    recipe = replace(QUICK, iterations=300, pose_pretraining=2 / 3, warmup=0.1, learning_rate=2.0)
    assert recipe.pose_iterations == 200
    assert [recipe.learning_rate_at(i) for i in (0, 9, 19, 20, 199)] == pytest.approx([0.1, 1.0, 2.0, 2.0, 2.0])
    assert [recipe.learning_rate_at(i) for i in (200, 204, 209, 210)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert recipe.learning_rate_at(255) == pytest.approx(1.0)
    assert 0 < recipe.learning_rate_at(299) < 1e-2


def test_coarse_comes_first():
    recipe = replace(QUICK, iterations=100, resolution_schedule=(0.3, 0.5, 0.7))
    assert [recipe.reduction_at(i) for i in (0, 29, 30, 49, 50, 69, 70, 99)] == [8, 8, 4, 4, 2, 2, 1, 1]
    assert replace(recipe, resolution_schedule=(0.0, 0.5, 0.7)).reduction_at(0) == 4
    assert replace(recipe, resolution_schedule=(0.0, 0.0, 0.7)).reduction_at(0) == 2
    assert replace(recipe, resolution_schedule=(0.8, 0.8, 0.8)).reduction_at(79) == 8
    assert QUICK.reduction_at(0) == 1
    assert recipe_for("fast", "dnet").reduction_at(0) == 8
    assert {recipe_for(*names).reduction_at(0) for names in (("paper", "dnet"), ("fast", "me"))} == {1}


@pytest.mark.parametrize(
    "change",
    [
        {"resolution_schedule": (0.1, 0.2)},
        {"resolution_schedule": 0.5},
        {"kinds": "tibia"},
        {"kinds": ()},
        {"kinds": ["tibia", "skull"]},
        {"iterations": None},
        {"learning_rate": math.nan},
        {"optimizer": None},
    ],
)
def test_a_value_that_no_field_takes(change):
    (name,) = change
    with pytest.raises(OptionError, match=f"{name} .* (give|choose)"):
        replace(QUICK, **change)
    with pytest.raises(OptionError, match=f"{name} .* (give|choose)"):
        TrainingOptions("dnet", "folder", changes=change).decided_recipe()


def test_micro_batches():
    recipe = replace(QUICK, batch=24, micro_batch=None)
    assert [recipe.in_micro_batches(1, room).micro_batch for room in (1, 7, 8, 100)] == [1, 6, 8, 24]
    assert recipe.in_micro_batches(2, 100).micro_batch == 12
    assert replace(recipe, micro_batch=4).in_micro_batches(3, 1).micro_batch == 4
    with pytest.raises(OptionError, match="5 processes cannot share a batch of 24"):
        recipe.in_micro_batches(5, 8)
    with pytest.raises(OptionError, match="micro-batches of 16"):
        replace(recipe, micro_batch=16).in_micro_batches(1, 8)


def test_needs_no_torch():
    assert not hasattr(recipes, "torch")
