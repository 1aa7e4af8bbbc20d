"""What is tested, and how results of pairs become tables, on results whose answers are worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.experiments.paper.figures import draw_positions, draw_strategies, draw_subjects
from DNetRegistrationLib.experiments.paper.measure import PairResult
from DNetRegistrationLib.experiments.paper.plan import METHODS, STEPS, networks, plan, positions
from DNetRegistrationLib.experiments.paper.results import DSC, NOT_LEARNED, RE, TE, TRUE_DSC, EvaluationResults
from DNetRegistrationLib.experiments.paper.significance import analyses
from DNetRegistrationLib.experiments.paper.tables import (
    PAPER,
    PAPER_ORDER,
    error_table,
    order_table,
    results_table,
    summaries,
    table_1,
    table_1_numbers,
    training_table,
)
from DNetRegistrationLib.experiments.tables import write_csv


def result(test, bone, fold, method, strategy, te, re, dice, step=0, **more):
    more = {"target_um": te, "dice_true": 0.9, "spacing_um": 80.0, "weights": "w" if strategy else "", **more}
    return PairResult(test, bone, "pre", step, method, strategy, fold, 0.0, te_um=te, re_deg=re, dice=dice, **more)


FACTS = {"weights": "w", "parameters": 4_847_180, "iterations": 4, "batch": 2, "hours": 0.5, "device": "CPU"}
TRAINED = {f"S{n}/dnet": {**FACTS, "given": False} for n in (1, 2, 3, 4)}


def text(table):
    """The cells of a table, a list a row."""
    return [list(row) for row in table.itertuples(index=False, name=None)]


def test_table_1_from_results():
    results = EvaluationResults(
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
    summary = summaries(results)
    lines = {(line.method, line.strategies, line.criterion): line for line in summary.itertuples()}
    of = {criterion: lines["dnet", "S1&S2", criterion.name] for criterion in (TE, RE, DSC, TRUE_DSC)}
    assert [line.mean for line in of.values()] == pytest.approx([70, 4, 50, 90])
    assert of[TE].median == 60 and of[TE].sd == pytest.approx(math.sqrt((900 + 100 + 1600) / 2))
    assert (of[TE].success.count, of[TE].success.total) == (2, 3)
    assert lines["dnet", "S3&S4", "TE"].mean == 500
    assert lines["sitk", "", "TE"].mean == 750 and lines["sitk", "", "TE"].errors == 1
    table = table_1(summary, TRAINED)
    rows = {row[0] + row[2]: dict(zip(table.columns, row, strict=True)) for row in text(table)}
    assert rows["D-netS1&2"]["Rot TE (um)"] == "70.0 (65.3)"
    assert rows["SITK-"]["Rot DSC (%)"] == "11.00 (12.75)"
    assert rows["D-netS1&2"]["Variables"] == "4.85M"
    assert rows["True pose-"]["Rot DSC (%)"] == "90.00"
    assert text(error_table(results)) == [["SITK", "RuntimeError: no", "1", "a1, rotation test"]]


def test_what_networks_have_learned_about_rotation():
    results = [
        result("rotation", "b1", "B", "unmoved", "", 693.0, 90.0, 0.1),
        result("rotation", "b2", "B", "unmoved", "", 693.0, 110.0, 0.1),
        # Of the half that S1 is not tested on.
        result("rotation", "a1", "A", "unmoved", "", 693.0, 10.0, 0.1),
        result("rotation", "b1", "B", "dnet", "S1", 600.0, 85.0, 0.1),
        result("rotation", "b2", "B", "dnet", "S1", 600.0, 99.0, 0.1),
    ]
    trained = {"S1/dnet": TRAINED["S1/dnet"]}
    row = ["D-net", "S1", "4", "2", "8", "0.50", "CPU"]
    assert text(training_table(EvaluationResults(results, trained), trained)) == [[*row, "92.0", "92"]]
    # Without anything to compare with it is not said.
    assert text(training_table(EvaluationResults(results[3:], trained), trained)) == [[*row, "92.0", "-"]]
    given = {"S1/dnet": {**FACTS, "given": True, "iterations": None, "hours": None}}
    row = ["D-net", "S1", "-", "2", "-", "-", "given, not trained here"]
    assert text(training_table(EvaluationResults([], given), given)) == [[*row, "-", "-"]]


def turned(degrees):
    """The true pose of a pair, row by row."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (c, -s, 0, 0, s, c, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)


