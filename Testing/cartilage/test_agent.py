"""Contrast agent on a joint, and what looks like it."""

import numpy as np
import pytest
from DNetRegistrationLib.cartilage.agent import Agent


def test_what_is_brighter_around_the_bone_counts_where_both_scans_show_it():
    heights = np.arange(-0.06, 0.2, 0.01)
    difference = np.zeros((6, len(heights)))
    difference[:4, heights > 0.01] = 30  # of 100; a layer alone is on the fourth
    difference[3, heights > 0.03] = 0
    seen = np.ones(difference.shape, bool)
    seen[0] = False
    sight = type(
        "Sight",
        (),
        {
            "heights": heights, "blur": 0.01, "contrast": 100.0, "difference": difference, "seen": seen,
            "mesh": type("Mesh", (), {"areas": np.array((9, 1, 1, 1, 1, 1.0))}),
        },
    )  # fmt: skip
    assert Agent(sight, None, None, np.nan, 0.0).brighter == pytest.approx(2 / 5)
