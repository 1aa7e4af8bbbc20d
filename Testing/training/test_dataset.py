"""Datasets of bones: what they hold, that they come out the same, and files and folders of all sorts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from alignments import made_alignment
from DNetRegistrationLib.bone.cube import CUBE_REACH, BonePlace, canonical_cube, place_of_bone
from DNetRegistrationLib.bone.images import BoneImage, bone_pyramid, native_scan
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.cohort.listing import pairs_of_list
from DNetRegistrationLib.core.errors import DNetError, FileError, OptionError, ScanError
from DNetRegistrationLib.geometry.transform_files import write_transform
from DNetRegistrationLib.geometry.transforms import to_sitk
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from DNetRegistrationLib.synthesis.pairs import make_pair, random_rotation
from DNetRegistrationLib.synthesis.scanner import Grid, scan
from DNetRegistrationLib.synthesis.session import Session
from DNetRegistrationLib.synthesis.tibia import CENTER, Animal
from DNetRegistrationLib.training import dataset as dataset_module
from DNetRegistrationLib.training import scanned_bones as scanned_bones
from DNetRegistrationLib.training import synthetic_bones
from DNetRegistrationLib.training.dataset import (
    BoneDataset,
    dataset_of_scans,
    load_dataset,
    quantized,
    save_dataset,
    synthetic_dataset,
)
from DNetRegistrationLib.training.pairs import PairSource
from DNetRegistrationLib.training.recipes import KINDS
from DNetRegistrationLib.training.scanned_bones import own_axes
from DNetRegistrationLib.training.synthetic_bones import grey_levels


@pytest.fixture
def dataset(tibiae):
    return tibiae


def small(count=3, size=20):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand((2, count, size, size, size), generator=generator)
    names = [f"bone {number}" for number in range(count)]
    return BoneDataset(quantized(values[0]), quantized(values[1]), 0.4, names, made={"seed": 1})


def same(one: BoneDataset, other: BoneDataset) -> bool:
    return torch.equal(one.plain, other.plain) and torch.equal(one.contrast, other.contrast)


def test_a_dataset_holds_bones_about_the_middle_with_and_without_contrast(dataset):
    assert len(dataset) == 2 and dataset.names == ["tibia 0", "tibia 1"]
    assert dataset.plain.shape == dataset.contrast.shape == (2, 148, 148, 148)
    # A cube of 5.12 mm lies within, in any orientation.
    assert dataset.plain.shape[-1] * dataset.spacing >= 5.12 * math.sqrt(3)
    assert 256 * (dataset.plain[0].nbytes + dataset.contrast[0].nbytes) < 2.5e9
    for number in range(2):
        plain, contrast = dataset.values(number), dataset.values(number, contrast=True)
        assert plain.dtype == torch.float32 and 0.9 < float(plain.max()) < 1.99 and plain.min() == 0
        middle = plain[32:-32, 32:-32, 32:-32]
        assert 0.01 < float((middle > 0.5).float().mean()) < 0.1
        # The same bone, but another scan.
        assert np.corrcoef(plain.ravel(), contrast.ravel())[0, 1] > 0.85
        assert not torch.equal(plain, contrast)
    assert not torch.equal(dataset.plain[0], dataset.plain[1])


def test_contrast_agent_adds_a_layer_on_the_plateau(dataset):
    added = (dataset.contrast.float() - dataset.plain.float()).mean((0, 2, 3))
    # The plateau is 1.45 mm above the middle.
    z = (torch.arange(148) - 73.5) * 0.06
    plateau = (z > 1.0) & (z < 1.8)
    assert float(added[plateau].mean()) > 3 * abs(float(added[z < -1].mean()))


@pytest.mark.slow
def test_a_dataset_is_made_the_same_in_one_process_and_in_two():
    told = []
    one = synthetic_dataset(2, 5, spacing=0.24)
    two = synthetic_dataset(2, 5, spacing=0.24, processes=2, progress=lambda *progress: told.append(progress))
    assert same(one, two) and one.names == two.names
    assert [fraction for fraction, _ in told] == [0.5, 1.0]
    # Bones do not depend on how many more there are, but on the seed.
    assert torch.equal(synthetic_dataset(1, 5, spacing=0.24).contrast[0], one.contrast[0])


@pytest.mark.slow
def test_kinds_of_bones_are_as_frequent_as_told(monkeypatch):
    """And each is about the middle, in both scans."""
    dataset = synthetic_dataset(3, 2, kinds={"long": 1, "flat": 1, "irregular": 1, "tibia": 0}, spacing=0.24)
    assert not any(name.startswith("tibia") for name in dataset.names)
    for scans in (dataset.plain, dataset.contrast):
        assert (scans[:, 9:-9, 9:-9, 9:-9] > 64).float().mean((1, 2, 3)).min() > 0.002
    PairSource(dataset, 0).draw(0, 1)
    drawn = []
    monkeypatch.setattr(synthetic_bones, "draw_animal", lambda kind, seed: drawn.append(kind))
    for number in range(400):
        with pytest.raises(AttributeError):  # nothing to scan
            synthetic_bones.scan_twice(synthetic_bones.BoneTask(1, number, dict(KINDS), 8, 1.0))
    for kind, share in KINDS.items():
        assert drawn.count(kind) / 400 == pytest.approx(share, abs=0.07)


@pytest.mark.parametrize("seed", range(4))
def test_grey_levels_are_those_that_align_finds(seed):
    animal = Animal.draw(seed)
    grid = Grid.centered(64, 0.08, center=CENTER)
    session = Session.draw(seed + 50, animal, contrast=seed % 2 == 1, scale="attenuation")
    made = scan(animal, session, grid, np.eye(4))
    threshold, maximum = grey_levels(torch.from_numpy(made.voxels), torch.from_numpy(made.bone), 0.08)
    found = find_bone_scale(Volume(made.voxels, grid.affine))
    reach = found.maximum - found.threshold
    assert abs(threshold - found.threshold) < 0.06 * reach
    assert abs(maximum - found.maximum) < 0.03 * reach


def test_cubes_are_like_those_that_align_makes_of_a_scan(dataset):
    """Of a scan of the same animal at the same pose: one session's noise and muscle, another's grid."""
    source = PairSource(dataset, 3, placement="center", cut_share=0, contrast=0, noise=0, scale=0)
    for number, (size, spacing) in enumerate(((64, 0.08), (128, 0.04))):
        drawn = source._drawn(number, 1, math.pi)
        # What the dataset was made of.
        seeds = np.random.default_rng([5, int(drawn.bones[0]), 9]).integers(1 << 62, size=3)
        animal = Animal.draw(int(seeds[0]))
        session = Session.draw(int(seeds[1]), animal, scale="attenuation")
        # The middle of the dataset's grid is CENTER, and where it is in the fixed view is the jitter.
        pose = np.eye(4)
        pose[:3, :3] = drawn.turn[0, 0]
        pose[:3, 3] = drawn.jitter[0] - pose[:3, :3] @ CENTER
        made = source.draw(number, 1)
        grid = Grid.centered(size, spacing)
        scanned = Volume(scan(animal, session, grid, pose).voxels, grid.affine)
        native = native_scan(scanned, find_bone_scale(scanned), None, torch.device("cpu"))
        cube = canonical_cube(bone_pyramid(native, 0.08), BonePlace(np.zeros(3), 1.0), 0.08)
        assert np.corrcoef(made.fixed.ravel(), cube.image.ravel())[0, 1] > 0.97
        assert torch.equal(made.fixed_inside[0, 0], cube.inside)


def test_datasets_are_split_by_bones():
    dataset = small(10)
    train, validation = dataset.split(0.2, 1)
    assert len(train) == 8 and len(validation) == 2
    assert sorted(train.names + validation.names) == sorted(dataset.names)
    for part in (train, validation):
        for number, name in enumerate(part.names):
            assert torch.equal(part.plain[number], dataset.plain[dataset.names.index(name)])
            assert torch.equal(part.contrast[number], dataset.contrast[dataset.names.index(name)])
    assert dataset.split(0.2, 1)[1].names == validation.names != dataset.split(0.2, 2)[1].names
    with pytest.raises(OptionError, match="of 1 bone none can be held out"):
        small(1).split(0.2, 1)


def test_bones_of_one_animal_are_not_parted():
    """A bone at two times, and one scan given twice, were trained on and validated on."""
    dataset = replace(small(7), animals=["a", "b", "a", "c", "c", "c", "c"])
    for seed in range(12):
        train, validation = dataset.split(0.3, seed)
        assert not set(train.animals) & set(validation.animals) and len(train) >= len(validation) > 0
        assert sorted(train.names + validation.names) == sorted(dataset.names)
    with pytest.raises(OptionError, match="of 7 bones, all of one animal, none can be held out"):
        replace(dataset, animals=["a"] * 7).split(0.3, 1)


def test_bones_of_one_animal_are_those_of_its_name_or_of_one_file(tmp_path):
    lines = (
        "id,time,fixed,moving,animal", "m1,4,a.nrrd,b.nrrd,", "m1,8,c.nrrd,d.nrrd,", "m2,,e.nrrd,f.nrrd,x",
        "m3,,f.nrrd,g.nrrd,y", "m4,,h.nrrd,i.nrrd,y", "m5,,j.nrrd,k.nrrd,", "m6,,j.nrrd,,",
    )  # fmt: skip
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    for name in "abcdefghijk":
        (tmp_path / f"{name}.nrrd").touch()
    bones = scanned_bones.find_bone_scans(tmp_path / "pairs.csv")
    assert scanned_bones.animals_of(bones) == ["m1_4", "m1_4", "m2", "m2", "m2", "m5", "m5"]


@pytest.mark.parametrize("kinds", [{"horn": 1.0}, {"tibia": -1.0}, {"tibia": 0.0}, {}, {"tibia": math.nan}])
def test_wrong_kinds_are_named(kinds):
    with pytest.raises(OptionError, match=r"horn|negative or all zero"):
        synthetic_dataset(1, 0, kinds=kinds)


def test_no_bones_are_no_dataset():
    with pytest.raises(OptionError, match="at least 1"):
        synthetic_dataset(0, 0)


def test_bone_values_are_stored_to_a_256th():
    values = torch.tensor([0.0, 0.003, 0.5, 1.0, 1.99, 40.0, math.inf])
    back = quantized(values).float() / 128
    assert (back - values)[:5].abs().max() <= 1 / 256
    assert (back[5:] == 255 / 128).all()


def test_a_dataset_comes_back_from_its_file(tmp_path):
    dataset = replace(small(), fields=torch.rand(3, 2, 3, 4, dtype=torch.float64))
    save_dataset(dataset, tmp_path / "bones.pt")
    back = load_dataset(tmp_path / "bones.pt")
    assert same(dataset, back) and torch.equal(back.fields, dataset.fields)
    assert (back.names, back.spacing, back.made) == (dataset.names, dataset.spacing, dataset.made)
    assert [path.name for path in tmp_path.iterdir()] == ["bones.pt"]


def test_files_that_are_no_good_are_refused(tmp_path, monkeypatch):
    good, bad = tmp_path / "bones.pt", tmp_path / "bad.pt"
    save_dataset(small(), good)
    content = good.read_bytes()

    def refused(why):
        with pytest.raises(FileError, match=why) as caught:
            load_dataset(bad)
        assert str(bad) in str(caught.value) and "\n" not in str(caught.value)

    refused("no such dataset")
    for length in (0, 10, len(content) // 2, len(content) - 30):
        bad.write_bytes(content[:length])
        refused("damaged|no dataset")
    # A byte of a bone.
    at = content.index(small().plain[1].numpy().tobytes()[:100]) + 50
    bad.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    refused("damaged|SHA-256")
    torch.save({"state": torch.zeros(3)}, bad)
    refused("no dataset of bones of this version")
    torch.save(Path("code to run"), bad)
    refused("no PyTorch file of plain tensors")
    bad.write_text("hello")
    refused("damaged|no dataset")
    stored_content = torch.load(good, weights_only=True)
    torch.save({**stored_content, "names": ["one"]}, bad)
    refused("SHA-256")
    for wrong in ({"made": 3}, {"plain": torch.zeros(3, device="meta")}):
        torch.save({**stored_content, **wrong}, bad)
        refused("damaged, or no dataset")
    # Made by other code.
    bad.write_bytes(content)
    monkeypatch.setattr(dataset_module, "code_hash", lambda *rooms: "another")
    refused("another version")


def test_a_dataset_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        save_dataset(small(), tmp_path / "nowhere" / "bones.pt")
    with pytest.raises(FileError, match="it is a folder"):
        save_dataset(small(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pair of scans on grids of their own, with its transform, and a single one."""
    folder = tmp_path_factory.mktemp("scans")
    pair = make_pair(2, size=44, spacing=0.12, scale="hu", background="water")
    write_volume(pair.fixed, folder / "mouse_pre.nrrd")
    write_volume(pair.moving, folder / "mouse_post.mha")
    write_transform(to_sitk(pair.matrix), folder / "mouse.tfm")
    write_volume(make_pair(8, size=(40, 44, 50), spacing=0.12, scale="raw").fixed, folder / "other.nii.gz")
    (folder / "notes.txt").write_text("mice")
    return folder, pair


