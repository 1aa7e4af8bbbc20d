"""NRRD files, against SimpleITK's reader."""

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib.imaging.nrrd import write_nrrd
from DNetRegistrationLib.imaging.volume import Volume
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.4, -0.7, 0.5)).as_matrix()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_nrrd_is_read_back_as_written(tmp_path, dtype, compress):
    voxels = (np.random.default_rng(1).random((3, 4, 5)) * 100).astype(dtype)
    volume = Volume.from_geometry(voxels, (0.01, 1 / 3, 2.0), OBLIQUE @ np.diag((1, 1, -1)), (1e5, -2 / 3, 7))
    # A view in another byte order, and not contiguous, is the same image.
    odd = np.asfortranarray(voxels.astype(voxels.dtype.newbyteorder(">")))
    write_nrrd(tmp_path / "a.nrrd", odd, voxels.shape, dtype, volume.affine, {"key": "a value"}, compress)
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)
    np.testing.assert_allclose(Volume.from_sitk(image).affine, volume.affine, rtol=1e-12, atol=1e-12)
    assert image.GetMetaData("key") == "a value"


def test_the_same_image_gives_the_same_compressed_file(tmp_path):
    voxels = np.random.default_rng(2).integers(0, 9, (3, 4, 5)).astype(np.uint8)
    for name in ("a.nrrd", "b.nrrd"):
        write_nrrd(tmp_path / name, voxels, voxels.shape, np.uint8, np.eye(4), compress=True)
    assert (tmp_path / "a.nrrd").read_bytes() == (tmp_path / "b.nrrd").read_bytes()
