"""Masks that are kept take little memory, and come back as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.geometry.transforms import affine_matrix
from DNetRegistrationLib.imaging.packed import PackedMask
from DNetRegistrationLib.imaging.volume import Volume


@pytest.fixture
def scan():
    return Volume(np.zeros((9, 21, 30), np.int16), affine_matrix(0.1 * np.eye(3), 1.0))


def test_a_mask_comes_back_as_it_was(scan):
    mask = np.random.default_rng(3).random(scan.voxels.shape) > 0.5
    mask[:3] = mask[..., 24:] = False
    packed = PackedMask.of(mask, scan)
    assert packed.bits.nbytes < mask.size / 8
    found = packed.on(scan)
    assert found.dtype == bool and np.array_equal(found, mask)


@pytest.mark.parametrize("value", [False, True])
def test_one_that_holds_nothing_or_all(scan, value):
    mask = np.full(scan.voxels.shape, value)
    assert np.array_equal(PackedMask.of(mask, scan).on(scan), mask)


def test_on_another_grid_it_is_not_known(scan):
    packed = PackedMask.of(np.ones(scan.voxels.shape, bool), scan)
    assert packed.on(replace(scan, affine=affine_matrix(0.1 * np.eye(3), 2.0))) is None
    assert packed.on(replace(scan, voxels=scan.voxels[1:])) is None
