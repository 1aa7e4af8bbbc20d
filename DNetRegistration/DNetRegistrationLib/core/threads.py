"""How many threads there are to use, and that those of torch sleep while they wait.

torch shares its work among the threads of OpenMP, which by default spin while they wait for each other. Beside another
busy process they then hold the very processor that the one they wait for needs: on two such processors an alignment of
64^3 voxels took 7 to 11 s of processor time instead of 0.8. OpenMP reads the environment when torch is loaded and never
again, so that there is one way before (`OMP_WAIT_POLICY`), and another after.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any, TypeVar

from .errors import OptionError, Setting
from .forks import threads_lost

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_lock = threading.Lock()
_parked = 0  # threads that sleep in `_park`
_limit: ContextVar[int | None] = ContextVar("limit", default=None)
# Threads of the program that are in `torch_threads`, and how many torch had before the first of them.
_users, _outside = 0, 1
# The number that was set here last. A thread that has another one, or was in `torch_threads` before, set it by itself.
_last: int | None = None
_own = threading.local()
_within: ContextVar[bool] = ContextVar("within", default=False)
# Threads that functions at once share, where torch has one in each of them; or None for those that torch has.
_shared: ContextVar[int | None] = ContextVar("shared", default=None)


def available_processors(proc: Path = Path("/proc/self"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The processors that this process may use: of the machine, by its affinity, and by the quota of its cgroups.

    Args:
        proc, groups: where Linux tells of cgroups.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS and Windows
        count = os.cpu_count() or 1
    return max(1, min([count, *_quotas(proc, groups)]))


def _quotas(proc: Path, groups: Path) -> Iterator[int]:
    """Processors, rounded up, that each cgroup of a process and each group above it may use at once."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    names: tuple[str, ...]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            top, names = groups, ("cpu.max",)
        elif "cpu" in controllers.split(","):  # version 1
            top, names = groups / controllers, ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            top = top if top.is_dir() else groups / "cpu"
        else:
            continue
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            try:
                quota, period = " ".join((group / name).read_text() for name in names).split()
                if float(quota) > 0:
                    yield math.ceil(float(quota) / float(period))
            except (OSError, ValueError):  # no such file, or "max"
                pass
            if group == top:
                break


def checked_threads(threads: int | None) -> int | None:
    """A number of threads that was asked for.

    Raises:
        OptionError: it is none.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise OptionError(f"{threads!r} is no number of threads", "give 1 or more", Setting("threads"))
    return threads


@contextmanager
def thread_limit(threads: int | None = None) -> Iterator[None]:
    """Inside the block `usable_threads` gives no more than so many. None leaves it as it is around the block.

    Raises:
        OptionError: see `checked_threads`.
    """
    token = _limit.set(checked_threads(threads) or _limit.get())
    try:
        yield
    finally:
        _limit.reset(token)


def limit_threads(threads: int) -> None:
    """Sets the limit of `thread_limit` for all that this thread still does, as in a process of its own."""
    _limit.set(checked_threads(threads))


def usable_threads() -> int:
    """How many threads of its own a function may start: what `thread_limit` says, or as many as processors."""
    return _limit.get() or available_processors()


def in_threads(function: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> list[R]:
    """What a function returns for each item, in several threads at once, which start none of their own.

    It gains where the function's time is that of NumPy and SciPy on large arrays, which let other threads run. What
    context variables say here, they say there (with NumPy 2 how it treats errors is one of them).

    Args:
        function: to call.
        items: what to call it with, one at a time.
        threads: how many at most; `usable_threads` for None.
    """
    items = list(items)
    threads = min(threads or usable_threads(), len(items))
    if threads <= 1:
        return [function(item) for item in items]

    def alone(item: T) -> R:
        with thread_limit(1):
            return function(item)

    # A context can be entered by one thread at a time.
    contexts = [copy_context() for _ in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda context, item: context.run(alone, item), contexts, items))


@contextmanager
def torch_threads(threads: int | None = None) -> Iterator[None]:
    """Inside the block torch uses so many threads, which sleep while they wait; after it as many as before.

    It is a `thread_limit` too. Several threads of the program may be in such blocks at once.

    Args:
        threads: 1 or more, whatever the processors; or None for what torch is set to, but no more than there are
            processors. Where torch's threads were lost in a fork (see `forks`) it is always one.

    Raises:
        OptionError: see `checked_threads`.
    """
    checked_threads(threads)
    with _put_back() as before:
        count = 1 if threads_lost() else threads or min(before, usable_threads(), available_processors())
        let_threads_sleep(count)
        _set(count)
        with thread_limit(count):
            yield


def _set(threads: int) -> None:
    """Torch has so many threads in this thread of the program, and in those that are new to it."""
    global _last
    import torch

    with _lock:
        _last = threads
        torch.set_num_threads(threads)


@contextmanager
def _put_back() -> Iterator[int]:
    """Yields how many threads torch has; after the block it has as many again.

    A new thread of the program takes the number that any other one has set last. Where that was set in a block that is
    still open, it is none of its own, and what held outside of the blocks holds for it.
    """
    global _users, _outside
    import torch

    before, nested = torch.get_num_threads(), _within.get()
    if not nested:
        with _lock:
            if _users == 0 or before != _last or hasattr(_own, "known"):
                _outside = before
            before = _outside
            _users += 1
        _own.known = True
    token = _within.set(True)
    try:
        yield before
    finally:
        _within.reset(token)
        _set(before)
        if not nested:
            with _lock:
                _users = max(_users - 1, 0)


@contextmanager
def small_work() -> Iterator[None]:
    """Inside the block torch has one thread, and functions `at_once` share those that it had before.

    Small tensors gain nothing by several threads in each of their operations: these wake and wait for each other.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    token = _shared.set(threads)
    _set(1)
    try:
        yield
    finally:
        _set(threads)
        _shared.reset(token)


