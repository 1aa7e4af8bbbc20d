"""align() from end to end on synthetic pairs: every kind of grid and voxel, errors, cancelling, repeats."""

from __future__ import annotations

import os
import re
import time
import warnings
from dataclasses import replace

import numpy as np
import places
import pytest
import SimpleITK as sitk
import torch
from command import run
from DNetRegistrationLib.bone.cortex import cortical_bone, dice
from DNetRegistrationLib.bone.tight_masks import reaching_past
from DNetRegistrationLib.core.errors import DNetError, ScanError, Setting
from DNetRegistrationLib.geometry.transforms import affine_matrix
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.networks import weights as weights_module
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.weights import load_weights, save_weights
from DNetRegistrationLib.outputs import segmentation
from DNetRegistrationLib.outputs.segmentation import segment
from DNetRegistrationLib.registration import align as module
from DNetRegistrationLib.registration import inputs, one_pair
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.proposal import propose
from DNetRegistrationLib.registration.result import Alignment, AlignmentCancelled
from DNetRegistrationLib.registration.watch import STAGES
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from DNetRegistrationLib.synthesis.grid import Grid
from DNetRegistrationLib.synthesis.pairs import make_pair, random_rotation, target_registration_error
from scipy import ndimage

TURN = random_rotation(np.random.default_rng(8))


@pytest.fixture
def found(alignment):
    return alignment


def error_um(pair, alignment) -> float:
    return 1000 * target_registration_error(pair, alignment.matrix)


def test_a_pair_is_aligned_and_accepted(pair, found):
    assert found.accepted and error_um(pair, found) < 10
    assert found.confidence > 0.5 and 0 < found.expected_error_um < 80
    assert found.dice > 0.8 and found.dice > found.dice_before
    assert found.hypothesis in ("search", "dnet") and not found.mirrored and found.verdict.startswith("Accepted")
    assert found.working_spacing == 0.08 and found.device in ("cpu", "cuda")
    assert set(STAGES) <= set(found.seconds) and found.seconds["total"] >= max(found.seconds[s] for s in STAGES)


def test_matrix_is_rigid_and_transform_and_figures_say_the_same(pair, found):
    rotation = found.matrix[:3, :3]
    assert found.matrix.shape == (4, 4) and found.matrix.dtype == np.float64
    assert np.abs(rotation.T @ rotation - np.eye(3)).max() < 1e-6 and abs(np.linalg.det(rotation) - 1) < 1e-6
    for point in np.random.default_rng(0).normal(size=(5, 3)) * 100:
        mapped = found.transform.TransformPoint(point.tolist())
        np.testing.assert_allclose(mapped, rotation @ point + found.matrix[:3, 3], atol=1e-9)
    angle = np.degrees(np.arccos((np.trace(rotation) - 1) / 2))
    assert found.rotation_deg == pytest.approx(angle, abs=1e-6)
    assert found.rotation_deg == pytest.approx(pair.drawn["rotation_deg"], abs=0.3)
    # The displacement of the bone: somewhere within it, so about that of its middle.
    index = np.argwhere(pair.fixed_bone)[:, ::-1].mean(0)
    middle = pair.fixed.to_world(index)
    expected = rotation @ middle + found.matrix[:3, 3] - middle
    assert np.linalg.norm(found.translation_mm - expected) < 0.6


