"""Cubes turned by the rotations of a cube, and networks asked about them, against loops over voxels and points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.turns import MOST_TURNS, ROTATIONS, pairings, turned


def test_all_rotations_of_a_cube_are_there_once():
    assert ROTATIONS.shape == (24, 3, 3) and ROTATIONS.dtype == torch.float64
    assert len({tuple(rotation.flatten().tolist()) for rotation in ROTATIONS}) == 24
    assert torch.equal(ROTATIONS[0], torch.eye(3).double())
    for rotation in ROTATIONS.numpy():
        assert np.linalg.det(rotation) == pytest.approx(1) and set(np.abs(rotation).ravel()) == {0, 1}
    # What a few turns are made of: half turns, which leave no rotation out by less than another.
    assert [float(rotation.trace()) for rotation in ROTATIONS[1:4]] == [-1, -1, -1]


@pytest.mark.parametrize("number", range(24))
def test_a_turned_cube_shows_each_voxel_where_the_rotation_takes_it(number):
    rotation, edge = ROTATIONS[number].numpy(), 4
    cubes = torch.arange(2 * edge**3, dtype=torch.float32).reshape(2, 1, edge, edge, edge)
    result = turned(cubes, ROTATIONS[number])
    for z, y, x in itertools.product(range(edge), repeat=3):
        middle = (edge - 1) / 2
        to = rotation @ (np.array([x, y, z]) - middle) + middle
        i, j, k = (round(coordinate) for coordinate in to)
        assert torch.equal(result[:, :, k, j, i], cubes[:, :, z, y, x])


@pytest.mark.parametrize("turns", range(1, MOST_TURNS + 1))
def test_pairings_differ_and_share_turned_cubes(turns):
    found = pairings(turns)
    assert len(set(found)) == turns and found[0] == (0, 0)
    assert max(max(pair) for pair in found) < np.sqrt(turns) + 1
    # No turned cube counts much more than another.
    for side in zip(*found, strict=True):
        counts = np.unique(side, return_counts=True)[1]
        assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("turns", [0, MOST_TURNS + 1])
def test_turns_out_of_range(turns):
    with pytest.raises(OptionError, match=rf"turns is {turns}; give a whole number from 1 to 24"):
        pairings(turns)


@pytest.mark.parametrize("name", ["dnet", "sed"])
def test_what_is_computed_once_is_what_each_pairing_gives(name):
    torch.manual_seed(3)
    network = build(name).eval()
    fixed, moving = torch.rand(2, 1, 1, 16, 16, 16)
    asked = [(5, 0), (5, 14)]
    with torch.inference_mode():
        found = list(network.of_pairings(fixed, moving, asked))
        for (first, second), directions in zip(asked, found, strict=True):
            expected = network.both_directions(turned(fixed, ROTATIONS[first]), turned(moving, ROTATIONS[second]))
            for one, other in zip(directions, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
