"""The pairs of a comparison: how they are turned, and their files."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DNetRegistrationLib.experiments.peers.pairs import BINS, PairFolders, growing_pairs, turned_pairs


def test_pairs_fill_the_bins_evenly_and_are_turned_as_they_say():
    pairs = turned_pairs(12, 64, 1.0, True)
    assert [p.angle_bin for p in pairs] == [0, 1, 2, 3, 4, 5] * 2
    assert len({p.name for p in pairs}) == 12
    for one in pairs:
        rotation = one.matrix[:3, :3]
        assert rotation.T @ rotation == pytest.approx(np.eye(3), abs=1e-12)
        angle = math.degrees(math.acos((np.trace(rotation) - 1) / 2))
        assert BINS[one.angle_bin] <= angle <= BINS[one.angle_bin + 1]
        assert np.abs(one.matrix[:3, 3]).max() <= 0.64
    assert not np.allclose(pairs[0].matrix, pairs[6].matrix)
    # One number is one pair, whichever is the first.
    assert turned_pairs(3, 64, 1.0, True, first=5) == turned_pairs(8, 64, 1.0, True)[5:]


def test_growing_volumes_are_one_pair():
    small, large = growing_pairs((128, 64), 1.0, True)
    assert (small.size, large.size) == (64, 128)
    assert np.array_equal(small.matrix, large.matrix)
    assert small.name not in {p.name for p in turned_pairs(10_000, 64, 1.0, True)}


def test_a_pair_is_made_once_and_gone_at_the_end(tmp_path):
    pair = turned_pairs(1, 24, 1.0, True)[0]
    with PairFolders(tmp_path) as folders:
        files = folders.files(pair)
        assert np.array_equal(files.matrix, pair.matrix)
        made = (files.folder / "fixed.npy").stat().st_mtime_ns
        assert folders.files(pair) == files
        assert (files.folder / "fixed.npy").stat().st_mtime_ns == made
    assert list(tmp_path.iterdir()) == []
