"""What both scans show of an even layer on a plate of bone, in voxels of several sizes with one point spread."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.articular import EDGE, JointSurface
from DNetRegistrationLib.cartilage.mesh import level_surface
from DNetRegistrationLib.cartilage.sight import look
from DNetRegistrationLib.imaging.resample import averaged
from DNetRegistrationLib.imaging.volume import Volume
from scipy.spatial.transform import Rotation
from scipy.special import ndtr

# Of the point spread, mm; of the layer, mm.
_BLUR, _LAYER = 0.008, 0.04


def _plate(spacing, agent, turn=None):
    """Bone below z = 0 with structure in it, in a view of 0.36 x 0.36 x 0.75 mm, off the origin."""
    generator = np.random.default_rng(1)
    waves = [(generator.normal(size=3) / 0.05, generator.uniform(0, 6.28)) for _ in range(30)]
    affine = np.eye(4)
    affine[:3, :3] = spacing * (np.eye(3) if turn is None else turn)
    affine[:3, 3] = affine[:3, :3] @ (np.array((-0.18, -0.18, -0.5)) / spacing) + (0.001, 0.002, 0.003)
    size = [round(edge / spacing) for edge in (0.75, 0.36, 0.36)]
    z, y, x = np.indices(size)
    points = np.stack((x, y, z), -1) @ affine[:3, :3].T + affine[:3, 3]
    height = points[..., 2]
    structure = sum(np.cos(points @ k + phase) * np.exp(-(_BLUR**2) * (k @ k) / 2) for k, phase in waves)
    values = 1000 * ndtr(-height / _BLUR) + 150 / np.sqrt(15) * structure * ndtr(-(height + 0.03) / _BLUR)
    if agent:
        values = values + 500 * (ndtr(height / _BLUR) - ndtr((height - _LAYER) / _BLUR))
    return Volume(values.astype(np.float32), affine)


def _seen(plain, agent):
    mesh = level_surface(*averaged(plain, EDGE), 500.0)
    return look(plain, agent, JointSurface.whole(mesh.part(np.abs(mesh.points[:, 2]) < 0.02)[0]), np.eye(4))


@pytest.mark.parametrize("voxels", [(6.6, 6.8), (6.8, 6.6), (5.0, 7.0), (10.0, 15.0)])
def test_voxels_of_other_sizes_are_no_other_blur(voxels):
    """Smoothed by a voxel each, one of them averaged before, they differed by -162 to 127 um^2: layers by 6 um."""
    sight = _seen(*(_plate(one / 1000, agent) for one, agent in zip(voxels, (False, True), strict=True)))
    assert abs(1e6 * sight.match.blur_mm2) < 5
    assert 1000 * np.median(sight.fit()[0].thickness_mm) == pytest.approx(40, abs=4)


@pytest.mark.parametrize("spacing", [0.02, 0.012, 0.01, 0.007])
@pytest.mark.parametrize("turned", [False, True])
def test_a_scan_ends_where_its_surface_does(spacing, turned):
    """The surface is found on blocks of voxels, and in fine ones it ended so far before the view that none was told."""
    turn = Rotation.from_rotvec((0, 0, 0.6)).as_matrix() if turned else None
    sight = _seen(_plate(spacing, False, turn), _plate(spacing, True, turn))
    assert sight.at_end[sight.mesh.border()].mean() > 0.97
    inside = sight.mesh.border_distance() > 0.12
    assert inside.any() and not sight.at_end[inside].any()
