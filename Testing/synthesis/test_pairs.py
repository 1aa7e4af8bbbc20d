"""Synthetic pairs: exact geometry, true box averages, what the options promise."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace

import numpy as np
import places
import pytest
from DNetRegistrationLib.synthesis import scanner
from DNetRegistrationLib.synthesis.arrays import Arrays
from DNetRegistrationLib.synthesis.pairs import (
    SHARED,
    make_pair,
    random_rotation,
    synthesize,
    target_registration_error,
)
from DNetRegistrationLib.synthesis.scanner import Grid, Session, scan
from DNetRegistrationLib.synthesis.tibia import CENTER, Animal, Bone
from scipy import ndimage


def rotation(seed):
    return random_rotation(np.random.default_rng(seed))


def pose_at(seed, point, animal_point=CENTER):
    """A pose that turns at random and puts a point of the animal at a point of the world."""
    pose = np.eye(4)
    pose[:3, :3] = rotation(seed)
    pose[:3, 3] = np.asarray(point) - pose[:3, :3] @ np.asarray(animal_point)
    return pose


def clean_session(animal, **changes):
    return replace(Session.draw(0, animal, clean=True, scale="attenuation"), **changes)


def displacement(image, reference, spacing):
    """Least-squares shift (mm, along z, y, x) of an image against a reference, by the reference's gradient."""
    gradient = np.stack([g.ravel() for g in np.gradient(reference.astype(float))], 1)
    return np.linalg.lstsq(gradient, (reference - image).ravel().astype(float), rcond=None)[0] * spacing


@pytest.fixture(scope="module")
def pair():
    return make_pair(11, size=48, spacing=0.1, scale="raw")


def test_same_seed_same_pair_other_seed_other_pair(pair):
    again = make_pair(11, size=48, spacing=0.1, scale="raw")
    assert np.array_equal(again.fixed.voxels, pair.fixed.voxels)
    assert np.array_equal(again.moving.voxels, pair.moving.voxels)
    assert np.array_equal(again.matrix, pair.matrix)
    other = make_pair(12, size=48, spacing=0.1, scale="raw")
    assert not np.array_equal(other.fixed.voxels, pair.fixed.voxels)
    assert np.abs(other.matrix - pair.matrix).max() > 0.01


