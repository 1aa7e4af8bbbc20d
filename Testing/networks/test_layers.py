"""Layers against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.networks.layers import Convolution, NonLocalLink, Norm
from loops import array, loop_link, randomized
from torch.nn.attention import SDPBackend, sdpa_kernel


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(7)


@pytest.mark.parametrize("mutual", [True, False])
def test_link_is_equations_2_to_4(mutual):
    link = randomized(NonLocalLink(5, mutual))
    features = torch.randn(6, 5, 2, 3, 2, dtype=torch.float64)  # three pairs: fixed 0-2, moving 3-5
    result = link(features).detach().numpy()
    for sample in range(6):
        partner = (sample + 3) % 6 if mutual else sample
        expected = loop_link(features[sample].numpy(), features[partner].numpy(), array(link.embed.weight))
        np.testing.assert_allclose(result[sample], expected, rtol=1e-10, atol=1e-12)


def test_attention_runs_in_the_fused_kernel():
    link = NonLocalLink(64, mutual=True)
    features = torch.rand(2, 64, 4, 4, 4, requires_grad=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where the inputs would need another kernel
        link(features).sum().backward()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        plain = link(features)
    torch.testing.assert_close(link(features), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("edge", (1, 2, 4, 8))
def test_bfloat16_gradients_agree(edge):
    """On grids of 2^3 those of a plain convolution came out wrong, now and then infinite."""
    torch.manual_seed(edge)
    convolution = Convolution(64, 64, 3).to(memory_format=torch.channels_last_3d)
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
    norm = Norm(channels)
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


def test_a_link_that_samples_averages_over_the_voxels_drawn():
    link, features = NonLocalLink(4, mutual=True).double(), torch.rand(2, 4, 3, 2, 2, dtype=torch.float64)
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
    norm = Norm(16)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    features = torch.randn(2, 16, 6, 6, 6, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        given = norm._in_precision_of(features.bfloat16())
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
