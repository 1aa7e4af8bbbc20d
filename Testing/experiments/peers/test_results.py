"""Results of a comparison: measured against the truth, and kept together."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from DNetRegistrationLib.experiments.method_process import MethodRun
from DNetRegistrationLib.experiments.peers.results import Conditions, PeerResults, measured
from peer_results import four_methods
from peer_stand_ins import StandIn

CONDITIONS = Conditions(threads=1, limit=60.0, machine="a machine")


def test_results_are_measured_against_the_truth(compared_pair, files):
    method = StandIn("a", "identity")
    good = measured(method, compared_pair, files, MethodRun(tuple(compared_pair.matrix.ravel()), "yes"), CONDITIONS)
    assert good.error_um == pytest.approx(0, abs=1e-6)
    assert good.rotation_error_deg == pytest.approx(0, abs=1e-6)
    assert good.success
    assert good.key == CONDITIONS.key(method, compared_pair)
    still = measured(method, compared_pair, files, MethodRun(tuple(np.eye(4).ravel())), CONDITIONS)
    assert still.rotation_error_deg == pytest.approx(still.angle_deg)
    assert still.unnoticed
    shear = np.eye(4)
    shear[0, 1] = 0.5
    sheared = measured(method, compared_pair, files, MethodRun(tuple(shear.ravel())), CONDITIONS)
    assert "not a rigid transform" in sheared.failure
    assert math.isinf(sheared.error_um)
    assert not sheared.unnoticed
    # A method that says itself that it failed has said so.
    assert not dataclasses.replace(still, trusted="no").unnoticed


def test_methods_are_in_order_and_compared_on_common_pairs():
    found = four_methods()
    assert found.methods("angle") == found.methods("size") == ["full", "elastix", "ants"]
    ours, theirs = found.both("full", "ants")
    assert list(ours.index) == list(theirs.index) == ["64-0", "64-1"]
    assert found.both("full", "axes")[0].empty
    assert PeerResults().methods("angle") == []
