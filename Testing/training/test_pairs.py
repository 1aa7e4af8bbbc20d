"""Training pairs: exact geometry, fields of view, and the distributions that the options promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.bone.cube import place_of_bone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.geometry.rigid import geodesic_angle
from DNetRegistrationLib.training import pairs
from DNetRegistrationLib.training.dataset import BoneDataset
from DNetRegistrationLib.training.fields_of_view import find_views
from DNetRegistrationLib.training.pairs import JITTER, SHIFT, PairSource
from DNetRegistrationLib.training.resampler import Resampler
from scipy import ndimage

CUBE, SPACING = 64, 0.08
MIDDLE = (CUBE - 1) / 2
# mm about the middle of the grid, (x, y, z): neither symmetric nor alike seen from anywhere
BLOBS = np.array([[0.0, 0.0, 0.0], [0.75, 0.1, 0.0], [-0.1, -0.7, 0.2], [0.1, 0.15, 0.8]])
SIGMA = 0.11


def blob_values(size, spacing, blobs=BLOBS, sigma=SIGMA):
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return sum(np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / (2 * sigma**2)) for p in blobs)


@pytest.fixture(scope="module")
def blobs():
    """Four blobs; three times as bright with contrast agent, so that one sees which of the scans it is."""
    values = torch.from_numpy(0.25 * blob_values(100, 0.04)).float()[None]
    return BoneDataset(values, 3 * values, 0.04, ["blobs"])


def image_of(cube):
    affine = np.diag((SPACING, SPACING, SPACING, 1.0))
    affine[:3, 3] = -MIDDLE * SPACING
    return BoneImage(cube, affine)


def brightest(cube, near=None):
    """The centre (x, y, z) in mm of a blob in a cube, from its highest voxel on or from near a position."""
    values = cube.double().numpy()
    if near is None:
        at = np.array(np.unravel_index(values.argmax(), values.shape))[::-1].astype(float)
    else:
        at = near / SPACING + MIDDLE
    low = np.rint(at).astype(int) - 7
    values = values[tuple(slice(i, i + 15) for i in low[::-1])]
    at = at - low
    z, y, x = np.indices(values.shape, sparse=True)
    for _ in range(30):
        # A Gaussian window about the last guess: the window's and the blob's middle agree in the end.
        window = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) * (SPACING**2 / (2 * SIGMA**2)))
        weight = values * window
        at = np.array([(weight * c).sum() for c in (x, y, z)]) / weight.sum()
    return (at + low - MIDDLE) * SPACING


def peaks(cube):
    """Where four blobs are in a cube."""
    values, found = cube.clone(), []
    for _ in range(len(BLOBS)):
        at = brightest(values)
        found.append(at)
        index = np.rint(at / SPACING + MIDDLE).astype(int)
        x, y, z = (slice(max(i - 4, 0), i + 5) for i in index)
        values[z, y, x] = 0
    return np.array([brightest(cube, near=at) for at in found])


@pytest.mark.parametrize("placement", ["bone", "center"])
def test_the_truth_takes_every_blob_from_cube_to_cube(blobs, placement):
    batch = PairSource(blobs, 1, placement=placement, cut_share=0, noise=0).draw(0, 6)
    for number in range(6):
        rotation, translation = batch.rotation[number].numpy(), batch.translation[number].numpy()
        for at in peaks(batch.fixed[number, 0]):
            expected = rotation @ at + translation
            found = brightest(batch.moving[number, 0], near=expected)
            assert np.abs(found - expected).max() < 0.02 * SPACING
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0
    assert batch.rotation.dtype == batch.translation.dtype == torch.float64


def test_blobs_keep_their_distances(blobs):
    """The cube's scale, against positions that are known."""
    batch = PairSource(blobs, 2, cut_share=0, noise=0).draw(0, 4)
    true = np.sort(np.linalg.norm(BLOBS[:, None] - BLOBS, axis=-1).ravel())
    for cube in (*batch.fixed[:, 0], *batch.moving[:, 0]):
        at = peaks(cube)
        assert np.abs(np.sort(np.linalg.norm(at[:, None] - at, axis=-1).ravel()) - true).max() < 0.005


