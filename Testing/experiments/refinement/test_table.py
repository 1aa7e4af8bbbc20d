"""The table of the contest, on made-up results."""

from __future__ import annotations

import math

import pytest
from DNetRegistrationLib.experiments.refinement.results import BOUND, START, RefinementResult
from DNetRegistrationLib.experiments.refinement.table import Contest

KIND, FINE = "80 um contrast", "10 um plain"


def results(method, errors, kind=KIND, bias=0.0, start="near", **values):
    return [
        RefinementResult(kind, seed, start, method, error_um=error, bias_um=bias, seconds=2.0, **values)
        for seed, error in enumerate(errors)
    ]


def lines(contest):
    return [" ".join(line.split()) for line in contest.report().splitlines()]


def test_a_row_for_each_method():
    found = Contest(
        [
            *results("refine", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), bias=-0.5),
            *results("refine", (2.5,), start="proposal", bias=0.25),
            *results("elastix-correlation-eroded", (2.0, 3.1, 4.2, 5.3, 6.4, 7.5), bias=1.0),
            *results("oracle", (0.5, math.inf)),
            *results(BOUND, (0.4, 0.5, 0.6)),
            *results(START, (90.0,)),
        ],
        {"neuroreg-all": "neuroreg is not installed"},
    )
    rows = {line.split(" | ")[0].strip("| "): line for line in lines(found) if line.startswith("| ")}
    assert rows["this project"].startswith("| this project | 6 | 3.50 [")
    assert rows["this project"].endswith("| -0.50 | 7.0 | | 2.50 | +0.25 | 2.0 |")
    # All six are worse: p is 2 / 2^6.
    assert " | +1.00 | 9.5 | 0.031 | - | | 2.0 |" in rows["elastix, correlation, mask eroded"]
    assert "| 2 | no result |" in rows["this project, had there been no agent"]
    assert "| 3 | 0.500 [" in rows["Cramer-Rao bound"]
    assert "| neuroreg | neuroreg is not installed |" in lines(found)


def findings(*groups):
    return {finding.what: finding for finding in Contest([r for group in groups for r in group]).findings()}


def test_what_is_required():
    held = findings(
        results("refine", (0.5, 0.6, 0.7), bias=0.1),
        results("elastix-correlation-eroded", (0.9, 1.0, 1.1)),
        results(BOUND, (0.5, 0.5, 0.5)),
    )
    assert all(finding.holds for finding in held.values()) and len(held) == 3
    assert held[f"{KIND}: median error against the bound"].required == "at most 0.65 um"
    missed = findings(
        results("refine", (0.5, 0.66, 0.7), bias=-0.2),
        results("elastix-correlation-eroded", (0.4, 0.5, 1.1)),
        results(BOUND, (0.5, 0.5, 0.5)),
    )
    assert not any(finding.holds for finding in missed.values())
    assert not Contest(results("refine", (1.0,)) + results(BOUND, (0.1,))).holds


def test_a_tiny_bound_allows_a_margin():
    (found,) = findings(results("refine", (0.06,), FINE), results(BOUND, (0.015,), FINE)).values()
    assert (found.required, found.holds) == ("at most 0.065 um", True)


def test_a_slow_peer_is_compared_on_the_pairs_that_it_had():
    """It is better on the one pair that it was run on, although its error is above this project's median."""
    found = findings(
        results("refine", (9.0, 1.0, 1.0)),
        results("ants-correlation-eroded", (5.0,)),
        results("elastix-correlation-eroded", (10.0, 2.0, 2.0)),
        results(BOUND, (1.0, 1.0, 1.0)),
    )
    one = found[f"{KIND}: median error"]
    assert (one.measured, one.holds) == ("9 um", False)
    assert one.required == "below 5 um (ANTs, local correlation, mask eroded)"


def test_failures_are_told():
    failed = results("simpleitk-correlation-eroded", (math.inf,) * 2, failure="RuntimeError: no overlap")
    text = lines(Contest([*results("refine", (1.0, 2.0)), *failed, *results(BOUND, (1.0, 1.0))]))
    assert "| SimpleITK, correlation, mask eroded | 2 | RuntimeError: no overlap |" in text
    (own,) = (line for line in text if line.startswith("| 80 um contrast: median error | "))
    assert own.endswith("| yes |")


@pytest.mark.parametrize(("error", "holds"), [(0.9, True), (1.1, False)])
def test_a_peer_that_always_failed_is_no_hurdle(error, holds):
    groups = [
        results("refine", (error,)),
        results("neuroreg-all", (math.inf,)),
        results("elastix-correlation-eroded", (1.0,)),
    ]
    assert findings(*groups, results(BOUND, (1.0,)))[f"{KIND}: median error"].holds is holds
