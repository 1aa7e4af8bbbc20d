from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import places
import pytest
import torch
from DNetRegistrationLib.geometry import rigid
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.transform import Rotation

DTYPES = (torch.float32, torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_rotations(matrices: torch.Tensor, tolerance: float = 1e-6) -> None:
    assert torch.isfinite(matrices).all()
    eye = torch.eye(3, dtype=torch.float64)
    double = matrices.double()
    assert (double.transpose(-1, -2) @ double - eye).abs().max() < tolerance
    assert (torch.linalg.det(double) - 1).abs().max() < tolerance


def equation_1(numbers) -> np.ndarray:
    """Eq. 1 by hand, one at a time: rows r1, r2 and the determinant with the canonical basis, transposed."""
    a, b = np.array(numbers[:3]), np.array(numbers[3:6])
    r1 = a / math.sqrt(sum(a * a))
    rest = b - sum(r1 * b) * r1
    r2 = rest / math.sqrt(sum(rest * rest))
    r3 = [np.linalg.det(np.array([r1, r2, e]).T) for e in np.eye(3)]
    return np.array([r1, r2, r3]).T


def test_six_numbers_give_the_rotation_of_equation_1():
    numbers = torch.randn(20, 6, dtype=torch.float64, generator=generator())
    expected = np.array([equation_1(row.numpy()) for row in numbers])
    np.testing.assert_allclose(rigid.rotation_from_6d(numbers).numpy(), expected, atol=1e-12)


def test_a_hand_worked_example():
    # First column along y; (3, 5, 0) less its part along y is along x; y cross x is -z.
    expected = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    assert torch.equal(rigid.rotation_from_6d(torch.tensor([0.0, 2, 0, 3, 5, 0])), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_of_any_shape_keep_dtype_and_ignore_further_numbers(dtype):
    numbers = torch.randn(2, 3, 9, dtype=dtype, generator=generator())
    rotations = rigid.rotation_from_6d(numbers)
    assert rotations.shape == (2, 3, 3, 3) and rotations.dtype == dtype
    assert_rotations(rotations)
    assert torch.equal(rotations[1, 2], rigid.rotation_from_6d(numbers[1, 2, :6]))


def test_gradient_of_equation_1():
    numbers = torch.randn(4, 6, dtype=torch.float64, generator=generator(), requires_grad=True)
    assert torch.autograd.gradcheck(rigid.rotation_from_6d, (numbers,))


DEGENERATE = {
    "all zero": [0, 0, 0, 0, 0, 0],
    "first zero": [0, 0, 0, 1, 2, 3],
    "second zero": [1, 2, 3, 0, 0, 0],
    "equal": [1, 2, 3, 1, 2, 3],
    "parallel": [0.1, 0.2, 0.3, 0.7, 1.4, 2.1],
    "opposite": [1, 2, 3, -2, -4, -6],
    "nearly parallel": [1, 0, 0, 1, 1e-5, 0],
    "very nearly parallel": [1, 2, 3, 1, 2, 3 + 1e-7],
    "tiny": [1e-30, 0, 2e-30, 0, 1e-30, 0],
    "smaller than any normal number": [1e-42, 0, 0, 0, 1e-42, 0],
    "huge": [1e30, 2e30, 0, -3e30, 1e30, 5e30],
    "largest": [3e38, 3e38, 0, -3e38, 3e38, 1e38],
    "tiny and huge": [1e-30, 0, 0, 1e30, 1e30, 0],
}


@pytest.mark.parametrize("numbers", DEGENERATE.values(), ids=DEGENERATE.keys())
@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_numbers_give_a_rotation_and_a_finite_gradient(numbers, dtype):
    numbers = torch.tensor(numbers, dtype=dtype, requires_grad=True)
    rotation = rigid.rotation_from_6d(numbers)
    assert_rotations(rotation.detach())
    (rotation * torch.arange(9.0, dtype=dtype).reshape(3, 3)).sum().backward()
    assert torch.isfinite(numbers.grad).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearly_parallel_numbers_stay_orthogonal(dtype):
    first, other = torch.randn(2, 500, 3, dtype=dtype, generator=generator())
    for distance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-9):
        assert_rotations(rigid.rotation_from_6d(torch.cat((first, first + distance * other), -1)))


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=6, max_size=6),
    st.sampled_from(DTYPES),
)
def test_any_six_numbers_give_a_rotation(numbers, dtype):
    assert_rotations(rigid.rotation_from_6d(torch.tensor(numbers, dtype=dtype)))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_equation_1_does_not_depend_on_the_scale(scale):
    numbers = torch.randn(50, 6, generator=generator())
    torch.testing.assert_close(
        rigid.rotation_from_6d(numbers * scale), rigid.rotation_from_6d(numbers), atol=2e-6, rtol=0
    )


