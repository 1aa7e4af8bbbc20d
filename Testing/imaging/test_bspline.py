"""B-splines through all voxels, against SciPy's in float64 and an explicit sum."""

import sys

import numpy as np
import pytest
from DNetRegistrationLib.imaging.bspline import coefficients, evaluate
from scipy import ndimage
from scipy.spatial.transform import Rotation

SHEARED = np.eye(4)
SHEARED[:3, :3] = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix() @ np.diag((1.3, -0.7, 0.9))
SHEARED[0, 1] += 0.2
SHEARED[:3, 3] = 1.2, 25.0, -2.5


@pytest.mark.parametrize("shape", [(19, 23, 30), (2, 3, 40), (1, 1, 7), (70, 2, 1)])
def test_coefficients_are_those_of_float64(shape):
    voxels = np.random.default_rng(1).normal(500, 200, shape)
    kept = voxels.copy()
    expected = ndimage.spline_filter(voxels, 3, np.float64, "mirror")
    np.testing.assert_allclose(coefficients(voxels), expected, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(voxels, kept)
    assert coefficients(voxels.astype(np.uint16)).dtype == np.float32
    kept = voxels.astype(np.float32)
    same = coefficients(kept)
    assert (kept == voxels.astype(np.float32)).all()
    assert coefficients(kept, overwrite=True) is kept and (kept == same).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("vtk", [True, False])
def test_values_are_those_of_float64_half_a_voxel_beyond_the_border_too(vtk, threads, monkeypatch):
    if vtk:
        pytest.importorskip("vtkmodules")
    else:
        monkeypatch.setitem(sys.modules, "vtkmodules.vtkImagingCore", None)
    voxels = np.random.default_rng(2).normal(500, 200, (19, 23, 30)).astype(np.float32)
    out = np.full((21, 20, 24), np.nan, np.float32)
    evaluate(coefficients(voxels), SHEARED, out, threads)
    z, y, x = np.indices(out.shape)
    index = np.stack((x, y, z), -1) @ SHEARED[:3, :3].T + SHEARED[:3, 3]
    expected = ndimage.map_coordinates(voxels.astype(float), np.moveaxis(index[..., ::-1], -1, 0), mode="mirror")
    seen = ((index >= -0.5) & (index <= np.array((30, 23, 19)) - 0.5)).all(-1)
    border = seen & ~((index >= 1) & (index <= np.array((30, 23, 19)) - 2)).all(-1)
    assert seen.sum() > 2000 and border.sum() > 500
    np.testing.assert_allclose(out[seen], expected[seen], atol=0.01)


def test_one_value_is_the_sum_over_its_64_neighbours():
    spline = np.random.default_rng(3).normal(size=(6, 6, 6)).astype(np.float32)
    point = np.array((2.3, 1.6, 3.9))

    def weight(distance):
        far = abs(distance)
        return 2 / 3 - far**2 + far**3 / 2 if far < 1 else (2 - far) ** 3 / 6 if far < 2 else 0.0

    expected = sum(
        spline[z, y, x] * weight(point[0] - x) * weight(point[1] - y) * weight(point[2] - z)
        for z in range(6) for y in range(6) for x in range(6)
    )  # fmt: skip
    at = np.eye(4)
    at[:3, 3] = point
    out = np.empty((1, 1, 1), np.float32)
    evaluate(spline, at, out, 1)
    assert out.item() == pytest.approx(expected, abs=1e-5)
