"""The inner surface of the cortex: how far two of them lie apart, beyond noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.endosteum import _covariance, endosteal_misfit
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at

SPACING, SIZE = 0.08, 56
# Radii of the tube in mm, and the deviation of its edges' blur.
INNER, OUTER, BLUR = 0.8, 1.25, 0.1
OBLIQUE = pose_at(TURNS[1], (0.4, -0.2, 0.7))


def tube(pose, noise=0.0, wave=0.0, outer_wave=0.0, voxel=(1.0, 1.0, 1.0), seed=0):
    """A scan of a bent tube in a pose, and its cortex; its surfaces are waved by amplitudes in mm."""
    affine = np.eye(4)
    affine[:3, :3] = TURNS[2] @ np.diag(SPACING * np.array(voxel))
    size = np.round(SIZE / np.array(voxel)).astype(int)
    affine[:3, 3] = pose[:3, 3] - affine[:3, :3] @ ((size - 1) / 2)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij"), -1)[..., ::-1]
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    own = (world - pose[:3, 3]) @ pose[:3, :3]
    x, y, z = own[..., 0] - 0.05 * own[..., 2] ** 2, 1.2 * own[..., 1], own[..., 2]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    waves = np.cos(6 * angle + 3 * z)
    below, above = radius - INNER - wave * waves, OUTER + outer_wave * waves - radius
    depth, end = np.minimum(above, 1.7 - np.abs(z)), np.minimum(below, 1.7 - np.abs(z))
    grey = np.tanh(np.minimum(depth, below) / BLUR).astype(np.float32)
    grey += np.random.default_rng(seed).normal(0, noise, grey.shape).astype(np.float32)
    cortex = (depth > 0) & (end > 0)
    bone = CorticalBone(cortex, depth > 0, grey, affine)
    return BoneImage(torch.from_numpy(grey), affine), bone


def misfit(first, second, pose):
    return endosteal_misfit([first[0], second[0]], [first[1], second[1]], torch.from_numpy(pose))


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.25)])
def test_noise_is_no_shape_and_a_wave_of_the_inner_surface_is_measured(voxel):
    fixed = tube(np.eye(4), 0.05)
    same = tube(OBLIQUE, 0.05, voxel=voxel, seed=1)
    waved = tube(OBLIQUE, 0.05, wave=0.012, voxel=voxel, seed=1)
    noise, found = misfit(fixed, same, OBLIQUE), misfit(fixed, waved, OBLIQUE)
    # The longest edge is the unit. The root mean square of a wave is 0.71 of its amplitude, less in the flatter
    # direction of the tube, and less what edges some voxels apart share of it.
    wave = 0.012 / np.sqrt(2) / (SPACING * max(voxel))
    assert noise < 0.15 * wave and 0.5 * wave < found < wave


@pytest.mark.parametrize(("reach", "within"), [(1, 0), (7, 3)])
def test_covariance_of_edges_by_loops(reach, within):
    generator = np.random.default_rng(3)
    masses = generator.uniform(0.5, 2, (9, 8, 10)) * (generator.random((9, 8, 10)) < 0.1)
    pulls = masses * (0.3 + generator.normal(0, 1, masses.shape))
    at = np.argwhere(masses)
    shared = whole = 0.0
    for one in map(tuple, at):
        for other in map(tuple, at):
            if within < np.abs(np.subtract(one, other)).max() <= reach:
                shared += pulls[one] * pulls[other]
                whole += masses[one] * masses[other]
    assert _covariance(pulls, masses, reach, within) == pytest.approx(shared / whole)


def test_the_outer_surface_does_not_count():
    """Agent and callus change it."""
    fixed = tube(np.eye(4), 0.05)
    outer = misfit(fixed, tube(OBLIQUE, 0.05, outer_wave=0.03, seed=1), OBLIQUE)
    assert outer < 0.5 * misfit(fixed, tube(OBLIQUE, 0.05, wave=0.03, seed=1), OBLIQUE)


def test_a_solid_shows_no_endosteum():
    image, bone = tube(np.eye(4), 0.05)
    full = CorticalBone(bone.whole, bone.whole, bone.grey, bone.affine)
    assert endosteal_misfit([image, image], [full, full], torch.eye(4).double()) is None


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_not_seen(unknown):
    """They ended in a RuntimeError of the solver."""
    fixed, (grey, bone) = tube(np.eye(4), 0.05), tube(OBLIQUE, 0.05, wave=0.02, seed=1)
    values = grey.values.clone()
    values[:, :, :20] = unknown
    whole, part = (misfit(fixed, (one, bone), OBLIQUE) for one in (grey, BoneImage(values, grey.affine)))
    assert part == pytest.approx(whole, rel=0.3)


@pytest.mark.parametrize("seed", [970009, *(pytest.param(n, marks=pytest.mark.slow) for n in (507, 511, 983006))])
def test_shafts_of_littermates_are_told_by_their_inner_surface(seed):
    """Their correlations alone had them accepted at 0.76 to 0.99."""
    pair = make_adversarial(seed, "littermate crop")
    found = align(pair.fixed, pair.moving)
    assert not found.accepted and "shape" in found.doubts and "littermates" in found.verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", [983013, pytest.param(986050, marks=pytest.mark.long)])
def test_what_changes_slowly_along_a_surface_is_of_the_scanner(seed):
    """Their inner surfaces were told to be 0.056 and 0.045 voxels apart, and the pairs refused, 4 and 0.5 um off."""
    pair = make_adversarial(seed, "crop")
    found = align(pair.fixed, pair.moving)
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < 2 * found.expected_error_um


def test_one_shaft_in_two_scans_is_told_by_its_inner_surface():
    """Its correlations alone had it refused at 0.62, 2 um off."""
    pair = make_adversarial(970004, "crop")
    found = align(pair.fixed, pair.moving)
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < 2 * found.expected_error_um


def test_agent_is_no_other_shape():
    """Its inner surfaces are 0.08 voxels apart: agent and two media changed them, as they did all edges."""
    pair = make_adversarial(885109, "padding")
    found = align(pair.fixed, pair.moving, threads=1)
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < 5
