"""Processes by Qt, for real."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture
def run(host):
    """Runs a program to its end; returns what it wrote, to both streams, and its status."""
    from DNetRegistrationLib.slicer_module.qt_process import QtProcess

    def run(command, environment=None):
        output, errors, ends = [], [], []
        process = QtProcess(command, environment or {}, output.append, errors.append, ends.append)
        host.wait_until(lambda: ends, 20)
        process.kill()  # what has ended is no error
        host.process_events(0.05)
        (status,) = ends
        return b"".join(output), b"".join(errors), status

    return run


def test_output_and_errors_are_kept_apart(run):
    code = "import sys; print('an event'); print('a warning', file=sys.stderr); sys.exit(3)"
    assert run([sys.executable, "-c", code]) == (b"an event\n", b"a warning\n", 3)


def test_variables_are_set_and_paths_put_in_front(run, monkeypatch):
    monkeypatch.setenv("DNET_TEST_PATH", "theirs")
    code = "import os; print(os.environ['DNET_TEST_PATH'], os.environ['DNET_TEST'])"
    output, _, status = run([sys.executable, "-c", code], {"DNET_TEST_PATH": "ours", "DNET_TEST": "value"})
    assert (output.decode().split(), status) == ([f"ours{os.pathsep}theirs", "value"], 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_a_signal_is_its_negative_number(run):
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])[2] == -9


def test_a_program_that_is_missing(run):
    assert run(["/no/such/program"]) == (b"", b"", None)
