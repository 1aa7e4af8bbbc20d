"""The planes of pictures: along the bone's own axes, however it lies, and named by what is known of the body."""

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.outputs.colors import CARTILAGE, FIXED, MOVING
from DNetRegistrationLib.outputs.slices import bone_axes, direction_name, window
from scipy.spatial.transform import Rotation

AXES = np.stack(np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij"))[::-1]


def bone(turn: np.ndarray, affine: np.ndarray) -> CorticalBone:
    """A club of 4 mm along its own z: thick above, twice as wide along x as along y, with a bulge at +x."""
    index = np.moveaxis(AXES + 19.5, 0, -1)
    x, y, z = np.moveaxis((index @ affine[:3, :3].T + affine[:3, 3]) @ turn, -1, 0)
    radius = 0.45 + 0.12 * z
    solid = ((x / 1.6) ** 2 + (y / 0.8) ** 2 < radius**2) & (np.abs(z) < 2)
    solid |= ((x - 1.0) ** 2 + y**2 + (z - 1) ** 2) < 0.4**2
    return CorticalBone(solid, solid, np.where(solid, 1000.0, 0.0).astype(np.float32), affine)


def grid(axes: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 19.5)
    return affine


@pytest.mark.parametrize("seed", range(6))
def test_axes_turn_with_the_bone_and_never_mirror_it(seed):
    rng = np.random.default_rng(seed)
    turn, axes = Rotation.random(2, random_state=seed).as_matrix()
    if seed % 2:  # left-handed grids
        axes = axes * (1, 1, -1)
    found = bone_axes(bone(turn, grid(axes, tuple(rng.uniform(0.13, 0.17, 3)))))
    assert np.linalg.det(found) == pytest.approx(1)
    # Columns: the wide axis is the bone's x, the narrow one its y, the long one its z, up to the bulge's few degrees.
    assert np.degrees(np.arccos(np.einsum("ij,ij->j", found, turn))).max() < 8


def test_two_animals_are_shown_from_the_same_side():
    """Each pixel shows the same place of the bone, however it lay in the scanner, and whatever the grid."""
    shown = []
    for seed, spacing in ((1, (0.12, 0.14, 0.16)), (2, (0.15, 0.13, 0.14))):
        turn, axes = Rotation.random(2, random_state=seed).as_matrix()
        one = bone(turn, grid(axes, spacing))
        shown.append([view.points(9) @ turn for view in window((one, one), np.eye(4)).views(anatomical=False)])
    for first, second in zip(*shown, strict=True):
        assert np.linalg.norm(first - second, axis=-1).max() < 0.25
    # Lengthwise views have the thick end above, and the bulge to the right.
    assert shown[0][1][0, :, 2].min() > 1.5 and shown[0][1][:, -1, 0].min() > 1.5


def test_a_plane_is_square_and_its_edges_are_what_lies_there():
    one = bone(np.eye(3), grid(np.eye(3), (0.14, 0.14, 0.14)))
    across, wide, narrow = window((one, one), np.eye(4)).views(anatomical=True)
    assert (across.name, across.ends) == ("cross-section", ("R", "L", "A", "P"))
    assert wide.ends == ("R", "L", "S", "I") and narrow.ends == ("A", "P", "S", "I")
    points = across.points(5)
    np.testing.assert_allclose(points[0, 0], across.center - 0.4 * across.width * (across.right + across.down))
    np.testing.assert_allclose(np.linalg.norm(points[0, 1] - points[0, 0]), across.width / 5)
    np.testing.assert_allclose(np.linalg.norm(points[1, 0] - points[0, 0]), across.width / 5)


@pytest.mark.parametrize(
    ("towards", "body", "world"),
    [
        ((0, 0, 1), "S", "+z"),
        ((0, -1, 0), "A", "-y"),
        ((0.6, 0, -0.8), "IL", "-z +x"),
        ((-0.96, 0.28, 0), "R", "-x"),
    ],
)
def test_directions_have_names(towards, body, world):
    assert direction_name(np.array(towards, float), True) == body
    assert direction_name(np.array(towards, float), False) == world


#: Linear RGB as people without red, green and blue cones see it: Machado et al., IEEE TVCG 15:1291, 2009.
VISION = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, vision) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as it is seen, white point D65."""
    color = np.asarray(color, float)
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = (to_xyz @ np.clip(np.asarray(vision) @ linear, 0, 1)) / to_xyz.sum(1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_from_each_other_and_from_bone_for_every_eye(vision):
    """A difference of 2.3 is just seen; lines of a pixel want ten times as much and more."""
    fixed, moving, cartilage = (lab(color, VISION[vision]) for color in (FIXED, MOVING, CARTILAGE))
    greys = [lab((grey,) * 3, VISION[vision]) for grey in np.linspace(0, 1, 41)]
    assert min(np.linalg.norm(fixed - grey) for grey in greys) > 35
    assert min(np.linalg.norm(moving - grey) for grey in greys) > 35
    assert np.linalg.norm(fixed - moving) > 80
    assert min(np.linalg.norm(cartilage - cortex) for cortex in (fixed, moving)) > 30
