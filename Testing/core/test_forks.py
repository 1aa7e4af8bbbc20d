"""That torch has one thread where its threads were lost in a fork, whoever imported the library."""

from __future__ import annotations

import os
import sys

import places
import pytest
from command import run
from DNetRegistrationLib.core.forks import begun_by_fork


@pytest.mark.parametrize(
    ("status", "forked"),
    [
        ("7 (python) R 1 7 7 0 -1 4194304 5", False),
        ("7 (python) R 1 7 7 0 -1 4194368 5", True),
        ("7 (a) b (c) R 1 7 7 0 -1 64 5", True),
        ("7 (python) R 1 7", False),
        ("7 (python) R 1 7 7 0 -1 ? 5", False),
        ("", False),
    ],
)
def test_what_linux_tells_of_a_fork(status, forked, tmp_path):
    (tmp_path / "stat").write_text(status)
    assert begun_by_fork(tmp_path / "stat") is forked


def test_where_nothing_is_told_there_was_no_fork(tmp_path):
    assert not begun_by_fork(tmp_path / "stat")


# The operation takes all threads of torch, in the first process and in those that were forked. One that hangs is ended.
FORKS = """
import os, signal
import torch
torch.set_num_threads(2)
def work():
    return float(torch.ones(1 << 18).mul_(2.0).sum())
def forked(first):
    child = os.fork()
    if not child:
        signal.alarm(60)
        first()
        os._exit(torch.get_num_threads() if work() == 1 << 19 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def load():
    import DNetRegistrationLib
work()
print(forked(load))
load()
print(forked(lambda: None), forked(lambda: os._exit(forked(lambda: None))), torch.get_num_threads())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about the OpenMP of Linux")
def test_torch_works_in_a_process_that_was_forked_before_the_library_was_loaded_or_after():
    done = run(code=FORKS, env=places.environment(OMP_NUM_THREADS="2"))
    assert done.stdout.splitlines() == ["1", "1 1 2"], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="about forks")
def test_a_fork_without_torch_loses_nothing():
    code = """
import os
import DNetRegistrationLib
child = os.fork()
if not child:
    from DNetRegistrationLib.core.forks import threads_lost
    os._exit(threads_lost())
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code=code).stdout == "0\n"
