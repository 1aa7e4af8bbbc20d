"""Layers worked out by plain loops over one sample (channels, z, y, x), to compare with."""

from __future__ import annotations

import math

import numpy as np
import torch


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


def randomized(module):
    """In float64, with every parameter random, norms included."""
    for parameter in module.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module
