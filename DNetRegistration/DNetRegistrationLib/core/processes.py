"""Work in fresh processes, their memory, and the end of a process with all that it started."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from .errors import RunError, Setting
from .threads import limit_threads

R = TypeVar("R")

#: What tells each numerical library how many threads to use, when it is loaded.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@contextmanager
def fresh_processes(count: int, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool of processes that share nothing with this one. An exception in the block, as by Ctrl-C, ends them.

    They also end when this process does, even by SIGKILL.

    Args:
        count: of processes.
        threads: of torch in each, and of what else starts some; or None for their defaults.
    """
    others = set(multiprocessing.active_children())
    # Forking a process that has used torch can hang.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,))
    try:
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def completed_calls(
    function: Callable[..., R], calls: Iterable[tuple[Any, ...]], processes: int, threads: int | None = 1
) -> Iterator[R]:
    """Yields the results of ``function(*call)``, as they come, from fresh processes.

    Args:
        function: of a module, so that it can be sent to a process.
        calls: arguments, likewise.
        processes: the most that run at once.
        threads: as `fresh_processes` takes them.

    Raises:
        RunError: a process ended before its call did. What a call raises is raised here.
    """
    calls = list(calls)
    if not calls:
        return
    try:
        with fresh_processes(min(processes, len(calls)), threads) as pool:
            for future in as_completed([pool.submit(function, *call) for call in calls]):
                yield future.result()
    except BrokenProcessPool as error:
        problem = "a process ended in the midst of its work, perhaps for want of memory"
        # A process that imports a script anew ends where the script starts processes itself.
        remedy = 'use fewer processes; in a script, begin below if __name__ == "__main__":'
        raise RunError(problem, remedy, Setting("jobs")) from error


def depend_on_parent() -> None:
    """Leaves interrupts to the process that started this one by `multiprocessing`, and ends this one with it."""
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def end() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, name="parent-watch", daemon=True).start()


def _begin(threads: int | None) -> None:
    depend_on_parent()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
        limit_threads(threads)


@contextmanager
def threads_of_children(count: int) -> Iterator[None]:
    """Processes that start in the block let numerical libraries use so many threads."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def end_tree(pid: int) -> None:
    """Ends a process and all that it started, at once. Processes that have already ended are no error.

    A launcher stands between Slicer and its Python: ending the process alone would leave the work going on.

    Args:
        pid: of a process that this one started.
    """
    if pid <= 0:
        return
    if os.name == "nt":
        hidden = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        subprocess.run(["taskkill", "/PID", str(pid), "/T", "/F"], capture_output=True, creationflags=hidden)
        return
    try:
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    except OSError:  # a container without ps: the process itself at least
        listing = ""
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent = line.split()
        children.setdefault(int(parent), []).append(int(child))
    tree = [pid]
    for one in tree:
        tree += children.get(one, [])
    for one in tree:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(one, signal.SIGKILL)


def peak_memory() -> float:
    """The largest resident memory of this process since its start or `forget_peak_memory`, in bytes.

    NaN where the system does not tell.
    """
    # Linux hands a parent's peak on to its children in `getrusage`, but not here.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    if os.name != "posix":
        return float("nan")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def forget_peak_memory() -> None:
    """Resets `peak_memory`, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
