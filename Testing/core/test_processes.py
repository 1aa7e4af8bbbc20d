"""Work over fresh processes, and their memory."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from command import run
from DNetRegistrationLib.core.errors import RunError, Setting
from DNetRegistrationLib.core.processes import completed_calls, fresh_processes


def test_peak_memory_grows_and_can_be_forgotten():
    code = """
import numpy as np
from DNetRegistrationLib.core.processes import forget_peak_memory, peak_memory
before = peak_memory()
np.ones(50_000_000)
print(peak_memory() - before)
forget_peak_memory()
print(peak_memory() - before)
"""
    result = run(code=code)
    grown, forgotten = (float(line) for line in result.stdout.split())
    assert grown == pytest.approx(4e8, rel=0.02)
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert forgotten < 1e8


def test_results_come_from_fresh_processes():
    assert list(completed_calls(pow, [], 2)) == []
    assert sorted(completed_calls(pow, [(2, 3), (3, 2), (5, 1)], 2, threads=None)) == [5, 8, 9]


def test_what_a_call_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(completed_calls(divmod, [(1, 0)], 1, threads=None))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_a_process_that_is_killed_is_said():
    with pytest.raises(RunError, match="a process ended in the midst of its work") as caught:
        list(completed_calls(signal.raise_signal, [(signal.SIGKILL,)], 1, threads=None))
    assert caught.value.setting == Setting("jobs")


def test_an_interrupt_ends_work_that_is_under_way():
    with pytest.raises(KeyboardInterrupt), fresh_processes(1) as pool:
        pool.submit(pow, 2, 3).result()  # from here on the process is there
        work = pool.submit(time.sleep, 60)
        while not work.running():
            time.sleep(0.01)
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