def test_same_result_twice_and_nothing_is_changed(pair, found):
    before = [(scan.voxels.copy(), scan.affine.copy()) for scan in (pair.fixed, pair.moving)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = align(pair.fixed, pair.moving)
    assert np.array_equal(again.matrix, found.matrix)
    assert again.confidence == found.confidence and again.dice == found.dice
    for scan, (voxels, affine) in zip((pair.fixed, pair.moving), before, strict=True):
        assert np.array_equal(scan.voxels, voxels) and np.array_equal(scan.affine, affine)


@pytest.mark.parametrize(
    "dtype", ["float32", "uint16", *(pytest.param(n, marks=pytest.mark.slow) for n in ("float64", "int16"))]
)
def test_voxels_of_no_kind_are_written_to(pair, dtype):
    """Conversions that are none (float32) share the scan's memory."""
    voxels = [np.asarray(scan.voxels, np.float64).clip(0).astype(dtype) for scan in (pair.fixed, pair.moving)]
    copies = [one.copy() for one in voxels]
    scans = [Volume(one, scan.affine) for one, scan in zip(voxels, (pair.fixed, pair.moving), strict=True)]
    align(*scans, initial=pair.matrix, hypotheses="search", refine="working")
    assert all(np.array_equal(one, copy) for one, copy in zip(voxels, copies, strict=True))


@pytest.mark.parametrize("seed", [34, pytest.param(31, marks=pytest.mark.slow)])
def test_differently_cut_fields_of_view(seed):
    pair = make_pair(seed, keep=0.5)
    assert error_um(pair, align(pair.fixed, pair.moving)) < 40


def test_unequal_oblique_left_handed_far_grids_give_the_right_world_answer():
    """80 um against 40 x 50 x 100 um, on axes of different handedness, metres from the origin."""
    left = TURN @ np.diag((1.0, 1, -1))
    fixed_grid = Grid.centered(64, 0.08, left, (5000, -3000, 8000))
    moving_grid = Grid.centered((128, 100, 50), (0.04, 0.05, 0.1), TURN.T, (-1200, 40, 7))
    pair = make_pair(5, fixed_grid=fixed_grid, moving_grid=moving_grid)
    alignment = align(pair.fixed, pair.moving)
    assert alignment.accepted and error_um(pair, alignment) < 15
    assert np.linalg.det(alignment.matrix[:3, :3]) == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(alignment.translation_mm) > 1000


def test_reversed_axes_are_the_same_scan(pair, found):
    """Voxels stored the other way round, with the affine that says so."""
    flipped = pair.moving.affine @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, pair.moving.size[2] - 1], [0, 0, 0, 1.0]]
    )
    alignment = align(pair.fixed, Volume(pair.moving.voxels[::-1], flipped))
    assert alignment.accepted and error_um(pair, alignment) < 10
    assert np.abs(alignment.matrix - found.matrix).max() < 0.01


@pytest.mark.parametrize(
    "kind",
    ["uint16", *(pytest.param(n, marks=pytest.mark.slow) for n in ("float64 with NaN", "uint8", "SimpleITK"))],
)
def test_every_kind_of_voxel(kind):
    scale = {"uint8": "byte", "uint16": "raw", "float64 with NaN": "attenuation", "SimpleITK": "hu"}[kind]
    pair = make_pair(12, scale=scale, circle=0.95 if "NaN" in kind else None)
    scans = [pair.fixed, pair.moving]
    if kind == "uint16":  # the upper half of the range, which torch holds as negative numbers
        scans = [Volume((scan.voxels.astype(np.float64) * 5 + 20000).astype(np.uint16), scan.affine) for scan in scans]
        assert all(scan.voxels.max() > 40000 for scan in scans)
    elif kind == "SimpleITK":
        scans = [scan.to_sitk() for scan in scans]
    elif kind.startswith("float64"):
        scans = [Volume(scan.voxels.astype(np.float64), scan.affine) for scan in scans]
        assert all(np.isnan(scan.voxels).any() for scan in scans)
    else:
        assert all(scan.voxels.dtype == np.uint8 for scan in scans)
    alignment = align(*scans)
    assert alignment.accepted and error_um(pair, alignment) < 15


def test_a_mask_that_holds_nothing_of_the_scan_is_refused(pair):
    elsewhere = sitk.GetImageFromArray(np.ones(pair.moving.voxels.shape, np.uint8))
    elsewhere.SetOrigin((500.0, 0, 0))
    with pytest.raises(ScanError, match=r"moving.*lies elsewhere"):
        align(pair.fixed, pair.moving, moving_mask=elsewhere)
    nothing = np.full(pair.fixed.voxels.shape, np.nan)
    with pytest.raises(ScanError, match=r"fixed.*mask is empty"):
        align(pair.fixed, pair.moving, fixed_mask=nothing)


def test_the_report_tells_who_proposed(pair, found):
    """An initial pose that holds leaves nothing to a network."""
    given = align(pair.fixed, pair.moving, initial=pair.matrix)
    assert given.hypothesis == "initial" and given.accepted and not given.warnings and given.network is None
    assert found.hypothesis == "dnet" and found.network == "equivariant" and not found.warnings
    assert found.accepted and found.weights_sha256 == load_weights("equivariant").card["sha256"]
    assert found.seconds["dnet"] > 0 and found.seconds["search"] == 0


@pytest.mark.slow
def test_the_report_tells_that_a_network_that_knows_nothing_left_all_to_the_search(pair, tmp_path):
    torch.manual_seed(0)
    save_weights(build("me"), tmp_path / "untrained.pt", {})
    found = align(pair.fixed, pair.moving, weights=str(tmp_path / "untrained.pt"))
    assert found.hypothesis == "search" and found.network == "me" and found.accepted
    assert any("did not verify" in warning for warning in found.warnings)


