"""The files of a pair: read as they were written, and the error that they give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DNetRegistrationLib.experiments.pair_files import PairFiles


@pytest.fixture(scope="module")
def files(small_pair, tmp_path_factory):
    found = PairFiles(tmp_path_factory.mktemp("files"))
    found.write(small_pair)
    return found


def test_scans_and_truth_come_back(files, small_pair):
    for read, made in zip(files.scans(), (small_pair.fixed, small_pair.moving), strict=True):
        assert np.array_equal(read.voxels, made.voxels, equal_nan=True)
        assert np.array_equal(read.affine, made.affine)
    assert np.array_equal(files.matrix, small_pair.matrix)
    # 32^3 voxels of 2 bytes or of 4, twice, and headers.
    assert files.scans_gb() == pytest.approx(2 * small_pair.fixed.voxels.nbytes / 1e9, rel=0.01)


def test_points_are_those_of_the_bone(files, small_pair):
    index = np.argwhere(small_pair.fixed_bone)[:, ::-1]
    assert files.points == pytest.approx(small_pair.fixed.to_world(index))


def test_error_by_hand(files):
    assert files.target_error_um(files.matrix) == pytest.approx(0, abs=1e-9)
    shifted = files.matrix.copy()
    shifted[:3, 3] += (0.03, 0, 0.04)
    assert files.target_error_um(shifted) == pytest.approx(50)
    # Half a turn: every voxel of bone, one by one.
    turned = files.matrix @ np.diag((-1, -1, 1, 1))
    there, truth = ([m[:3, :3] @ point + m[:3, 3] for point in files.points] for m in (turned, files.matrix))
    mean = sum(map(math.dist, there, truth)) / len(truth)
    assert files.target_error_um(turned) == pytest.approx(1000 * mean)
