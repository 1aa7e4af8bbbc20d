"""Templates: which points they hold, and with which values and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import BoneImage, native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import BoneScale
from DNetRegistrationLib.imaging.tensors import erode, inner_slopes
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.template import edge_template, finer_template, make_template
from edge_phantom import TURNS, two_scans


def test_gradients_are_those_of_a_ramp_in_the_world():
    slope = np.array((0.3, -0.2, 0.5))
    affine = np.eye(4)
    affine[:3, :3] = TURNS[0] @ np.diag((1.0, -1, 1)) * (0.1, 0.2, 0.05)
    affine[:3, 3] = (10, -20, 30)
    z, y, x = np.indices((7, 8, 9))
    world = np.stack((x, y, z), -1) @ affine[:3, :3].T + affine[:3, 3]
    values = torch.tensor(world @ slope)
    inner = np.stack(inner_slopes(values), -1)
    np.testing.assert_allclose(inner @ np.linalg.inv(affine[:3, :3]), np.broadcast_to(slope, inner.shape), atol=1e-9)
    template = edge_template(BoneImage((values - values.min()).float(), affine), 50)
    np.testing.assert_allclose(template.gradient, np.broadcast_to(slope, (50, 3)), atol=1e-4)
    positions = template.local().double().numpy() + np.asarray(template.center)
    np.testing.assert_allclose(template.values, positions @ slope - float(values.min()), atol=1e-4)


SHEARED = np.array(((-1.0, 0.4, 0), (0, 1, -0.3), (0.2, 0, 1)))


@pytest.mark.parametrize("turn", [np.eye(3), TURNS[0], TURNS[0] @ SHEARED], ids=["straight", "oblique", "sheared"])
def test_edges_are_the_steepest_inner_voxels(turn):
    generator = np.random.default_rng(3)
    values = generator.random((9, 10, 11)).astype(np.float32)
    inside = np.ones_like(values)
    inside[4, 5, 6] = 0.5
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.1, 0.2, 0.3)
    template = edge_template(BoneImage(torch.tensor(values), affine, torch.tensor(inside)), 40)
    strength = {}
    for z, y, x in np.ndindex(*values.shape):
        if (
            min(x, y, z) == 0
            or x == 10
            or y == 9
            or z == 8
            or inside[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].min() < 1
        ):
            continue
        gradient = (
            (values[z, y, x + 1] - values[z, y, x - 1]) / 2,
            (values[z, y + 1, x] - values[z, y - 1, x]) / 2,
            (values[z + 1, y, x] - values[z - 1, y, x]) / 2,
        )
        strength[x, y, z] = np.linalg.norm(np.linalg.solve(affine[:3, :3].T, gradient))
    steepest = sorted(strength, key=strength.get)[-40:]
    assert {tuple(index) for index in template.index.int().tolist()} == set(steepest)
    assert erode(torch.tensor(inside)).sum() == inside.size - 27 * 0.5


def test_slabs_change_nothing(monkeypatch):
    fixed, _, _ = two_scans("plain")
    whole = edge_template(fixed, 500)
    monkeypatch.setattr("DNetRegistrationLib.registration.template.SLAB_VOXELS", 48 * 48 * 5)
    # A copy, since an image keeps its edges.
    slabs = edge_template(replace(fixed), 500)
    assert torch.equal(whole.index, slabs.index) and torch.equal(whole.gradient, slabs.gradient)


@pytest.mark.parametrize("count", [27, 500, 3000])
def test_a_template_does_not_depend_on_those_made_before(count):
    fixed, _, _ = two_scans("plain")
    edge_template(fixed, 20000)
    again, fresh = edge_template(fixed, count), edge_template(replace(fixed), count)
    assert len(fresh.values) == count
    assert torch.equal(again.index, fresh.index) and torch.equal(again.gradient, fresh.gradient)


def test_no_more_edges_than_the_most_are_kept_and_those_are_the_steepest(monkeypatch):
    fixed, _, _ = two_scans("plain")
    expected = edge_template(replace(fixed), 300)
    monkeypatch.setattr("DNetRegistrationLib.registration.template.MOST_EDGES", 300)
    assert torch.equal(edge_template(replace(fixed), 5000).index, expected.index)


def test_native_points_have_their_own_values_and_gradients():
    generator = np.random.default_rng(4)
    voxels = generator.integers(0, 60000, (16, 18, 20)).astype(np.uint16)
    volume = Volume.from_geometry(voxels, (0.01, 0.02, 0.02), TURNS[0], (100, 0, 0))
    scan = native_scan(volume, BoneScale(0.0, 60000.0), None, torch.device("cpu"))
    fixed, _ = prepare(scan, scan, spacing=0.04)
    template = finer_template(scan, edge_template(fixed.levels[0], 1000), 300)
    assert 50 < len(template.values) <= 400
    bone = voxels / 60000
    to_world = np.linalg.inv(volume.affine[:3, :3])
    for (x, y, z), value, gradient in zip(
        template.index.int().tolist(), template.values, template.gradient, strict=True
    ):
        assert float(value) == pytest.approx(bone[z, y, x], abs=1e-6)
        differences = (
            bone[z, y, x + 1] - bone[z, y, x - 1],
            bone[z, y + 1, x] - bone[z, y - 1, x],
            bone[z + 1, y, x] - bone[z - 1, y, x],
        )
        np.testing.assert_allclose(gradient, np.array(differences) / 2 @ to_world, rtol=1e-4, atol=1e-3)


def test_what_is_measured_about_no_points_is_finite():
    template = make_template(torch.zeros(0, 3), np.diag((0.1, 0.2, 0.3, 1)), torch.zeros(0), torch.zeros(0, 3))
    assert np.isfinite(template.center).all() and template.radius == pytest.approx(0.05)
