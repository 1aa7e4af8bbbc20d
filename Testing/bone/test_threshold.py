"""Where bone begins: on all kinds of scanner scales and surroundings, against the bone that was put there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.bone.materials import _without_air
from DNetRegistrationLib.bone.scenes import preview
from DNetRegistrationLib.bone.threshold import BoneScale, find_bone_scale, without_metal
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.imaging.volume import Volume, read_volume
from DNetRegistrationLib.synthesis.pairs import make_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage


def dice(first, second) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def ball(size=32, radius=8.0) -> np.ndarray:
    """Share of each voxel inside a ball at the middle, by a linear rim one voxel wide."""
    distance = np.linalg.norm(np.indices((size,) * 3) - (size - 1) / 2, axis=0)
    return np.clip(radius + 0.5 - distance, 0, 1)


def test_t_of_equation_5_by_hand():
    values = BoneScale(2000.0, 6000.0)(np.array([-500.0, 2000.0, 3000.0, 6000.0, 8000.0, 30000.0, np.nan]))
    np.testing.assert_array_equal(values, [0, 0, 0.25, 1, 1.5, 1.5, np.nan])


@pytest.mark.parametrize("scale", ["hu", "raw", "byte", "attenuation"])
@pytest.mark.parametrize("background", ["air", "water", "fixative"])
@pytest.mark.parametrize("seed", [11, pytest.param(12, marks=pytest.mark.slow)])
def test_the_bone_of_every_scanner_and_background_is_found(scale, background, seed):
    pair = make_pair(seed, scale=scale, background=background)
    found = []
    for scan, bone in ((pair.fixed, pair.fixed_bone), (pair.moving, pair.moving_bone)):
        threshold = find_bone_scale(scan).threshold
        assert dice(scan.voxels > threshold, bone) > 0.75
        # As a fraction of the way from what is not bone to what is.
        low, high = np.median(scan.voxels[~bone]), np.median(scan.voxels[bone])
        found.append((threshold - low) / (high - low))
    assert abs(found[0] - found[1]) < 0.35
    assert all(0.2 < share < 0.95 for share in found)


@pytest.mark.parametrize("gain, offset, dtype", [(1, 0, "float64"), (10, 30000, "uint16"), (0.02, 20, "uint8")])
@pytest.mark.parametrize("muscle", [0, 600])
def test_it_lies_half_way_between_bone_and_what_is_around_it(muscle, gain, offset, dtype):
    """Bright muscle around half the bone, water elsewhere: half way to the brighter of the two."""
    generator = np.random.default_rng(0)
    bone = ball()
    soft = np.where(ball(radius=13.0) > 0.5, muscle, 0)
    grey = soft + (3000 - soft) * bone + generator.normal(0, 30, bone.shape)
    scan = Volume((grey * gain + offset).astype(dtype))
    threshold = (find_bone_scale(scan).threshold - offset) / gain
    assert abs(threshold - (3000 + muscle) / 2) < 300
    assert dice(scan.voxels > threshold * gain + offset, bone > 0.5) > 0.97


def test_a_given_threshold_is_kept_and_the_maximum_is_a_high_percentile():
    generator = np.random.default_rng(1)
    voxels = generator.uniform(0, 1000, (20, 20, 20))
    voxels[3, 3, 3] = 1e6  # one hot voxel
    scale = find_bone_scale(Volume(voxels), 400.0)
    assert scale.threshold == 400
    assert scale.maximum == pytest.approx(np.percentile(voxels[voxels > 400], 99), rel=1e-5)


def test_only_the_mask_is_looked_at():
    voxels = 3000 * ball()
    voxels[1:4, 2:30, 2:30] = 20000  # metal
    mask = np.ones(voxels.shape, bool)
    mask[:6] = False
    alone = find_bone_scale(Volume(3000 * ball()))
    assert find_bone_scale(Volume(voxels), mask=mask).threshold == pytest.approx(alone.threshold, rel=0.05)
    bright = find_bone_scale(Volume(voxels), 1500.0).bright
    assert bright.volume == pytest.approx(3 * 28 * 28) and bright.center == pytest.approx((15.5, 15.5, 2))
    assert find_bone_scale(Volume(voxels), 1500.0, mask).bright is None
    lies = Volume(mask.astype(np.uint8))
    assert find_bone_scale(Volume(voxels), mask=lies) == find_bone_scale(Volume(voxels), mask=mask)


def test_nan_is_outside_the_field_of_view():
    voxels = (3000 * ball()).astype(np.float32)
    whole = find_bone_scale(Volume(voxels.copy()))
    _, y, x = np.indices(voxels.shape) - 15.5
    voxels[y**2 + x**2 > 15**2] = np.nan
    assert find_bone_scale(Volume(voxels)).threshold == pytest.approx(whole.threshold, rel=0.1)


def test_preview_is_the_mean_of_blocks():
    generator = np.random.default_rng(2)
    voxels = generator.integers(0, 60000, (11, 261, 300)).astype(np.uint16)
    found = preview(Volume.from_geometry(voxels, spacing=(0.01, 0.01, 0.02))).voxels
    assert found.shape == (11, 130, 150) and found.dtype == np.float32
    block = voxels[5, 20:22, 40:42].astype(float)
    assert found[5, 10, 20] == pytest.approx(block.mean(), rel=1e-5)
    assert found[10, 129, 149] == pytest.approx(voxels[10, 258:260, 298:300].astype(float).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "voxels, options, words",
    [
        (np.random.default_rng(0).normal(size=(30, 30, 30)), {}, "found no bone.*check that this is the right scan"),
        (3000 * ball(), {"threshold": 4000.0}, "no bone above the threshold 4000"),
        (3000 * ball(), {"threshold": np.nan}, "is not a number"),
        (3000 * ball(), {"threshold": 1.0, "mask": np.zeros((32, 32, 32), bool)}, "mask"),
        (3000 * ball(), {"mask": np.zeros((32, 32, 32), bool)}, "its mask is empty"),
        (3000 * ball(), {"mask": np.ones((31, 32, 32), bool)}, "its mask has"),
        (3000 * ball(), {"mask": "m.nrrd"}, "its mask is a path"),
        # As inside a mask that ends on the bone.
        (
            np.random.default_rng(0).normal(size=(30, 30, 30)),
            {"mask": np.ones((30, 30, 30), bool)},
            "found no bone.*; give .*, or let the mask hold what surrounds the bone",
        ),
        (3000 * ball(radius=1.0), {"threshold": 1.0}, "no bone above"),
        (1e-44 * 3000 * ball(), {}, "scale its values up"),
    ],
)
def test_what_has_no_bone_is_refused_with_its_name(voxels, options, words):
    with pytest.raises(ScanError, match=words) as caught:
        find_bone_scale(Volume(voxels, name="left.nrrd"), **options)
    assert str(caught.value).startswith("left.nrrd: ") and "\n" not in str(caught.value)


def test_the_threshold_to_set_is_that_of_the_scan():
    with pytest.raises(ScanError) as caught:
        find_bone_scale(Volume(np.full((20, 20, 20), 7)), role="moving")
    assert caught.value.setting == Setting("threshold", "moving")


def test_an_offset_that_leaves_few_steps_of_float32_is_no_error():
    threshold = find_bone_scale(Volume((1e6 + 2 * ball()).astype(np.float32))).threshold
    assert 1e6 + 0.5 < threshold < 1e6 + 1.5


def test_the_same_bone_in_any_units_has_the_same_threshold(pair):
    voxels = pair.fixed.voxels.astype(np.float64)
    first = find_bone_scale(Volume(voxels)).threshold
    second = find_bone_scale(Volume(voxels * 7e3 - 2e6)).threshold
    assert second == pytest.approx(first * 7e3 - 2e6, rel=1e-3)


def hook(scan: Volume, size: int, grey: float) -> Volume:
    """Three bars of metal in a corner."""
    voxels = scan.voxels.copy()
    for longest, reach in zip(range(3), (3, 3, 2), strict=True):
        end = [10 + size, 5 + size, 5 + size]
        end[longest] += (reach - 1) * size
        voxels[10 : end[0], 5 : end[1], 5 : end[2]] = grey
    return Volume(voxels, scan.affine)


@pytest.fixture(scope="module")
def bones() -> dict[str, Volume]:
    """A scan of each scale, in one of the backgrounds each."""
    backgrounds = {"hu": "air", "raw": "water", "byte": "fixative", "attenuation": "air"}
    return {s: make_pair(8800 + n, scale=s, background=b).moving for n, (s, b) in enumerate(backgrounds.items())}


def moved(scan: Volume, changed: Volume) -> float:
    """How far the threshold moves, as a share of the step from what is not bone to what is."""
    first = find_bone_scale(scan).threshold
    dense = np.nanmedian(scan.voxels[scan.voxels > first])
    return abs(find_bone_scale(changed).threshold - first) / (2 * (dense - first))


@pytest.mark.slow
@settings(max_examples=12)
@given(scale=st.sampled_from(["hu", "raw", "byte", "attenuation"]), before=st.tuples(*[st.integers(0, 60)] * 3),
       after=st.tuples(*[st.integers(0, 60)] * 3), kind=st.sampled_from(["lowest", "air", "nan"]))  # fmt: skip
def test_what_is_added_around_a_scan_moves_its_threshold_little(bones, scale, before, after, kind):
    scan = bones[scale]
    lowest, air = np.nanpercentile(scan.voxels, (0, 5))
    fill = {"lowest": lowest, "air": air, "nan": np.nan}[kind]
    widths = list(zip(before, after, strict=True))
    voxels = np.pad(scan.voxels.astype(np.float32), widths, constant_values=fill)
    if kind == "air":
        outside = np.pad(np.zeros(scan.voxels.shape, bool), widths, constant_values=True)
        voxels[outside] += 0.01 * np.nanstd(scan.voxels) * np.random.default_rng(0).normal(size=outside.sum())
    assert moved(scan, Volume(voxels, scan.affine)) < 0.05


@pytest.mark.parametrize("scale", ["hu", "raw", "byte", "attenuation"])
def test_a_crop_moves_the_threshold_little(bones, scale):
    scan = bones[scale]
    assert moved(scan, Volume(scan.voxels[5:-4, 3:-6, 4:-4], scan.affine)) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("background", ["air", pytest.param("water", marks=pytest.mark.slow)])
def test_other_voxel_sizes_move_the_threshold_little(background):
    scan = make_pair(8810, size=96, spacing=0.055, scale="hu", background=background).fixed
    voxels = scan.voxels.astype(np.float32)
    for factor in (0.6, 0.75, 1.4):
        blurred = ndimage.gaussian_filter(voxels, 0.3 / factor) if factor < 1 else voxels
        other = ndimage.zoom(blurred, factor, order=3)
        assert moved(scan, Volume(other, scan.affine @ np.diag((*[96 / len(other)] * 3, 1)))) < 0.05, factor


@pytest.mark.parametrize("size", [1, 3, 4, 8])
@pytest.mark.parametrize("scale, grey", [("hu", 30000), ("raw", 65000), ("attenuation", 30)])
def test_metal_of_any_size_is_not_taken_for_bone_and_is_named(bones, scale, grey, size):
    scan = bones[scale]
    clean, found = find_bone_scale(scan), find_bone_scale(hook(scan, size, grey))
    assert clean.bright is None
    assert found.threshold == pytest.approx(clean.threshold, abs=0.05 * (clean.maximum - clean.threshold))
    assert found.maximum == pytest.approx(clean.maximum, abs=0.05 * (clean.maximum - clean.threshold))
    if size > 1:
        assert found.bright.volume == pytest.approx((3 + 2 + 1) * size**3 * 0.08**3, rel=0.01)
        assert found.bright.times == pytest.approx(
            (grey - clean.threshold) / (clean.maximum - clean.threshold), rel=0.05
        )


def test_hot_voxels_change_nothing(bones):
    scan = bones["raw"]
    voxels = scan.voxels.copy()
    voxels[tuple(np.random.default_rng(0).integers(0, 64, (3, 200)))] = 65535
    clean, found = find_bone_scale(scan), find_bone_scale(Volume(voxels, scan.affine))
    assert found.threshold == pytest.approx(clean.threshold, abs=0.05 * (clean.maximum - clean.threshold))
    assert found.maximum == pytest.approx(clean.maximum, abs=0.05 * (clean.maximum - clean.threshold))


@pytest.mark.parametrize("widths", [20, 40])
@pytest.mark.parametrize("fill", ["lowest", "highest", "nan"])
def test_padding_moves_the_threshold_of_a_real_scan_little(ankles, fill, widths):
    scan = read_volume(ankles)
    value = {"lowest": scan.voxels.min(), "highest": 32767, "nan": np.nan}[fill]
    assert (
        moved(scan, Volume(np.pad(scan.voxels.astype(np.float32), widths, constant_values=value), scan.affine)) < 0.05
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_crop_of_a_real_scan_moves_its_threshold_little(ankles, seed):
    scan = read_volume(ankles)
    start, end = np.random.default_rng(seed).integers(0, 12, (2, 3))
    box = tuple(slice(a, size - b) for a, b, size in zip(start, end, scan.voxels.shape, strict=True))
    assert moved(scan, Volume(scan.voxels[box], scan.affine)) < 0.05


@pytest.mark.slow
def test_other_voxel_sizes_move_the_threshold_of_a_real_scan_little(ankles):
    scan = read_volume(ankles)
    for factor in (0.8, 1.5):
        other = ndimage.zoom(scan.voxels.astype(np.float32), factor, order=1)
        assert moved(scan, Volume(other, scan.affine @ np.diag((*[1 / factor] * 3, 1)))) < 0.05, factor


@pytest.mark.parametrize(
    "air, soft, kept",
    [
        (50, 0, 22),  # of 72 voxels left, three in ten are air
        (30, 0, 30),
        (70, 0, 70),  # so little is left that it may be anything
        (50, -850, 50),  # a step of 150 is no step from air, where bone is 1250 above
    ],
)
def test_air_around_thin_tissue_counts_little(air, soft, kept):
    smooth = np.r_[np.full(air, -1000.0), np.full(100 - air, soft), np.full(50, 400.0)].reshape(1, 15, 10)
    smooth[smooth == -1000] += np.linspace(0, 1, air)
    left = _without_air(smooth, smooth < 400, 400.0)
    assert np.count_nonzero(left & (smooth < -999 + 1e-9)) == pytest.approx(kept, abs=1)
    assert np.count_nonzero(left & (smooth == soft)) == 100 - air


def test_air_that_is_hardly_too_much_is_no_error():
    """28 of 93 voxels are more than three tenths; the allowed share rounds to 28 too."""
    smooth = np.r_[np.linspace(-1000, -999, 28), np.zeros(65), np.full(57, 400.0)].reshape(1, 15, 10)
    assert np.count_nonzero(_without_air(smooth, smooth < 400, 400.0)) == 65 + 27


def test_metal_and_its_rim_are_left_out():
    """A bar twenty times as bright as bone, by an explicit loop over what lies within three steps of it."""
    pair = make_pair(3, size=40, spacing=0.128, scale="hu")
    voxels = pair.fixed.voxels.astype(np.float32)
    voxels[4:7, 30:36, 8:10] = 60000
    volume = replace(pair.fixed, voxels=voxels)
    scale = find_bone_scale(volume)
    seen = np.ones(voxels.shape, bool)
    for index in np.argwhere(voxels == 60000):
        for step in np.argwhere(np.abs(np.indices((7, 7, 7)) - 3).sum(0) <= 3) - 3:
            place = index + step
            if ((place >= 0) & (place < 40)).all():
                seen[tuple(place)] = False
    np.testing.assert_array_equal(without_metal(volume, scale, None), seen)
    given = np.arange(voxels.size).reshape(voxels.shape) % 3 > 0
    np.testing.assert_array_equal(without_metal(volume, scale, given), seen & given)
    assert without_metal(pair.fixed, find_bone_scale(pair.fixed), given) is given
