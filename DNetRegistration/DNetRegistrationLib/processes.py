"""Work in fresh processes, which end with this one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def fresh_processes(count: int, threads: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that share nothing with this one; an exception in the block, as by Ctrl-C, ends them.

    Args:
        count: of processes.
        threads: of torch in each, or None for its default.
    """
    # Forking a process that has used torch can hang.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(threads,))
    try:
        yield pool
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads: int | None) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
