"""Muon beside an independent computation: the orthogonal factor from a singular value decomposition."""

import copy
import math

import pytest
import torch
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.training.optimizers import MuonWithAdamW, adamw
from torch import nn

if not hasattr(torch.optim, "Muon"):
    pytest.skip("torch has Muon from 2.9 on", allow_module_level=True)

RATE = 0.02


def small() -> nn.Module:
    torch.manual_seed(3)
    network = nn.ModuleDict(
        {
            "first": nn.Conv3d(1, 4, 3, bias=False),
            "second": nn.Conv3d(4, 6, 3),
            "link": nn.Linear(6, 6, bias=False),
            "head": nn.Linear(6, 12),
        }
    )
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    return network


def test_a_step_goes_along_the_nearest_orthogonal_matrix():
    network = small()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    MuonWithAdamW(network, ("head",), RATE, 0.0).step()
    for name in ("second.weight", "link.weight"):
        weight = network.get_parameter(name)
        step = (before[name] - weight.detach()).flatten(1)
        left, _, right = torch.linalg.svd(weight.grad.flatten(1).double(), full_matrices=False)
        expected = (left @ right).float() * RATE * 0.2 * math.sqrt(max(step.shape))
        # The iteration leaves singular values within about 0.7 and 1.2 of one.
        assert torch.nn.functional.cosine_similarity(step.flatten(), expected.flatten(), dim=0) > 0.97
        assert step.norm() == pytest.approx(expected.norm().item(), rel=0.3)


def test_the_rest_is_stepped_by_adamw():
    network, plain = small(), small()
    MuonWithAdamW(network, ("head",), RATE, 0.1).step()
    adamw(list(plain.parameters()), RATE, 0.1).step()
    for name in ("first.weight", "second.bias", "head.weight", "head.bias"):
        assert torch.equal(network.get_parameter(name), plain.get_parameter(name)), name
    for name in ("second.weight", "link.weight"):
        assert not torch.equal(network.get_parameter(name), plain.get_parameter(name)), name


def test_steps_are_as_large_as_those_of_adamw():
    network = nn.ModuleDict({"conv": nn.Conv3d(64, 64, 3, bias=False)})
    before = network["conv"].weight.detach().clone()
    network["conv"].weight.grad = torch.randn_like(before)
    MuonWithAdamW(network, (), RATE, 0.0).step()
    # Liu et al.: a root mean square of 0.2 of the learning rate.
    step = (network["conv"].weight - before).detach()
    assert step.square().mean().sqrt().item() == pytest.approx(0.2 * RATE, rel=0.3)


def test_all_of_dnet_is_stepped_once():
    network = build("dnet")
    optimizer = MuonWithAdamW(network, ("head",), RATE, 0.01)
    stepped = sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])
    assert stepped == sum(weight.numel() for weight in network.parameters())
    before = [weight.detach().clone() for weight in network.parameters()]
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    strides = [weight.stride() for weight in network.parameters()]
    optimizer.step()
    assert not any(torch.equal(was, weight) for was, weight in zip(before, network.parameters(), strict=True))
    assert strides == [weight.stride() for weight in network.parameters()]
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in network.parameters())


def test_learning_rate_is_set_for_both():
    network = small()
    before = [weight.detach().clone() for weight in network.parameters()]
    optimizer = MuonWithAdamW(network, ("head",), RATE, 0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(was, weight) for was, weight in zip(before, network.parameters(), strict=True))


def test_weights_set_from_outside_are_stepped_from_there():
    network = small()
    optimizer = MuonWithAdamW(network, ("head",), RATE, 0.0)
    with torch.no_grad():
        network["link"].weight.fill_(100.0)
    optimizer.step()
    assert (network["link"].weight > 90).all()


def test_it_goes_on_from_its_state_to_the_same_bits():
    one, other = small(), small()
    first = MuonWithAdamW(one, ("head",), RATE, 0.1)
    first.step()
    second = MuonWithAdamW(other, ("head",), RATE, 0.1)
    other.load_state_dict(one.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for one_weight, other_weight in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(one_weight.grad, other_weight.grad)
    first.step()
    second.step()
    for was, is_now in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(was, is_now)
