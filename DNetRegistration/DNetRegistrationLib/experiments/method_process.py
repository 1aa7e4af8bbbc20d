"""A process that runs one method on pair after pair, so that memory is the method's own and a late one can be ended."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import one_line
from ..core.processes import depend_on_parent, threads_of_children
from .methods import ComparedMethod
from .pair_files import PairFiles

# Seconds in which a method's libraries must have loaded.
LOADING_S = 600.0


@dataclass(frozen=True)
class MethodRun:
    """What came of one alignment by a method.

    Attributes:
        matrix: 16 numbers by rows, fixed to moving points, LPS mm; empty where the method failed.
        trusted: whether the method trusts its answer: "yes", "no", or "" where it does not say.
        seconds: from scans in memory to the transform, with the libraries loaded.
        peak_gb: largest resident memory of the process meanwhile, in 1e9 bytes; NaN where the system does not tell.
        before_gb: what the process held before it began: its libraries and both scans.
        failure: the message of an error, or nothing.
        late: the process was ended because it was over the limit.
    """

    matrix: tuple[float, ...] = ()
    trusted: str = ""
    seconds: float = float("nan")
    peak_gb: float = float("nan")
    before_gb: float = float("nan")
    failure: str = ""
    late: bool = False


class MethodProcess:
    """A method in a process of its own, which lasts from pair to pair and begins anew after it was ended.

    Args:
        method: the method.
        threads: how many it may use.

    Example:
        >>> with MethodProcess(METHODS["elastix"], threads=2) as process:  # doctest: +SKIP
        ...     run = process.align(files, limit=600)
    """

    def __init__(self, method: ComparedMethod, threads: int) -> None:
        self.method, self.threads = method, threads
        self._process: Any = None
        self._connection: Any = None

    def __enter__(self) -> MethodProcess:
        return self

    def __exit__(self, *exception) -> None:
        self._end(patience=0.0 if any(exception) else 5.0)

    def align(self, files: PairFiles, limit: float, start: np.ndarray | None = None) -> MethodRun:
        """Aligns a pair.

        Args:
            files: of the pair.
            limit: seconds that the alignment may take. A process over it is ended, and the next call begins another.
            start: a ``(4, 4)`` start for a method that refines one.
        """
        if self._process is None:
            failure = self._begin()
            if failure:
                return MethodRun(failure=failure)
        try:
            self._connection.send((files, start))
            # The first answer says that the scans are read, which does not count. A process that dies closes its end.
            self._connection.recv()
            return self._connection.recv() if self._connection.poll(limit) else self._late(limit)
        except (EOFError, ConnectionError):
            return self._died()

    def _begin(self) -> str:
        """Starts the process and waits until its libraries are loaded; returns what went wrong, or nothing."""
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self.method, self.threads), daemon=True)
        with threads_of_children(self.threads):
            self._process.start()
        other.close()
        try:
            answer = self._connection.recv() if self._connection.poll(LOADING_S) else "its libraries do not load"
        except (EOFError, ConnectionError):
            return self._died().failure
        if answer:
            self._end()
        return answer

    def _late(self, limit: float) -> MethodRun:
        self._end()
        return MethodRun(seconds=float("inf"), failure=f"over the limit of {limit:g} s", late=True)

    def _died(self) -> MethodRun:
        self._process.join(10)
        code = self._process.exitcode
        self._end()
        if code is not None and code < 0:
            why = f"its process was ended by signal {-code}"
            return MethodRun(failure=f"{why}, for want of memory perhaps" if -code == 9 else why)
        return MethodRun(failure=f"its process ended with status {code}")

    def _end(self, patience: float = 0.0) -> None:
        if self._process is not None:
            # A process that is not busy ends in order when its connection closes.
            self._connection.close()
            self._process.join(patience)
            self._process.kill()
            self._process.join()
        self._process = self._connection = None


def _serve(connection, method: ComparedMethod, threads: int) -> None:
    """Loads a method. Answers each pair with None, when its scans are read, and then with a `MethodRun`."""
    depend_on_parent()
    # What libraries print, some of it from C++, does not belong on the terminal.
    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    try:
        align = method.load()
    except Exception as error:
        connection.send(_failure(error))
        return
    connection.send("")
    while True:
        try:
            files, start = connection.recv()
        except EOFError:
            return
        connection.send(_run(align, files, (threads,) if start is None else (threads, start), connection))


def _run(align, files: PairFiles, given: tuple, connection) -> MethodRun:
    from ..core.processes import forget_peak_memory, peak_memory

    fixed, moving = files.scans()
    forget_peak_memory()
    before = peak_memory() / 1e9
    connection.send(None)
    began = time.perf_counter()
    matrix, trusted, failure = (), "", ""
    try:
        answer = align(fixed, moving, *given)
        matrix = tuple(answer.matrix.ravel().tolist())
        trusted = {None: "", True: "yes", False: "no"}[answer.accepted]
    except Exception as error:
        failure = _failure(error)
    return MethodRun(matrix, trusted, time.perf_counter() - began, peak_memory() / 1e9, before, failure)


def _failure(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
