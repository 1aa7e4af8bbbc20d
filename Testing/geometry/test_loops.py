"""Loops of transforms between three scans."""

import numpy as np
import pytest
from DNetRegistrationLib.geometry.loops import Loop, close_loops, loop_errors, spread_points, star_and_ring, suspects
from scipy.spatial.transform import Rotation

POINTS = np.random.default_rng(7).uniform((28, -22, 3), (32, -18, 7), (50, 3))


def shift(x, y, z):
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def worlds(count, seed=1):
    """The pose of one object in the world of each scan."""
    generator, found = np.random.default_rng(seed), {}
    for number in range(count):
        pose = shift(*generator.uniform(-40, 40, 3))
        pose[:3, :3] = Rotation.random(random_state=seed + number).as_matrix()
        found["rabcdefg"[number]] = pose
    return found


def aligned(poses, pairs):
    return {(a, b): poses[b] @ np.linalg.inv(poses[a]) for a, b in pairs}


def edge(text):
    return frozenset(text)


@pytest.mark.parametrize(
    ("scans", "pairs"),
    [
        ("r", ""),
        ("ra", "ra"),
        ("rab", "ra rb ab"),
        ("rabc", "ra rb rc ab bc ca"),
        ("rabcd", "ra rb rc rd ab bc cd da"),
    ],
)
def test_all_scans_are_aligned_with_the_first_and_each_with_the_next(scans, pairs):
    assert star_and_ring(scans) == [tuple(pair) for pair in pairs.split()]


def test_a_scan_that_is_named_twice_is_an_error():
    with pytest.raises(ValueError, match="twice"):
        star_and_ring(["before", "after", "before"])


def test_from_four_scans_on_each_pair_is_in_a_loop_and_each_with_the_reference_in_two():
    for count in (4, 5, 8):
        poses = worlds(count)
        loops = close_loops(aligned(poses, star_and_ring(list(poses))), poses_points(poses))
        times = {pair: sum(frozenset(pair) in loop.edges for loop in loops) for pair in star_and_ring(list(poses))}
        assert all(times[pair] >= (2 if "r" in pair else 1) for pair in times)


def poses_points(poses):
    """The points of the object in each world, which are given in the world of "r"."""
    own = (POINTS - poses["r"][:3, 3]) @ poses["r"][:3, :3]
    return {scan: own @ pose[:3, :3].T + pose[:3, 3] for scan, pose in poses.items()}


def test_right_transforms_close_every_loop():
    poses = worlds(5)
    loops = close_loops(aligned(poses, star_and_ring(list(poses))), {"r": POINTS})
    assert [loop.scans for loop in loops] == [("r", *pair) for pair in ("ab", "ad", "bc", "cd")]
    assert max(loop.error for loop in loops) < 1e-12 * 1e3