def test_degenerate_numbers_in_a_batch_leave_the_others_alone():
    numbers = torch.tensor([[1.0, 2, 3, 4, 5, 7], [0, 0, 0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    rigid.rotation_from_6d(numbers)[..., 0, 1].sum().backward()
    alone = torch.tensor([1.0, 2, 3, 4, 5, 7], dtype=torch.float64, requires_grad=True)
    rigid.rotation_from_6d(alone)[0, 1].backward()
    torch.testing.assert_close(numbers.grad[0], alone.grad)
    assert alone.grad.abs().max() > 0 and not numbers.grad[1].any()


def test_axis_angle_and_quaternion_agree_with_scipy():
    axis = torch.randn(30, 3, dtype=torch.float64, generator=generator())
    angle = torch.linspace(-4, 4, 30, dtype=torch.float64)
    unit = (axis / axis.norm(dim=-1, keepdim=True)).numpy()
    expected = Rotation.from_rotvec(unit * angle.numpy()[:, None])
    np.testing.assert_allclose(rigid.rotation_from_axis_angle(axis, angle), expected.as_matrix(), atol=1e-14)
    quaternion = torch.tensor(expected.as_quat()[:, [3, 0, 1, 2]]) * 7
    np.testing.assert_allclose(rigid.rotation_from_quaternion(quaternion), expected.as_matrix(), atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, 3.0, math.pi - 1e-6, math.pi - 1e-9, math.pi])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-9)])
def test_geodesic_angle_is_precise_near_zero_and_pi(angle, dtype, tolerance):
    first = rigid.random_rotations(10, generator(), torch.float64)
    axis = torch.randn(10, 3, dtype=torch.float64, generator=generator(1))
    second = first @ rigid.rotation_from_axis_angle(axis, torch.full((10,), angle, dtype=torch.float64))
    found = rigid.geodesic_angle(first.to(dtype), second.to(dtype))
    assert found.dtype == dtype
    assert (found.double() - angle).abs().max() < tolerance


def test_geodesic_angle_has_a_finite_gradient_for_equal_rotations():
    rotation = torch.eye(3, dtype=torch.float64, requires_grad=True)
    rigid.geodesic_angle(rotation, torch.eye(3, dtype=torch.float64)).backward()
    assert torch.isfinite(rotation.grad).all()


def test_gradient_of_the_geodesic_angle():
    numbers = torch.randn(3, 6, dtype=torch.float64, generator=generator(), requires_grad=True)
    target = rigid.random_rotations(3, generator(1))
    assert torch.autograd.gradcheck(lambda n: rigid.geodesic_angle(rigid.rotation_from_6d(n), target), (numbers,))


# The angle of a rotation that is uniform on SO(3) has density (1 - cos a) / pi on [0, pi].
def haar_angle(a):
    return (a - np.sin(a)) / math.pi


def angles_of(rotations: torch.Tensor) -> np.ndarray:
    return rigid.geodesic_angle(torch.eye(3, dtype=rotations.dtype), rotations).numpy()


def axes_of(rotations: torch.Tensor) -> np.ndarray:
    vectors = Rotation.from_matrix(rotations.numpy()).as_rotvec()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_uniform_rotations_are_uniform():
    rotations = rigid.random_rotations(20000, generator(3))
    assert_rotations(rotations, 1e-12)
    assert stats.kstest(angles_of(rotations), haar_angle).pvalue > 0.01
    # Under the Haar measure every entry of the matrix is uniform on [-1, 1] (Archimedes), wherever one starts.
    start = rigid.random_rotations(1, generator(4))
    for turned in (rotations, start @ rotations, rotations @ start):
        entries = turned.reshape(-1, 9).numpy()
        assert min(stats.kstest(column, stats.uniform(-1, 2).cdf).pvalue for column in entries.T) > 0.001