def test_the_report_tells_that_there_was_no_network(small_pair, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "FOLDER", tmp_path)
    found = align(small_pair.fixed, small_pair.moving)
    assert found.hypothesis == "search" and found.network is None
    assert any("No trained network" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("bone", "placement"),
    [
        (None, "bone"),
        (None, "center"),
        pytest.param("largest", "bone", marks=pytest.mark.slow),
        pytest.param("largest", "center", marks=pytest.mark.slow),
    ],
)
def test_a_network_sees_cubes_where_they_lay_in_its_training(pair, tmp_path, monkeypatch, placement, bone):
    seen = []

    def spy(network, fixed, moving, turns=None):
        seen.append((fixed, moving))
        return propose(network, fixed, moving, turns)

    monkeypatch.setattr("DNetRegistrationLib.registration.proposal.propose", spy)
    save_weights(load_weights("equivariant").network, tmp_path / "w.pt", {"recipe": {"placement": placement}})
    found = align(pair.fixed, pair.moving, weights=str(tmp_path / "w.pt"), hypotheses="dnet", bone=bone)
    assert found.accepted and found.hypothesis in ("dnet", "initial")
    fixed, moving = seen[0]
    off = [np.linalg.norm(cube.center - scan.center) for cube, scan in ((fixed, pair.fixed), (moving, pair.moving))]
    assert max(off) < 1e-9 if placement == "center" else min(off) > 0.1


@pytest.mark.slow
def test_masks_leave_out_what_misleads(pair):
    """A bright block in one scan, masked away; the mask of the other as an image."""
    voxels = pair.fixed.voxels.copy()
    voxels[:6] = voxels.max()
    mask = np.ones(voxels.shape, bool)
    mask[:8] = False
    whole = Volume(np.ones(pair.moving.voxels.shape, np.uint8), pair.moving.affine).to_sitk()
    alignment = align(Volume(voxels, pair.fixed.affine), pair.moving, fixed_mask=mask, moving_mask=whole)
    assert alignment.accepted and error_um(pair, alignment) < 20


