"""Real scans, each side of a pair made with its own rotation, offset, coarser grid and noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from DNetRegistrationLib import read_volume
from DNetRegistrationLib.registration.align import align
from real_pairs import (
    Turned,
    ankle_views,
    both_ankles,
    error_in_working_voxels,
    rotation_error,
    trabecular_views,
)

FIRST_AND_SLOW = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


def check(first: Turned, second: Turned) -> None:
    alignment = align(first.image, second.image, hypotheses="search")
    assert error_in_working_voxels(first, second, alignment) < 0.5
    assert alignment.accepted
    assert alignment.dice > 0.8


@pytest.mark.parametrize("seed", FIRST_AND_SLOW)
def test_distal_tibia_and_talus_in_their_box(ankles, seed):
    check(*ankle_views(ankles, 100 + seed, 200 + seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_trabecular_cube_without_an_outline(trabecular_cube, seed):
    check(*trabecular_views(trabecular_cube, 300 + seed, 400 + seed))


@pytest.mark.slow
def test_the_other_ankle_is_refused(ankles):
    """The other foot's: another bone, and nearly a mirror image."""
    first, second = both_ankles(ankles, 1, 2)
    assert not align(first.image, second.image, hypotheses="search").accepted


@pytest.mark.parametrize("seed", [*FIRST_AND_SLOW, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4, 5))])
def test_the_network_alone_on_a_real_ankle(ankles, seed):
    """Unlike anything it has learned on; neither refined nor searched."""
    first, second = ankle_views(ankles, 500 + seed, 600 + seed)
    alignment = align(first.image, second.image, hypotheses="dnet", refine="none")
    assert rotation_error(first, second, alignment) < 5
    assert error_in_working_voxels(first, second, alignment) < 1


@pytest.mark.slow
def test_the_loop_of_three_acquisitions_closes_within_their_expected_errors(shared_data):
    """One rigid specimen scanned three times, twice with a tilted gantry: the three motions add up to none."""
    scans = [read_volume(shared_data / "skull-phantom" / f"scan{number}.nrrd") for number in (1, 2, 3)]
    alignments = [align(*one) for one in pairwise([*scans, scans[0]])]
    assert all(alignment.accepted for alignment in alignments)
    bone = scans[0].voxels > alignments[0].fixed_threshold
    points = start = scans[0].to_world(np.argwhere(bone)[:, ::-1])
    for alignment in alignments:
        points = points @ alignment.matrix[:3, :3].T + alignment.matrix[:3, 3]
    gap_um = 1000 * np.linalg.norm(points - start, axis=1).mean()
    expected = [alignment.expected_error_um for alignment in alignments]
    assert gap_um < 1.5 * np.sqrt(np.square(expected).sum())
