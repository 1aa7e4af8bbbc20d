"""Refinement inside the bone: true to the voxel's hundredth on grids of every kind, whatever lies about the bone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import BoneScale, find_bone_scale
from DNetRegistrationLib.geometry.rigid import inverse
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.holders import ScanPair
from DNetRegistrationLib.registration.interior import _greys, _sealed, refine_fully, refine_inside
from DNetRegistrationLib.registration.refinement import Refined, distance, refine
from DNetRegistrationLib.registration.settling import Frame, told_by_edges
from DNetRegistrationLib.registration.template import edge_template
from DNetRegistrationLib.synthesis.pairs import make_pair, target_registration_error
from edge_phantom import GRIDS, TURNS, grid_points, pose_at
from scipy import ndimage

SHEARED = np.array(((1.0, 0.08, 0.0), (0.0, 1.0, -0.05), (0.0, 0.0, 1.0)))
MORE_GRIDS = {
    **GRIDS,
    "one finer": (
        (TURNS[1], (0.1, 0.1, 0.1), (48, 48, 48), (3, 0, 0)),
        (TURNS[2], (0.05, 0.05, 0.05), (96, 94, 98), (0, 9, 0)),
    ),
    "sheared": (
        (TURNS[0] @ SHEARED, (0.1, 0.1, 0.1), (50, 50, 50), (0, 4, 0)),
        (np.eye(3), (0.09, 0.1, 0.1), (54, 50, 50), (0, 0, 0)),
    ),
}
QUICK = ("oblique, unequal", "sheared")
BLOBS = np.random.default_rng(6).uniform(-0.85, 0.85, (24, 3))


def step(depth: np.ndarray) -> np.ndarray:
    """From 0 to 1 across a surface, as blur shows it."""
    return 1 / (1 + np.exp(-depth / 0.04))


def greys(points: np.ndarray, agent: float, solid: bool) -> np.ndarray:
    """A shell about marrow with struts, in liquid; agent lies on the upper half of its outer surface."""
    depth = 1.4 - np.linalg.norm(points / (1.0, 0.9, 1.1), axis=-1)
    layer = step(depth + 0.2) * step(-depth) * step(points[:, 2])
    inside = step(0.25 - depth)
    deep = np.flatnonzero(depth > 0)
    struts = step(0.16 - np.linalg.norm(points[deep, None] - BLOBS, axis=-1).min(1))
    inside[deep] = 1.0 if solid else np.maximum(inside[deep], struts)
    return -0.7 + 1.7 * inside * step(depth) + 0.3 * step(-depth) + agent * layer


def scan_of(grid, pose, agent=0.0, solid=False, name="scan") -> Volume:
    affine, points = grid_points(grid, pose)
    return Volume(greys(points, agent, solid).reshape(grid[2][::-1]).astype(np.float32), affine, name)


def prepared(volumes, scales, working=None):
    fixed, moving = prepare(
        *[native_scan(v, s, None, torch.device("cpu")) for v, s in zip(volumes, scales, strict=True)], working
    )
    bones = [cortical_bone(v, s.threshold, fixed.cube.spacing) for v, s in zip(volumes, scales, strict=True)]
    return fixed, moving, bones


def phantoms(name, agent=0.0, solid=False):
    first, second = MORE_GRIDS[name]
    poses = pose_at(TURNS[1], first[3]), pose_at(TURNS[2], np.array(second[3]) + np.array((0.1, -0.05, 0.2)))
    volumes = scan_of(first, poses[0], solid=solid), scan_of(second, poses[1], agent, solid)
    truth = torch.tensor(poses[1] @ np.linalg.inv(poses[0]))
    return *prepared(volumes, [BoneScale(0.0, 1.0)] * 2, 0.1), truth


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MORE_GRIDS])
def test_agent_on_the_surface_does_not_pull(name):
    fixed, moving, bones, truth = phantoms(name, agent=1.2)
    edges = refine(fixed, moving, truth, native=True)
    inside = refine_inside(fixed, moving, edges, bones)
    assert distance(inside.pose, truth, fixed.place) < 0.003
    assert distance(edges.pose, truth, fixed.place) > 0.02


def test_a_gain_and_an_offset_between_the_scans_do_not_matter():
    fixed, moving, bones, truth = phantoms("plain")
    brighter = replace(moving, native=replace(moving.native, raw=0.8 * moving.native.raw + 0.3))
    start = Refined(truth, 0.0, 0.1)
    plain, other = (refine_inside(fixed, one, start, bones).pose for one in (moving, brighter))
    assert distance(plain, other, fixed.place) < 2e-4
    assert distance(other, truth, fixed.place) < 0.003


@pytest.mark.parametrize("deviation", [0.07, 0.13])
def test_blur_that_differs_does_not_pull_at_a_bone_of_which_one_side_is_in_view(deviation):
    first, second = MORE_GRIDS["oblique, unequal"]
    poses = pose_at(TURNS[1], first[3]), pose_at(TURNS[2], np.array(second[3]) + np.array((0.1, -0.05, 0.2)))
    volumes = [scan_of(first, poses[0]), scan_of(second, poses[1])]
    volumes[1] = replace(volumes[1], voxels=ndimage.gaussian_filter(volumes[1].voxels, deviation / second[1][0]))
    truth = torch.tensor(poses[1] @ np.linalg.inv(poses[0]))
    fixed, moving, bones = prepared(volumes, [BoneScale(0.0, 1.0)] * 2, 0.1)
    beyond = np.indices(bones[0].whole.shape)[0] > bones[0].whole.shape[0] / 2
    cut = replace(bones[0], whole=bones[0].whole & beyond, grey=np.where(beyond, bones[0].grey, np.nan))
    there = refine_inside(fixed, moving, Refined(truth, 0.0, 0.1), [cut, bones[1]])
    assert distance(there.pose, truth, fixed.place) < 0.003
    back = refine_inside(moving, fixed, Refined(inverse(truth), 0.0, 0.1), [bones[1], cut])
    assert distance(back.pose, inverse(truth), moving.place) < 0.003


def test_it_is_the_same_there_and_back():
    fixed, moving, bones, truth = phantoms("oblique, unequal", agent=1.2)
    off = truth.clone()
    off[:3, 3] += 0.02
    there = refine_inside(fixed, moving, Refined(off, 0.0, 0.1), bones)
    back = refine_inside(moving, fixed, Refined(inverse(off), 0.0, 0.1), bones[::-1])
    assert distance(there.pose, inverse(back.pose), fixed.place) < 1e-3
    assert distance(there.pose, truth, fixed.place) < 0.003


def test_without_anything_inside_the_edges_decide():
    fixed, moving, bones, truth = phantoms("plain", solid=True)
    start = Refined(truth, 0.0, 0.1)
    assert distance(refine_inside(fixed, moving, start, bones).pose, truth, fixed.place) < 0.004
    # No voxel lies so deep in a thin bone, and the pose stays as it was.
    thin = [replace(bone, whole=np.zeros_like(bone.whole)) for bone in bones]
    assert refine_inside(fixed, moving, start, thin) is start


def test_a_pose_that_would_move_far_stays():
    fixed, moving, bones, truth = phantoms("plain")
    off = truth.clone()
    off[:3, 3] += torch.tensor((0.0, 0.08, 0.11))
    start = Refined(off, 0.0, 0.1)
    assert refine_inside(fixed, moving, start, bones) is start


def test_marrow_that_leaks_out_of_one_scan_is_seen_in_the_other():
    fixed, moving, bones, truth = phantoms("oblique, unequal", agent=1.2)
    # A hole in the cortex: nothing but the cortex itself is left inside the surface.
    leaked = replace(bones[0], whole=bones[0].whole & (bones[0].depth < 0.2))
    # The other scan shows agent as bone, two voxels thick: 2900 voxels of it.
    sealed = _sealed(leaked, bones[1], truth, 0.1)
    assert np.count_nonzero(sealed.whole & ~bones[0].whole) < 5
    assert sealed.whole[bones[0].depth > 0.5].all() and not leaked.whole[bones[0].depth > 0.5].all()
    edges = refine(fixed, moving, truth, native=True)
    inside = refine_inside(fixed, moving, edges, [leaked, bones[1]])
    assert distance(inside.pose, truth, fixed.place) < 0.003


def test_noise_is_less_alike_in_neighbours_than_the_scanner_made_it():
    volume = scan_of(MORE_GRIDS["plain"][0], np.eye(4))
    noise = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=volume.voxels.shape), 0.5)
    noisy = replace(volume, voxels=(volume.voxels + 0.1 * noise).astype(np.float32))
    found = []
    for one in (volume, noisy):
        scan, _, bones = prepared([one, volume], [BoneScale(0.0, 1.0)] * 2, 0.1)
        found.append(_greys(scan, replace(bones[0], whole=np.ones_like(bones[0].whole)), 0.1).image.values.numpy())
    by_hand = noisy.voxels + 0.5 * (noisy.voxels - ndimage.gaussian_filter(noisy.voxels, 0.5))
    inner = (slice(4, -4),) * 3
    np.testing.assert_allclose(found[1][inner], by_hand[inner], atol=1e-3)

    def alike(values):
        return np.corrcoef(values[inner][:, :, 1:].ravel(), values[inner][:, :, :-1].ravel())[0, 1]

    assert alike(found[1] - found[0]) < 0.85 * alike(noise)


@pytest.mark.parametrize("leaks", [False, True])
def test_marrow_outside_the_field_of_view_has_not_leaked(leaks):
    """Once a scan that was resampled obliquely was filled where it shows nothing, and the pose was 20 um off."""
    _, _, bones, truth = phantoms("oblique, unequal", agent=1.2)
    index = np.indices(bones[0].whole.shape)[::-1]
    unseen = index.sum(0) > index.sum(0).mean() + 4
    grey = np.where(unseen, np.nan, bones[0].grey)
    held = ~unseen & ((bones[0].depth < 0.2) | (not leaks))
    cut = replace(bones[0], grey=grey, whole=bones[0].whole & held)
    sealed = _sealed(cut, bones[1], truth, 0.1)
    assert (sealed is cut) == (not leaks)
    assert not sealed.whole[unseen].any() and sealed.whole[(bones[0].depth > 0.5) & ~unseen].all()


def test_a_tube_that_lies_still_does_not_pull():
    _, _, _, truth = phantoms("plain")
    grid, pose = MORE_GRIDS["plain"][0], truth.numpy()
    first = pose_at(TURNS[1], (0.0, 0.0, 0.0))
    _, world = grid_points(grid, np.eye(4))
    radius = np.linalg.norm(world[:, :2], axis=-1).reshape(grid[2][::-1])
    tube = step(radius - 1.95) * step(2.2 - radius)
    scans = [scan_of(grid, first), scan_of(grid, pose @ first, agent=1.2)]
    volumes = [replace(one, voxels=np.maximum(one.voxels, 2 * tube - 0.7).astype(np.float32)) for one in scans]
    fixed, moving, bones = prepared(volumes, [BoneScale(0.0, 1.0)] * 2, 0.1)
    pair = ScanPair(fixed, moving, tuple(bones))
    assert distance(refine_fully(pair, truth, True).pose, truth, fixed.place) < 0.005
    pulled = refine_inside(fixed, moving, refine(fixed, moving, truth, True), bones)
    assert distance(pulled.pose, truth, fixed.place) > 0.02


def test_a_bone_that_holds_its_marrow_stays_as_it_is():
    _, _, bones, truth = phantoms("oblique, unequal", agent=1.2)
    assert _sealed(bones[0], bones[1], truth, 0.1) is bones[0]
    assert _sealed(bones[1], bones[0], inverse(truth), 0.1) is bones[1]


def test_edges_that_agent_displaces_count_for_little():
    told = {}
    for agent in (0.0, 1.2):
        fixed, moving, _, truth = phantoms("plain", agent)
        frame = Frame.of(edge_template(fixed.levels[-1], 4000))
        told[agent] = float(told_by_edges(fixed.levels[-1], moving.levels[-1], truth, frame).covariance.trace())
    assert told[1.2] > 5 * told[0.0]


def test_it_ends_where_it_is_told_to():
    fixed, moving, bones, truth = phantoms("plain")
    told = []
    refine_fully(ScanPair(fixed, moving, tuple(bones)), truth, True, told.append)
    assert told == sorted(told) and told[-1] < 1

    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_inside(fixed, moving, Refined(truth, 0.0, 0.1), bones, check)


def test_contrast_agent_hardly_moves_a_tibia():
    pair = make_pair(500001, size=64, spacing=0.08, contrast=True)
    volumes = pair.fixed, pair.moving
    fixed, moving, bones = prepared(volumes, [find_bone_scale(volume) for volume in volumes])
    edges = refine(fixed, moving, torch.tensor(pair.matrix), native=True)
    inside = refine_inside(fixed, moving, edges, bones)
    assert target_registration_error(pair, inside.pose.numpy()) < 0.0025
    assert torch.equal(refine_inside(fixed, moving, edges, bones).pose, inside.pose)
