"""An alignment in words."""

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib.outputs.summary import summary
from DNetRegistrationLib.registration.result import Bone, Check, Repeat


def test_summary():
    alignment = made_alignment(warnings=["The contrast agent is dense."], confidence=0.987, expected_error_um=3.21)
    assert summary(alignment, ["a.tfm"]).splitlines() == [
        "verdict           Accepted: the bones lie on each other.",
        "warning           The contrast agent is dense.",
        "confidence        98.7 % that the error is below one voxel of 80 um",
        "expected error    3.21 um, mean over the bone",
        "Dice of cortices  0.110 before, 0.930 aligned",
        "rotation          0.000 degrees",
        "bone moved by     0.1000, -0.2000, 0.3000 mm (its centroid, LPS)",
        "found by          search, on cpu",
        "time              0.80 s (preprocess 0.25, search 0.50)",
        "written           a.tfm",
    ]


@pytest.mark.parametrize(("error", "words"), [(0.04, "0.04 um"), (1977.65, "1978 um"), (np.nan, "unknown um")])
def test_no_more_digits_than_are_known(error, words):
    assert f"expected error    {words}, mean over" in summary(made_alignment(expected_error_um=error))


def test_summary_says_which_bone_first():
    alignment = made_alignment(bone=Bone(2, 3, 0.404, np.array((1.5, -20.25, 3.0))))
    first = summary(alignment).splitlines()[0]
    assert first == "bone              bone 2 of 3, 40 % of the bone in view, centred at (1.5, -20.2, 3) mm"


@pytest.mark.parametrize(
    ("hypothesis", "spread", "words"),
    [
        ("dnet", np.nan, "network (equivariant), on cpu"),
        ("dnet", 123.4, "network (equivariant), whose answers spread by 123 um, on cpu"),
        ("initial", np.nan, "given start, on cpu"),
    ],
)
def test_summary_says_what_found_it(hypothesis, spread, words):
    alignment = made_alignment(hypothesis=hypothesis, network="equivariant", network_spread_um=spread)
    assert f"found by          {words}" in summary(alignment).splitlines()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (0.456, "0.46 um at most, with the moving scan turned and aligned again 2 times"),
        (np.inf, "unknown, since the moving scan could not be aligned again when it was turned"),
    ],
)
def test_a_check_stands_beside_the_expected_error(error, words):
    alignment = made_alignment(check=Check((Repeat("a", 0.2, True), Repeat("b", error, True))))
    lines = summary(alignment).splitlines()
    place = lines.index("expected error    3.40 um, mean over the bone")
    assert lines[place + 1] == f"repeatability     {words}"