def test_a_bone_lies_over_itself(tibiae):
    """A resampling by SciPy, in float64, with the truth brings moving onto fixed."""
    batch = PairSource(tibiae, 4, cut_share=0, contrast=0, noise=0, scale=0).draw(0, 3)
    index = np.indices((CUBE,) * 3).reshape(3, -1)[::-1].T
    for number in range(3):
        fixed, moving = batch.fixed[number, 0].numpy(), batch.moving[number, 0].numpy()
        mm = (index - MIDDLE) * SPACING
        there = mm @ batch.rotation[number].numpy().T + batch.translation[number].numpy()
        there = (there / SPACING + MIDDLE).T[::-1]
        values = ndimage.map_coordinates(moving, there, order=1).reshape(fixed.shape)
        seen = ndimage.map_coordinates(batch.moving_inside[number, 0].numpy(), there, order=0).reshape(fixed.shape)
        both = (seen > 0) & (batch.fixed_inside[number, 0].numpy() > 0)
        assert np.corrcoef(values[both], fixed[both])[0, 1] > 0.97


def test_cubes_are_placed_on_the_bone_that_is_left(tibiae, monkeypatch):
    """As `place_of_bone` finds it in the view, which the cube on the view's centre shows whole."""
    monkeypatch.setattr(pairs, "PLACING", 0.0)
    options = dict(noise=0, cut_share=1, scale=0)
    whole = PairSource(tibiae, 5, placement="center", **options).draw(0, 6)
    placed = PairSource(tibiae, 5, placement="bone", **options).draw(0, 6)
    for number in range(6):
        fixed, moving = (place_of_bone(image_of(side[number, 0])).center for side in (whole.fixed, whole.moving))
        rotation = whole.rotation[number].numpy()
        expected = rotation @ fixed + whole.translation[number].numpy() - moving
        assert np.abs(placed.translation[number].numpy() - expected).max() < 0.05
        assert torch.equal(placed.rotation[number], whole.rotation[number])


def test_cubes_lie_a_little_off_the_bone(blobs):
    drawn = PairSource(blobs, 5)._drawn(0, 500, math.pi)
    assert np.abs(drawn.placing).max() <= 0.16
    assert drawn.placing.std() == pytest.approx(0.16 / math.sqrt(3), rel=0.05)


def test_inside_is_the_box_of_the_view(blobs):
    batch = PairSource(blobs, 6, placement="center", cut_share=0).draw(0, 2)
    assert batch.fixed_inside.min() == batch.moving_inside.min() == 1
    cut = PairSource(blobs, 6, cut_share=1).draw(0, 4)
    for inside, image in ((cut.fixed_inside, cut.fixed), (cut.moving_inside, cut.moving)):
        assert inside.shape == image.shape == (4, 1, CUBE, CUBE, CUBE)
        assert inside.dtype == image.dtype == torch.float32
        assert set(inside.unique().tolist()) == {0, 1}
        assert image[inside == 0].abs().max() == 0
        for mask in inside[:, 0].bool():
            spans = [mask.int().amax(other).nonzero()[:, 0] for other in ((1, 2), (0, 2), (0, 1))]
            # A box, and nothing but.
            assert math.prod(int(span[-1] - span[0]) + 1 for span in spans) == int(mask.sum())


def test_cut_views_keep_the_promised_share_of_bone_and_overlap(tibiae):
    count = 12
    options = dict(placement="center", noise=0, scale=0, contrast=0)
    whole = PairSource(tibiae, 7, cut_share=0, **options).draw(0, count)
    cut = PairSource(tibiae, 7, cut_share=1, keep=0.5, **options).draw(0, count)
    left = [
        (few.sum((1, 2, 3, 4)) / all_of.sum((1, 2, 3, 4))).numpy()
        for few, all_of in ((cut.fixed, whole.fixed), (cut.moving, whole.moving))
    ]
    assert np.min(left) > 0.48 and np.max(left) <= 1
    assert np.min(left) < 0.6 and np.mean(left) == pytest.approx(0.75, abs=0.08)
    for number in range(count):
        bone = np.argwhere(whole.fixed[number, 0].numpy() > 0.5)[:, ::-1]
        there = ((bone - MIDDLE) * SPACING) @ cut.rotation[number].numpy().T + cut.translation[number].numpy()
        there = np.rint(there / SPACING + MIDDLE).astype(int)
        on_cube = ((there >= 0) & (there < CUBE)).all(1)
        in_moving = np.zeros(len(bone), bool)
        in_moving[on_cube] = cut.moving_inside[number, 0].numpy()[tuple(there[on_cube].T[::-1])] > 0
        in_fixed = cut.fixed_inside[number, 0].numpy()[tuple(bone.T[::-1])] > 0
        shown_by_moving = int((whole.moving[number, 0] * cut.moving_inside[number, 0] > 0.5).sum())
        assert (in_fixed & in_moving).sum() / min(in_fixed.sum(), shown_by_moving) > 0.37


