"""The pairs of the paper's tests, and the methods that see them: motions, grids, centres."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from alignments import made_alignment
from DNetRegistrationLib.bone.cube import CanonicalCube
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.experiments.metrics import measure, translation_error_um
from DNetRegistrationLib.experiments.paper import methods as evaluation_methods
from DNetRegistrationLib.experiments.paper.methods import by_network, by_simpleitk, estimate
from DNetRegistrationLib.experiments.paper.pairs import PreparedPair, load_pair, moved, true_motion
from DNetRegistrationLib.experiments.paper.plan import METHODS, PlannedPair, ScannedBone, positions
from DNetRegistrationLib.geometry.transform_files import write_transform
from DNetRegistrationLib.geometry.transforms import to_sitk
from DNetRegistrationLib.imaging.volume import Volume, write_volume
from DNetRegistrationLib.networks.regression import RegressionNetwork
from DNetRegistrationLib.networks.weights import LoadedWeights, weights_path
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.synthesis.scanner import Grid

CENTER = np.array((30.0, -20.0, 7.0))
OBLIQUE = np.array(((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1)))


def apply(matrix, point):
    return matrix[:3, :3] @ point + matrix[:3, 3]


def test_motion_of_the_rotation_test():
    # A third of a turn about (1, 1, 1) takes x to y; then everything moves by 0.4 mm along each axis.
    matrix = true_motion("rotation", 2 * math.pi / 3, CENTER)
    assert apply(matrix, CENTER + np.array((1, 0, 0))) == pytest.approx(CENTER + np.array((0.4, 1.4, 0.4)))
    assert apply(true_motion("rotation", 0.0, CENTER), CENTER) == pytest.approx(CENTER + 0.4)
    # Both ends of the range are one rotation.
    ends = [true_motion("rotation", positions("rotation")[k], CENTER) for k in (0, -1)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def test_motion_of_the_translation_test():
    last = positions("translation")[-1]
    matrix = true_motion("translation", last, CENTER)
    assert apply(matrix, CENTER) == pytest.approx(CENTER + 0.5)
    axis = np.full(3, 1 / math.sqrt(3))
    assert matrix[:3, :3] @ axis == pytest.approx(axis)
    assert math.degrees(math.acos((np.trace(matrix[:3, :3]) - 1) / 2)) == pytest.approx(90)


@pytest.mark.parametrize("flip", (1, -1), ids=("right-handed", "left-handed"))
def test_a_moved_scan_shows_things_where_the_motion_puts_them(flip):
    # A Gaussian blob in an oblique, anisotropic, off-origin grid, its centroid before and after.
    size, spacing = (40, 36, 30), (0.1, 0.1, 0.13)
    grid = Grid.centered(size, spacing, OBLIQUE * (1, 1, flip), CENTER)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1).transpose(2, 1, 0, 3)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    place = CENTER + np.array((0.35, -0.2, 0.3))
    voxels = np.exp(-(((world - place) / 0.25) ** 2).sum(-1)).astype(np.float32)
    scan = Volume(voxels, grid.affine)
    motion = true_motion("rotation", 2.0, scan.center)
    after = moved(scan, motion)
    assert np.isnan(after.voxels).any()  # corners come from outside
    weights = np.nan_to_num(after.voxels)
    found = (weights[..., None] * world).sum((0, 1, 2)) / weights.sum()
    assert found == pytest.approx(apply(motion, place), abs=2e-3)


def cube(center):
    return CanonicalCube(torch.zeros(64, 64, 64), torch.ones(64, 64, 64), np.asarray(center, float), 0.08)


def scan(center):
    """What a network is asked about: a scan whose bone is somewhere else."""
    where = {"bone": cube(center + np.array((0.7, 0, 0))), "center": cube(center)}
    return SimpleNamespace(cube=where["bone"], cube_on=where.get)


def test_simpleitk_is_set_as_in_the_paper(monkeypatch):
    told = {}

    class Registration:
        def __getattr__(self, name):
            return lambda *given, **named: told.__setitem__(name, (given, named))

        def Execute(self, *images):
            told["images"] = images
            transform = sitk.Euler3DTransform()
            transform.SetRotation(0.0, 0.0, math.pi / 2)
            transform.SetTranslation((0.1, 0.2, 0.3))
            return sitk.CompositeTransform([transform])

    monkeypatch.setattr(sitk, "ImageRegistrationMethod", Registration)
    fixed, moving = cube(CENTER), cube(CENTER + np.array((5, 0, 0)))
    matrix = by_simpleitk(fixed, moving)
    assert "SetMetricAsJointHistogramMutualInformation" in told
    assert told["SetOptimizerAsRegularStepGradientDescent"][1] == {
        "learningRate": 1.0, "minStep": 1e-4, "numberOfIterations": 10_000, "gradientMagnitudeTolerance": 1e-4,
    }  # fmt: skip
    # Both cubes' middles are their origin, ...
    for image in told["images"]:
        assert image.TransformContinuousIndexToPhysicalPoint([31.5] * 3) == pytest.approx((0, 0, 0))
    # ... so that in the world the fixed centre goes to the moving one, and on by the translation.
    assert apply(matrix, CENTER) == pytest.approx(CENTER + np.array((5.1, 0.2, 0.3)))
    assert matrix[:3, :3] @ (1, 0, 0) == pytest.approx((0, 1, 0))


@pytest.mark.parametrize(("placement", "expected"), [("center", 0.0), ("bone", 0.7)])
def test_a_network_is_read_in_one_direction(monkeypatch, placement, expected):
    # Its first answer: by a quarter about z, and 0.1 mm along x about the cubes' centres.
    class Told(RegressionNetwork):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, fixed, moving):
            raise AssertionError("it is asked for both directions")

        def both_directions(self, fixed, moving):
            return torch.tensor([[0.1, 0, 0, 0, 1, 0, -1, 0, 0, 0, 0, 1]]), torch.zeros(1, 12)

    loaded = LoadedWeights(Told(), {"recipe": {"placement": placement}})
    monkeypatch.setattr(evaluation_methods, "load_weights", lambda path: loaded)
    matrix = by_network(f"on the {placement}.pt", scan(CENTER), scan(2 * CENTER))
    off = np.array((expected, 0, 0))
    assert apply(matrix, CENTER + off) == pytest.approx(2 * CENTER + off + np.array((0.1, 0, 0)))
    assert matrix[:3, :3] @ (1, 0, 0) == pytest.approx((0, 1, 0))


@pytest.mark.parametrize("method", [method for method in METHODS.values() if method.network], ids=lambda m: m.name)
def test_a_network_is_asked_as_often_as_the_label_says(method, monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation_methods, "by_network", lambda *given: asked.append(given))
    estimate(method.name, SimpleNamespace(scans=("fixed", "moving")), "weights.pt")
    assert asked == [("weights.pt", "fixed", "moving", method.turns)]
    assert (f"{method.turns} turns" in method.label) == (method.turns > 1)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two scans of a tibia on oblique grids of their own, one of them left-handed, off the origin."""
    folder = tmp_path_factory.mktemp("scans")
    fixed = Grid.centered((40, 40, 44), (0.12, 0.12, 0.11), OBLIQUE * (1, 1, -1), CENTER)
    moving = Grid.centered(40, 0.12, OBLIQUE.T, -CENTER)
    pair = make_pair(5_100_000, fixed_grid=fixed, moving_grid=moving, scale="raw", clean=True, background="air")
    for role in ("fixed", "moving"):
        write_volume(getattr(pair, role), folder / f"{role}.nrrd")
    sitk.WriteTransform(to_sitk(pair.matrix), str(folder / "truth.tfm"))
    files = [ScanFile(str(folder / f"{role}.nrrd")) for role in ("fixed", "moving")]
    return ScannedBone("tibia", "mouse", "A", *files, folder / "truth.tfm"), pair


