"""Rotation-invariant numbers of jets: what a turn leaves alone, and what a mirror image reverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.networks.invariants import Jets, count_invariants, invariants

SCALES = 4
# Triples of gradients, one for each scale, three for each step from a scale to the next.
ODD = 4 + SCALES + 3 * (SCALES - 1)


def random_jets(seed=0, count=6, scales=SCALES):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(count, scales, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    hessians = draw(3, 3)
    return Jets(draw(), draw(3), hessians + hessians.mT)


def turned(jets, matrix):
    return Jets(jets.values, jets.gradients @ matrix.T, matrix @ jets.hessians @ matrix.T)


def test_a_turn_changes_nothing():
    jets = random_jets()
    for rotation in rigid.random_rotations(5, torch.Generator().manual_seed(1)):
        torch.testing.assert_close(invariants(turned(jets, rotation)), invariants(jets), rtol=1e-9, atol=1e-9)


def test_a_mirror_image_reverses_the_odd_ones_only():
    jets = random_jets()
    mirrored, plain = invariants(turned(jets, torch.diag(torch.tensor([-1.0, 1, 1]).double()))), invariants(jets)
    torch.testing.assert_close(mirrored[:, :-ODD], plain[:, :-ODD], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mirrored[:, -ODD:], -plain[:, -ODD:], rtol=1e-9, atol=1e-9)
    assert (plain[:, -ODD:].abs() > 1e-3).all()


def test_units_are_those_of_the_image():
    jets = random_jets()
    brighter = Jets(3 * jets.values, 3 * jets.gradients, 3 * jets.hessians)
    torch.testing.assert_close(invariants(brighter), 3 * invariants(jets), rtol=1e-9, atol=1e-9)


def test_by_hand_at_two_scales():
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
def test_their_number(scales):
    assert count_invariants(scales) == invariants(random_jets(scales=scales)).shape[1]
