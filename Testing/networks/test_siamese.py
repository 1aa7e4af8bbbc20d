"""The networks of Table 1 against values worked out another way: loops in float64 for blocks, the table for sizes."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from DNetRegistrationLib.networks.global_net import GlobalDown
from DNetRegistrationLib.networks.layers import NonLocalLink
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.regression import split_parameters
from DNetRegistrationLib.networks.siamese import Decoder, ResDown, ResUp, Sum
from loops import array, loop_conv, loop_link, loop_norm, loop_pool, randomized, relu

SIAMESE = ("se", "sed", "snl-sed", "dnet")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


def cubes(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 1, 64, 64, 64, generator=generator) for _ in range(2)]


# ---- blocks ----


def test_global_down_by_loops():
    block = randomized(GlobalDown(2, 8, 7))
    features = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    entered = relu(loop_norm(loop_conv(features[0].numpy(), array(block.enter.weight)), block.enter_norm))
    residual = relu(loop_norm(loop_conv(entered, array(block.first.weight)), block.first_norm))
    residual = loop_norm(loop_conv(residual, array(block.second.weight)), block.second_norm)
    result = block(features)[0].detach().numpy()
    np.testing.assert_allclose(result, loop_pool(relu(residual + entered)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 16), (16, 16)])
def test_res_down_by_loops(inputs, outputs):
    block = randomized(ResDown(inputs, outputs))
    features = torch.randn(2, inputs, 4, 4, 4, dtype=torch.float64)
    result = block(features.clone()).detach().numpy()
    for sample, value in zip(features.numpy(), result, strict=True):
        residual = relu(loop_norm(loop_conv(sample, array(block.first.weight)), block.first_norm))
        residual = loop_norm(loop_conv(residual, array(block.second.weight)), block.second_norm)
        shortcut = sample if inputs == outputs else loop_conv(sample, array(block.shortcut.weight))
        np.testing.assert_allclose(value, loop_pool(relu(residual + shortcut)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mutual", [True, False])
def test_linked_res_down_by_loops(mutual):
    block = randomized(ResDown(3, 8, NonLocalLink(8, mutual)))
    features = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64)
    result = block(features.clone()).detach().numpy()
    inner = [relu(loop_norm(loop_conv(f, array(block.first.weight)), block.first_norm)) for f in features.numpy()]
    for branch in range(2):
        partner = inner[1 - branch] if mutual else inner[branch]
        residual = loop_norm(loop_link(inner[branch], partner, array(block.second.embed.weight)), block.second_norm)
        shortcut = loop_conv(features[branch].numpy(), array(block.shortcut.weight))
        np.testing.assert_allclose(result[branch], loop_pool(relu(residual + shortcut)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("outputs", [16, 8])
def test_res_up_by_loops(outputs):
    block = randomized(ResUp(16, outputs))
    features = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64)
    sample = features[0].numpy()
    residual = relu(loop_norm(loop_conv(sample, array(block.narrow.weight)), block.narrow_norm))
    residual = relu(loop_norm(loop_conv(residual, array(block.middle.weight)), block.middle_norm))
    residual = loop_norm(loop_conv(residual, array(block.widen.weight)), block.widen_norm)
    shortcut = sample if outputs == 16 else loop_conv(sample, array(block.shortcut.weight))
    result = block(features.clone())[0].detach().numpy()
    np.testing.assert_allclose(result, relu(residual + shortcut), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("part", [Decoder, Sum])
def test_skips_meet_at_their_own_size(part):
    part = part()
    if hasattr(part, "blocks"):
        part.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in part.blocks)
    skips = [torch.rand(2, 3, n, n, n) for n in (8, 4, 2, 1)]
    expected = np.zeros((2, 3, 8, 8, 8), dtype=np.float32)
    for skip in skips:
        for z, y, x in itertools.product(range(8), repeat=3):
            n = skip.shape[-1]
            expected[:, :, z, y, x] += skip[:, :, z * n // 8, y * n // 8, x * n // 8].numpy()
    np.testing.assert_allclose(part(skips).numpy(), expected, rtol=1e-6)


# ---- the five networks ----


@pytest.mark.parametrize(
    ("name", "count", "table_1"),
    [
        ("me", 690_828, 0.7e6),
        ("se", 9_272_332, 9.2e6),
        ("sed", 5_273_164, 5.2e6),
        ("snl-sed", 4_847_180, 4.9e6),
        ("dnet", 4_847_180, 4.9e6),
    ],
)
def test_parameter_counts(name, count, table_1):
    found = sum(p.numel() for p in build(name).parameters() if p.requires_grad)
    assert found == count
    assert abs(found / table_1 - 1) < 0.05
    assert build(name).name == name


def test_feature_sizes_and_where_the_links_stand():
    network = build("dnet")
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, (NonLocalLink, ResDown, ResUp)):
            module.register_forward_hook(lambda m, x, y, name=name: seen.update({name: (x[0].shape[1:], y.shape[1:])}))
    with torch.no_grad():
        network(*cubes())
    edges, channels = (64, 32, 16, 8, 4, 2, 1), (1, 16, 32, 64, 64, 64, 64)
    for i in range(6):
        before, after = seen[f"encoder.blocks.{i}"]
        assert before == (channels[i], *[edges[i]] * 3)
        assert after == (channels[i + 1], *[edges[i + 1]] * 3)
    links = {name: shapes for name, shapes in seen.items() if name.endswith("second")}
    assert {name: shapes[0] for name, shapes in links.items()} == {
        f"encoder.blocks.{i}.second": (64, edges[i], edges[i], edges[i]) for i in range(2, 6)
    }
    assert [seen[f"decoder.blocks.{i}"][1] for i in range(4)] == [
        (64, 1, 1, 1), (64, 2, 2, 2), (64, 4, 4, 4), (32, 8, 8, 8)
    ]  # fmt: skip


@functools.cache
def network_and_features(name):
    torch.manual_seed(7)
    network = build(name).eval()
    with torch.no_grad():
        return network, network.features(*cubes())


@pytest.mark.parametrize("name", SIAMESE)
def test_swapping_the_inputs_swaps_the_branches(name):
    network, (first, second) = network_and_features(name)
    fixed, moving = cubes()
    with torch.no_grad():
        swapped_first, swapped_second = network.features(moving, fixed)
    torch.testing.assert_close(swapped_first, second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(swapped_second, first, rtol=1e-4, atol=1e-5)
    assert (first - second).abs().max() > 1e-2  # the two are told apart at all


@pytest.mark.parametrize(("name", "depends"), [("se", False), ("sed", False), ("snl-sed", False), ("dnet", True)])
def test_only_mutual_links_look_at_the_other_branch(name, depends):
    network, (first, _) = network_and_features(name)
    fixed, _ = cubes()
    other, _ = cubes(seed=1)
    with torch.no_grad():
        difference = (network.features(fixed, other.roll(9, -1) ** 3)[0] - first).abs().max()
    assert difference > 1e-3 if depends else difference < 1e-5


@pytest.mark.parametrize("name", ["sed", "dnet", "me"])
def test_both_directions_and_batches(name):
    network = build(name).eval()
    torch.nn.init.normal_(network.head[-1].weight if name in SIAMESE else network.head.weight)
    fixed, moving = cubes(batch=2)
    with torch.no_grad():
        there, back = network.both_directions(fixed, moving)
        assert there.shape == back.shape == (2, 12)
        # One pair at a time: the other pair of the batch does not matter.
        torch.testing.assert_close(there[:1], network(fixed[:1], moving[:1]), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(back[1:], network(moving[1:], fixed[1:]), rtol=1e-4, atol=1e-3)
    assert (there - back).abs().max() > 0.1


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("me", "dnet") else pytest.mark.slow) for n in ("me", *SIAMESE)]
)
def test_gradients_reach_every_parameter(name):
    network = build(name)
    network(*cubes()).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


def test_split_parameters():
    translation, rotation = split_parameters(torch.arange(24.0).view(2, 12))
    assert translation.tolist() == [[0, 1, 2], [12, 13, 14]]
    assert rotation[0].tolist() == list(range(3, 12))


def test_untrained_proposes_about_nothing():
    with torch.no_grad():
        output = build("dnet")(*cubes())[0]
    expected = torch.cat((torch.zeros(3), torch.eye(3).flatten()))
    assert (output - expected).abs().max() < 0.5


@pytest.mark.parametrize(("edge", "kept"), [(32, 1), (16, 2)])
def test_smaller_cubes_are_seen_by_first_blocks_that_keep_their_grid(edge, kept):
    network = build("dnet").eval()
    fixed, moving = (torch.rand(1, 1, edge, edge, edge) for _ in range(2))
    outputs = [torch.cat((fixed, moving))]
    with torch.no_grad():
        answer = network(fixed, moving)
        for i, block in enumerate(network.encoder.blocks):
            if i < kept:
                x = outputs[-1]
                residual = block.second_norm(block.second(block.first_norm(block.first(x)).relu()))
                outputs.append((residual + block.shortcut(x)).relu())
            else:
                outputs.append(block(outputs[-1]))
        assert [features.shape[-1] for features in outputs[-4:]] == [8, 4, 2, 1]
        expected = network.head(network.decoder(outputs[-4:]).flatten(1).reshape(1, -1))
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    for other in (64, 8):
        with pytest.raises(ValueError, match="give two tensors"):
            network(torch.rand(1, 1, other, other, other), moving)


# Processors without bfloat16 take a minute.
@pytest.mark.slow
def test_bfloat16_agrees_and_answers_in_float32():
    network = build("dnet").eval()
    pair = cubes()
    with torch.no_grad():
        exact = network(*pair)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(*pair)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.03
    # More digits than bfloat16 has: the last layer kept its precision.
    assert not torch.equal(rounded, rounded.bfloat16().float())


def test_same_result_twice_from_any_memory_layout():
    network = build("dnet").eval()
    fixed, moving = cubes()
    transposed = fixed.transpose(2, 4).contiguous().transpose(2, 4)
    assert not transposed.is_contiguous()
    with torch.no_grad():
        first = network(fixed, moving)
        assert torch.equal(first, network(fixed, moving))
        assert torch.equal(first, network(transposed, moving))


def test_convolutions_run_channels_last():
    """The fast layout, from the cubes on, whose single channel makes it ambiguous.

    On a single thread torch runs convolutions of 1^3 plainly whatever it is given, so their results are not looked at.
    """
    network = build("dnet").eval()
    strides, layouts = [], []
    network.encoder.blocks[0].register_forward_pre_hook(lambda module, inputs: strides.append(inputs[0].stride()))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and module.kernel_size == (3, 3, 3):
            module.register_forward_hook(
                lambda m, x, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last_3d))
            )
    with torch.no_grad():
        network(*cubes())
    assert strides == [(64**3, 1, 64**2, 64, 1)]
    assert len(layouts) == 12 and all(layouts)


@pytest.mark.parametrize("name", ["dnet", "me"])
def test_wrong_shapes_are_named(name):
    network = build(name)
    good, _ = cubes()
    for bad in (good[0], good[..., :32], good.expand(2, -1, -1, -1, -1), good.expand(-1, 2, -1, -1, -1)):
        with pytest.raises(ValueError, match=r"give two tensors \(batch, 1, 64, 64, 64\)"):
            network(good, bad)
        with pytest.raises(ValueError, match=r"give two tensors"):
            network.both_directions(bad, good)
