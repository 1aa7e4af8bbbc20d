"""Tokens: where they stand, and that they turn with the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cube_rotations import cube_rotations
from DNetRegistrationLib.geometry.correspondences import distances
from DNetRegistrationLib.imaging.tensors import dilate, gaussian
from DNetRegistrationLib.networks.invariants import count_invariants
from DNetRegistrationLib.networks.keypoints import DESCRIPTOR, SCALES, _jets, find_tokens
from scipy import ndimage

SIZE = 32


def blobs(places, size=SIZE, width=1.6):
    """``(size, size, size)`` image of Gaussian blobs at ``(n, 3)`` (x, y, z) indices."""
    axis = torch.arange(size, dtype=torch.float64)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    image = torch.zeros(size, size, size, dtype=torch.float64)
    for place in torch.as_tensor(places, dtype=torch.float64):
        squared = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
        image += torch.exp(-0.5 * squared / width**2)
    return image.float()


def rough(seed=0, size=SIZE):
    """Something without any symmetry, and empty towards the border."""
    noise = torch.randn(size, size, size, generator=torch.Generator().manual_seed(seed))
    inner = torch.zeros(size, size, size)
    inner[5:-5, 5:-5, 5:-5] = 1
    image = gaussian(gaussian(noise * inner, 1.5), 1.0).clamp(min=0)
    return image / image.max()


def test_the_rotations_of_arrays_are_those_of_points():
    place = torch.tensor([20.0, 11, 7])
    for matrix, turn in cube_rotations():
        expected = blobs(((place - 15.5) @ matrix.T + 15.5)[None])
        torch.testing.assert_close(turn(blobs(place[None])[None])[0], expected, atol=1e-5, rtol=0)


def test_smoothing_against_scipy():
    for shape in ((20, 31, 26), (20, 31, 200)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        expected = ndimage.gaussian_filter(image.numpy(), 1.6, mode="constant", truncate=(int(3 * 1.6 + 0.5)) / 1.6)
        np.testing.assert_allclose(gaussian(image, 1.6).numpy(), expected, atol=1e-5)
        torch.testing.assert_close(gaussian(image[None], 1.6)[0], gaussian(image, 1.6))


@pytest.mark.parametrize("reach", [1, 2])
def test_dilation_against_scipy(reach):
    image = torch.randn(7, 9, 8, generator=torch.Generator().manual_seed(2))
    expected = ndimage.maximum_filter(image.numpy(), 2 * reach + 1, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(dilate(image, reach).numpy(), expected)


def test_jets_of_a_polynomial():
    axis = torch.arange(12, dtype=torch.float64) - 5
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    image = 1 + 2 * x - 3 * y + 0.5 * z + 0.25 * x * x - y * y + 0.75 * z * z + 0.5 * x * y - 2 * x * z + y * z
    place, scale = torch.tensor([[6.0, 4.0, 7.0]], dtype=torch.float64), 1.5
    jets = _jets([image], place, [scale], [2.0])
    px, py, pz = (float(c) - 5 for c in place[0])
    gradient = (2 + 0.5 * px + 0.5 * py - 2 * pz, -3 - 2 * py + 0.5 * px + pz, 0.5 + 1.5 * pz - 2 * px + py)
    hessian = ((0.5, 0.5, -2), (0.5, -2, 1), (-2, 1, 1.5))
    np.testing.assert_allclose(jets.gradients[0, 0], scale * np.array(gradient), atol=1e-9)
    np.testing.assert_allclose(jets.hessians[0, 0], scale**2 * np.array(hessian), atol=1e-9)


def test_blobs_are_found_between_voxels():
    places = torch.tensor([[10.3, 11.8, 9.6], [20.5, 12.1, 21.4], [11.2, 22.7, 20.0]])
    tokens = find_tokens(blobs(places)[None], torch.ones(1, SIZE, SIZE, SIZE), 3)
    found = tokens.positions[0] + (SIZE - 1) / 2
    assert torch.cdist(places, found).min(1).values.max() < 0.1
    assert tokens.descriptors.shape == (1, 3, DESCRIPTOR)
    assert count_invariants(len(SCALES)) < DESCRIPTOR


def test_tokens_turn_with_the_image():
    image, inside = rough()[None], torch.ones(1, SIZE, SIZE, SIZE)
    inside[:, :, :, :9] = 0
    plain = find_tokens(image, inside, 60)
    for matrix, turn in cube_rotations():
        turned = find_tokens(turn(image), turn(inside), 60)
        expected = plain.positions[0] @ matrix.T
        distance, which = distances(expected, turned.positions[0]).min(1)
        assert distance.max() < 2e-3
        torch.testing.assert_close(turned.descriptors[0, which], plain.descriptors[0], atol=2e-3, rtol=0)
        directions = plain.directions[0] @ matrix.T
        torch.testing.assert_close(turned.directions[0, which], directions, atol=2e-3, rtol=0)


def test_nothing_stands_at_the_border_of_what_was_seen():
    image, inside = rough()[None], torch.ones(1, SIZE, SIZE, SIZE)
    inside[:, :, :, :14] = 0
    x = find_tokens(image, inside, 500).positions[0, :, 0] + (SIZE - 1) / 2
    assert len(x) > 20
    assert x.min() > 13.5
    # And what lies beyond it changes nothing.
    other = image.clone()
    other[:, :, :, :14] += 5
    seen, known = find_tokens(other, inside, 500), find_tokens(image, inside, 500)
    torch.testing.assert_close(seen.positions, known.positions)
    torch.testing.assert_close(seen.descriptors, known.descriptors)


def test_fewer_than_asked_and_none():
    images = torch.stack((rough(), blobs([[15, 15, 15]]), torch.zeros(SIZE, SIZE, SIZE)))
    tokens = find_tokens(images, torch.ones(3, SIZE, SIZE, SIZE), 40)
    assert tokens.valid.sum(1).tolist()[0] == 40
    assert 1 <= tokens.valid.sum(1).tolist()[1] < 40
    assert tokens.valid.sum(1).tolist()[2] == 0
    assert not tokens.positions[~tokens.valid].any()


def test_the_same_tokens_alone_and_in_a_batch():
    images, inside = torch.stack((rough(1), rough(2))), torch.ones(2, SIZE, SIZE, SIZE)
    both, second = find_tokens(images, inside, 50), find_tokens(images[1:], inside[1:], 50)
    torch.testing.assert_close(both.positions[1], second.positions[0], atol=1e-4, rtol=0)
