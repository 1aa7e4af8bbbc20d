"""Transforms in NumPy: what is refused, and how far two of them are apart."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.geometry.transforms import (
    from_sitk,
    mean_point_error,
    require_rigid,
    rotation_error_deg,
    to_sitk,
)
from scipy.spatial.transform import Rotation


def random_transform(seed: int = 0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).normal(size=3) * 20
    return matrix


RIGHT_ANGLES = [Rotation.from_euler("xyz", angles, degrees=True).as_matrix() for angles in
                ((0, 0, 0), (0, 90, 0), (90, 90, 0), (180, 0, 0), (0, -90, 90), (0, 0, 180), (90, 0, 0))]  # fmt: skip


@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".mat"])
@pytest.mark.parametrize("translation", [(0.0, 0.0, 0.0), (1.25, -3.1, 0.003), (12345.678, -9999.123, 1e4)])
def test_transform_files_give_the_same_map(tmp_path, suffix, translation):
    rotations = [*RIGHT_ANGLES, *Rotation.random(5, 0).as_matrix()]
    for number, rotation in enumerate(rotations):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, translation
        path = str(tmp_path / f"{number}{suffix}")
        sitk.WriteTransform(to_sitk(matrix), path)
        read = sitk.ReadTransform(path)
        np.testing.assert_allclose(from_sitk(read), matrix, atol=1e-9, rtol=0)
        point = (3.0, -20.0, 511.0)
        np.testing.assert_allclose(read.TransformPoint(point), (matrix @ [*point, 1])[:3], atol=1e-9, rtol=0)


def test_sitk_transforms_of_other_kinds():
    matrix = random_transform()
    center = (10.0, -300.0, 5000.0)
    versor = sitk.VersorRigid3DTransform()
    versor.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-9)
    versor.SetCenter(center)
    versor.SetTranslation((1.0, 2.0, 3.0))
    euler = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.3, -0.2, 0.1, (4.0, 5.0, 6.0))
    shift = sitk.TranslationTransform(3, (7.0, 8.0, 9.0))
    composite = sitk.CompositeTransform([versor, euler, shift])
    for transform in (versor, euler, shift, composite, versor.GetInverse()):
        found = from_sitk(transform)
        for point in ((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-50.0, 0.0, 4000.0)):
            np.testing.assert_allclose((found @ [*point, 1])[:3], transform.TransformPoint(point), atol=1e-9)


def test_what_is_not_rigid_is_refused():
    scaled = sitk.AffineTransform(3)
    scaled.Scale(1.01)
    with pytest.raises(OptionError, match="scales or shears"):
        from_sitk(scaled)
    with pytest.raises(OptionError, match="not a linear"):
        from_sitk(sitk.BSplineTransform(3))
    with pytest.raises(OptionError, match="2 dimensions"):
        from_sitk(sitk.Euler2DTransform())
    with pytest.raises(OptionError, match="mirrors"):
        require_rigid(np.diag([1.0, 1, -1, 1]))
    with pytest.raises(OptionError, match="4x4"):
        require_rigid(np.eye(3))
    with pytest.raises(OptionError, match="finite"):
        require_rigid(np.full((4, 4), np.nan))
    with pytest.raises(OptionError, match="scales or shears"):
        require_rigid(np.diag([1.0002, 1, 1, 1]))
    np.testing.assert_allclose(require_rigid(np.diag([1.00004, 1, 1, 1])), np.eye(4), atol=1e-12)


def test_rounded_matrices_become_exact():
    exact = random_transform()
    rounded = np.round(exact, 5)
    found = require_rigid(rounded)
    np.testing.assert_allclose(found, exact, atol=1e-5)
    np.testing.assert_allclose(found[:3, :3].T @ found[:3, :3], np.eye(3), atol=1e-14)
    assert np.array_equal(rounded, np.round(exact, 5))  # the input is not written to


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-6, 0.01, 40.0, 179.999, 180.0])
def test_rotation_errors_are_exact_also_where_they_are_tiny(angle):
    first, axis = random_transform(3), np.array((0.6, 0.0, -0.8))
    second = random_transform(4)
    second[:3, :3] = first[:3, :3] @ Rotation.from_rotvec(np.radians(angle) * axis).as_matrix()
    assert rotation_error_deg(first, second) == pytest.approx(angle, rel=1e-5, abs=2e-14)
    assert rotation_error_deg(second, first) == pytest.approx(angle, rel=1e-5, abs=2e-14)


def test_mean_point_error_by_hand():
    points = np.random.default_rng(0).normal((1000, -2000, 300), size=(50, 3))
    first, second = random_transform(1), random_transform(2)
    by_hand = [np.linalg.norm((first @ (*point, 1) - second @ (*point, 1))[:3]) for point in points]
    assert mean_point_error(first, second, points) == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert mean_point_error(first, first, points) == 0
    assert np.isnan(mean_point_error(first, second, np.empty((0, 3))))