@pytest.mark.slow
@pytest.mark.parametrize("filled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_mask_of_the_bone_itself_is_one_that_shows_what_surrounds_it(pair, found, filled):
    """As a threshold gives it, with marrow or without: nothing of the bone's surface is seen in it."""
    masks = [
        scan.voxels > threshold
        for scan, threshold in ((pair.fixed, found.fixed_threshold), (pair.moving, found.moving_threshold))
    ]
    if filled:
        masks = [ndimage.binary_closing(mask, iterations=3) | mask for mask in masks]
    alignment = align(pair.fixed, pair.moving, fixed_mask=masks[0], moving_mask=masks[1])
    assert alignment.accepted and error_um(pair, alignment) < 10
    assert alignment.fixed_threshold == pytest.approx(found.fixed_threshold, rel=0.1)
    first, second = segment(pair.fixed, pair.moving, alignment, (masks[0], masks[1]))
    assert dice(first, second, alignment.matrix) == pytest.approx(found.dice, abs=0.06)


def test_the_segmentation_looks_where_the_alignment_did(pair, found, monkeypatch):
    """Whether a mask is one of the bone itself was found anew for it, by another threshold and spacing."""
    widened = []

    def widen(*arguments):
        widened.append(reaching_past(*arguments))
        return widened[-1]

    for one in (module, segmentation):
        monkeypatch.setattr(one, "reaching_past", widen)
    mask = pair.fixed.voxels > found.fixed_threshold
    alignment = align(pair.fixed, pair.moving, fixed_mask=mask, refine="working", initial=pair.matrix)
    assert len(widened) == 2 and widened[0].sum() > 1.5 * mask.sum()
    looked = alignment.masks[0].on(pair.fixed)
    assert np.array_equal(looked, widened[0]) and alignment.masks[1] is None
    first, _ = segment(pair.fixed, pair.moving, alignment, (mask, None))
    own = cortical_bone(pair.fixed, alignment.fixed_threshold, 0.08, looked, resolution=0.03)
    assert np.array_equal(first.cortex, own.cortex)
    assert len(widened) == 3 and widened[2] is None
    assert "masks" not in alignment.to_dict() and Alignment.from_dict(alignment.to_dict()) == alignment


@pytest.mark.slow
def test_a_mask_on_another_grid_is_that_mask(pair):
    """A box of the world, on coarse voxels along the world's axes and as an array of the scan's."""
    low, high = pair.fixed.center - 1.5, pair.fixed.center + 1.9
    index = np.argwhere(np.ones(pair.fixed.voxels.shape))[:, ::-1]
    at = pair.fixed.to_world(index)
    array = ((at > low) & (at < high)).all(1).reshape(pair.fixed.voxels.shape)
    box = Volume(np.ones((17, 17, 17), bool), affine_matrix(0.2 * np.eye(3), low + 0.1))
    first, second = (
        align(pair.fixed, pair.moving, initial=pair.matrix, fixed_mask=mask, refine="working") for mask in (array, box)
    )
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert 0.1 < array.mean() < 0.5 and first.fixed_threshold == second.fixed_threshold


def test_thresholds_are_used_as_given(pair, found):
    alignment = align(pair.fixed, pair.moving, threshold=(found.fixed_threshold * 1.1, None), refine="working")
    assert alignment.fixed_threshold == pytest.approx(found.fixed_threshold * 1.1)
    assert alignment.moving_threshold == found.moving_threshold
    assert error_um(pair, alignment) < 15


@pytest.mark.slow
def test_an_initial_transform_is_tried_first_and_a_wrong_one_does_no_harm(pair):
    near = pair.matrix.copy()
    near[:3, 3] += 0.1
    alignment = align(pair.fixed, pair.moving, initial=near)
    assert alignment.hypothesis == "initial" and alignment.seconds["search"] == 0
    assert alignment.accepted and error_um(pair, alignment) < 10
    wrong = pair.matrix @ np.diag((-1.0, -1, 1, 1))
    alignment = align(pair.fixed, pair.moving, initial=wrong)
    assert alignment.hypothesis != "initial" and alignment.accepted and error_um(pair, alignment) < 10


@pytest.mark.slow
def test_how_far_it_is_refined():
    pair = make_pair(13, size=80, spacing=0.04)
    near = pair.matrix.copy()
    near[:3, 3] += 0.02
    errors = {}
    for how in ("none", "working", "native"):
        alignment = align(pair.fixed, pair.moving, initial=near, refine=how)
        errors[how] = error_um(pair, alignment)
        if how == "none":
            np.testing.assert_allclose(alignment.matrix, near, atol=1e-9)
    assert errors["none"] == pytest.approx(20 * np.sqrt(3), abs=0.1)
    assert errors["native"] < errors["none"] / 3 and errors["working"] < errors["none"] / 2
    assert errors["native"] < 4


@pytest.mark.parametrize("hypotheses", ["auto", pytest.param("search", marks=pytest.mark.slow)])
def test_a_mirrored_bone_is_refused_and_named(mirror_pair, hypotheses):
    alignment = align(mirror_pair.fixed, mirror_pair.moving, hypotheses=hypotheses)
    assert not alignment.accepted and alignment.mirrored and "mirror" in alignment.verdict
    assert np.linalg.det(alignment.matrix[:3, :3]) == pytest.approx(1)


@pytest.mark.slow
def test_two_animals_are_refused(other_pair):
    alignment = align(other_pair.fixed, other_pair.moving)
    assert not alignment.accepted and not alignment.mirrored and alignment.verdict.startswith("Not accepted")
    assert alignment.expected_error_um > 80


@pytest.mark.slow
def test_a_scan_that_fits_at_another_scale_is_refused_and_told_by_how_much(pair):
    """All voxels of the moving scan are stated 6 % too large: no rigid pose fits."""
    larger = replace(pair.moving, affine=np.diag((1.06, 1.06, 1.06, 1.0)) @ pair.moving.affine)
    found = align(pair.fixed, larger, hypotheses="dnet", refine="working")
    assert not found.accepted and found.doubts[0] == "strain" and len(found.doubts) > 1
    percent = float(re.search(r"moving scan is about ([\d.]+) % larger than the fixed one", found.verdict)[1])
    assert percent == pytest.approx(6, abs=1)


def given(scan, factor):
    """The scan with a voxel size that was given, so many times that of its file."""
    affine = scan.affine.copy()
    affine[:3, :3] *= factor
    return replace(scan, affine=affine, stated_affine=scan.affine, spacing_given=True)


@pytest.mark.slow
def test_of_scans_that_do_not_fit_a_voxel_size_that_was_given_against_the_file_is_the_cause(pair):
    found = align(pair.fixed, given(pair.moving, 1.06), hypotheses="dnet", refine="working")
    assert not found.accepted and found.doubts[:2] == ["voxel size", "strain"]
    assert found.reason.startswith("the voxels of the moving scan were given as 0.0848 x 0.0848 x 0.0848 mm; its file")
    assert "states 0.08 x 0.08 x 0.08 mm, and the bones do not fit." in found.reason
    assert float(re.search(r"about ([\d.]+) % larger", found.reason)[1]) == pytest.approx(6, abs=1)


@pytest.mark.slow
def test_a_bone_that_is_its_own_mirror_image_is_not_said_to_be_one():
    """The mirror image leaves as much of the edges of this noisy slender bone unexplained as the right pose does."""
    case = make_adversarial(620_318, "slender")
    found = align(case.fixed, case.moving)
    assert case.error_mm(found.matrix) < 0.01
    assert not found.mirrored and "mirrored" not in found.doubts


@pytest.mark.slow
def test_a_mirror_image_is_the_cause_whatever_voxel_size_was_given(mirror_pair):
    found = align(given(mirror_pair.fixed, 1.01), mirror_pair.moving, hypotheses="dnet", refine="working")
    assert found.doubts[0] == "mirrored"


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_voxel_size_that_is_wrong_by_far_is_told(pair, factor):
    """Off the origin: a size is no shift."""
    shift = np.eye(4)
    shift[:3, 3] = (300, -40, 7)
    other = replace(pair.moving, affine=np.diag((factor, factor, factor, 1.0)) @ shift @ pair.moving.affine)
    found = align(pair.fixed, other, hypotheses="dnet", refine="working")
    assert not found.accepted and found.doubts[0] == "strain"
    percent, word = re.search(r"moving scan is about ([\d.]+) % (larger|smaller) than", found.verdict).groups()
    assert float(percent) * {"larger": 1, "smaller": -1}[word] == pytest.approx(100 * (factor - 1), abs=1.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "axis", "factor", "told"),
    [
        (
            "moving",
            2,
            2.0,
            r"moving scan is about 2\.0 times as long along z as the fixed one: check the slice distance",
        ),
        pytest.param("fixed", 0, 0.4, r"fixed scan is about (59|60|61) % shorter along x", marks=pytest.mark.slow),
        pytest.param("moving", 1, 1.6, r"moving scan is about 1\.6 times as long along y", marks=pytest.mark.slow),
        pytest.param("fixed", 2, 3.0, r"fixed scan is about (2\.9|3\.0) times as long along z", marks=pytest.mark.slow),
    ],
)
def test_a_length_along_one_axis_that_is_wrong_by_far_is_told(pair, role, axis, factor, told):
    scan = getattr(pair, role)
    longer = np.ones(4)
    longer[axis] = factor
    scans = {"fixed": pair.fixed, "moving": pair.moving, role: replace(scan, affine=scan.affine * longer)}
    found = align(scans["fixed"], scans["moving"], hypotheses="dnet", refine="working")
    assert not found.accepted and found.doubts[0] == "strain"
    assert re.search(told, found.verdict) and found.verdict.endswith(f"of the {role} scan.")


