"""Whether the threads of torch were lost in a fork: then torch gets one thread, before anything of it runs.

GNU OpenMP, which torch has on Linux, does not notice a fork, and would wait for its lost threads for ever. The package
loads this module before all others, so that it is there before torch is used, whoever imports the package: the process
that forks, or the one that was forked.
"""

from __future__ import annotations

import os
import sys

# Of a process in Linux (PF_FORKNOEXEC of sched.h): it was forked, and has started no program since.
_ONLY_FORKED = 0x40

_lost = False


def threads_lost() -> bool:
    """Whether torch may have been used before this process was forked, so that it can have one thread only."""
    return _lost


def begun_by_fork(status: str | os.PathLike = "/proc/self/stat") -> bool:
    """Whether this process was forked and has started no program since; False on another system than Linux.

    Args:
        status: where Linux tells.
    """
    try:
        with open(status, "rb") as file:
            # The name of the program, in brackets, may hold anything.
            fields = file.read().rpartition(b")")[2].split()
        return bool(int(fields[6]) & _ONLY_FORKED)
    except (OSError, IndexError, ValueError):
        return False


def _use_one_thread() -> None:
    global _lost
    # While another thread loads it, it is there without its functions.
    set_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_threads is not None:
        _lost = True
        set_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)
# Forked before this module was there. Whether torch was loaded after the fork cannot be told.
if begun_by_fork():
    _use_one_thread()
