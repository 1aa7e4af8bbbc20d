"""Filters against SciPy, and trilinear sampling against explicit loops in float64, SciPy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from command import run
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.threshold import BoneScale
from DNetRegistrationLib.imaging.tensors import dilate, gaussian, grid_index, sample_linear, sample_lines
from DNetRegistrationLib.imaging.volume import Volume
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage


def loop(image: np.ndarray, point, inside: np.ndarray | None = None) -> tuple[float, float]:
    """Value and share at one continuous index (x, y, z), corner by corner."""
    size = image.shape[::-1]
    if any(not -0.5 <= p <= n - 0.5 for p, n in zip(point, size, strict=True)):
        return 0.0, 0.0
    held = [min(max(p, 0), n - 1) for p, n in zip(point, size, strict=True)]
    total = share = 0.0
    for z in range(size[2]):
        for y in range(size[1]):
            for x in range(size[0]):
                weight = np.prod([max(0.0, 1 - abs(p - i)) for p, i in zip(held, (x, y, z), strict=True)])
                if weight == 0 or not np.isfinite(image[z, y, x]):
                    continue
                weight *= 1.0 if inside is None else inside[z, y, x]
                total, share = total + weight * image[z, y, x], share + weight
    return (total / share if share > 0 else 0.0), share


def points(generator, shape, count=60) -> np.ndarray:
    return generator.uniform(-1, np.array(shape[::-1]), (count, 3))


@pytest.mark.parametrize("holes, shares", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 4, 2), (3, 1, 1)])
def test_values_and_shares_are_those_of_a_loop(shape, holes, shares):
    generator = np.random.default_rng(sum(shape))
    image = generator.normal(size=shape).astype(np.float32)
    if holes:
        image[generator.random(shape) < 0.3] = np.nan
    inside = generator.random(shape).astype(np.float32) if shares else None
    at = points(generator, shape)
    values, share = sample_linear(
        torch.from_numpy(image),
        torch.tensor(at, dtype=torch.float32),
        None if inside is None else torch.from_numpy(inside),
    )
    expected = np.array([loop(image.astype(float), point, inside) for point in at.astype(np.float32).astype(float)])
    np.testing.assert_allclose(share, expected[:, 1], atol=2e-6)
    sure = (expected[:, 1] > 1e-3) | (expected[:, 1] == 0)
    np.testing.assert_allclose(values[sure], expected[sure, 0], atol=2e-4)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_points_are_interpolated_as_scipy_does_on_any_number_of_threads(threads, dtype, shares):
    generator = np.random.default_rng(8)
    image = generator.integers(-900, 900, (6, 7, 5)).astype(dtype)
    inside = generator.random(image.shape) < 0.8 if shares else None
    at = generator.uniform(-1, (5, 7, 6), (12001, 3)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        mask = None if inside is None else torch.from_numpy(inside)
        values, share = sample_linear(torch.from_numpy(image), torch.from_numpy(at), mask, finite=True)
    finally:
        torch.set_num_threads(before)
    weight = np.ones(image.shape) if inside is None else inside.astype(float)
    coordinates = at.T[::-1].astype(float)
    total, seen = (ndimage.map_coordinates(w, coordinates, order=1, mode="nearest") for w in (weight * image, weight))
    seen *= ((at >= -0.5) & (at <= np.array((4.5, 6.5, 5.5)))).all(1)
    np.testing.assert_allclose(share, seen, atol=2e-6)
    sure = seen > 1e-2
    np.testing.assert_allclose(values[sure], (total / seen.clip(1e-9))[sure], atol=0.5)
    assert not values[seen == 0].any()


@pytest.mark.slow
def test_many_points_take_little_memory_and_keep_their_order():
    code = """
        import torch
        from DNetRegistrationLib.core.processes import forget_peak_memory, peak_memory
        from DNetRegistrationLib.imaging.tensors import MOST_POINTS, sample_linear
        image = torch.arange(24.0).view(2, 3, 4)
        index = torch.tensor([(0.0, 0, 0), (3, 2, 1), (1.5, 1, 0.5), (9, 9, 9)]).repeat(MOST_POINTS, 1)
        forget_peak_memory()
        before = peak_memory()
        values, shares = sample_linear(image, index)
        assert (values.view(-1, 4) == torch.tensor([0.0, 23, 11.5, 0])).all()
        assert (shares.view(-1, 4) == torch.tensor([1.0, 1, 1, 0])).all()
        print((peak_memory() - before) / len(index))
    """
    done = run(code=code)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 120  # bytes for each point


def test_inside_it_agrees_with_scipy_and_simpleitk():
    generator = np.random.default_rng(1)
    image = generator.normal(size=(9, 7, 8)).astype(np.float32)
    at = generator.uniform(0, (7, 6, 8), (200, 3))
    values, share = sample_linear(torch.from_numpy(image), torch.tensor(at, dtype=torch.float32))
    assert torch.allclose(share, torch.ones(200), atol=1e-6)
    np.testing.assert_allclose(values, ndimage.map_coordinates(image, at.T[::-1], order=1), atol=1e-5)
    itk = sitk.GetImageFromArray(image)
    expected = [itk.EvaluateAtContinuousIndex(point.tolist(), sitk.sitkLinear) for point in at]
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_the_field_of_view_ends_half_a_voxel_beyond_the_outermost_centres():
    image = torch.arange(8.0).view(2, 2, 2) + 1
    at = torch.tensor([(-0.5, 0, 0), (-0.501, 0, 0), (1.5, 1.5, 1.5), (1, 1.51, 0), (0, 0, 1.5)])
    values, share = sample_linear(image, at)
    assert values.tolist() == [1, 0, 8, 0, 5]
    assert share.tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64", ">i2"])
def test_every_kind_of_voxel_gives_the_same_bone_values(dtype):
    """Of uint16 also those above 32767, which torch holds as negative numbers."""
    generator = np.random.default_rng(2)
    high = 60000 if dtype in ("uint16", "int32", "uint32", "float32", "float64") else 120
    voxels = generator.integers(0, high, (4, 5, 6)).astype(dtype)
    scale = BoneScale(0.2 * high, 0.9 * high)
    scan = native_scan(Volume(voxels), scale, None, torch.device("cpu"))
    at = generator.uniform(0, (5, 4, 3), (100, 3)).astype(np.float32)
    values, share = scan.sample(torch.from_numpy(at))
    bone = np.maximum(voxels.astype(float) - 0.2 * high, 0) / (0.7 * high)
    np.testing.assert_allclose(values, ndimage.map_coordinates(bone, at.T[::-1].astype(float), order=1), atol=1e-5)
    assert torch.allclose(share, torch.ones(100), atol=1e-6)


@given(
    size=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 1000),
)
def test_a_linear_ramp_is_reproduced_between_the_centres(size, seed):
    generator = np.random.default_rng(seed)
    slope = generator.normal(size=3)
    z, y, x = np.indices(size)
    image = slope[0] * x + slope[1] * y + slope[2] * z
    at = generator.uniform(0, 1, (20, 3)) * (np.array(size[::-1]) - 1)
    values, _ = sample_linear(torch.tensor(image, dtype=torch.float32), torch.tensor(at, dtype=torch.float32))
    np.testing.assert_allclose(values, at @ slope, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 31, 26), (20, 31, 200)])
@pytest.mark.parametrize(("dtype", "sigma", "atol"), [(torch.float32, 1.6, 1e-5), (torch.float64, 1.5, 1e-12)])
def test_smoothing_is_that_of_scipy(shape, dtype, sigma, atol):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = ndimage.gaussian_filter(image.numpy(), sigma, mode="constant", radius=5)
    np.testing.assert_allclose(gaussian(image, sigma).numpy(), expected, atol=atol)
    torch.testing.assert_close(gaussian(image[None], sigma)[0], gaussian(image, sigma))


@pytest.mark.parametrize("shape", [(20, 22, 24), (170, 12, 9)])
def test_each_axis_may_be_smoothed_by_a_deviation_of_its_own(shape):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    sigmas = (1.2, 0.4, 0.8)
    expected = ndimage.gaussian_filter(image.numpy(), sigmas, mode="constant", radius=(4, 1, 2))
    for found in (gaussian(image, sigmas), gaussian(image[None], sigmas)[0]):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("reach", [1, 2])
def test_dilation_is_that_of_scipy(reach):
    image = torch.randn(7, 9, 8, generator=torch.Generator().manual_seed(2))
    expected = ndimage.maximum_filter(image.numpy(), 2 * reach + 1, mode="constant", cval=-np.inf)
    np.testing.assert_array_equal(dilate(image, reach).numpy(), expected)


@pytest.mark.parametrize("shares", [False, True])
def test_a_grid_along_the_axes_is_interpolated_as_its_points_are(shares):
    generator = np.random.default_rng(4)
    image = torch.from_numpy(generator.random((7, 9, 6), np.float32))
    inside = torch.from_numpy((generator.random(image.shape) > 0.3).astype(np.float32)) if shares else None
    # One axis is turned back, and the grid reaches beyond the image.
    to_index = torch.from_numpy(np.diag((0.7, -1.3, 0.4, 1.0)))
    to_index[:3, 3] = torch.tensor((-2.1, 9.3, 1.6))
    shape = (11, 12, 13)
    index = grid_index(shape, to_index).view(-1, 3).float()
    values, seen = (one.view(shape) for one in sample_linear(image, index, inside))
    found = sample_lines(image, to_index, shape, inside)
    assert 0.2 < (seen > 1e-3).float().mean() < 0.8
    torch.testing.assert_close(found[1], seen, atol=1e-5, rtol=0)
    told = seen > 1e-3
    torch.testing.assert_close(found[0][told], values[told], atol=2e-3, rtol=0)