def test_cut_share_is_the_share_of_pairs_cut(blobs):
    drawn = PairSource(blobs, 8, cut_share=0.3, keep=0.6)._drawn(0, 1000, math.pi)
    cut = (drawn.fraction < 1).any((1, 2))
    assert cut.mean() == pytest.approx(0.3, abs=0.04)
    assert drawn.fraction[cut].min() >= 0.6
    assert drawn.fraction[cut].mean() == pytest.approx(0.8, abs=0.01)
    assert set(drawn.axis.ravel()) == {0, 1, 2} and 0.45 < drawn.from_low.mean() < 0.55


def test_same_number_same_batch_whatever_was_drawn_before(blobs):
    source = PairSource(blobs, 9)
    first = source.draw(3, 2)
    source.draw(4, 3)
    torch.randn(5)
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    for again in (source.draw(3, 2), PairSource(blobs, 9).draw(3, 2)):
        for name in first.__dataclass_fields__:
            assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(source.draw(4, 2).rotation, first.rotation)
    assert not torch.equal(replace(source, seed=10).draw(3, 2).rotation, first.rotation)


def angles(source, limit=math.pi):
    return geodesic_angle(torch.eye(3, dtype=torch.float64), torch.from_numpy(source._drawn(0, 3000, limit).rotation))


def test_rotations_are_distributed_as_told(blobs):
    uniform = angles(PairSource(blobs, 11, rotations="uniform"))
    # The angle's density over SO(3) is (1 - cos) / pi.
    assert float(uniform.mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, rel=0.02)
    assert float((uniform < math.pi / 2).double().mean()) == pytest.approx(0.5 - 1 / math.pi, abs=0.025)
    paper = angles(PairSource(blobs, 11, rotations="axis-angle"))
    assert float(paper.mean()) == pytest.approx(math.pi / 2, rel=0.03)
    assert float((paper < math.pi / 2).double().mean()) == pytest.approx(0.5, abs=0.025)
    narrow = angles(PairSource(blobs, 11), 0.5)
    assert float(narrow.max()) <= 0.5 + 1e-9 and float(narrow.mean()) == pytest.approx(0.25, rel=0.05)