def test_matrix_is_rigid_and_relates_the_poses(pair):
    turn = pair.matrix[:3, :3]
    np.testing.assert_allclose(turn.T @ turn, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    # A landmark of the animal, seen in both worlds.
    landmark = np.array([0.8, -0.2, 0.1, 1.0])
    np.testing.assert_allclose(pair.matrix @ (pair.fixed_pose @ landmark), pair.moving_pose @ landmark, atol=1e-12)
    assert pair.matrix.dtype == np.float64 and pair.same


@pytest.mark.parametrize(
    "grids",
    [
        (Grid.centered((40, 44, 36), (0.1, 0.09, 0.12)), Grid.centered(40, 0.1, center=(300.0, -80.0, 25.0))),
        (
            Grid.centered(40, 0.1, rotation(1), (-5.0, 3.0, 9.0)),
            # Left-handed: the index grid is mirrored, the bone is not.
            Grid.centered((38, 40, 46), (0.11, 0.1, 0.08), rotation(2) @ np.diag((1, 1, -1.0)), (1.0, 2.0, -70.0)),
        ),
    ],
    ids=["anisotropic, far", "oblique, left-handed"],
)
def test_moving_scan_shows_the_bone_where_the_matrix_says(grids):
    pair = make_pair(5, fixed_grid=grids[0], moving_grid=grids[1], clean=True, contrast=False, scale="attenuation")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grids[0].size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    world = pair.fixed.to_world(index) @ pair.matrix[:3, :3].T + pair.matrix[:3, 3]
    at = pair.moving.to_index(world)[..., ::-1]
    seen = np.all((at > 1) & (at < np.array(pair.moving.voxels.shape) - 2), axis=-1)
    moved = ndimage.map_coordinates(pair.moving.voxels, np.moveaxis(at, -1, 0), order=3)
    # Both blurred, so that what remains of the grids' different boxes is small.
    moved = np.where(seen, moved, pair.fixed.voxels)
    first, second = (ndimage.gaussian_filter(v, 1.5) for v in (pair.fixed.voxels, moved))
    well = ndimage.binary_erosion(seen, iterations=6)
    assert np.corrcoef(first[well], second[well])[0, 1] > 0.99
    # Boxes of two shapes and an interpolation blur differently: second derivatives take that up, apart from the shift.
    gradient = np.gradient(first)
    second_order = [d for g in gradient for d in np.gradient(g)]
    model = np.stack([term[well] for term in (*gradient, *second_order)], 1)
    off = np.linalg.lstsq(model, (second - first)[well], rcond=None)[0][:3] * pair.fixed.spacing[::-1]
    assert np.abs(off).max() < 0.001


@pytest.mark.parametrize("spacing, fine", [(0.08, 8), (0.025, 3)])
def test_voxels_are_box_averages(spacing, fine):
    """Against the same object sampled up to 8 times finer in each direction, and averaged."""
    animal = Animal.draw(2)
    session, pose = clean_session(animal), pose_at(3, (0.013, 0.02, -0.031), (0.5, 0.0, -0.7))
    coarse = scan(animal, session, Grid.centered(20, spacing), pose).voxels
    dense = scan(animal, session, Grid.centered(20 * fine, spacing / fine), pose).voxels
    reference = dense.reshape(20, fine, 20, fine, 20, fine).mean((1, 3, 5))
    bone = session.bone * scanner.SCALES["attenuation"][0]
    assert reference.max() > 0.9 * bone  # bone is there, not just air
    assert np.sqrt(((coarse - reference) ** 2).mean()) < 0.015 * bone
    assert abs((coarse - reference).mean()) < 0.001 * bone
    assert np.abs(displacement(coarse, reference, spacing)).max() < 0.0002


def test_position_is_unbiased_at_any_subvoxel_offset():
    """Two grids shifted by fractions of a voxel see the bone in one place, to well below a micrometre."""
    animal = Animal.draw(7)
    session, pose = clean_session(animal), pose_at(1, (0, 0, 0), (0.0, 0.0, -0.7))
    shift = np.array([0.37, -0.21, 0.44]) * 0.08
    # Blurred by a wide scanner, so that shifting by interpolation is next to exact.
    blurred = replace(session, blur=1.6)
    first = scan(animal, blurred, Grid.centered(44, 0.08), pose).voxels
    second = scan(animal, blurred, Grid.centered(44, 0.08, center=shift), pose).voxels
    back = ndimage.shift(second, shift[::-1] / 0.08, order=5, mode="nearest")
    inner = (slice(8, -8),) * 3
    assert np.abs(displacement(back[inner], first[inner], 0.08)).max() < 0.0005


def test_slabs_and_skipping_change_nothing(monkeypatch):
    animal = Animal.draw(3)
    session, pose, grid = clean_session(animal, blur=0.5), pose_at(8, (0, 0, 0)), Grid.centered((24, 26, 28), 0.16)
    expected = scan(animal, session, grid, pose)
    monkeypatch.setattr(scanner, "_SLAB", 5 * 24 * 26)
    monkeypatch.setattr(scanner, "_SHEET", 3 * 24 * 26)
    monkeypatch.setattr(scanner._Scanner, "_near_bone", _everywhere_near)
    got = scan(animal, session, grid, pose)
    np.testing.assert_allclose(got.voxels, expected.voxels, atol=1e-5)
    assert np.array_equal(got.bone, expected.bone)
    assert np.array_equal(got.cartilage, expected.cartilage)


def _everywhere_near(self):
    self.block = np.ones(3, int)
    return np.ones(self.size[::-1], bool)


def test_keep_cuts_the_same_scans_down_to_the_fraction():
    for seed in (1, 4):
        whole = make_pair(seed, size=32, spacing=0.16, scale="hu")
        cut = make_pair(seed, size=32, spacing=0.16, scale="hu", keep=0.5)
        assert np.array_equal(cut.matrix, whole.matrix)
        for role in ("fixed", "moving"):
            scanned, part = getattr(whole, role), getattr(cut, role)
            mask, kept = getattr(whole, f"{role}_bone"), getattr(cut, f"{role}_bone")
            assert kept.sum() >= 0.5 * mask.sum()
            assert kept.shape == part.voxels.shape
            # World positions settle where the part belongs.
            low = np.rint(scanned.to_index(part.origin)).astype(int)[::-1]
            block = tuple(slice(a, a + n) for a, n in zip(low, part.voxels.shape, strict=True))
            assert np.array_equal(scanned.voxels[block], part.voxels)
            assert np.array_equal(mask[block], kept)
        assert (cut.fixed.size != whole.fixed.size).any() or (cut.moving.size != whole.moving.size).any()
        points = cut.fixed.to_world(np.argwhere(cut.fixed_bone)[:, ::-1]) @ cut.matrix[:3, :3].T + cut.matrix[:3, 3]
        index = cut.moving.to_index(points)
        both = np.all((index >= 0) & (index <= cut.moving.size - 1), axis=1).sum()
        assert both / min(cut.fixed_bone.sum(), cut.moving_bone.sum()) > SHARED - 0.03


def test_shaft_leaves_the_field_of_view():
    for seed in range(4):
        bone = make_pair(seed, size=32, spacing=0.16).fixed_bone
        faces = [face for axis in range(3) for face in (bone.take(0, axis), bone.take(-1, axis))]
        assert any(face.any() for face in faces) and 0.02 < bone.mean() < 0.2


def test_translation_is_about_the_grid_centers():
    shifts = []
    for seed in range(6):
        pair = make_pair(seed, size=12, spacing=0.4, max_translation=0.3)
        center = pair.matrix[:3, :3] @ pair.fixed.center + pair.matrix[:3, 3]
        shifts.append(center - pair.moving.center)
        np.testing.assert_allclose(pair.drawn["shift_mm"], shifts[-1], atol=1e-12)
    assert 0.15 < np.abs(shifts).max() <= 0.3


def test_given_matrix_is_used():
    matrix = pose_at(4, (0.4, 0.4, 0.4), (0, 0, 0))
    pair = make_pair(2, size=24, spacing=0.2, matrix=matrix)
    assert np.array_equal(pair.matrix, matrix)
    angle = np.degrees(np.arccos((np.trace(matrix[:3, :3]) - 1) / 2))
    assert pair.drawn["rotation_deg"] == pytest.approx(angle)


def test_target_registration_error_is_the_mean_over_bone(pair):
    wrong = pose_at(1, (0.1, 0.0, -0.2), (0, 0, 0))
    distances = []
    for z, y, x in np.argwhere(pair.fixed_bone)[:200]:
        point = np.append(pair.fixed.to_world([x, y, z]), 1)
        distances.append(np.linalg.norm((wrong @ point - pair.matrix @ point)[:3]))
    few = np.zeros_like(pair.fixed_bone)
    few[tuple(np.argwhere(pair.fixed_bone)[:200].T)] = True
    assert target_registration_error(replace(pair, fixed_bone=few), wrong) == pytest.approx(np.mean(distances))
    assert target_registration_error(pair, pair.matrix) == 0
    moved = pair.matrix.copy()
    moved[:3, 3] += (0.03, 0.0, 0.04)
    assert target_registration_error(pair, moved) == pytest.approx(0.05)


def test_random_rotations_have_their_distributions():
    generator = np.random.default_rng(0)
    uniform = np.array([random_rotation(generator) for _ in range(4000)])
    assert np.abs(uniform @ uniform.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    np.testing.assert_allclose(np.linalg.det(uniform), 1)
    # Haar: the mean rotation is zero, and the angle's mean is pi/2 + 2/pi.
    assert np.abs(uniform.mean(0)).max() < 0.04
    angles = np.arccos(np.clip((uniform.trace(axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.04)
    paper = np.array([random_rotation(generator, "axis-angle") for _ in range(4000)])
    angles = np.arccos(np.clip((paper.trace(axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(np.pi / 2, abs=0.06)
    small = [random_rotation(generator, max_angle=0.5) for _ in range(200)]
    assert 0.4 < np.arccos((np.trace(small, axis1=1, axis2=2) - 1) / 2).max() <= 0.5


def test_relatives_are_nearer_than_strangers_and_not_the_same():
    for seed in range(3):
        animal = Animal.draw(seed)
        genes = animal.shape.mantle.radius
        near = np.abs(replace(animal.relative(seed, 0.2), left=animal.left).shape.mantle.radius - genes).mean()
        far = np.abs(Animal.draw(seed + 100).shape.mantle.radius - genes).mean()
        assert 0 < near < 0.6 * far
    assert make_pair(1, size=16, spacing=0.3, impostor="relative").same is False


def test_mirrored_bone_is_the_mirror_image():
    animal = Animal.draw(9)
    points = np.random.default_rng(0).uniform((-2, -1.5, -3), (2, 1.5, 0.5), (3000, 3)).astype(np.float32)
    x, y, z = points.T.copy()
    one = Bone(animal, Arrays()).tissue(x, y, z, 0.02)
    other = Bone(animal.mirrored(), Arrays()).tissue(-x, y, z, 0.02)
    np.testing.assert_allclose(other.density, one.density, atol=1e-6)
    same_place = Bone(animal.mirrored(), Arrays()).tissue(x, y, z, 0.02)
    assert np.abs(same_place.density - one.density).mean() > 0.05


def test_bone_has_no_rotational_symmetry():
    """Turned about its shaft by anything, a bone is unlike itself."""
    animal = Animal.draw(4)
    session, grid = clean_session(animal), Grid.centered(28, 0.18)
    images = []
    for degrees in range(0, 360, 45):
        turn = np.deg2rad(degrees)
        pose = np.eye(4)
        pose[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        pose[:3, 3] = -CENTER
        images.append(ndimage.gaussian_filter(scan(animal, session, grid, pose).voxels, 1).ravel())
    assert np.corrcoef(images)[0, 1:].max() < 0.9


def test_measures_are_those_of_a_mouse():
    for seed in range(8):
        shape = Animal.draw(seed).shape
        mantle = shape.mantle
        z = np.linspace(-12.0, 0.8, mantle.radius.shape[0])
        head, shaft = np.abs(z + 0.4).argmin(), np.abs(z + 5.0).argmin()
        half = (mantle.radius.shape[1] - 1) // 2

        def width(row, mantle=mantle, half=half):
            return mantle.radius[row, : half + 1] + mantle.radius[row, half:]

        assert 2.5 < width(head).max() < 4.1 and 0.85 < width(shaft).min() < 1.4
        assert 0.1 < np.median(mantle.cortex[shaft]) < 0.3
        assert 0.03 < shape.plateau.cartilage.max() <= 0.11
        assert 0.03 < 2 * shape.spongiosa.strut < 0.07


def test_contrast_brightens_cartilage_only_in_the_twin():
    animal = Animal.draw(1)
    pose, grid = pose_at(2, (0, 0, 0), (0.0, 0.0, -0.1)), Grid.centered(60, 0.03)
    plain = Session.draw(1, animal, scale="hu", background="water")
    twin = Session.draw(1, animal, contrast=True, scale="hu", background="water")
    first, second = (scan(animal, replace(s, noise=0.0, rings=0.0, blur=0.0), grid, pose) for s in (plain, twin))
    assert np.array_equal(first.cartilage, second.cartilage)
    cartilage = first.cartilage > 250
    assert cartilage.sum() > 100 and not (cartilage & first.bone).any()
    assert abs(np.median(first.voxels[cartilage]) - plain.cartilage) < 50
    assert np.median(second.voxels[cartilage]) - np.median(first.voxels[cartilage]) > 0.6 * twin.uptake
    inside = ndimage.binary_erosion(first.bone)
    assert np.median(np.abs(first.voxels[inside].astype(int) - second.voxels[inside])) < 150


@pytest.mark.parametrize(
    "scale, dtype", [("hu", "int16"), ("raw", "uint16"), ("byte", "uint8"), ("attenuation", "float32")]
)
def test_scales(scale, dtype):
    pair = make_pair(3, size=32, spacing=0.16, scale=scale, background="fixative", contrast=False)
    assert pair.fixed.voxels.dtype == pair.moving.voxels.dtype == dtype
    solid = ndimage.binary_erosion(pair.fixed_bone)
    around = ~ndimage.binary_dilation(pair.fixed_bone, iterations=3)
    assert np.median(pair.fixed.voxels[solid]) > np.percentile(pair.fixed.voxels[around], 95)
    if scale == "raw":
        # The paper's threshold of 2000 parts them.
        assert np.median(pair.fixed.voxels[solid]) > 2300 and np.percentile(pair.fixed.voxels[around], 95) < 2000


def test_reconstruction_circle():
    pair = make_pair(3, size=24, spacing=0.2, scale="attenuation", circle=0.9)
    outside = np.isnan(pair.fixed.voxels)
    y, x = np.mgrid[:24, :24] - 11.5
    assert np.array_equal(outside, np.broadcast_to(np.hypot(x, y) > 0.9 * 12, outside.shape))


def test_torch_and_numpy_agree():
    pytest.importorskip("torch")
    options = dict(size=28, spacing=0.16, clean=True, contrast=False, scale="attenuation")
    first, second = make_pair(5, **options), make_pair(5, device="cpu", **options)
    assert np.array_equal(first.matrix, second.matrix)
    np.testing.assert_allclose(second.fixed.voxels, first.fixed.voxels, atol=2e-3)
    assert (first.fixed_bone != second.fixed_bone).mean() < 1e-3
    noisy = [make_pair(6, size=16, spacing=0.3, scale="raw", device="cpu") for _ in range(2)]
    assert noisy[0].fixed.voxels.dtype == np.uint16
    assert np.array_equal(noisy[0].moving.voxels, noisy[1].moving.voxels)


def test_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from DNetRegistrationLib.synthesis.pairs import make_pair\n"
        "print(make_pair(1, size=16, spacing=0.3).fixed.voxels.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=places.SOURCE, capture_output=True, text=True)
    assert done.stdout.strip() == "(16, 16, 16)", done.stderr


def test_synthesize_writes_pairs_with_their_truth(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    reports = []
    table = synthesize(tmp_path, 2, seed=7, size=16, spacing=0.3, progress=lambda *report: reports.append(report))
    names = {f"000{n}_{what}" for n in (1, 2) for what in ("fixed.nrrd", "moving.nrrd", "truth.tfm")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"truth.csv"}
    assert reports[0][0] == 0 and reports[-1][0] == 1
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        pair = make_pair(7 + number, size=16, spacing=0.3)
        written = np.array([[float(row[f"m{i}{j}"]) for j in range(4)] for i in range(4)])
        assert np.array_equal(written, pair.matrix)
        transform = sitk.ReadTransform(str(tmp_path / f"{row['pair']}_truth.tfm"))
        point = np.array([0.3, -1.2, 0.7])
        np.testing.assert_allclose(
            transform.TransformPoint(point), pair.matrix[:3, :3] @ point + pair.matrix[:3, 3], atol=1e-9
        )
        image = sitk.ReadImage(str(tmp_path / f"{row['pair']}_moving.nrrd"))
        assert np.array_equal(sitk.GetArrayFromImage(image), pair.moving.voxels)
        np.testing.assert_allclose(image.GetOrigin(), pair.moving.origin)


@pytest.mark.parametrize(
    "options",
    [{"impostor": "cat"}, {"scale": "mm"}, {"keep": 0.0}, {"keep": 1.5}, {"rotations": "euler"}, {"background": "oil"}],
)
def test_bad_options_are_named(options):
    value = str(next(iter(options.values())))
    with pytest.raises(ValueError, match=value):
        make_pair(1, size=8, **options)
