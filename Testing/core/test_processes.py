"""Work over fresh processes, and their memory."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import places
import pytest
from command import run
from DNetRegistrationLib.core.errors import RunError, Setting
from DNetRegistrationLib.core.processes import completed_calls, fresh_processes
from DNetRegistrationLib.core.threads import usable_threads


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
    assert list(completed_calls(usable_threads, [()], 1, threads=3)) == [3]
    assert sorted(completed_calls(pow, [(2, 3), (3, 2), (5, 1)], 2, threads=None)) == [5, 8, 9]


def test_what_a_call_raises_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(completed_calls(divmod, [(1, 0)], 1, threads=None))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_a_process_that_is_killed_is_said():
    with pytest.raises(RunError, match="a process ended in the midst of its work") as caught:
        list(completed_calls(signal.raise_signal, [(signal.SIGKILL,)], 1, threads=None))
    assert caught.value.setting == Setting("jobs")


PARENT = """
import multiprocessing, time
from DNetRegistrationLib.core.interrupts import raised_once
from DNetRegistrationLib.core.processes import fresh_processes
if __name__ == "__main__":
    with raised_once(), fresh_processes(2) as pool:
        pool.submit(abs, -1).result()
        work = [pool.submit(time.sleep, 60) for _ in range(2)]
        while not all(one.running() for one in work):
            time.sleep(0.01)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(60)
"""


def is_running(pid: int) -> bool:
    """A process that has ended may stay in the list of them for as long as nobody asks for its status."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.strip()[:1] not in ("", "Z")


@pytest.mark.skipif(shutil.which("ps") is None, reason="has no ps")
@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM"])
def test_processes_end_with_the_one_that_started_them(tmp_path, number):
    """Also where that was started in the background of a script, which ignores Ctrl-C."""
    (tmp_path / "parent.py").write_text(PARENT)

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    start = [sys.executable, str(tmp_path / "parent.py")]
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": places.environment()}
    with subprocess.Popen(start, preexec_fn=ignore, **given) as parent:
        try:
            workers = [int(word) for word in parent.stdout.readline().split()]
            assert len(workers) == 2 and all(map(is_running, workers))
            parent.send_signal(getattr(signal, number))
            parent.wait(20)
        finally:
            parent.kill()
    ends = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_an_interrupt_ends_no_process_of_others():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), fresh_processes(1) as pool:
            pool.submit(pow, 2, 3).result()
            raise KeyboardInterrupt
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


def test_an_interrupt_ends_work_that_is_under_way():
    with pytest.raises(KeyboardInterrupt), fresh_processes(1) as pool:
        pool.submit(pow, 2, 3).result()  # from here on the process is there
        work = pool.submit(time.sleep, 60)
        while not work.running():
            time.sleep(0.01)
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
