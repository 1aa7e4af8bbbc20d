"""The surface of a ball on skewed grids, against its radius and area."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.mesh import Mesh, level_surface

CENTER, RADIUS = np.array([3.0, -2.0, 5.0]), 0.5


def _affine(mirrored=False):
    turn, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    skewed = np.array([[0.05, 0.01, 0], [0, 0.04, 0], [0, 0, 0.03]])
    affine[:3, :3] = turn @ skewed @ np.diag((-1.0 if mirrored else 1, 1, 1))
    affine[:3, 3] = CENTER - affine[:3, :3] @ (14, 17, 20)
    return affine


def _ball(affine, shape=(44, 36, 30)):
    z, y, x = np.indices(shape)
    points = np.stack((x, y, z), -1) @ affine[:3, :3].T + affine[:3, 3]
    return (RADIUS - np.linalg.norm(points - CENTER, axis=-1)).astype(np.float32)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_ball_has_its_radius_its_area_and_normals_that_point_out(mirrored):
    affine = _affine(mirrored)
    mesh = level_surface(_ball(affine), affine, 0.0)
    outward = mesh.points - CENTER
    radius = np.linalg.norm(outward, axis=1)
    assert radius == pytest.approx(RADIUS, abs=0.005)
    assert mesh.areas.sum() == pytest.approx(4 * np.pi * RADIUS**2, rel=0.01)
    assert ((mesh.normals * outward).sum(1) / radius > 0.95).all()
    assert mesh.pieces().max() == 0


def test_a_closed_surface_has_two_triangles_at_each_edge():
    affine = _affine()
    mesh = level_surface(_ball(affine), affine, 0.0)
    edges = np.sort(np.concatenate([mesh.triangles[:, (a, b)] for a, b in ((0, 1), (1, 2), (2, 0))]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()


def test_there_is_no_surface_where_the_field_of_view_ends():
    affine = _affine()
    voxels = _ball(affine)
    voxels[:20] = np.nan  # half of the ball
    mesh = level_surface(voxels, affine, 0.0)
    assert mesh.areas.sum() == pytest.approx(2 * np.pi * RADIUS**2, rel=0.06)
    assert np.linalg.norm(mesh.points - CENTER, axis=1) == pytest.approx(RADIUS, abs=0.005)


def test_a_part_keeps_whole_triangles_and_smoothing_keeps_the_mean_of_constants():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [9, 9, 9]], float)
    mesh = Mesh(points, np.array([[0, 1, 2], [1, 3, 2]]))
    assert mesh.areas == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6, 0])
    part, left = mesh.part(np.array([False, True, True, True, True]))
    assert left.tolist() == [1, 2, 3] and part.triangles.tolist() == [[0, 2, 1]]
    smoothing = mesh.smoothing(2)
    assert smoothing @ np.ones(5) == pytest.approx(np.ones(5))
    # Points 1 and 2 are neighbours of all of the first four.
    once = np.array([1 / 3, 1 / 4, 1 / 4, 0, 0])
    assert mesh.smoothing(1) @ np.array([1.0, 0, 0, 0, 0]) == pytest.approx(once, abs=1e-6)


def test_the_border_of_a_square_is_its_edge_and_a_ball_has_none():
    side = np.arange(5) * 0.1
    points = np.array([(x, y, 0) for y in side for x in side])
    first = np.array([5 * y + x for y in range(4) for x in range(4)])
    squares = np.concatenate(
        (np.stack((first, first + 1, first + 5), 1), np.stack((first + 1, first + 6, first + 5), 1))
    )
    mesh = Mesh(points, squares)
    assert sorted(mesh.border()) == [i for i in range(25) if i % 5 in (0, 4) or i // 5 in (0, 4)]
    assert mesh.border_distance().reshape(5, 5)[2] == pytest.approx([0, 0.1, 0.2, 0.1, 0])
    affine = _affine()
    assert np.isinf(level_surface(_ball(affine), affine, 0.0).border_distance()).all()
