"""Keypoints: where they stand, and that they turn with the image; invariants: what a mirror image reverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cube_rotations import cube_rotations
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.geometry.correspondences import distances
from DNetRegistrationLib.imaging.tensors import gaussian
from DNetRegistrationLib.networks.keypoints import (
    DESCRIPTOR,
    SCALES,
    Jets,
    _jets,
    count_invariants,
    find_keypoints,
    invariants,
)

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
    keypoints = find_keypoints(blobs(places)[None], torch.ones(1, SIZE, SIZE, SIZE), 3)
    found = keypoints.positions[0] + (SIZE - 1) / 2
    assert torch.cdist(places, found).min(1).values.max() < 0.1
    assert keypoints.descriptors.shape == (1, 3, DESCRIPTOR)
    assert count_invariants(len(SCALES)) < DESCRIPTOR


def test_keypoints_turn_with_the_image():
    image, inside = rough()[None], torch.ones(1, SIZE, SIZE, SIZE)
    inside[:, :, :, :9] = 0
    plain = find_keypoints(image, inside, 60)
    for matrix, turn in cube_rotations():
        turned = find_keypoints(turn(image), turn(inside), 60)
        expected = plain.positions[0] @ matrix.T
        distance, which = distances(expected, turned.positions[0]).min(1)
        assert distance.max() < 2e-3
        torch.testing.assert_close(turned.descriptors[0, which], plain.descriptors[0], atol=2e-3, rtol=0)
        directions = plain.directions[0] @ matrix.T
        torch.testing.assert_close(turned.directions[0, which], directions, atol=2e-3, rtol=0)


def test_nothing_stands_at_the_border_of_what_was_seen():
    image, inside = rough()[None], torch.ones(1, SIZE, SIZE, SIZE)
    inside[:, :, :, :14] = 0
    x = find_keypoints(image, inside, 500).positions[0, :, 0] + (SIZE - 1) / 2
    assert len(x) > 20
    assert x.min() > 13.5
    # And what lies beyond it changes nothing.
    other = image.clone()
    other[:, :, :, :14] += 5
    seen, known = find_keypoints(other, inside, 500), find_keypoints(image, inside, 500)
    torch.testing.assert_close(seen.positions, known.positions)
    torch.testing.assert_close(seen.descriptors, known.descriptors)


def test_fewer_than_asked_and_none():
    images = torch.stack((rough(), blobs([[15, 15, 15]]), torch.zeros(SIZE, SIZE, SIZE)))
    keypoints = find_keypoints(images, torch.ones(3, SIZE, SIZE, SIZE), 40)
    assert keypoints.valid.sum(1).tolist()[0] == 40
    assert 1 <= keypoints.valid.sum(1).tolist()[1] < 40
    assert keypoints.valid.sum(1).tolist()[2] == 0
    assert not keypoints.positions[~keypoints.valid].any()


def test_the_same_keypoints_alone_and_in_a_batch():
    images, inside = torch.stack((rough(1), rough(2))), torch.ones(2, SIZE, SIZE, SIZE)
    both, second = find_keypoints(images, inside, 50), find_keypoints(images[1:], inside[1:], 50)
    torch.testing.assert_close(both.positions[1], second.positions[0], atol=1e-4, rtol=0)


# ---- invariants of jets ----

JET_SCALES = 4
# Triples of gradients, one for each scale, three for each step from a scale to the next.
ODD = 4 + JET_SCALES + 3 * (JET_SCALES - 1)


def random_jets(seed=0, count=6, scales=JET_SCALES):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(count, scales, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    hessians = draw(3, 3)
    return Jets(draw(), draw(3), hessians + hessians.mT)


def turned(jets, matrix):
    return Jets(jets.values, jets.gradients @ matrix.T, matrix @ jets.hessians @ matrix.T)


def test_a_turn_changes_no_invariant():
    jets = random_jets()
    for rotation in rigid.random_rotations(5, torch.Generator().manual_seed(1)):
        torch.testing.assert_close(invariants(turned(jets, rotation)), invariants(jets), rtol=1e-9, atol=1e-9)


def test_a_mirror_image_reverses_the_odd_invariants_only():
    jets = random_jets()
    mirrored, plain = invariants(turned(jets, torch.diag(torch.tensor([-1.0, 1, 1]).double()))), invariants(jets)
    torch.testing.assert_close(mirrored[:, :-ODD], plain[:, :-ODD], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mirrored[:, -ODD:], -plain[:, -ODD:], rtol=1e-9, atol=1e-9)
    assert (plain[:, -ODD:].abs() > 1e-3).all()


def test_units_of_invariants_are_those_of_the_image():
    jets = random_jets()
    brighter = Jets(3 * jets.values, 3 * jets.gradients, 3 * jets.hessians)
    torch.testing.assert_close(invariants(brighter), 3 * invariants(jets), rtol=1e-9, atol=1e-9)


def test_invariants_by_hand_at_two_scales():
    jets = random_jets(3, count=1, scales=2)
    v, g, h = jets.values[0].numpy(), jets.gradients[0].numpy(), jets.hessians[0].numpy()

    def root(value, degree):
        return np.sign(value) * abs(value) ** (1 / degree)

    def det(*vectors):
        return np.linalg.det(np.stack(vectors))

    pairs = [(0, 0), (0, 1), (1, 1)]
    expected = [
        *v,
        *(np.trace(h[s]) for s in (0, 1)),
        *(root(np.linalg.det(h[s]), 3) for s in (0, 1)),
        *(root(g[s] @ g[t], 2) for s, t in pairs),
        *(root((h[s] * h[t]).sum(), 2) for s, t in pairs),
        *(root(g[s] @ h[t] @ g[s], 3) for s in (0, 1) for t in (0, 1)),
        *(root(g[0] @ h[t] @ g[1], 3) for t in (0, 1)),
        *(root(det(g[s], h[s] @ g[s], h[s] @ h[s] @ g[s]), 6) for s in (0, 1)),
        root(det(g[0], h[0] @ g[0], g[1]), 4),
        root(det(g[0], g[1], h[1] @ g[1]), 4),
        root(det(g[1], h[0] @ g[1], h[1] @ g[0]), 5),
    ]
    np.testing.assert_allclose(invariants(jets)[0].numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_number_of_invariants(scales):
    assert count_invariants(scales) == invariants(random_jets(scales=scales)).shape[1]