def test_a_transform_of_a_refused_alignment_is_no_truth_of_a_real_pair(scans, tmp_path):
    bone, made = scans
    write_transform(made_alignment(made.matrix, accepted=False, doubts=["symmetry"]), tmp_path / "t.tfm")
    with pytest.raises(FileError, match=r"t\.tfm: is no truth"):
        load_pair(PlannedPair("real", "tibia", "both", 0, 0.0, ()), replace(bone, transform=tmp_path / "t.tfm"))


def test_the_real_pair(scans):
    bone, made = scans
    pair = load_pair(PlannedPair("real", "tibia", "both", 0, 0.0, ()), bone)
    assert pair.truth == pytest.approx(made.matrix)
    # As in the paper, cubes lie on the images' centres, wherever the bone is.
    assert pair.cubes[0].center == pytest.approx(CENTER) and pair.cubes[1].center == pytest.approx(-CENTER)
    found = measure(pair.truth, pair.truth, pair.fixed.center, pair.bones)
    assert found.dice == found.dice_true > 0.7 and found.te_um == found.re_deg == 0


def test_masks_thresholds_and_voxel_sizes_of_a_table_hold(scans, tmp_path):
    bone, made = scans
    upper = np.zeros(made.moving.voxels.shape, np.uint8)
    upper[:, :20] = 1
    write_volume(replace(made.moving, voxels=upper), tmp_path / "mask.nrrd")
    post = replace(bone.post, mask=str(tmp_path / "mask.nrrd"), threshold=2500.0)
    masked = replace(bone, pre=replace(bone.pre, spacing=(0.12,)), post=post)
    real = load_pair(PlannedPair("real", "tibia", "both", 0, 0.0, ()), masked, (0.3,))
    assert real.fixed.spacing == pytest.approx(0.12) and real.moving.spacing == pytest.approx(0.3)
    assert real.thresholds == (None, 2500.0) and real.scales[1].threshold == 2500.0
    assert real.masks[0] is None and np.array_equal(real.masks[1], upper)
    turned = load_pair(PlannedPair("rotation", "tibia", "post", 3, 1.3, ()), masked)
    assert np.array_equal(turned.masks[0], upper) and turned.thresholds == (2500.0, 2500.0)
    # The copy's mask moves with the copy.
    bone = turned.bones[1]
    for marked, affine in ((turned.masks[1], turned.moving.affine), (bone.whole, bone.affine)):
        index = np.argwhere(marked)[:, ::-1]
        to_scan = np.linalg.inv(turned.truth @ made.moving.affine) @ affine
        back = index @ to_scan[:3, :3].T + to_scan[:3, 3]
        assert len(back) and (back[:, 1] < 20.5).all()