@pytest.fixture(scope="module")
def read(folder):
    return dataset_of_scans(folder[0])


def test_a_folder_of_scans_becomes_a_dataset(read):
    assert read.names == ["mouse", "other"] and read.spacing == 0.06 and len(read) == 2
    # The single scan is its own partner.
    assert torch.equal(read.plain[1], read.contrast[1]) and not torch.equal(read.plain[0], read.contrast[0])
    axis = (torch.arange(148) - 73.5) * 0.06
    for values in (read.values(0), read.values(1)):
        for dim in range(3):
            along = values.sum([d for d in range(3) if d != dim])
            assert abs(float((along * axis).sum() / along.sum())) < 0.02
    batch = PairSource(read, 0).draw(0, 4)
    assert batch.fixed.amax((1, 2, 3, 4)).min() > 0.5


def test_a_transform_of_a_refused_alignment_is_not_trained_on(folder, tmp_path):
    for name in ("mouse_pre.nrrd", "mouse_post.mha"):
        (tmp_path / name).write_bytes((folder[0] / name).read_bytes())
    write_transform(made_alignment(folder[1].matrix, accepted=False, doubts=["symmetry"]), tmp_path / "mouse.tfm")
    with pytest.raises(FileError, match=r"mouse\.tfm: is no truth"):
        dataset_of_scans(tmp_path)