def test_a_network_that_answers_alike_or_at_random_has_not_learned():
    """What counts is what was measured, not how long it was trained: the equivariant network learns from 8 pairs."""
    truths = [10.0 * n for n in range(36)]
    wrong = np.random.default_rng(0).uniform(0, 360, 36)
    answers = {
        "me": wrong, "se": [180.0] * 36, "dnet": [0.0] * 36, "dnet-turned": [angle + 9 for angle in truths],
        "equivariant": [angle + 0.4 for angle in truths], "sitk": [0.0] * 36,
    }  # fmt: skip
    trained = {f"{s}/{name}": {**FACTS, "given": False} for s in ("S1", "S3") for name in answers}
    given = [
        replace(answered(name, strategy, truth, angle), step=step)
        for name, angles in answers.items()
        for strategy in (("",) if name == "sitk" else ("S1", "S3"))
        for step, (truth, angle) in enumerate(zip(truths, angles, strict=True))
    ]
    given = [replace(one, estimate=one.truth) if (one.method, one.strategy) == ("dnet", "S3") else one for one in given]
    results = EvaluationResults(given, trained)
    assert [name for name in results.methods if not results.learned(name, ["S1"])] == ["me", "se", "dnet"]
    table = table_1(summaries(results), trained)
    rows = {row[0] + row[2]: row[table.columns.get_loc("Rot RE (degrees)")] for row in text(table)}
    assert rows["D-netS1"] == "not learned (3.6)" and rows["D-netS3"] == "90.0 (4.5)"
    assert rows["MES1"] == "not learned (92.6)" and rows["SITK-"] == "90.0 (119.6)"
    assert rows["Equivariant D-netS1"] == "0.4"
    of_test = [row[0] for row in text(results_table(summaries(results), "rotation")) if NOT_LEARNED in row]
    assert of_test == ["ME", "ME", "SE", "SE", "D-net"]
    assert results.label("dnet", ["S1", "S3"]) == "D-net, not learned by S1"
    assert results.label("me", ["S1", "S3"]) == "ME, not learned"
    assert results.label("equivariant", ["S1", "S3"]) == "Equivariant D-net" and results.label("sitk", ["S1"]) == "SITK"
    # It cannot be told without a truth, nor from pairs that are all turned alike.
    assert EvaluationResults([replace(one, truth=()) for one in given], trained).learned("dnet", ["S1"])
    alike = [replace(one, truth=turned(90)) for one in given]
    assert EvaluationResults(alike, trained).learned("dnet", ["S1"])


def answered(method, strategy, truth, angle):
    """The result of a pair that is turned by one angle and answered by another, in degrees about z."""
    error = abs((angle - truth + 180) % 360 - 180)
    pose = {"truth": turned(truth), "estimate": turned(angle), "seconds": 1.0}
    return result("rotation", "b1", "B", method, strategy, 1e6, error, 0.1, **pose)


def test_figures_name_networks_that_have_not_learned():
    found = [replace(answered("dnet", "S1", angle, 0.0), position=angle) for angle in (0.0, 90.0, 180.0)]
    found = [replace(one, step=step) for step, one in enumerate(found)] + [replace(found[0], test="real")]
    results = EvaluationResults(found, TRAINED)
    for figure in (draw_positions(results, "rotation"), draw_subjects(results), draw_strategies(results)):
        (legend,) = figure.legends
        assert legend.get_texts()[0].get_text() == "D-net, not learned"


def test_the_legend_of_all_methods_lies_within_the_figure():
    found = [
        replace(answered(name, "S1" if method.by_strategy else "", angle, 0.0), step=step, position=angle, fold="B")
        for name, method in METHODS.items()
        for step, angle in enumerate((0.0, 90.0, 180.0))
    ]
    trained = {network.name: {**FACTS, "given": False} for network in networks(("S1",), tuple(METHODS))}
    found = [replace(one, weights="w" if METHODS[one.method].network else "") for one in found]
    figure = draw_positions(EvaluationResults(found, trained), "rotation")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(METHODS) + 1
    drawn = legend.get_window_extent()
    assert figure.bbox.x0 <= drawn.x0 and drawn.x1 <= figure.bbox.x1 and figure.bbox.y0 <= drawn.y0