def test_weights_that_ship_are_asked_as_they_were_trained():
    """On cubes on the images' centres the D-net that ships was 60 degrees off here, with 8 turns 18."""
    made = make_pair(5_300_000, size=64, spacing=0.08, scale="raw", contrast=True)
    pair = PreparedPair(
        made.fixed, made.moving, (find_bone_scale(made.fixed), find_bone_scale(made.moving)), made.matrix
    )
    matrix = estimate("dnet-shipped", pair, weights_path("dnet"))
    assert measure(matrix, made.matrix, made.fixed.center, pair.bones).re_deg < 8


def test_a_synthetic_pair_and_the_full_pipeline(scans):
    bone, _ = scans
    pair = load_pair(PlannedPair("rotation", "tibia", "post", 3, 1.3, ()), bone)
    assert pair.fixed.center == pytest.approx(-CENTER)
    assert apply(pair.truth, -CENTER) == pytest.approx(-CENTER + 0.4)
    found = measure(estimate("full", pair), pair.truth, pair.fixed.center, pair.bones)
    assert found.target_um < 10 and found.re_deg < 0.5 and found.te_um < 10
    assert found.dice == pytest.approx(found.dice_true, abs=0.02) and found.dice_true > 0.8


def test_left_as_they_are_errors_are_what_the_test_asks_for(scans):
    bone, _ = scans
    pair = load_pair(PlannedPair("rotation", "tibia", "pre", 3, 1.3, ()), bone)
    found = measure(estimate("unmoved", pair), pair.truth, pair.fixed.center, pair.bones)
    assert found.te_um == pytest.approx(400 * math.sqrt(3)) and found.re_deg == pytest.approx(math.degrees(1.3))


def test_the_networks_of_this_project_and_cubes_agree(scans):
    """The shipped equivariant network, asked on cubes on images' centres, finds the true motion in the world."""
    from DNetRegistrationLib.networks.weights import FOLDER

    bone, _ = scans
    pair = load_pair(PlannedPair("real", "tibia", "both", 0, 0.0, ()), bone)
    matrix = estimate("equivariant", pair, FOLDER / "equivariant.pt")
    assert translation_error_um(matrix, pair.truth, pair.fixed.center) < 250
    assert measure(matrix, pair.truth, pair.fixed.center, pair.bones).re_deg < 10


def test_simpleitk_runs_and_repeats(scans):
    bone, _ = scans
    scan = load_pair(PlannedPair("real", "tibia", "both", 0, 0.0, ()), bone).fixed
    scale = find_bone_scale(scan)
    pair = PreparedPair(scan, scan, (scale, scale), np.eye(4))
    first, second = estimate("sitk", pair), estimate("sitk", pair)
    assert np.array_equal(first, second)
    # Where nothing is to be done, nothing is done.
    assert translation_error_um(first, np.eye(4), scan.center) < 1
