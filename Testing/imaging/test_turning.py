"""A scan turned as if its object had been put into the scanner another way."""

import numpy as np
import pytest
from cube_rotations import cube_rotations
from DNetRegistrationLib.imaging.turning import turn_grid, turn_obliquely
from DNetRegistrationLib.imaging.volume import Volume
from scipy.spatial.transform import Rotation

OBLIQUE = Rotation.from_rotvec((0.3, -0.5, 0.2)).as_matrix()
SHEAR = np.array([[1, 0.1, 0], [0, 1, -0.05], [0, 0, 1]])
GRIDS = {
    "plain": np.diag((0.1, 0.1, 0.1)),
    "oblique, anisotropic": OBLIQUE @ np.diag((0.08, 0.1, 0.25)),
    "left-handed": OBLIQUE @ np.diag((0.08, 0.1, -0.25)),
    "sheared": OBLIQUE @ SHEAR @ np.diag((0.08, 0.1, 0.25)),
}


def scan(linear, shape=(5, 4, 3), seed=1):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, (30, -200, 7)
    return Volume(np.random.default_rng(seed).normal(size=shape), affine, "a scan", spacing_given=True)


@pytest.mark.parametrize("name", GRIDS)
def test_every_voxel_arrives_where_the_turn_brings_it(name):
    volume = scan(GRIDS[name])
    mask = volume.voxels > 0
    for turn, _ in cube_rotations():
        turned = turn_grid(volume, turn.numpy(), mask)
        np.testing.assert_allclose(turned.matrix[:3, :3].T @ turned.matrix[:3, :3], np.eye(3), atol=1e-12)
        assert np.linalg.det(turned.matrix) == pytest.approx(1)
        assert sorted(turned.scan.voxels.ravel()) == sorted(volume.voxels.ravel())
        for (z, y, x), value in np.ndenumerate(volume.voxels):
            at = turned.matrix @ [*volume.to_world((x, y, z)), 1]
            index = turned.scan.to_index(at[:3])
            new = tuple(np.rint(index).astype(int)[::-1])
            np.testing.assert_allclose(index, new[::-1], atol=1e-6)
            assert turned.scan.voxels[new] == value and turned.mask[new] == mask[z, y, x]
        if name != "sheared":  # the shear turns with the scan
            np.testing.assert_allclose(turned.scan.direction, volume.direction, atol=1e-9)
        np.testing.assert_allclose(turned.scan.center, volume.center, atol=1e-9)
        assert turned.scan.name == "a scan" and turned.scan.spacing_given


@pytest.mark.parametrize("turn", [np.diag((1, 1, -1)), OBLIQUE, np.eye(2), [[1, 0, 0], [1, 0, 0], [0, 0, 1]]])
def test_what_mirrors_or_needs_interpolation_is_no_turn_of_a_grid(turn):
    with pytest.raises(ValueError, match="cube"):
        turn_grid(scan(GRIDS["plain"]), np.array(turn))


def blobs(points):
    """A smooth function of the world about the middle of the scans below."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 100 * np.exp(-((x - 1) ** 2 + 0.7 * (y + 0.4) ** 2 + 0.5 * (z - 0.3) ** 2) / 0.8) + 10 * np.sin(x + 2 * y)


@pytest.mark.parametrize("name", GRIDS)
def test_an_oblique_turn_carries_the_values_along_and_holds_the_whole_scan(name):
    empty = scan(GRIDS[name], (14, 30, 36))
    middle = empty.center

    def world(volume):
        index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.size), indexing="ij"), -1)
        return volume.to_world(index).transpose(2, 1, 0, 3)

    volume = Volume(blobs(world(empty) - middle), empty.affine)
    mask = world(empty)[..., 0] > middle[0]
    turned = turn_obliquely(volume, Rotation.from_rotvec((0.2, 0.3, -0.4)).as_matrix(), mask)
    assert np.linalg.det(turned.matrix) == pytest.approx(1)
    back = np.linalg.inv(turned.matrix)
    at = world(turned.scan) @ back[:3, :3].T + back[:3, 3]
    index = volume.to_index(at)
    seen = ((index >= -0.5) & (index <= volume.size - 0.5)).all(-1)
    np.testing.assert_array_equal(np.isfinite(turned.scan.voxels), seen)
    deep = ((index >= 3) & (index <= volume.size - 4)).all(-1)
    assert deep.sum() > 1000
    np.testing.assert_allclose(turned.scan.voxels[deep], blobs(at - middle)[deep], atol=1.5)
    # As many cubic millimetres are in view as before: nothing of the scan is lost.
    volumes = [abs(np.linalg.det(one.affine[:3, :3])) for one in (volume, turned.scan)]
    assert volumes[0] == pytest.approx(volumes[1])
    assert seen.sum() == pytest.approx(volume.voxels.size, rel=0.03)
    np.testing.assert_allclose(turned.scan.spacing, turned.scan.spacing[0])
    clear = deep & (np.abs(at[..., 0] - middle[0]) > 0.3)
    np.testing.assert_array_equal(turned.mask[clear], at[clear][:, 0] > middle[0])
