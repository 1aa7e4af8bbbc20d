"""Lengths of voxels that are wrong by far: what tells them roughly, and what they are when undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.images import BoneImage, NativeScan, native_scan
from DNetRegistrationLib.bone.prepare import PreparedScan, prepare
from DNetRegistrationLib.bone.threshold import BoneScale, find_bone_scale
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration.sizes import Size, _cause, _Measures, likely_sizes
from DNetRegistrationLib.registration.strain_cause import grid_errors
from edge_phantom import GRIDS, TURNS, grid_points, phantom, pose_at

SHEARED = np.array([[0.1, 0.02, 0.01], [0, 0.08, 0.03], [0, 0, 0.15]])


def restated(affine: np.ndarray, axes: str, factor: float) -> np.ndarray:
    """The affine with columns of `axes` that many times as long, about a voxel off its middle."""
    changed = affine.copy()
    for axis in axes:
        changed[:3, "xyz".index(axis)] *= factor
    changed[:3, 3] += (affine - changed)[:3, :3] @ (20, 30, 10)
    return changed


def scan_of(image: BoneImage) -> PreparedScan:
    scale = BoneScale(0.0, 1.0)
    return prepare(*(NativeScan(image.values, False, scale, image.affine),) * 2)[0]


@pytest.fixture(scope="module")
def phantoms() -> dict[str, tuple[Volume, Volume]]:
    """One body of blobs on grids of every kind, turned any way, as pairs of scans."""
    made = {}
    for name, grids in GRIDS.items():
        scans = []
        for grid, turn in zip(grids, TURNS[1:3], strict=True):
            affine, points = grid_points(grid, pose_at(turn, grid[3]))
            scans.append(Volume((1000 * phantom(points)).reshape(grid[2][::-1]).astype(np.float32), affine))
        made[name] = (scans[0], scans[1])
    return made


def prepared(fixed: Volume, moving: Volume) -> tuple[PreparedScan, PreparedScan]:
    scans = [native_scan(scan, find_bone_scale(scan), None, torch.device("cpu")) for scan in (fixed, moving)]
    return prepare(*scans)


@pytest.mark.parametrize("axes", ["x", "z", "xy", "xyz"])
def test_an_error_that_is_undone_gives_the_true_lengths_and_directions(axes):
    """On a sheared grid far from the origin: columns of the affine are as they were, and the bone's centre stays."""
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = TURNS[0] @ SHEARED, (500, -70, 3)
    values = torch.zeros(24, 24, 24)
    values[8:16, 6:20, 4:14] = 1
    wrong = restated(affine, axes, 2.5)
    scan = scan_of(BoneImage(values, wrong))
    undone = Size("fixed", axes, 2.5).undone(scan)
    assert (undone @ wrong)[:3, :3] == pytest.approx(affine[:3, :3], abs=1e-12)
    center = np.append(scan.place.center, 1)
    assert undone @ center == pytest.approx(center, abs=1e-9)


def test_measures_under_a_map_are_those_of_the_scan_that_is_mapped():
    """Sums over voxels, one by one, of the scan restated on its sheared and oblique grid."""
    generator = np.random.default_rng(4)
    affine = np.eye(4)
    affine[:3, :3] = TURNS[2] @ SHEARED
    values = generator.random((5, 6, 7)).astype(np.float32)
    undone = np.eye(4)
    undone[:3, :3] = TURNS[1] @ np.diag((0.4, 1, 2)) @ TURNS[0]
    scan = scan_of(BoneImage(torch.tensor(values), affine))
    scan = replace(scan, levels=[BoneImage(torch.tensor(values), affine)])
    found = _Measures.of(scan).logarithms(undone[None, :3, :3])[0]

    mapped = undone @ affine
    voxel, total, places, weights = abs(np.linalg.det(mapped[:3, :3])), 0.0, [], []
    surfaces = np.zeros((3, 3))
    slopes = np.gradient(values.astype(float))
    for z, y, x in np.ndindex(values.shape):
        value = float(values[z, y, x])
        total += value
        places.append((mapped @ (x, y, z, 1))[:3])
        weights.append(value)
        gradient = np.linalg.solve(mapped[:3, :3].T, [slopes[2][z, y, x], slopes[1][z, y, x], slopes[0][z, y, x]])
        surfaces += np.outer(gradient, gradient) * voxel
    moments = np.cov(np.array(places).T, aweights=weights, bias=True)
    expected = [total * voxel, *np.linalg.eigvalsh(moments), *np.linalg.eigvalsh(surfaces)]
    assert np.exp(found) == pytest.approx(np.array(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("scan", "axes", "factor"), [("moving", "z", 2.0), ("fixed", "x", 0.5), ("moving", "xyz", 1.5)]
)
@pytest.mark.parametrize("grids", GRIDS)
def test_what_is_wrong_is_among_the_likeliest_whichever_way_the_bone_is_turned(phantoms, grids, scan, axes, factor):
    scans = dict(zip(("fixed", "moving"), phantoms[grids], strict=True))
    scans[scan] = replace(scans[scan], affine=restated(scans[scan].affine, axes, factor))
    likely = likely_sizes(*prepared(scans["fixed"], scans["moving"]))[:3]
    found = [size.factor for size in likely if (size.scan, size.axes) == (scan, axes)]
    assert found and found[0] == pytest.approx(factor, rel=0.2)


@pytest.mark.parametrize("grids", GRIDS)
def test_of_right_scans_nothing_is_likely_to_be_wrong(phantoms, grids):
    assert likely_sizes(*prepared(*phantoms[grids])) == []


def test_a_scan_of_one_slice_tells_nothing():
    values = torch.zeros(1, 24, 24)
    values[:, 6:20, 4:14] = 1
    scan = scan_of(BoneImage(values, np.diag((0.1, 0.1, 0.3, 1))))
    assert likely_sizes(scan, scan) == []


def test_where_axes_of_the_grids_agree_either_scan_may_be_wrong():
    """The fixed x axis lies along the moving z axis; the other two agree with no axis."""
    fixed, moving = np.diag((0.1, 0.1, 0.3, 1)), np.diag((0.2, 0.2, 0.2, 1))
    turn = np.array([[0, np.cos(0.5), -np.sin(0.5)], [0, np.sin(0.5), np.cos(0.5)], [1, 0, 0]])
    patterns = {(scan, axes): error for kind, scan, axes, error in grid_errors(turn, fixed, moving) if kind != "shear"}
    for size in (Size("fixed", "x", 2.0), Size("moving", "z", 0.5)):
        cause = _cause(size, patterns)
        assert (cause.kind, cause.scan, cause.axes, cause.amount) == ("length", "both", "z", -0.5)
    cause = _cause(Size("fixed", "y", 2.0), patterns)
    assert (cause.kind, cause.scan, cause.axes, cause.amount) == ("length", "fixed", "y", 1.0)
