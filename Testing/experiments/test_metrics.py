"""The criteria of Table 1, and how it is computed, on pairs whose answers are worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.experiments.metrics import measure, target_error_um, translation_error_um
from DNetRegistrationLib.experiments.paper.measure import PairResult
from DNetRegistrationLib.experiments.paper.page import unlearned
from DNetRegistrationLib.experiments.paper.plan import METHODS, STEPS, plan, positions
from DNetRegistrationLib.experiments.paper.results import DSC, RE, TE, TRUE_DSC, Results
from DNetRegistrationLib.experiments.paper.tables import PAPER, summaries, table_1, write_table_1

QUARTER = np.array(((0.0, -1, 0), (1, 0, 0), (0, 0, 1)))  # about z, x to y
THIRD = np.array(((0.0, 0, 1), (1, 0, 0), (0, 1, 0)))  # about (1, 1, 1), x to y to z
CENTER = np.array((100.0, -50.0, 20.0))
# Unit columns of an oblique grid (rotation by 36.87 degrees), and of its left-handed sister.
OBLIQUE = np.array(((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1)))
GRIDS = {"oblique": OBLIQUE, "left-handed": OBLIQUE * (1, 1, -1)}


def about(point, rotation, shift=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = point - rotation @ point + np.asarray(shift, float)
    return matrix


def box(axes, low=(3, 3, 3), spacing=0.1):
    """A box of 4 x 4 x 4 voxels of 0.1 mm in a grid of 12^3 voxels, far from the origin."""
    cortex = np.zeros((12, 12, 12), bool)
    z, y, x = low
    cortex[z : z + 4, y : y + 4, x : x + 4] = True
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = CENTER
    return CorticalBone(cortex, cortex, np.zeros(cortex.shape, np.float32), affine)


def test_turning_about_a_point_beside_the_centre_moves_the_centre():
    # The centre lies 1 mm in -x of the point it is turned about, by 90 degrees: it goes to 1 mm in -y of it.
    estimate = about(CENTER + np.array((1, 0, 0)), QUARTER)
    found = measure(estimate, np.eye(4), CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.te_um == pytest.approx(1000 * math.sqrt(2))
    assert found.re_deg == pytest.approx(90)


def test_translation_error_is_about_the_centre_not_the_origin():
    # Far from the world's origin the raw vectors differ by tens of mm; about the centre, by (30, 40, 0) um.
    truth = about(CENTER, THIRD, (0.4, 0.4, 0.4))
    estimate = about(CENTER, QUARTER, (0.43, 0.44, 0.4))
    assert np.linalg.norm(truth[:3, 3] - estimate[:3, 3]) > 10
    assert translation_error_um(estimate, truth, CENTER) == pytest.approx(50)


def test_rotation_error_between_oblique_turns():
    # tr(THIRD^T QUARTER) = R21 + R10 terms: entries that both have are (1, 0) alone, so the trace is 1: 90 degrees.
    assert np.trace(THIRD.T @ QUARTER) == 1
    found = measure(about(CENTER, QUARTER), about(CENTER, THIRD), CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.re_deg == pytest.approx(90)
    half = np.diag((1.0, -1, -1))
    assert measure(about(CENTER, half), np.eye(4), CENTER, (box(OBLIQUE),) * 2).re_deg == pytest.approx(180)


@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_dice_of_boxes(axes):
    fixed, moving = box(axes), box(axes, (3, 3, 4))
    # As they lie, 3 x 4 x 4 of 64 voxels overlap: 2 * 48 / 128.
    assert measure(np.eye(4), None, CENTER, (fixed, moving)).dice == pytest.approx(0.75)
    # The moving one lies a voxel further along the grid's first axis, which is oblique in the world.
    truth = np.eye(4)
    truth[:3, 3] = 0.1 * axes[:, 0]
    found = measure(np.eye(4), truth, CENTER, (fixed, moving))
    assert (found.dice, found.dice_true) == pytest.approx((0.75, 1.0))
    assert (found.te_um, found.re_deg, found.target_um) == pytest.approx((100, 0, 100))
    # Two voxels off along two axes, 2 x 2 x 4 are left: 2 * 16 / 128.
    off = truth.copy()
    off[:3, 3] += 0.2 * axes[:, 1] + 0.2 * axes[:, 2]
    assert measure(off, truth, CENTER, (fixed, moving)).dice == pytest.approx(0.25)


@pytest.mark.parametrize("axes", GRIDS.values(), ids=GRIDS)
def test_a_box_turned_by_a_quarter_about_itself_lies_on_itself(axes):
    bone = box(axes)
    # About the grid's third axis, through the middle of the box.
    turn = axes @ QUARTER @ axes.T
    estimate = about(bone.center, turn)
    found = measure(estimate, np.eye(4), CENTER, (bone, bone))
    assert (found.dice, found.re_deg) == pytest.approx((1.0, 90))
    # A voxel at (x, y) from the axis moves by sqrt(2) of its distance; the mean by a loop over the 4 x 4.
    offsets = (-0.15, -0.05, 0.05, 0.15)
    mean = np.mean([math.sqrt(2) * math.hypot(x, y) for x in offsets for y in offsets])
    assert found.target_um == pytest.approx(1000 * mean)


def test_without_truth_only_the_overlap_is_known():
    found = measure(np.eye(4), None, CENTER, (box(OBLIQUE), box(OBLIQUE)))
    assert found.dice == 1 and all(math.isnan(v) for v in (found.te_um, found.re_deg, found.target_um, found.dice_true))
    nothing = CorticalBone(*(np.zeros((4, 4, 4), bool),) * 2, np.zeros((4, 4, 4), np.float32), np.eye(4))
    assert math.isnan(target_error_um(np.eye(4), np.eye(4), nothing))


def result(test, bone, fold, method, strategy, te, re, dice, **more):
    more = {"target_um": te, "dice_true": 0.9, "spacing_um": 80.0, "weights": "w" if strategy else "", **more}
    return PairResult(test, bone, "pre", 0, method, strategy, fold, 0.0, te_um=te, re_deg=re, dice=dice, **more)


TRAINED = {f"S{n}/dnet": {"weights": "w", "parameters": 4_847_180} for n in (1, 2, 3, 4)}


def test_table_1_from_results():
    results = Results(
        [
            # S1 is tested on B, S2 on A: S1&S2 are both together.
            result("rotation", "b1", "B", "dnet", "S1", 40.0, 2.0, 0.60),
            result("rotation", "b2", "B", "dnet", "S1", 60.0, 3.0, 0.70),
            result("rotation", "a1", "A", "dnet", "S2", 110.0, 7.0, 0.20),
            result("rotation", "b1", "B", "dnet", "S3", 500.0, 90.0, 0.10),
            result("rotation", "b1", "B", "sitk", "", 700.0, 120.0, 0.10),
            result("rotation", "a1", "A", "sitk", "", 800.0, 100.0, 0.12, failure="RuntimeError: no"),
            # Of weights that are no more: trained further since.
            result("rotation", "a2", "A", "dnet", "S2", 9999.0, 180.0, 0.0, weights="old"),
        ],
        TRAINED,
    )
    lines = {(line.method, line.strategies, line.criterion.name): line for line in summaries(results)}
    of = {criterion: lines["dnet", "S1&S2", criterion.name] for criterion in (TE, RE, DSC, TRUE_DSC)}
    assert [line.summary.mean for line in of.values()] == pytest.approx([70, 4, 50, 90])
    assert of[TE].summary.median == 60 and of[TE].summary.sd == pytest.approx(math.sqrt((900 + 100 + 1600) / 2))
    assert (of[TE].success.count, of[TE].success.total) == (2, 3)
    assert lines["dnet", "S3&S4", "TE"].summary.mean == 500
    assert lines["sitk", "", "TE"].summary.mean == 750 and lines["sitk", "", "TE"].failures == 1
    grid = table_1(list(lines.values()), TRAINED)
    rows = {row[0] + row[2]: dict(zip(grid.columns, row, strict=True)) for row in grid.rows}
    assert rows["D-netS1&2"]["Rot TE (um)"] == "70.0 (65.3)"
    assert rows["SITK-"]["Rot DSC (%)"] == "11.00 (12.75)"
    assert rows["D-netS1&2"]["Variables"] == "4.85M"
    assert rows["True pose-"]["Rot DSC (%)"] == "90.00"


def test_networks_that_turn_nothing_are_named():
    results = [
        result("rotation", "b1", "B", "unmoved", "", 693.0, 90.0, 0.1),
        result("rotation", "b2", "B", "unmoved", "", 693.0, 110.0, 0.1),
        result("rotation", "b1", "B", "dnet", "S1", 600.0, 85.0, 0.1),
        result("rotation", "b2", "B", "dnet", "S1", 600.0, 99.0, 0.1),
    ]
    (said,) = unlearned(Results(results, TRAINED))
    assert (
        "S1 and S2, in degrees: left as they are 100.0, D-net 92.0. Of the networks, D-net came out no better" in said
    )
    results[3] = replace(results[3], re_deg=80.0)
    (said,) = unlearned(Results(results, TRAINED))
    assert "left as they are 100.0, D-net 82.5. " in said and "no better" not in said
    # Without anything to compare with nothing is said.
    assert unlearned(Results(results[2:], TRAINED)) == []


def test_table_1_as_a_file(tmp_path):
    lines = summaries(Results([result("real", "b1", "B", "dnet", "S1", math.nan, math.nan, 0.5)], TRAINED))
    write_table_1(tmp_path / "t.csv", lines)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "test,criterion,unit,method,strategies,pairs,mean,paper",
        "real,DSC,%,D-net,S1&S2,1,50,67.92",
    ]
    assert str(lines[0].success) == "-"


def test_the_papers_figures():
    assert PAPER["translation", "TE", "sitk", ""] == 710.5
    assert PAPER["rotation", "RE", "dnet", "S3&S4"] == 4.5
    assert PAPER["real", "DSC", "snl-sed", "S1&S2"] == 41.85
    assert len(PAPER) == 11 * 7


def test_what_is_tested():
    angles, shifts = positions("rotation"), positions("translation")
    assert len(angles) == len(shifts) == STEPS == 11
    assert (angles[0], angles[5], angles[10]) == pytest.approx((-math.pi, 0, math.pi))
    assert np.diff(angles) == pytest.approx([math.pi / 5] * 10)
    assert (shifts[0], shifts[5], shifts[10]) == pytest.approx((-math.sqrt(3) / 2, 0, math.sqrt(3) / 2))
    tasks = plan({"a": "A", "b": "B"}, ("S1", "S2", "S3"), ("sitk", "dnet"), ("rotation", "real"))
    # Two scans of each turned 11 times, and one real pair.
    assert len(tasks) == 2 * (22 + 1)
    runs = {task.bone: task.runs for task in tasks}
    assert runs["b"] == (("sitk", ""), ("dnet", "S1"), ("dnet", "S3")) and runs["a"] == (("sitk", ""), ("dnet", "S2"))
    assert {(t.bone, t.test, t.scan) for t in tasks} == {
        (bone, *what) for bone in "ab" for what in (("rotation", "pre"), ("rotation", "post"), ("real", "both"))
    }
    # Where only B is tested, A is left alone.
    assert {task.bone for task in plan({"a": "A", "b": "B"}, ("S1",), tuple(METHODS), ("real",))} == {"b"}