def at_once(
    first: Callable[[Callable[[], None]], R],
    second: Callable[[Callable[[], None]], S],
    check: Callable[[], None] = lambda: None,
) -> tuple[R, S]:
    """What two functions return; they run at once, each with half of torch's threads, where it has several.

    Args:
        first, second: each is called with a check of its own, to be called between steps. The first one runs in this
            thread.
        check: called in this thread only, also while it waits; an exception from it ends both.
    """
    import torch

    shared, before = _shared.get(), torch.get_num_threads()
    threads = shared or before
    if threads == 1:
        return first(check), second(check)
    ended = threading.Event()

    def go_on() -> None:
        if ended.is_set():
            raise CancelledError

    token = _shared.set(threads // 2 if shared else None)
    # A new thread takes the number that was set last.
    _set(1 if shared else threads // 2)
    try:
        with ThreadPoolExecutor(1) as pool:
            beside = pool.submit(copy_context().run, second, go_on)
            try:
                found = first(check)
                while not wait([beside], 0.05).done:
                    check()
            except BaseException:
                ended.set()
                raise
            return found, beside.result()
    finally:
        _set(before)
        _shared.reset(token)


def of_both(
    function: Callable[..., R], *arguments: tuple[Any, Any], check: Callable[[], None] = lambda: None
) -> tuple[R, R]:
    """What a function returns for the first of each pair of arguments, and for the second: `at_once`."""
    first, second = zip(*arguments, strict=True)
    return at_once(lambda _: function(*first), lambda _: function(*second), check)


def let_threads_sleep(threads: int | None = None) -> None:
    """Makes the threads of OpenMP sleep while they wait, soon at least; whether torch is loaded or not.

    What the environment says of it (`OMP_WAIT_POLICY`, `GOMP_SPINCOUNT`, `KMP_BLOCKTIME`) is left as it is.

    Args:
        threads: that this thread has of OpenMP; None for as many as OpenMP itself would take.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys() or threads == 1:
        return
    if "torch" not in sys.modules:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        return
    library = _openmp()
    if hasattr(library, "kmp_set_blocktime"):  # that of Intel and LLVM
        library.kmp_set_blocktime(0)
    elif hasattr(library, "GOMP_parallel") and (threads or library.omp_get_max_threads()) > 1:
        _park(library, threads or library.omp_get_max_threads())


def _openmp() -> Any:
    """The OpenMP that torch has loaded, or None."""
    try:
        return ctypes.CDLL("libiomp5md.dll" if os.name == "nt" else None)
    except OSError:
        return None


def _park(library: Any, threads: int) -> None:
    """Makes the threads of GNU OpenMP spin 100 times instead of 300,000.

    They do so while there are more of them than processors (manual of libgomp, `GOMP_SPINCOUNT`). So a thread of this
    process gets as many of them as are missing, and sleeps with them from then on. A hundred spins take microseconds.
    """
    global _parked
    with _lock:
        missing = max(library.omp_get_num_procs(), os.cpu_count() or 1) + 1 - threads - _parked
        if missing < 1:
            return
        begun = threading.Event()

        def hold() -> None:
            # A team of threads lasts as long as the thread that it belongs to. Some function must be called in each.
            function = ctypes.cast(library.getpid, ctypes.c_void_p)
            library.GOMP_parallel(function, None, ctypes.c_uint(missing + 1), ctypes.c_uint(0))
            begun.set()
            threading.Event().wait()

        threading.Thread(target=hold, name="parked-openmp", daemon=True).start()
        begun.wait()
        _parked += missing


def _after_fork() -> None:
    global _lock, _users
    _lock, _users = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