@pytest.mark.slow
def test_a_refusal_for_its_grey_values_says_so(small_pair):
    voxels = small_pair.moving.voxels.astype(np.float32)
    inverted = replace(small_pair.moving, voxels=voxels.max() - voxels)
    alignment = align(small_pair.fixed, inverted)
    assert not alignment.accepted and alignment.doubts[0] == "inverted"
    assert alignment.verdict.startswith("Not accepted: bone is darker than what is around it in the moving scan")


def test_where_no_bone_is_found_its_grey_values_are_named(small_pair):
    """A mask of the background alone: the inverted scan is told of, the ordinary one is not."""
    moving = small_pair.moving
    inverted = replace(moving, voxels=moving.voxels.max() - moving.voxels.astype(np.float32), name="knee.nrrd")
    mask = np.zeros(moving.voxels.shape, bool)
    mask[:5, :5, :5] = True
    with pytest.raises(
        ScanError, match=r"^knee\.nrrd: .*: bone is darker than .* in knee\.nrrd.*; invert its grey values"
    ):
        align(small_pair.fixed, inverted, moving_mask=mask)
    with pytest.raises(ScanError) as caught:
        align(small_pair.fixed, moving, moving_mask=mask)
    assert "darker" not in str(caught.value) and caught.value.setting is not None