def test_the_range_of_rotations_can_be_widened_from_draw_to_draw(blobs):
    source = PairSource(blobs, 12)
    turn = geodesic_angle(torch.eye(3, dtype=torch.float64), source.draw(0, 3, max_angle=0.2).rotation)
    assert 0 < float(turn.max()) <= 0.2
    assert torch.equal(source.draw(0, 3).rotation, source.draw(0, 3, max_angle=math.pi).rotation)


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_smaller_cubes_show_the_means_of_whole_ones(reduction):
    """Of the same pairs: everything but the noise, of which there is as much less as a mean has."""
    bones = BoneDataset(*torch.stack([smooth_bone(seed) for seed in range(4)]).view(2, 2, 74, 74, 74), 0.12, ["a", "b"])
    source = PairSource(bones, 16, noise=0.0)
    whole, small = source.draw(3, 4), source.draw(3, 4, reduction=reduction)
    assert torch.equal(whole.rotation, small.rotation) and torch.equal(whole.translation, small.translation)
    # Where a view ends, a voxel is inside or not; and the largest voxels are of the size of the lumps.
    image, view = (0.95, 0.9) if reduction < 8 else (0.9, 0.8)
    for name, alike in (("fixed", image), ("moving", image), ("fixed_inside", view), ("moving_inside", view)):
        expected = torch.nn.functional.avg_pool3d(getattr(whole, name), reduction)
        found = getattr(small, name)
        assert found.shape == (4, 1, *[64 // reduction] * 3)
        assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > alike, name
    noisy = PairSource(bones, 16, noise=0.01).draw(3, 4, reduction=reduction).fixed
    bone = small.fixed > 0.5
    assert float((noisy - small.fixed)[bone].std()) == pytest.approx(0.1 / reduction**1.5, rel=0.1)


def smooth_bone(seed):
    """``(74, 74, 74)`` values up to 1, in lumps of half a millimetre, within 2 mm of the middle."""
    lumps = torch.rand(1, 1, 18, 18, 18, generator=torch.Generator().manual_seed(seed))
    values = torch.nn.functional.interpolate(lumps, 74, mode="trilinear")[0, 0]
    axis = (torch.arange(74) - 36.5) * 0.12
    return values * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 4)


def test_translations_are_those_of_the_paper(blobs):
    batch = PairSource(blobs, 13, placement="center", cut_share=1).draw(0, 4)
    drawn = PairSource(blobs, 13, placement="center", cut_share=1)._drawn(0, 4, math.pi)
    assert np.array_equal(batch.translation.numpy(), drawn.shift)
    many = PairSource(blobs, 13)._drawn(1, 1000, math.pi)
    assert np.abs(many.shift).max() <= SHIFT == 0.64 and np.abs(many.jitter).max() <= JITTER
    assert many.shift.std() == pytest.approx(SHIFT / math.sqrt(3), rel=0.03)


def test_each_scan_is_turned_as_a_whole_too(blobs):
    turns = torch.from_numpy(PairSource(blobs, 14)._drawn(0, 2000, math.pi).turn)
    for side in range(2):
        angle = geodesic_angle(torch.eye(3, dtype=torch.float64), turns[:, side])
        assert float(angle.mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, rel=0.02)


def test_a_narrow_range_is_about_the_dataset(blobs):
    turns = torch.from_numpy(PairSource(blobs, 14)._drawn(0, 2000, 0.1).turn)
    fixed, moving = (geodesic_angle(torch.eye(3, dtype=torch.float64), turns[:, side]) for side in range(2))
    assert float(fixed.max()) <= 0.1 + 1e-9 and float(fixed.mean()) == pytest.approx(0.05, rel=0.05)
    assert 0.1 < float(moving.max()) <= 0.2 + 1e-9


def test_intensities_are_scaled_and_noisy(blobs):
    quiet = PairSource(blobs, 15, noise=0, scale=0).draw(0, 4)
    scaled = PairSource(blobs, 15, noise=0, scale=0.05).draw(0, 4)
    noisy = PairSource(blobs, 15, noise=0.001, scale=0.05).draw(0, 4)
    sides = (scaled.fixed, quiet.fixed), (scaled.moving, quiet.moving)
    factors = torch.cat([a.amax((1, 2, 3, 4)) / b.amax((1, 2, 3, 4)) for a, b in sides])
    assert len(factors.unique()) == 8 and 0.95 <= factors.min() and factors.max() <= 1.05
    many = PairSource(blobs, 15)._drawn(1, 2000, math.pi).scale
    assert many.std() == pytest.approx(0.05 / math.sqrt(3), rel=0.03)
    for loud, silent in ((noisy.fixed, scaled.fixed), (noisy.moving, scaled.moving)):
        bone = silent > 0.15
        added = (loud - silent)[bone]
        assert float(added.std()) == pytest.approx(math.sqrt(0.001), rel=0.05)
        assert abs(float(added.mean())) < 0.003
        assert loud.min() == 0 and (loud[silent == 0] == 0).all()
    added = [(a - b)[0] for a, b in ((noisy.fixed, scaled.fixed), (noisy.moving, scaled.moving))]
    assert not torch.equal(*added)


def test_half_of_the_pairs_have_contrast_on_either_side(blobs):
    sides = PairSource(blobs, 16)._drawn(0, 2000, math.pi).contrast
    assert not sides.all(1).any()
    assert sides.mean(0) == pytest.approx([0.25, 0.25], abs=0.03)
    assert PairSource(blobs, 16, contrast=1)._drawn(0, 100, math.pi).contrast.any(1).all()
    assert not PairSource(blobs, 16, contrast=0)._drawn(0, 100, math.pi).contrast.any()
    source = PairSource(blobs, 16, contrast=1, noise=0, scale=0, cut_share=0)
    batch, told = source.draw(2, 6), source._drawn(2, 6, math.pi).contrast
    bright = torch.stack((batch.fixed.amax((1, 2, 3, 4)), batch.moving.amax((1, 2, 3, 4))), 1) > 0.4
    assert np.array_equal(bright.numpy(), told)


def test_bone_is_always_in_view():
    """Of a speck that mostly lies out of view, far off the middle."""
    values = torch.from_numpy(blob_values(120, 0.08, np.array([[1.4, 1.3, 1.5]]), 0.08)).float()[None]
    source = PairSource(BoneDataset(values, values, 0.08, ["speck"]), 17, cut_share=1)
    batch = source.draw(0, 16)
    for image in (batch.fixed, batch.moving):
        assert image.isfinite().all() and image.amax((1, 2, 3, 4)).min() > 0.1
    assert batch.translation.isfinite().all()
    away = torch.from_numpy(blob_values(120, 0.08, np.array([[4.0, 4.0, 4.0]]), 0.08)).float()[None]
    with pytest.raises(OptionError, match="speck shows no bone about the middle"):
        PairSource(BoneDataset(away, away, 0.08, ["speck"]), 17)


def test_a_scans_own_field_of_view_is_respected(monkeypatch):
    """A dataset of real scans ends where these ended: that part is not inside, whichever way it is turned."""
    monkeypatch.setattr(pairs, "JITTER", 0.0)
    monkeypatch.setattr(pairs, "SHIFT", 0.0)
    axis = (torch.arange(100) - 49.5) * 0.06
    ball = ((axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() < 2).float()
    fields = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    fields[..., :3] = torch.eye(3, dtype=torch.float64) / 100
    # The scan with contrast agent shows x from -0.5 mm up.
    fields[0, 1, 0, 0], fields[0, 1, 0, 3] = 0.1, -0.95
    dataset = BoneDataset(ball[None], (ball * (axis > -0.5))[None], 0.06, ["ball"], fields)
    source = PairSource(dataset, 18, placement="center", cut_share=0, noise=0, scale=0, contrast=1)
    batch, contrast = source.draw(0, 6), source._drawn(0, 6, math.pi).contrast
    along = (np.arange(CUBE) - MIDDLE) * SPACING
    within = torch.from_numpy(along[:, None, None] ** 2 + along[:, None] ** 2 + along**2 < 1.8**2)
    for number in range(6):
        sides = (batch.fixed, batch.fixed_inside), (batch.moving, batch.moving_inside)
        for (image, inside), cut in zip(sides, contrast[number], strict=True):
            image, inside = image[number, 0], inside[number, 0]
            assert (inside == 1).all() if not cut else 0.4 < float(inside.mean()) < 0.8
            # The volume of a ball without its cap, and all of that is bone.
            assert float(inside[within].mean()) == pytest.approx(0.703 if cut else 1.0, abs=0.01)
            assert float(((image > 0.5) != inside.bool())[within].float().mean()) < 0.01


def test_stored_bytes_cost_nothing(tibiae):
    half = replace(tibiae, plain=tibiae.plain.float() / 128, contrast=tibiae.contrast.float() / 128)
    one, other = (PairSource(dataset, 19).draw(0, 2) for dataset in (tibiae, half))
    assert torch.allclose(one.fixed, other.fixed, atol=1e-5) and torch.equal(one.translation, other.translation)


@pytest.mark.parametrize(("reduction", "densest"), [(1, 100), (2, 100), (4, 90), (8, 50)])
def test_a_processor_leaves_out_nothing_but_what_is_empty(tibiae, reduction, densest):
    """It resamples where bone is; a GPU everywhere."""
    source = PairSource(tibiae, 20)
    drawn = source._drawn(0, 3, math.pi)
    views = find_views(drawn, source._blocks)
    scans = list(zip(drawn.bones.repeat(2).tolist(), drawn.contrast.ravel().tolist(), strict=True))
    given = scans, views.to_bone.flatten(0, 1).float(), views.inside(None, reduction).flatten(0, 1)
    resampler = Resampler(source.dataset, reduction)
    some, everywhere = resampler._where_bone_is(*given), resampler._everywhere(*given)
    assert (some - everywhere).abs().max() < 0.01 and some.max() > densest  # in steps of 1 / 128


@pytest.mark.parametrize(
    "options",
    [{"rotations": "euler"}, {"placement": "corner"}, {"keep": 0}, {"cut_share": 2}, {"contrast": -1}, {"noise": -1}],
)
def test_wrong_options_are_named(blobs, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        PairSource(blobs, 0, **options)