def test_resampled_scans_lie_on_the_true_bone(folder, read):
    """On that of the animal at the scan's pose, scanned on the dataset's grid; which ends where the scans ended."""
    pair = folder[1]
    native = native_scan(pair.fixed, find_bone_scale(pair.fixed), None, torch.device("cpu"))
    image = bone_pyramid(native, 0.08)[-1]
    center, axes = place_of_bone(image).center, own_axes(image)
    # The animal turned, so that the bone's axes are those of the grid.
    turn = np.eye(4)
    turn[:3, :3] = axes.T
    turn[:3, 3] = center - axes.T @ center
    grid = Grid.centered(74, 0.12, center=center)
    true = scan(pair.fixed_animal, Session.draw(0, pair.fixed_animal, clean=True), grid, turn @ pair.fixed_pose)
    bone = torch.from_numpy(find_bone_scale(Volume(true.voxels, grid.affine))(true.voxels.astype(np.float32)))
    index = (np.indices((74,) * 3).reshape(3, -1)[::-1].T - 36.5) * 0.12
    for contrast, to_scan in ((False, np.eye(4)), (True, pair.matrix)):
        field = read.fields[0, int(contrast)].numpy()
        seen = (np.abs(index @ field[:, :3].T + field[:, 3]) <= 1).all(1)
        world = (index @ axes.T + center) @ to_scan[:3, :3].T + to_scan[:3, 3]
        assert np.array_equal(seen, (np.abs(world) <= 2.64).all(1))
        seen = torch.from_numpy(seen).view(74, 74, 74)
        values = torch.nn.functional.avg_pool3d(read.values(0, contrast)[None], 2)[0]
        assert np.corrcoef(values[seen], bone[seen])[0, 1] > 0.85
        assert float(values[~seen].mean()) < 0.1 * float(values[seen].mean())


