"""The inner surface of the cortex: how far two of them lie apart, beyond noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.endosteum import Misfit, _covariance, endosteal_misfit
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS, pose_at
from noisy_scan import with_noise
from scipy import ndimage

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


def misfit(first, second, pose) -> Misfit:
    return endosteal_misfit([first[0], second[0]], [first[1], second[1]], torch.from_numpy(pose))


def wave_in_voxels(amplitude: float, voxel: float = SPACING) -> float:
    """The root mean square of a wave."""
    return amplitude / np.sqrt(2) / voxel


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.25)])
def test_noise_is_no_shape_and_a_wave_of_the_inner_surface_is_measured(voxel):
    fixed = tube(np.eye(4), 0.05)
    same = tube(OBLIQUE, 0.05, voxel=voxel, seed=1)
    waved = tube(OBLIQUE, 0.05, wave=0.012, voxel=voxel, seed=1)
    noise, found = misfit(fixed, same, OBLIQUE), misfit(fixed, waved, OBLIQUE)
    # The longest edge is the unit. It is less in the flatter direction of the tube, and less what edges some voxels
    # apart share of it.
    wave = wave_in_voxels(0.012, SPACING * max(voxel))
    assert abs(noise.square) < 4 * noise.deviation and noise.deviation < (0.15 * wave) ** 2
    assert 0.5 * wave < np.sqrt(found.square) < wave


def smoothed_noise(scan, seed):
    """A scan with noise of 4 % of its contrast that a Gaussian of a voxel has smoothed."""
    image, bone = scan
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=image.shape), 1.0)
    values = image.values + torch.from_numpy((0.08 * noise / noise.std()).astype(np.float32))
    return BoneImage(values, image.affine), bone


def test_noise_that_a_scanner_has_smoothed_is_no_shape():
    """It counted as 0.09 voxels."""
    fixed = smoothed_noise(tube(np.eye(4)), 0)
    same, waved = (smoothed_noise(tube(OBLIQUE, wave=wave), 1) for wave in (0, 0.012))
    assert misfit(fixed, same, OBLIQUE).square < 0.025**2
    assert misfit(fixed, waved, OBLIQUE).square > (0.5 * wave_in_voxels(0.012)) ** 2


def test_covariance_of_edges_by_loops():
    """Of pairs that lie so far apart one way: the slope of their residuals' products on those of their slopes."""
    generator = np.random.default_rng(3)
    weight = generator.uniform(0.5, 1, (7, 6, 8)) * (generator.random((7, 6, 8)) < 0.3)
    slope, residual = generator.normal(1, 0.5, weight.shape), generator.normal(0.1, 1, weight.shape)
    pairs = {}
    at = list(map(tuple, np.argwhere(weight)))
    for one in at:
        for other in at:
            apart = tuple(np.subtract(one, other))
            if 0 < np.abs(apart).max() <= 3:
                told = [weight[one] * weight[other], slope[one] * slope[other], residual[one] * residual[other]]
                pairs.setdefault(apart, []).append(told)
    found = []
    for distance in (1, 3):
        ends = np.zeros(2)
        for apart, told in pairs.items():
            if np.abs(apart).max() == distance:
                counted, slopes, residuals = np.array(told).T
                away = slopes - np.average(slopes, weights=counted)
                ends += (counted * away * residuals).sum(), (counted * away * slopes).sum()
        found.append(ends[0] / ends[1])
    assert _covariance(residual, slope, weight)[0] == pytest.approx(found[0] - found[1])


def test_the_outer_surface_does_not_count():
    """Agent and callus change it."""
    fixed = tube(np.eye(4), 0.05)
    outer, inner = (
        misfit(fixed, tube(OBLIQUE, 0.05, **{name: 0.03}, seed=1), OBLIQUE) for name in ("outer_wave", "wave")
    )
    assert outer.square < 0.25 * inner.square


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
    whole, part = (misfit(fixed, (one, bone), OBLIQUE).square for one in (grey, BoneImage(values, grey.affine)))
    assert np.sqrt(part) == pytest.approx(np.sqrt(whole), rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [970009, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (507, 511, 983006, 986027, 201029))]
)
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


@pytest.mark.slow
def test_agent_is_no_other_shape():
    """Its inner surfaces are 0.08 voxels apart: agent and two media changed them, as they did all edges."""
    pair = make_adversarial(885109, "padding")
    found = align(pair.fixed, pair.moving, threads=1)
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < 5


@pytest.mark.slow
def test_noise_does_not_hide_that_shafts_are_of_littermates():
    """It was accepted at 0.91: noise lets edges agree less, as agent does, and the inner surfaces were not asked."""
    pair, generator = make_adversarial(983000, "littermate crop"), np.random.default_rng(983000)
    assert not align(with_noise(pair.fixed, generator), with_noise(pair.moving, generator)).accepted


@pytest.mark.slow
@pytest.mark.parametrize("seed", [992022, 992025])
def test_a_noisy_slender_bone_has_one_shape(seed):
    """Their noise was told to be 0.05 voxels of another shape, and they were refused, 3.5 and 1.7 um off."""
    pair, generator = make_adversarial(seed, "slender"), np.random.default_rng(seed)
    found = align(with_noise(pair.fixed, generator), with_noise(pair.moving, generator))
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < 5


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kind", "error"), [(201138, "slender", 4), (201123, "strain", 10)])
def test_inner_surfaces_speak_for_what_agrees_little(seed, kind, error):
    """Voxels that are 0.5 % too long, and agent, let the edges of the second agree by 0.62."""
    pair = make_adversarial(seed, kind)
    found = align(pair.fixed, pair.moving)
    assert found.accepted and 1000 * pair.error_mm(found.matrix) < error