def test_what_fits_in_many_poses_is_refused_at_once():
    """A ball: the first pose tells, and neither the search nor the mirror image could tell more."""
    z, y, x = np.mgrid[:48, :48, :48] - 23.5
    ball = (1500 * np.clip(18 - np.sqrt(x * x + y * y + z * z), 0, 1)).astype(np.float32)
    noise = np.random.default_rng(3).normal(size=(2, *ball.shape)).astype(np.float32) * 30
    scans = [Volume(ball + one, np.diag((0.1, 0.1, 0.1, 1))) for one in noise]
    told = []
    alignment = align(*scans, progress=lambda fraction, message: told.append(message))
    assert not alignment.accepted and alignment.doubts[0] in ("undetermined", "symmetry")
    assert "Trying the mirror image" not in told


def test_progress_rises_from_0_to_1(pair):
    told = []
    align(
        pair.fixed,
        pair.moving,
        initial=pair.matrix,
        progress=lambda fraction, message: told.append((fraction, message)),
    )
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert all(isinstance(message, str) and message for _, message in told)


def test_the_pose_is_told_before_it_is_examined(pair):
    """With the very cortices that the Dice is of; nothing is told of a pose that is not refined."""
    told, order = [], []

    def posed(matrix, bones):
        told.append((matrix, bones))
        order.append("pose")

    found = align(pair.fixed, pair.moving, progress=lambda fraction, message: order.append(message), posed=posed)
    ((matrix, bones),) = told
    np.testing.assert_allclose(matrix, found.matrix, atol=1e-9)
    assert matrix.dtype == np.float64 and dice(*bones, matrix) == pytest.approx(found.dice, abs=1e-6)
    assert "Refining" in order[: order.index("pose")]
    assert "Looking for what speaks against it" in order[order.index("pose") :]


@pytest.mark.slow
def test_the_pose_at_native_resolution_is_told_before_it_is_judged(monkeypatch):
    pair, order = make_pair(16, size=96, spacing=0.04, contrast=False), []
    judge = one_pair.verify

    def verify(scans, refined):
        order.append(refined.pose.numpy())
        return judge(scans, refined)

    monkeypatch.setattr(one_pair, "verify", verify)
    found = align(pair.fixed, pair.moving, posed=lambda matrix, bones: order.append("told"))
    assert [isinstance(one, str) for one in order][-2:] == [True, False]
    np.testing.assert_allclose(order[-1], found.matrix, atol=1e-9)


@pytest.mark.parametrize(
    "size, spacing, hypotheses",
    [
        (64, 0.08, "auto"),
        pytest.param(64, 0.08, "search", marks=pytest.mark.slow),
        pytest.param(200, 0.0256, "auto", marks=pytest.mark.slow),
    ],
)
def test_cancelling_stops_within_a_second(size, spacing, hypotheses):
    """Processor time from one question to the next: what other work on the machine adds to it does not count."""
    pair = make_pair(16, size=size, spacing=spacing, contrast=False)
    asked = []

    def cancelled():
        asked.append(time.process_time())
        return False

    align(pair.fixed, pair.moving, cancelled=cancelled, hypotheses=hypotheses)
    asked.append(time.process_time())
    assert len(asked) > 20 and max(np.diff(asked)) < 1

    count = [0]

    def later():
        count[0] += 1
        return count[0] > len(asked) // 2

    with pytest.raises(AlignmentCancelled):
        align(pair.fixed, pair.moving, cancelled=later, hypotheses=hypotheses)
    assert count[0] == len(asked) // 2 + 1


@pytest.mark.parametrize(
    "options, words",
    [
        ({"threshold": "high"}, "the bone threshold must be a number"),
        ({"threshold": (1.0, 2.0, 3.0)}, "a pair"),
        ({"threshold": 1e9}, "no bone above the threshold"),
        ({"spacing": "fine"}, "the working spacing must be a number"),
        ({"spacing": 0}, "above 0 mm"),
        ({"spacing": np.nan}, "above 0 mm"),
        ({"spacing": 3.0}, "fixed scan: shows too little"),
        ({"spacing": 0.002}, "shows too little"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"hypotheses": "guess"}, "hypotheses 'guess' is unknown; give one of auto, dnet, search"),
        ({"refine": "more"}, "refine 'more' is unknown"),
        ({"weights": 3}, "the weights are 3; give the name"),
        ({"weights": "/no/such/file"}, "no/such/file"),
        ({"initial": "left"}, "is a path"),
        ({"initial": ["left"]}, "4x4 matrix"),
        ({"initial": np.diag((2.0, 2, 2, 1))}, "rigid"),
        ({"initial": np.diag((-1.0, 1, 1, 1))}, "mirrors"),
        ({"fixed_mask": np.ones((3, 3, 3), bool)}, "fixed scan: its mask has"),
        ({"moving_mask": np.zeros((64, 64, 64), bool)}, "moving scan: its mask is empty"),
    ],
)
def test_bad_options_are_named(pair, options, words):
    with pytest.raises(DNetError, match=words) as caught:
        align(pair.fixed, pair.moving, **options)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def block(*corners) -> np.ndarray:
    voxels = np.zeros((24, 24, 24), np.float32)
    voxels[tuple(slice(*corner) for corner in corners)] = 3000
    return voxels