def test_the_order_of_the_papers_networks():
    names = [method for place in PAPER_ORDER for method in place]
    trained = {f"S1/{name}": {**FACTS, "given": False} for name in names}
    errors = dict(zip(names, (50.0, 150.0, 130.0, 700.0, 600.0), strict=True))
    results = [
        result("rotation", "b1", "B", name, "S1", error, 100 - error / 10, 1 - error / 1000)
        for name, error in errors.items()
    ]
    by_te, by_re, by_dsc = text(order_table(summaries(EvaluationResults(results, trained))))
    # SED and SNL-SED are not ordered by the paper, nor are ME and SE.
    order = "D-net, SNL-SED, SED, ME, SE"
    assert by_te == ["rotation", "TE", "S1&2", order, "yes"]
    assert by_re == ["rotation", "RE", "S1&2", "SE, ME, SED, SNL-SED, D-net", "no"]
    assert by_dsc == ["rotation", "DSC", "S1&2", order, "yes"]
    # A network that is missing, no order.
    assert not len(order_table(summaries(EvaluationResults(results[1:], trained))))
    # Two that have not learned have no order but chance; where one place has all of these, it is told.
    for names, shown in ((("se", "me"), 3), (("se", "sed"), 0)):
        lost = [answered(name, "S1", angle, 0.0) for name in names for angle in (0, 90, 180)]
        given = [*(one for one in results if one.method not in names), *lost]
        assert len(order_table(summaries(EvaluationResults(given, trained)))) == shown
    results[1] = replace(results[1], te_um=650.0)
    assert text(order_table(summaries(EvaluationResults(results, trained))))[0][-1] == "no"


def test_table_1_as_a_file(tmp_path):
    summary = summaries(EvaluationResults([result("real", "b1", "B", "dnet", "S1", math.nan, math.nan, 0.5)], TRAINED))
    write_csv(table_1_numbers(summary), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "test,criterion,unit,method,strategies,pairs,mean,paper",
        "real,DSC,%,D-net,S1&S2,1,50,67.92",
    ]
    assert str(summary.success[0]) == "-"


def test_the_papers_numbers():
    assert PAPER["translation", "TE", "sitk", ""] == 710.5
    assert PAPER["rotation", "RE", "dnet", "S3&S4"] == 4.5
    assert PAPER["real", "DSC", "snl-sed", "S1&S2"] == 41.85
    assert len(PAPER) == 11 * 7


def test_a_network_is_trained_or_given_once_for_all_that_ask_it():
    methods = ("sitk", "dnet", "dnet-turned", "dnet-shipped", "dnet-shipped-turned", "full")
    needed = [network.name for network in networks(("S1", "S3"), methods)]
    assert sorted(needed) == ["S1/dnet", "S3/dnet", "dnet-shipped"]
    (task,) = plan({"b": "B"}, ("S1", "S3"), methods, ("real",))
    shipped = [("dnet-shipped", ""), ("dnet-shipped-turned", "")]
    trained = [(method, strategy) for method in methods[1:3] for strategy in ("S1", "S3")]
    assert list(task.runs) == [("sitk", ""), *trained, *shipped, ("full", "")]
    # Asked alone, the turned ones need the same networks.
    assert networks(("S1",), ("dnet-turned", "dnet-shipped-turned")) == networks(("S1",), methods)


def test_results_of_a_network_that_another_method_has():
    trained = {
        "S1/dnet": {**TRAINED["S1/dnet"], "weights": "w"},
        "dnet-shipped": {**TRAINED["S1/dnet"], "weights": "s"},
    }
    asked = [("dnet-turned", "S1", "w"), ("dnet-shipped-turned", "", "s"), ("dnet-shipped", "", "old")]
    given = [
        result("rotation", "b1", "B", method, strategy, 30.0, 3.0, 0.7, weights=weights)
        for method, strategy, weights in asked
    ]
    found = EvaluationResults(given, trained)
    # Those of other weights do not count.
    assert found.methods == ["dnet-turned", "dnet-shipped-turned"]
    table = text(table_1(summaries(found), trained))
    assert [row[:3] for row in table[:-1]] == [
        ["D-net, 8 turns", table[0][1], "S1"], ["D-net that ships, 8 turns", table[0][1], "-"]
    ]  # fmt: skip
    assert table[0][1].endswith("M")


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


def test_where_no_method_moved_anything_there_is_nothing_to_analyse():
    """It ended the evaluation with an unexpected error."""
    found = [result("rotation", "b1", "B", "unmoved", "", 700.0, 120.0 + step, 0.1, step=step) for step in range(3)]
    assert list(analyses(EvaluationResults(found, {}))) == []