def test_the_error_is_how_far_points_are_brought_from_where_they_were():
    # By hand: 3 along x, 4 along y, and back by nothing leaves 5.
    transforms = {("a", "b"): shift(3, 0, 0), ("b", "c"): shift(0, 4, 0), ("c", "a"): np.eye(4)}
    (loop,) = close_loops(transforms, {"a": POINTS})
    assert loop.scans == ("a", "b", "c") and loop.error == pytest.approx(5)
    # A quarter turn about z moves a point by sqrt(2) times its distance from the axis.
    quarter = np.eye(4)
    quarter[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    (loop,) = close_loops({**transforms, ("a", "b"): quarter, ("b", "c"): np.eye(4)}, {"a": POINTS})
    assert loop.error == pytest.approx(np.mean([np.sqrt(2) * np.hypot(x, y) for x, y, _ in POINTS]))


def test_the_walk_goes_against_a_transform_by_its_inverse_and_starts_where_points_are():
    poses = worlds(3)
    off = poses["b"].copy()
    off[:3, 3] += (0.03, 0, -0.04)
    transforms = aligned(poses, ["ra", "ab"]) | aligned({**poses, "b": off}, ["br"])
    # The transform b to r lacks the shift of b's world: the walk ends 0.05 off, wherever it starts.
    for scan in "rab":
        (loop,) = close_loops(transforms, {scan: poses_points(poses)[scan]})
        assert loop.scans[0] == scan and loop.error == pytest.approx(0.05)
    backward = {(b, a): np.linalg.inv(matrix) for (a, b), matrix in transforms.items()}
    assert close_loops(backward, {"a": POINTS})[0].error == pytest.approx(0.05)


def test_two_scans_make_no_loop_and_a_loop_needs_points():
    poses = worlds(3)
    assert close_loops(aligned(poses, ["ra", "rb"]), {}) == []
    with pytest.raises(ValueError, match="r, a, b has points"):
        close_loops(aligned(poses, ["ra", "rb", "ab"]), {})


def test_a_pair_has_the_error_of_its_best_loop():
    loops = [Loop(("r", "a", "b"), 9.0), Loop(("r", "b", "c"), 2.0)]
    assert loop_errors(loops) == {
        edge("ra"): 9.0,
        edge("ab"): 9.0,
        edge("rb"): 2.0,
        edge("rc"): 2.0,
        edge("bc"): 2.0,
    }


def put_off(pairs, wrong):
    """Loops of five scans in which some transforms are 0.04 off."""
    poses = worlds(5)
    transforms = aligned(poses, pairs)
    for number, pair in enumerate(wrong):
        transforms[pair] = transforms[pair] @ shift(*np.roll((0.04, 0, 0), number))
    return close_loops(transforms, {"r": POINTS})


@pytest.mark.parametrize("wrong", star_and_ring("rabcd"))
def test_the_one_wrong_pair_of_five_scans_is_found(wrong):
    pairs = star_and_ring("rabcd")
    loops = put_off(pairs, [wrong])
    limits = {frozenset(pair): 0.003 for pair in pairs}
    assert suspects(loops, limits) == {frozenset(wrong)}
    errors = loop_errors(loops)
    assert errors[frozenset(wrong)] == pytest.approx(0.04)
    if "r" in wrong:  # a pair beside it may be in its open loop alone
        assert all(errors[frozenset(pair)] < 1e-9 for pair in pairs if "r" in pair and pair != wrong)


def test_nothing_is_suspected_where_all_loops_are_closed_and_two_wrong_pairs_are_both_found():
    pairs = star_and_ring("rabcd")
    limits = {frozenset(pair): 0.003 for pair in pairs}
    assert suspects(put_off(pairs, []), limits) == frozenset()
    assert suspects(put_off(pairs, [("a", "b"), ("c", "d")]), limits) == {edge("ab"), edge("cd")}


def test_of_three_scans_every_pair_is_suspected_and_independent_errors_add_in_squares():
    loops = [Loop(("r", "a", "b"), 7.01)]
    limits = {edge("ra"): 2.0, edge("rb"): 3.0, edge("ab"): 6.0}  # 4 + 9 + 36 is 7 squared
    assert suspects(loops, limits) == {edge("ra"), edge("rb"), edge("ab")}
    assert suspects([Loop(("r", "a", "b"), 6.99)], limits) == frozenset()


def test_each_object_is_judged_by_its_own_loops():
    loops = [
        Loop(("r", "a", "b"), 10.0),
        Loop(("x", "y", "z"), 0.1),
        Loop(("x", "z", "w"), 5.0),
        Loop(("u", "v", "t"), 9.0),
    ]
    limits = {pair: 1.0 for loop in loops for pair in loop.edges}
    assert suspects(loops, limits) == {edge(pair) for pair in ("ra", "rb", "ab", "xw", "zw", "uv", "ut", "vt")}


def test_loops_that_are_joined_by_a_later_one_are_of_one_object():
    loops = [
        Loop(("a", "b", "c"), 9.0),
        Loop(("d", "e", "f"), 0.1),
        Loop(("a", "b", "d"), 9.0),
        Loop(("b", "c", "d"), 0.1),
    ]
    limits = {pair: 1.0 for loop in loops for pair in loop.edges}
    assert suspects(loops, limits) == {edge("ab")}


def test_six_points_stand_for_many():
    points = np.random.default_rng(5).normal(size=(500, 3)) @ [[2, 0.3, 0], [0, 1, 0.5], [0, 0, 0.2]] + (9, -30, 4)
    six = spread_points(points)
    matrix = shift(0.1, -0.2, 0.3)
    matrix[:3, :3] = Rotation.from_rotvec((0.02, 0.3, -0.1)).as_matrix()
    moved = [np.sqrt(np.mean(np.sum((p @ matrix[:3, :3].T + matrix[:3, 3] - p) ** 2, 1))) for p in (points, six)]
    assert six.shape == (6, 3) and moved[1] == pytest.approx(moved[0], rel=1e-9)