@pytest.mark.parametrize(
    "voxels, options",
    [
        (np.full((24, 24, 24), 7), {}),
        (np.full((24, 24, 24), np.nan), {}),
        (np.zeros((24, 24, 4)), {}),
        (block((4, 20), (4, 20), (4, 20)) * 1e-44, {}),
        (block((0, 24), (0, 24), (1, 24)), {"threshold": 0.5, "spacing": 0.4}),
        (block((10, 12), (10, 12), (10, 12)), {}),
        (np.random.default_rng(0).normal(size=(24, 24, 24)), {}),
        ("not a scan", {}),
        (None, {}),
    ],
)
def test_hopeless_scans_are_refused_with_one_line(pair, voxels, options):
    scan = Volume(voxels, pair.fixed.affine, "odd.nrrd") if isinstance(voxels, np.ndarray) else voxels
    with pytest.raises(ScanError) as caught:
        align(scan, pair.moving, **options)
    assert "\n" not in str(caught.value) and ("odd.nrrd" in str(caught.value) or not isinstance(voxels, np.ndarray))


def test_threads_change_nothing_and_stay_within(small_pair):
    before = torch.get_num_threads()
    seen = []
    one, three = (
        align(
            small_pair.fixed,
            small_pair.moving,
            threads=count,
            progress=lambda *told: seen.append(torch.get_num_threads()),
        )
        for count in (1, 3)
    )
    assert set(seen) == {1, 3} and torch.get_num_threads() == before
    np.testing.assert_allclose(three.matrix, one.matrix, atol=1e-6)
    assert three.confidence == pytest.approx(one.confidence, abs=1e-4) and three.accepted == one.accepted


FORK = """
import multiprocessing
from DNetRegistrationLib import align, make_pair
pair = make_pair(5, size=32, spacing=0.16)
def matrix(threads):
    return align(pair.fixed, pair.moving, threads=threads).matrix.tolist()
here = matrix(2)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(matrix, [None, 2]).get(1500) == [here, here])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="about forks")
def test_a_process_that_is_forked_after_an_alignment_aligns_too():
    done = run(code=FORK, env=places.environment(OMP_NUM_THREADS="2"))
    assert done.stdout == "True\n", done.stderr


REFUSED = """
import numpy as np
from scipy import ndimage
from DNetRegistrationLib import Volume, align
from DNetRegistrationLib.core.processes import forget_peak_memory, peak_memory
def sponge(seed):
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.normal(size=(160,) * 3).astype(np.float32), 1.2)
    values = np.where(field > 0, 1000, 100) + 30 * generator.normal(size=field.shape)
    return Volume(values.astype(np.int16), np.diag([0.032, 0.032, 0.032, 1]))
scans = sponge(1), sponge(2)
forget_peak_memory()
before = peak_memory()
assert not align(*scans).accepted
print((peak_memory() - before) / 1e9)
"""


@pytest.mark.slow
def test_memory_is_bounded_where_bone_fills_both_scans_and_every_stage_runs():
    done = run(code=REFUSED, env=places.environment(OMP_NUM_THREADS="1"))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.8


def test_the_network_alone_needs_weights(pair, monkeypatch):

    monkeypatch.setattr(inputs, "available_weights", lambda: {})
    monkeypatch.setattr(weights_module, "available_weights", lambda: {})
    with pytest.raises(DNetError, match="weights"):
        align(pair.fixed, pair.moving, hypotheses="dnet", weights="no-such-weights")


@pytest.mark.parametrize(
    "error, words",
    [
        (torch.cuda.OutOfMemoryError("no room"), "ran out of memory"),
        (TypeError("Cannot convert a MPS Tensor to float64 dtype"), "lacks an operation"),
    ],
)
def test_the_cpu_takes_over_from_a_device_that_cannot(pair, monkeypatch, error, words):
    """The device is a stand-in that fails as the real ones do; the CPU's work is the real one."""
    real = module.align_pair

    def failing(inputs, device, watch):
        if device.type != "cpu":
            raise error
        return real(inputs, device, watch)

    monkeypatch.setattr(module, "align_pair", failing)
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("mps"))
    alignment = align(pair.fixed, pair.moving, initial=pair.matrix)
    assert alignment.accepted and alignment.device == "cpu"
    assert any(words in warning for warning in alignment.warnings)
    with pytest.raises(type(error)):
        monkeypatch.setattr(module, "choose_device", lambda name: torch.device("cpu"))
        monkeypatch.setattr(module, "align_pair", lambda *_: (_ for _ in ()).throw(error))
        align(pair.fixed, pair.moving)


