"""The networks against values worked out another way: loops in float64 for the blocks, Table 1 for the sizes."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from DNetRegistrationLib.networks import siamese as networks
from torch.nn.attention import SDPBackend, sdpa_kernel

SIAMESE = ("se", "sed", "snl-sed", "dnet")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


def cubes(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, 1, 64, 64, 64, generator=generator) for _ in range(2)]


def randomized(module):
    """In float64, with every parameter random, norms included."""
    for parameter in module.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


# ---- references: plain loops over one sample (channels, z, y, x) ----


def loop_conv(features, weight):
    pad = weight.shape[-1] // 2
    padded = np.pad(features, ((0, 0), (pad, pad), (pad, pad), (pad, pad)))
    result = np.zeros((len(weight), *features.shape[1:]))
    for out in range(len(weight)):
        for z, y, x in np.ndindex(*features.shape[1:]):
            k = weight.shape[-1]
            result[out, z, y, x] = (padded[:, z : z + k, y : y + k, x : x + k] * weight[out]).sum()
    return result


def loop_norm(features, norm):
    result = np.empty_like(features)
    scale, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    for group in np.split(np.arange(len(features)), 8):
        mean = features[group].sum() / features[group].size
        variance = ((features[group] - mean) ** 2).sum() / features[group].size
        for channel in group:
            result[channel] = (features[channel] - mean) / math.sqrt(variance + 1e-5) * scale[channel] + shift[channel]
    return result


def loop_pool(features):
    result = np.empty((len(features), *(n // 2 for n in features.shape[1:])))
    for c, z, y, x in np.ndindex(*result.shape):
        result[c, z, y, x] = features[c, 2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()
    return result


def loop_link(own, partner, weight):
    """One line of Eq. 2, with phi and psi of Eq. 3-4, by an explicit double loop over voxels."""
    channels = len(own)
    x_own, x_partner = own.reshape(channels, -1).T, partner.reshape(channels, -1).T
    result = np.empty_like(x_own)
    for k, x_k in enumerate(x_own):
        numerator, denominator = np.zeros(channels), 0.0
        for x_j in x_partner:
            phi = math.exp(np.dot(weight @ x_k, weight @ x_j))
            numerator += phi * (weight @ x_j)
            denominator += phi
        result[k] = numerator / denominator
    return result.T.reshape(own.shape)


def relu(features):
    return np.maximum(features, 0)


def array(parameter):
    return parameter.detach().numpy()


# ---- blocks ----


@pytest.mark.parametrize("mutual", [True, False])
def test_link_is_equations_2_to_4(mutual):
    link = randomized(networks.NonLocalLink(5, mutual))
    features = torch.randn(6, 5, 2, 3, 2, dtype=torch.float64)  # three pairs: fixed 0-2, moving 3-5
    result = link(features).detach().numpy()
    for sample in range(6):
        partner = (sample + 3) % 6 if mutual else sample
        expected = loop_link(features[sample].numpy(), features[partner].numpy(), array(link.embed.weight))
        np.testing.assert_allclose(result[sample], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 16), (16, 16)])
def test_res_down_by_loops(inputs, outputs):
    block = randomized(networks.ResDown(inputs, outputs))
    features = torch.randn(2, inputs, 4, 4, 4, dtype=torch.float64)
    result = block(features.clone()).detach().numpy()
    for sample, value in zip(features.numpy(), result, strict=True):
        residual = relu(loop_norm(loop_conv(sample, array(block.first.weight)), block.first_norm))
        residual = loop_norm(loop_conv(residual, array(block.second.weight)), block.second_norm)
        shortcut = sample if inputs == outputs else loop_conv(sample, array(block.shortcut.weight))
        np.testing.assert_allclose(value, loop_pool(relu(residual + shortcut)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mutual", [True, False])
def test_linked_res_down_by_loops(mutual):
    block = randomized(networks.ResDown(3, 8, networks.NonLocalLink(8, mutual)))
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
    block = randomized(networks.ResUp(16, outputs))
    features = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64)
    sample = features[0].numpy()
    residual = relu(loop_norm(loop_conv(sample, array(block.narrow.weight)), block.narrow_norm))
    residual = relu(loop_norm(loop_conv(residual, array(block.middle.weight)), block.middle_norm))
    residual = loop_norm(loop_conv(residual, array(block.widen.weight)), block.widen_norm)
    shortcut = sample if outputs == 16 else loop_conv(sample, array(block.shortcut.weight))
    result = block(features.clone())[0].detach().numpy()
    np.testing.assert_allclose(result, relu(residual + shortcut), rtol=1e-9, atol=1e-11)


def test_global_down_by_loops():
    block = randomized(networks.GlobalDown(2, 8, 7))
    features = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    entered = relu(loop_norm(loop_conv(features[0].numpy(), array(block.enter.weight)), block.enter_norm))
    residual = relu(loop_norm(loop_conv(entered, array(block.first.weight)), block.first_norm))
    residual = loop_norm(loop_conv(residual, array(block.second.weight)), block.second_norm)
    result = block(features)[0].detach().numpy()
    np.testing.assert_allclose(result, loop_pool(relu(residual + entered)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("part", [networks.Decoder, networks.Sum])
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
    found = sum(p.numel() for p in networks.build(name).parameters() if p.requires_grad)
    assert found == count
    assert abs(found / table_1 - 1) < 0.05
    assert networks.build(name).name == name


def test_feature_sizes_and_where_the_links_stand():
    network = networks.build("dnet")
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, (networks.NonLocalLink, networks.ResDown, networks.ResUp)):
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
    network = networks.build(name).eval()
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
    network = networks.build(name).eval()
    torch.nn.init.normal_(network.head[-1].weight if name in SIAMESE else network.head.weight)
    fixed, moving = cubes(batch=2)
    with torch.no_grad():
        there, back = network.both_directions(fixed, moving)
        assert there.shape == back.shape == (2, 12)
        # One pair at a time: the other pair of the batch does not matter.
        torch.testing.assert_close(there[:1], network(fixed[:1], moving[:1]), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(back[1:], network(moving[1:], fixed[1:]), rtol=1e-4, atol=1e-3)
    assert (there - back).abs().max() > 0.1


@pytest.mark.parametrize("name", [name for name in networks.NETWORKS if name != "equivariant"])
def test_gradients_reach_every_parameter(name):
    network = networks.build(name)
    network(*cubes()).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


def test_attention_runs_in_the_fused_kernel():
    link = networks.NonLocalLink(64, mutual=True)
    features = torch.rand(2, 64, 4, 4, 4, requires_grad=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where the inputs would need another kernel
        link(features).sum().backward()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        plain = link(features)
    torch.testing.assert_close(link(features), plain, rtol=1e-4, atol=1e-5)


def test_split_parameters():
    translation, rotation = networks.split_parameters(torch.arange(24.0).view(2, 12))
    assert translation.tolist() == [[0, 1, 2], [12, 13, 14]]
    assert rotation[0].tolist() == list(range(3, 12))


def test_untrained_proposes_about_nothing():
    with torch.no_grad():
        output = networks.build("dnet")(*cubes())[0]
    expected = torch.cat((torch.zeros(3), torch.eye(3).flatten()))
    assert (output - expected).abs().max() < 0.5


@pytest.mark.parametrize("edge", (1, 2, 4, 8))
def test_bfloat16_gradients_agree(edge):
    """On grids of 2^3 those of a plain convolution came out wrong, now and then infinite."""
    torch.manual_seed(edge)
    convolution = networks.Convolution(64, 64, 3).to(memory_format=torch.channels_last_3d)
    features = torch.randn(4, 64, edge, edge, edge).contiguous(memory_format=torch.channels_last_3d)
    weights = torch.randn_like(features)
    gradients = []
    for enabled in (False, True):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            (convolution(features).float() * weights).sum().backward()
        gradients.append(convolution.weight.grad.clone())
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "edges"), [(16, (19, 32, 32)), (32, (5, 7, 9)), (64, (1, 1, 1)), (8, (3, 2, 2))])
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_gradients_of_norms(dtype, channels, edges, layout):
    """Against autograd through the definition, in float64; the first of the sizes takes several chunks."""
    norm = networks.Norm(channels)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    # Far from zero mean, and of different size in each group.
    features = torch.randn(2, channels, *edges) * torch.linspace(0.1, 3, channels).view(-1, 1, 1, 1) + 2
    features = features.to(dtype).contiguous(memory_format=layout).requires_grad_()
    upstream = torch.randn_like(features)
    normed = norm(features)
    normed.backward(upstream)
    exact = features.detach().double().requires_grad_()
    weight, bias = (p.detach().double().requires_grad_() for p in norm.parameters())
    groups = exact.reshape(2, 8, -1)
    unit = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    shape = (1, channels, 1, 1, 1)
    expected = unit.reshape(exact.shape) * weight.view(shape) + bias.view(shape)
    expected.backward(upstream.double())
    rounding = 2**-7 if dtype == torch.bfloat16 else 2e-4  # of torch's sums, where a group lies far from zero
    for found, true in zip((normed, features.grad), (expected, exact.grad), strict=True):
        assert found.dtype == dtype
        assert (found - true).abs().max() <= rounding * true.abs().max()
    for found, true in zip((p.grad for p in norm.parameters()), (weight.grad, bias.grad), strict=True):
        assert (found - true).abs().max() <= 1e-3 * true.abs().max()


@pytest.mark.parametrize(("edge", "kept"), [(32, 1), (16, 2)])
def test_smaller_cubes_are_seen_by_first_blocks_that_keep_their_grid(edge, kept):
    network = networks.build("dnet").eval()
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


def test_a_link_that_samples_averages_over_the_voxels_drawn():
    link, features = networks.NonLocalLink(4, mutual=True).double(), torch.rand(2, 4, 3, 2, 2, dtype=torch.float64)
    link.sampled = 5
    torch.manual_seed(3)
    drawn = torch.randperm(12)[:5]
    torch.manual_seed(3)
    with torch.no_grad():
        sampled, whole = link(features), link.eval()(features)
    weight = link.embed.weight.detach().numpy()
    own, partner = (side.reshape(4, 12).numpy() for side in features)
    expected = loop_link(own, partner[:, drawn], weight)
    assert np.allclose(sampled[0].reshape(4, 12), expected, atol=1e-12)
    assert np.allclose(whole[0].reshape(4, 12), loop_link(own, partner, weight), atol=1e-12)
    link.train().sampled = 12  # no more than there are
    with torch.no_grad():
        assert torch.allclose(link(features), whole)


def test_norms_stay_in_the_precision_of_features_on_a_gpu():
    """What a GPU runs, worked out here: bfloat16 in and out, weights and their gradients in float32."""
    generator = torch.Generator().manual_seed(3)
    norm = networks.Norm(16)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    features = torch.randn(2, 16, 6, 6, 6, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        given = norm.as_given(features.bfloat16())
    assert given.dtype == torch.bfloat16
    given.float().square().sum().backward()
    gradients = [norm.weight.grad.clone(), norm.bias.grad.clone()]
    norm.zero_grad()
    # By hand: zero mean and unit variance over each of 8 groups of 2 channels.
    groups = features.bfloat16().double().reshape(2, 8, -1)
    normed = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    shape = (1, 16, 1, 1, 1)
    expected = normed.reshape(features.shape) * norm.weight.double().view(shape) + norm.bias.double().view(shape)
    assert (given - expected).abs().max() < 2**-7 * expected.abs().max()
    expected.square().sum().backward()
    for found, parameter in zip(gradients, norm.parameters(), strict=True):
        assert found.dtype == torch.float32
        assert (found - parameter.grad).norm() < 0.02 * parameter.grad.norm()


def test_bfloat16_agrees_and_answers_in_float32():
    network = networks.build("dnet").eval()
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
    network = networks.build("dnet").eval()
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
    network = networks.build("dnet").eval()
    strides, layouts = [], []
    network.encoder.register_forward_pre_hook(lambda module, inputs: strides.append(inputs[0].stride()))
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
    network = networks.build(name)
    good, _ = cubes()
    for bad in (good[0], good[..., :32], good.expand(2, -1, -1, -1, -1), good.expand(-1, 2, -1, -1, -1)):
        with pytest.raises(ValueError, match=r"give two tensors \(batch, 1, 64, 64, 64\)"):
            network(good, bad)
        with pytest.raises(ValueError, match=r"give two tensors"):
            network.both_directions(bad, good)


def test_unknown_name():
    with pytest.raises(ValueError, match="no network 'resnet'; choose one of se, sed, snl-sed, dnet, me"):
        networks.build("resnet")
