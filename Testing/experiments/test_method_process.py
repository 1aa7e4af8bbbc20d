"""A method in its process: what it answers and costs, and what goes wrong with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from DNetRegistrationLib.experiments.method_process import MethodProcess
from peer_stand_ins import StandIn


def test_a_method_runs_in_its_process(files, capfd):
    with MethodProcess(StandIn("a", "identity"), threads=1) as process:
        runs = [process.align(files, limit=30) for _ in range(2)]
    for run in runs:
        assert run.matrix == tuple(np.eye(4).ravel())
        assert (run.trusted, run.failure, run.late) == ("yes", "", False)
        assert 0 <= run.seconds < 30
        assert run.peak_gb >= run.before_gb > 0.02
    with MethodProcess(StandIn("a", "prints"), threads=1) as process:
        assert not process.align(files, limit=30).failure
    assert "noise" not in capfd.readouterr().out


def test_peak_memory_is_that_of_the_alignment(files):
    with MethodProcess(StandIn("a", "takes_memory"), threads=1) as process:
        for _ in range(2):
            run = process.align(files, limit=30)
            assert run.peak_gb - run.before_gb == pytest.approx(0.2, abs=0.02)
            assert run.trusted == "no"


def test_threads_reach_the_libraries(files):
    with MethodProcess(StandIn("a", "tells_threads"), threads=3) as process:
        assert process.align(files, limit=30).failure == "RuntimeError: 3 ['3']"


def test_what_goes_wrong_with_a_method_is_a_result_and_the_next_pair_is_tried(files):
    with MethodProcess(StandIn("a", "fails"), threads=1) as process:
        assert process.align(files, limit=30).failure == "RuntimeError: nothing overlaps"
    with MethodProcess(StandIn("a", "dies"), threads=1) as process:
        for _ in range(2):
            assert "ended by signal 9" in process.align(files, limit=30).failure
    with MethodProcess(StandIn("a", "does not load"), threads=1) as process:
        assert process.align(files, limit=30).failure == "ImportError: no such library"


def test_a_slow_method_is_ended(files):
    with MethodProcess(StandIn("a", "sleeps"), threads=1) as process:
        run = process.align(files, limit=0.2)
    assert run.late
    assert run.failure == "over the limit of 0.2 s"
    assert math.isinf(run.seconds)


def test_a_start_reaches_the_method(files):
    start = np.diag((-1.0, -1, 1, 1))
    with MethodProcess(StandIn("a", "starts", near=True), threads=1) as process:
        assert process.align(files, limit=30, start=start).matrix == tuple(start.ravel())


def test_torch_does_not_count_as_the_memory_of_others(files):
    with MethodProcess(StandIn("a", "has_torch"), threads=1) as process:
        assert process.align(files, limit=30).trusted == "no"