def test_other_errors_are_not_blamed_on_the_device(pair, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(module, "align_pair", broken)
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("mps"))
    with pytest.raises(RuntimeError, match="shapes"):
        align(pair.fixed, pair.moving)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"threshold": (None, 1e9)}, Setting("threshold", "moving")),
        ({"threshold": ("high", 1.0)}, Setting("threshold", "fixed")),
        ({"spacing": 0}, Setting("working_spacing")),
        ({"device": "abacus"}, Setting("device")),
        ({"refine": "more"}, Setting("refine")),
        ({"initial": "left"}, Setting("initial")),
        ({"initial": np.diag((2.0, 2, 2, 1))}, Setting("initial")),
        ({"weights": 3}, Setting("weights")),
    ],
)
def test_errors_say_what_to_set(pair, options, setting):
    with pytest.raises(DNetError) as caught:
        align(pair.fixed, pair.moving, **options)
    assert caught.value.setting == setting


def test_scans_of_implausibly_different_lengths_are_refused(pair):
    large = replace(pair.moving, affine=np.diag((12.5, 12.5, 12.5, 1)) @ pair.moving.affine)
    with pytest.raises(ScanError, match="too different"):
        align(pair.fixed, large)


def test_of_lengths_that_differ_implausibly_a_voxel_size_that_was_given_against_the_file_is_the_cause(pair):
    with pytest.raises(ScanError, match=r"\(the file of the moving scan states 0\.08 x") as caught:
        align(pair.fixed, given(pair.moving, 12.5))
    assert caught.value.setting == Setting("spacing", "moving")
    # Where the file states nothing that could be true, the other scan is doubted.
    lost = replace(given(pair.moving, 12.5), stated_affine=np.eye(4))
    with pytest.raises(ScanError, match="lost; give the true voxel size of the fixed scan") as caught:
        align(pair.fixed, lost)
    assert caught.value.setting == Setting("spacing", "fixed")


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4, 8])
def test_metal_that_is_fixed_in_the_scanner_is_not_aligned_and_is_named(size):
    pair = make_pair(1, scale="hu")
    scans = []
    for scan in (pair.fixed, pair.moving):
        voxels = scan.voxels.copy()
        voxels[10 : 10 + 3 * size, 5 : 5 + size, 5 : 5 + size] = 30000
        voxels[10 : 10 + size, 5 : 5 + 3 * size, 5 : 5 + size] = 30000
        scans.append(replace(scan, voxels=voxels))
    found = align(*scans)
    assert target_registration_error(pair, found.matrix) < 0.01
    assert sum("times as bright as dense bone" in warning for warning in found.warnings) == 2


def test_padding_brighter_than_bone_is_no_data(small_pair):
    """As where the -2000 around a scan was stored without sign."""
    scans = [
        Volume(np.pad(np.asarray(scan.voxels, np.float32), 6, constant_values=63536), scan.affine)
        for scan in (small_pair.fixed, small_pair.moving)
    ]
    plain = align(*[Volume(scan.voxels, scan.affine) for scan in (small_pair.fixed, small_pair.moving)])
    found = align(*scans)
    assert plain.accepted and found.accepted
    assert (found.fixed_threshold, found.moving_threshold) == (plain.fixed_threshold, plain.moving_threshold)
    carried = [scan.affine @ np.array([[1, 0, 0, 6], [0, 1, 0, 6], [0, 0, 1, 6], [0, 0, 0, 1]]) for scan in scans]
    shifts = [there @ np.linalg.inv(scan.affine) for there, scan in zip(carried, scans, strict=True)]
    points = small_pair.fixed.to_world(np.argwhere(small_pair.fixed_bone)[:, ::-1])
    back = np.linalg.inv(shifts[1]) @ found.matrix @ shifts[0]
    difference = (back - plain.matrix)[:3]
    assert np.linalg.norm(points @ difference[:, :3].T + difference[:, 3], axis=1).mean() < 0.02
