"""Faults of grey values are named, each as what it is; of ordinary scans none is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.bone.greys import grey_fault
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.imaging.volume import read_volume
from DNetRegistrationLib.registration.verdict import SETTINGS
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from DNetRegistrationLib.synthesis.pairs import make_pair
from scipy import ndimage


def fault(volume, mask=None) -> str | None:
    try:
        threshold = find_bone_scale(volume, None, mask).threshold
    except ScanError:
        threshold = None
    found = grey_fault(volume, threshold, mask)
    return None if found is None else found.kind


def inverted(volume):
    return replace(volume, voxels=volume.voxels.max() - volume.voxels.astype(np.float32) + volume.voxels.min())


def stretched(volume, most: float):
    """From 0 to, at the 99.8th percentile, `most`."""
    voxels = volume.voxels.astype(np.float64) - volume.voxels.min()
    return np.rint(voxels * most / np.percentile(voxels, 99.8)).astype(np.int64)


def clipped(volume):
    scale = find_bone_scale(volume)
    most = scale.threshold + 0.1 * (scale.maximum - scale.threshold)
    return replace(volume, voxels=np.minimum(volume.voxels, np.asarray(most).astype(volume.voxels.dtype)))


FAULTS = {
    "inverted": inverted,
    "wrapped int16": lambda volume: replace(volume, voxels=stretched(volume, 1.3 * 32767).astype(np.int16)),
    "wrapped uint8": lambda volume: replace(volume, voxels=stretched(volume, 1.3 * 255).astype(np.uint8)),
    "wrapped, read as int16": lambda v: replace(
        v, voxels=stretched(v, 60000).clip(0, 65535).astype(np.uint16).view("i2")
    ),
    "wrapped, then float32": lambda v: replace(v, voxels=stretched(v, 1.3 * 32767).astype(np.int16).astype(np.float32)),
    "clipped": clipped,
}


@pytest.fixture(scope="module", params=[7_310_001, 7_310_002, 7_310_003], ids=["hu", "raw", "byte"])
def scan(request):
    scale = {7_310_001: "hu", 7_310_002: "raw", 7_310_003: "byte"}[request.param]
    return make_pair(request.param, scale=scale).moving


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named(scan, kind):
    assert fault(FAULTS[kind](scan)) == kind.split()[0].rstrip(",")


def test_a_mask_in_place_of_a_scan_is_told(scan):
    scale = find_bone_scale(scan)
    marked = replace(scan, voxels=(scan.voxels > scale.threshold).astype(np.uint8))
    found = grey_fault(marked, 0.5, None)
    assert found.kind == "clipped" and found.remedy == "give the scan itself"
    assert found.problem == f"all of the bone in {scan.name} has one grey value, 1, as in a mask or an image of labels"


def test_an_ordinary_scan_has_none_also_where_it_is_cut_or_masked(scan):
    assert fault(scan) is None
    middle = scan.voxels.shape[0] // 2
    assert fault(replace(scan, voxels=scan.voxels[:middle])) is None
    mask = np.zeros(scan.voxels.shape, bool)
    mask[8:-8, 4:-4, 6:-6] = True
    assert fault(scan, mask) is None
    metal = scan.voxels.astype(np.float32)
    metal[20:24, 20:24, 20:24] = metal.max() * np.random.default_rng(1).uniform(5, 7, (4, 4, 4))
    assert fault(replace(scan, voxels=metal)) is None


def test_a_scan_of_real_bone_has_none(trabecular_cube):
    assert fault(read_volume(trabecular_cube)) is None


def test_real_ankles_have_none(ankles):
    assert fault(read_volume(ankles)) is None


@pytest.mark.parametrize("grow", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)), 4])
def test_a_mask_close_around_bone_is_no_fault(scan, grow):
    """Marrow lies away from the border of the mask, and bone along it and fills it."""
    bone = scan.voxels > find_bone_scale(scan).threshold
    mask = ndimage.binary_closing(bone, iterations=3) | bone
    mask = ndimage.binary_dilation(mask, iterations=grow) if grow else mask
    assert fault(scan, mask) is None
    cut = replace(scan, voxels=scan.voxels[14:, :, 14:])
    assert fault(cut, mask[14:, :, 14:]) is None
    assert fault(inverted(scan), mask) == "inverted"


@pytest.mark.parametrize("amount", [1.0, 2.0, 4.0])
def test_a_sharp_kernel_is_not_taken_for_wrapped_values(scan, amount):
    """Bright rims beside dark ones, cut off at both ends of the type."""
    low, high = np.percentile(scan.voxels, (0.5, 99.5))
    window = ((scan.voxels - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8)
    values = window.astype(float) + amount * (window - ndimage.gaussian_filter(window.astype(float), 0.8))
    assert fault(replace(scan, voxels=values.round().clip(0, 255).astype(np.uint8))) != "wrapped"


def magnetic_resonance(scan, muscle: float, fine: int = 1):
    """The same bone as it looks in MR: dark, with bright marrow, in muscle; `fine` voxels are 80 um."""
    threshold, voxels = find_bone_scale(scan).threshold, scan.voxels
    filled = np.array(
        [ndimage.binary_fill_holes(ndimage.binary_closing(s > threshold, iterations=4 * fine)) for s in voxels]
    )
    bone = ndimage.gaussian_filter((voxels > threshold).astype(float), 0.5 * fine)
    values = np.where(ndimage.binary_dilation(filled, iterations=10 * fine), muscle, 15.0)
    values[filled & ~(voxels > threshold)] = 850
    noise = np.random.default_rng(5).normal(0, 15, voxels.shape)
    values = ndimage.gaussian_filter(values * (1 - 0.95 * bone), 0.6 * fine) + noise
    return replace(scan, voxels=values.round().astype(np.int16))


@pytest.mark.parametrize("muscle", [250, 350, 450])
def test_the_dark_rim_of_bone_in_mr_is_told_of(scan, muscle):
    assert fault(magnetic_resonance(scan, muscle)) == "dark rim"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [300_002, 300_010])
def test_marrow_darker_than_fixative_is_no_rim(seed):
    """Voxels of 40 um: little but bone is in view. What is dark lies within it."""
    pair = make_pair(seed, size=64, spacing=0.04)
    other = make_pair(seed, size=64, spacing=0.04, impostor="animal").moving
    assert [fault(one) for one in (pair.fixed, pair.moving, other)] == [None] * 3
    assert fault(inverted(pair.fixed)) == "inverted"


def test_the_dark_rim_of_cut_bone_in_mr_is_told_of():
    scan = make_pair(300_003, size=64, spacing=0.04).moving
    assert fault(magnetic_resonance(scan, 450, fine=2)) == "dark rim"


@pytest.mark.parametrize("seed", [5, 12])
def test_something_dark_at_the_edge_is_no_bone(seed):
    """In scans that are cut within the bone, so that bone lies along the border as inverted background does."""
    pair = make_pair(seed, size=64, spacing=0.04, impostor="animal")
    assert fault(pair.moving) is None
    assert fault(inverted(pair.fixed)) == "inverted"


@pytest.mark.parametrize(("seed", "kind"), [(501, None), (983_007, "crop"), (987_001, "littermate crop")])
def test_surroundings_that_brighten_slowly_are_no_rim(seed, kind):
    """By 11 to 13 % of the contrast within nine voxels: beam hardening, and marrow."""
    pair = make_pair(seed) if kind is None else make_adversarial(seed, kind)
    assert fault(pair.fixed) is None and fault(pair.moving) is None


def test_agent_as_bright_as_bone_is_named_where_it_looks_like_mr():
    """A bath of it at 1.2, around bone of 0.8 to 1.6 per cm."""
    moving = make_pair(903, agent="varied").moving
    found = grey_fault(moving, find_bone_scale(moving).threshold, None, "the moving scan")
    assert found is not None and "contrast agent" in found.problem and "contrast agent" in found.remedy
    # It cannot be told wholly from two bones: nobody is led astray, and no threshold mends it.
    assert (
        found.remedy.endswith("; or the scans are of different bones: check the names") and found.kind not in SETTINGS
    )


def test_bright_soft_tissue_is_told_of(scan):
    """A threshold below muscle and marrow, as one is found in MR."""
    low = float(np.percentile(scan.voxels, 30))
    found = grey_fault(scan, low, None, "the moving scan")
    assert found is not None and found.kind == "not CT"
    assert "of the moving scan is as bright as bone" in found.problem and "CT" in found.remedy


def test_the_words_name_the_scan_and_the_remedy(scan):
    found = grey_fault(inverted(scan), None, None, "the fixed scan")
    assert found is not None and "in the fixed scan" in found.problem
    assert found.sentence.startswith(f"{found.problem}. Invert its grey values if they are inverted; ")