@pytest.mark.parametrize("mirrored", [False, True])
def test_own_axes_turn_with_the_bone(folder, mirrored):
    """Whatever the grid: the same bone, turned, on an oblique (and left-handed) grid, has the turned axes."""
    native = native_scan(folder[1].fixed, find_bone_scale(folder[1].fixed), None, torch.device("cpu"))
    image = bone_pyramid(native, 0.08)[-1]
    axes = own_axes(image)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1)
    # By hand, voxel by voxel: longest along z, and heavier tails at its high end and at y's.
    points = [(image.affine @ (*reversed(at), 1))[:3] for at in np.ndindex(*image.values.shape) if image.values[at] > 0]
    weight = [float(value) for value in image.values.flatten() if value > 0]
    along = (np.array(points) - np.average(points, axis=0, weights=weight)) @ axes
    spread = np.average(along**2, axis=0, weights=weight)
    assert spread[0] < spread[1] < spread[2]
    assert (np.average(along**3, axis=0, weights=weight)[1:] > 0).all()
    moved = random_pose(4)
    values = image.values
    affine = moved @ image.affine
    if mirrored:  # the same places, counted from the other end
        values = values.flip(2)
        affine = affine @ np.array([[-1, 0, 0, values.shape[2] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(own_axes(BoneImage(values, affine)), moved[:3, :3] @ axes, atol=1e-9)


def test_bones_scanned_any_way_round_lie_alike(read, folder, tmp_path):
    """The dataset of a scan does not depend on how the bone lay in the scanner."""
    turned = replace(folder[1].fixed, affine=random_pose(5) @ folder[1].fixed.affine)
    write_volume(turned, tmp_path / "turned.nrrd")
    found, first = dataset_of_scans(tmp_path).values(0), read.values(0)
    assert np.corrcoef(found.flatten(), first.flatten())[0, 1] > 0.99


def random_pose(seed):
    """``(4, 4)`` rigid."""
    pose = np.eye(4)
    pose[:3, :3] = random_rotation(np.random.default_rng(seed))
    pose[:3, 3] = (3.0, -7.0, 11.0)
    return pose


@pytest.mark.slow
def test_scans_without_a_transform_are_aligned(folder, read, tmp_path):
    for name in ("mouse_pre.nrrd", "mouse_post.mha"):
        (tmp_path / name).write_bytes((folder[0] / name).read_bytes())
    found = dataset_of_scans(tmp_path)
    difference = found.values(0, contrast=True) - read.values(0, contrast=True)
    assert float(difference.square().mean().sqrt()) < 0.02
    assert torch.equal(found.plain[0], read.plain[0])


def test_scans_that_cannot_be_aligned_are_named(folder, tmp_path, monkeypatch):
    for name in ("mouse_pre.nrrd", "mouse_post.mha"):
        (tmp_path / name).write_bytes((folder[0] / name).read_bytes())
    monkeypatch.setattr(scanned_bones, "align", lambda **options: SimpleNamespace(accepted=False, verdict="Not alike."))
    with pytest.raises(
        ScanError,
        match=r"mouse_post.mha: could not be aligned with \S*mouse_pre.nrrd for sure \(Not alike\); .*mouse.tfm",
    ):
        dataset_of_scans(tmp_path)


def test_larger_bones_are_made_smaller(folder, tmp_path):
    """As `align` shows them to a network: 95 % of a rat's bone within the reach of the cube."""
    rat = replace(folder[1].fixed, affine=np.diag((3.0, 3.0, 3.0, 1.0)) @ folder[1].fixed.affine)
    write_volume(rat, tmp_path / "rat.nrrd")
    dataset = dataset_of_scans(tmp_path)
    affine = np.diag((0.06, 0.06, 0.06, 1.0))
    affine[:3, 3] = -73.5 * 0.06
    place = place_of_bone(BoneImage(dataset.values(0), affine))
    assert place.radius == pytest.approx(CUBE_REACH * 32 * 0.08, rel=0.03)
    assert np.abs(place.center).max() < 0.02


def test_folders_that_are_no_good_are_refused(folder, tmp_path):
    def refused(why, where=tmp_path):
        with pytest.raises(DNetError, match=why) as caught:
            dataset_of_scans(where)
        assert "\n" not in str(caught.value)

    refused("no such folder", tmp_path / "nowhere")
    refused("holds no scans")
    scan_file = folder[0] / "mouse_pre.nrrd"
    (tmp_path / "mouse_pre.nrrd").write_bytes(scan_file.read_bytes())
    refused(r"mouse_pre.nrrd: its partner mouse_post.\* is missing")
    (tmp_path / "mouse_post.nrrd").write_bytes(b"NRRD0004\nnothing")
    refused("mouse_post.nrrd")
    (tmp_path / "mouse_post.mha").write_bytes(b"")
    refused("the same name")


def test_names_tell_pairs_from_single_scans(tmp_path):
    for name in ("b_post.nrrd", "b_pre.mha", "a.nii.gz", "pre.nrrd", "c_pre_post.nrrd", "c_pre_pre.nrrd", ".d.nrrd"):
        (tmp_path / name).touch()
    (tmp_path / "slices").mkdir()
    found = [
        (e.name, Path(e.fixed.path).name, e.moving and Path(e.moving.path).name)
        for e in scanned_bones.find_bone_scans(tmp_path)
    ]
    assert found == [
        ("a", "a.nii.gz", None),
        ("b", "b_pre.mha", "b_post.nrrd"),
        ("c_pre", "c_pre_pre.nrrd", "c_pre_post.nrrd"),
        ("pre", "pre.nrrd", None),
        ("slices", "slices", None),
    ]


TABLES = {
    "of bones": "group,name,pre,post,transform,pre_spacing,post_spacing\n"
    '1,one,a.tif,b.tif,t.tfm,0.01,"0.01,0.01,0.02"\n2,two,c.tif,,,,\n',
    "of pairs": "id,fixed,moving,transform,fixed_spacing,moving_spacing\n"
    "one,a.tif,b.tif,t.tfm,0.01,0.01 0.01 0.02\ntwo,c.tif,,,,\n",
    "of a spreadsheet with decimal commas": "sep=;\nName;Pre;Post;Transform;Pre_spacing;Post_spacing\n"
    "one;a.tif;b.tif;t.tfm;0,01;0,01 0,01 0,02\n;;;;;\ntwo;c.tif;;;;\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_lists_bones_and_the_spacing_of_each_scan(kind, tmp_path, monkeypatch):
    for file in ("a.tif", "b.tif", "c.tif", "t.tfm"):
        (tmp_path / file).write_bytes(b"")
    table = tmp_path / "bones.csv"
    table.write_text(TABLES[kind])
    first, second = scanned_bones.find_bone_scans(table)
    assert first == scanned_bones.BoneScans(
        "one",
        ScanFile(str(tmp_path / "a.tif"), (0.01,)),
        ScanFile(str(tmp_path / "b.tif"), (0.01, 0.01, 0.02)),
        tmp_path / "t.tfm",
    )
    assert second == scanned_bones.BoneScans("two", ScanFile(str(tmp_path / "c.tif")))
    read = []

    def read_scan(scan, role):
        read.append((Path(scan.path).name, scan.spacing))
        raise ScanError("enough")

    monkeypatch.setattr(ScanFile, "read", read_scan)
    for bone in (first, second):
        with pytest.raises(ScanError, match="enough"):
            scanned_bones.resample_bone(bone, 8, 0.5, (0.3,))
    assert read == [("a.tif", (0.01,)), ("c.tif", (0.3,))]


def test_what_synthesize_writes_are_pairs(tmp_path):
    for name in ("fixed", "moving", "fixed_bone", "fixed_cartilage", "moving_bone", "moving_cartilage"):
        (tmp_path / f"0001_{name}.nrrd").touch()
    (tmp_path / "0001_truth.tfm").touch()
    told = []
    (bone,) = scanned_bones.find_bone_scans(tmp_path, told.append)
    assert (bone.name, Path(bone.moving.path).name, bone.transform.name) == (
        "0001",
        "0001_moving.nrrd",
        "0001_truth.tfm",
    )
    assert told == ["passed over, since they are called like masks: 0001_fixed_bone.nrrd and 3 more"]


def test_a_list_of_pairs_says_of_scans_what_it_says_to_align(tmp_path):
    for file in ("a.tif", "b.tif", "m.seg.nrrd", "i.tfm"):
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "pairs.csv").write_text(
        "id;time;fixed;moving;fixed_mask;fixed_segment;fixed_threshold;moving_series;moving_flip;initial;contrast;group\n"
        "m1;4w;a.tif;b.tif;m.seg.nrrd;tibia;1200,5;2;z;i.tfm;fixed;sham\n"
    )
    (bone,) = scanned_bones.find_bone_scans(tmp_path / "pairs.csv")
    (pair,) = pairs_of_list(tmp_path / "pairs.csv").pairs
    assert (bone.name, bone.fixed, bone.moving, bone.contrast) == (pair.name, pair.fixed, pair.moving, "fixed")
    assert str(bone.initial) == pair.initial and bone.fixed.mask.endswith("m.seg.nrrd")
    assert (bone.fixed.threshold, bone.moving.flip, bone.transform) == (1200.5, "z", None)


def test_bone_outside_a_mask_is_not_trained_on(folder, read, tmp_path):
    """Something as bright as bone in a corner of one scan, masked away as `align` does it."""
    scan = folder[1].fixed
    voxels = scan.voxels.copy()
    voxels[-14:-2, -14:-2, -14:-2] = np.percentile(voxels, 99.5)
    mask = np.ones(voxels.shape, np.uint8)
    mask[-16:, -16:, -16:] = 0
    write_volume(replace(scan, voxels=voxels), tmp_path / "pre.nrrd")
    write_volume(replace(scan, voxels=mask), tmp_path / "mask.nrrd")
    for name in ("mouse_post.mha", "mouse.tfm"):
        (tmp_path / name).write_bytes((folder[0] / name).read_bytes())
    rows = "id,fixed,moving,transform,fixed_mask\nmouse,pre.nrrd,mouse_post.mha,mouse.tfm,"
    (tmp_path / "masked.csv").write_text(f"{rows}mask.nrrd\n")
    (tmp_path / "whole.csv").write_text(f"{rows}\n")
    masked, whole = (dataset_of_scans(tmp_path / name) for name in ("masked.csv", "whole.csv"))
    for found, alike in ((masked, True), (whole, False)):
        assert (np.corrcoef(found.values(0).flatten(), read.values(0).flatten())[0, 1] > 0.99) == alike


def test_the_scan_with_the_agent_may_be_the_fixed_one(folder, tmp_path):
    for name in ("mouse_pre.nrrd", "mouse_post.mha", "mouse.tfm"):
        (tmp_path / name).write_bytes((folder[0] / name).read_bytes())
    columns = "id,fixed,moving,transform,contrast\nmouse,mouse_pre.nrrd,mouse_post.mha,mouse.tfm"
    (tmp_path / "fixed.csv").write_text(f"{columns},fixed\n")
    (tmp_path / "moving.csv").write_text(f"{columns},moving\n")
    fixed, moving = (dataset_of_scans(tmp_path / f"{name}.csv") for name in ("fixed", "moving"))
    assert torch.equal(fixed.plain, moving.contrast) and torch.equal(fixed.contrast, moving.plain)
    assert torch.equal(fixed.fields.flip(1), moving.fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,pre\n", "lists no bones"),
        ("name,post\none,a.tif\n", "line 2 has no pre"),
        ("name,pre\none,z.tif\n", r"z\.tif: there is no such file \(.*line 2\)"),
        (
            "name,pre,pre_spacing\none,a.tif,wide\n",
            "line 2 has 'wide' as pre_spacing, not one or three voxel sizes in mm",
        ),
        ("name,pre,pre_spacing\none,a.tif,-1\n", "line 2 has '-1' as pre_spacing, not one or three"),
        ("id,fixed,contrast\none,a.tif,both\n", "line 2 has 'both' as contrast, not fixed or moving"),
        ("id,fixed,fixed_mask\none,a.tif,z.nrrd\n", r"z\.nrrd: there is no such file \(.*line 2\)"),
        ("name,pre,post_mask\none,a.tif,a.tif\n", "line 2 has post_mask but no post; correct it"),
        ("name,pre,post,transform\none,a.tif,,t.tfm\n", "line 2 has transform but no post"),
        ("id,fixed,moving,moving_threshold\none,a.tif,,9\n", "line 2 has moving_threshold but no moving"),
        ("id,fixed,fixed_spacing\none,a.tif,0,01\n", "line 2 has more cells than there are columns"),
        ("id,name,fixed\none,1,a.tif\n", "has two columns that mean name"),
        ("name,pre\none,a.tif\none,a.tif\n", "line 3 is the second of the name 'one'"),
    ],
)
def test_a_table_that_cannot_be_used(text, words, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"")
    (tmp_path / "bones.csv").write_text(text)
    with pytest.raises(FileError, match=words):
        scanned_bones.find_bone_scans(tmp_path / "bones.csv")
