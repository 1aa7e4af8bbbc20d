"""A process that runs one method on pair after pair: its peak memory is its own, and it can be ended when late."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# What tells each numerical library how many threads to take.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
# A method's libraries must be there by then.
LOADING_S = 600.0


@dataclass(frozen=True)
class Run:
    """One alignment by one method.

    Attributes:
        matrix: 16 numbers by rows, fixed to moving points, LPS mm; empty where nothing came out.
        trusted: what the method says of it: "yes", "no", or "" where it does not tell.
        seconds: from scans in memory to the transform; libraries are loaded before.
        peak_gb: largest resident memory of the process meanwhile, in 1e9 bytes; NaN where the system does not tell.
        before_gb: what the process held before it began: its libraries and both scans.
        failure: the message of an error, or nothing.
        late: it was ended for being over the limit.
    """

    matrix: tuple[float, ...] = ()
    trusted: str = ""
    seconds: float = float("nan")
    peak_gb: float = float("nan")
    before_gb: float = float("nan")
    failure: str = ""
    late: bool = False


class MethodProcess:
    """A method in a process of its own, which lasts from pair to pair.

    Args:
        method: a `comparison_methods.Method`.
        threads: that it may use.

    Example:
        >>> with MethodProcess(METHODS["elastix"], threads=2) as process:  # doctest: +SKIP
        ...     run = process.align("pairs/64-0", limit=600)
    """

    def __init__(self, method, threads: int) -> None:
        self.method, self.threads = method, threads
        self._process = self._connection = None

    def __enter__(self) -> MethodProcess:
        return self

    def __exit__(self, *exception) -> None:
        self._end(patience=0.0 if any(exception) else 5.0)

    def align(self, folder: str, limit: float) -> Run:
        """Aligns the pair that `comparison_pairs.write_pair` wrote into a folder.

        Args:
            limit: seconds that the alignment may take; then the process is ended, and the next call begins another.
        """
        if self._process is None:
            failure = self._begin()
            if failure:
                return Run(failure=failure)
        try:
            self._connection.send(folder)
            # First that the scans are read, which is not on the clock; a process that dies closes its end.
            self._connection.recv()
            return self._connection.recv() if self._connection.poll(limit) else self._late(limit)
        except (EOFError, ConnectionError):
            return self._died()

    def _begin(self) -> str:
        """Starts the process and waits until its libraries are loaded; returns what went wrong, or nothing."""
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self.method, self.threads), daemon=True)
        self._process.start()
        other.close()
        try:
            answer = self._connection.recv() if self._connection.poll(LOADING_S) else "its libraries do not load"
        except (EOFError, ConnectionError):
            return self._died().failure
        if answer:
            self._end()
        return answer

    def _late(self, limit: float) -> Run:
        self._end()
        return Run(seconds=float("inf"), failure=f"over the limit of {limit:g} s", late=True)

    def _died(self) -> Run:
        self._process.join(10)
        code = self._process.exitcode
        self._end()
        if code is not None and code < 0:
            why = f"its process was ended by signal {-code}"
            return Run(failure=f"{why}, for want of memory perhaps" if -code == 9 else why)
        return Run(failure=f"its process ended with status {code}")

    def _end(self, patience: float = 0.0) -> None:
        if self._process is not None:
            # With nothing more to come it ends by itself, and in order, unless it is busy.
            self._connection.close()
            self._process.join(patience)
            self._process.kill()
            self._process.join()
        self._process = self._connection = None


def _serve(connection, method, threads: int) -> None:
    """Loads a method and answers each folder that comes with None, when its scans are read, and a `Run`."""
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    # What libraries print, some of it from C++, is not for the terminal.
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
            folder = connection.recv()
        except EOFError:
            return
        connection.send(_run(align, folder, threads, connection))


def _run(align, folder: str, threads: int, connection) -> Run:
    from ...core.processes import peak_memory
    from .pairs import read_scans

    fixed, moving = read_scans(folder)
    _forget_peak()
    before = peak_memory() / 1e9
    connection.send(None)
    began = time.perf_counter()
    try:
        answer = align(fixed, moving, threads)
    except Exception as error:
        seconds = time.perf_counter() - began
        return Run((), "", seconds, peak_memory() / 1e9, before, _failure(error))
    seconds = time.perf_counter() - began
    trusted = {None: "", True: "yes", False: "no"}[answer.accepted]
    return Run(tuple(answer.matrix.ravel().tolist()), trusted, seconds, peak_memory() / 1e9, before)


def _failure(error: Exception) -> str:
    from ...core.errors import one_line

    return f"{type(error).__name__}: {one_line(error)}"


def _forget_peak() -> None:
    """Begins the peak of the memory anew, where the system can (Linux); elsewhere it counts from the process' start."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