def test_samples_repeat_with_their_generator():
    sample = rigid.random_rotations
    assert torch.equal(sample(5, generator(1)), sample(5, generator(1)))
    assert not torch.equal(sample(5, generator(1)), sample(5, generator(2)))
    assert sample(5, generator(1), dtype=torch.float32).dtype == torch.float32
    assert sample(0).shape == (0, 3, 3)


def test_spiral_covers_all_rotations_evenly():
    spiral = rigid.spiral_rotations(4608)
    assert_rotations(spiral, 1e-12)
    assert stats.kstest(angles_of(spiral), haar_angle).statistic < 0.01
    probes = rigid.random_rotations(300, generator(8))
    # The largest trace is the smallest angle; 4608 rotations stand about 12 degrees apart.
    trace = torch.einsum("aij,bij->ab", probes, spiral).amax(1)
    assert torch.rad2deg(torch.arccos((trace - 1) / 2)).max() < 15


def random_transforms(*shape: int, seed: int = 0) -> torch.Tensor:
    count = math.prod(shape)
    rotation = rigid.random_rotations(count, generator(seed))
    translation = torch.randn(count, 3, dtype=torch.float64, generator=generator(seed + 1)) * 20
    return rigid.rigid(rotation, translation).reshape(*shape, 4, 4)


def test_inverse_and_apply():
    first, second = random_transforms(2, 5), random_transforms(2, 5, seed=9)
    points = torch.randn(2, 5, 11, 3, dtype=torch.float64, generator=generator())
    one_by_one = rigid.apply(second, rigid.apply(first, points))
    torch.testing.assert_close(rigid.apply(second @ first, points), one_by_one)
    torch.testing.assert_close(rigid.inverse(first), torch.linalg.inv(first))
    torch.testing.assert_close(rigid.apply(rigid.inverse(first), rigid.apply(first, points)), points)
    by_hand = first[1, 2, :3, :3].numpy() @ points[1, 2, 3].numpy() + first[1, 2, :3, 3].numpy()
    np.testing.assert_allclose(rigid.apply(first, points)[1, 2, 3], by_hand)


def test_rigid_broadcasts():
    rotations = rigid.random_rotations(4, generator())
    transforms = rigid.rigid(rotations, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert transforms.shape == (4, 4, 4)
    assert torch.equal(transforms[3, :3, 3], torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert torch.equal(transforms[2, :3, :3], rotations[2])
    assert torch.equal(transforms[1, 3], torch.tensor([0.0, 0, 0, 1], dtype=torch.float64))


def test_rotation_about_keeps_its_center():
    center = torch.tensor([[100.0, -50, 7]], dtype=torch.float64)
    transform = rigid.rotation_about(rigid.random_rotations(6, generator()), center.expand(6, 3))
    torch.testing.assert_close(rigid.apply(transform, center), center.expand(6, 1, 3))


def test_nearest_rotation():
    rotations = rigid.random_rotations(8, generator())
    noisy = rotations + 0.05 * torch.randn(8, 3, 3, dtype=torch.float64, generator=generator(1))
    expected = [Rotation.from_matrix(m).as_matrix() for m in noisy.numpy()]
    found = rigid.nearest_rotation(noisy)
    assert_rotations(found, 1e-12)
    # scipy's is the same projection only to the first order in the noise; compare distances instead.
    for matrix, near, other in zip(noisy.numpy(), found.numpy(), expected, strict=True):
        assert np.linalg.norm(matrix - near) <= np.linalg.norm(matrix - other) + 1e-12
    torch.testing.assert_close(rigid.nearest_rotation(3.5 * rotations), rotations)


def test_nearest_rotation_of_a_mirrored_matrix_is_a_rotation():
    mirrored = torch.diag(torch.tensor([3.0, 2, -1], dtype=torch.float64))
    torch.testing.assert_close(rigid.nearest_rotation(mirrored), torch.eye(3, dtype=torch.float64))


def test_a_transform_takes_no_library_that_is_slow_to_load():
    code = (
        "import sys, torch; from DNetRegistrationLib.geometry.rigid import rigid; "
        "found = rigid(torch.eye(3).expand(2, 1, 3, 3), torch.ones(5, 3)); print(*found.shape, 'sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=places.environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["2", "5", "4", "4", "False"], done.stderr
