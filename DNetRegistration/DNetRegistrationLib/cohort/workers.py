"""Tasks on the processors of this machine: a process each, one thread in it, and none that brings down another."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ..core.errors import RunError, Setting
from ..core.processes import depend_on_parent, threads_of_children
from .task import Done, PairTask, do_pair, failed_pair

#: Called with the number of a task, the fraction of it that is done, and a message.
TaskProgress = Callable[[int, float, str], None]
_TELL_S = 0.5


def done_by_processes(
    tasks: Sequence[PairTask], processes: int, progress: TaskProgress | None = None
) -> Iterator[tuple[int, Done]]:
    """Does tasks in fresh processes; yields the number of each and what came of it, as they come.

    A process does task after task, since to load the libraries takes longer than to align a small pair. One that ends
    in the midst of a task, whatever ended it, is replaced, and its task has failed. When the generator is closed, or an
    exception is thrown into it as by Ctrl-C, all processes end. They also end when this process does.

    Args:
        tasks: in the order in which they are begun.
        processes: the most that run at once.
        progress: called while a task is under way.

    Raises:
        RunError: no process can be started.
    """
    if multiprocessing.current_process().daemon:
        problem = "this process may start no others, as a worker of a pool or of Dask"
        raise RunError(problem, "call it in the process that started the workers", Setting("jobs"))
    waiting = list(reversed(range(len(tasks))))
    workers: list[_Worker] = []
    broken = 0
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                workers.append(_Worker(waiting.pop()))
            for worker in _ready(workers):
                message = worker.receive()
                if message is None:
                    workers.remove(worker)
                    reason = worker.end()
                    if not worker.began:
                        broken += 1
                        if broken > 2:
                            raise RunError(f"no process can be started ({reason})", _how_to_start(), Setting("jobs"))
                        waiting.append(worker.task)
                        continue
                    problem = f"its process ended in the midst of the work ({reason})"
                    remedy = "run it again, with fewer at a time if memory was short"
                    yield worker.task, Done(failed_pair(tasks[worker.task].pair, problem, remedy), lasting=False)
                elif message == "ready":
                    worker.began = True
                    worker.send(tasks[worker.task])
                elif isinstance(message, Done):
                    number = worker.task
                    if waiting:
                        worker.task = waiting.pop()
                        worker.send(tasks[worker.task])
                    else:
                        workers.remove(worker)
                        worker.end()
                    yield number, message
                elif progress is not None:
                    progress(worker.task, *message)
    finally:
        for worker in workers:
            worker.end()


def _how_to_start() -> str:
    # Each process imports the program that started it, which Python calls so where it was no file.
    if getattr(sys.modules.get("__main__"), "__file__", None) == "<stdin>":
        return "save the program to a file, which a process can import"
    return 'in a script, call it below `if __name__ == "__main__":`'


class _Worker:
    """A process, and the task that it is at."""

    def __init__(self, task: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.task, self.began = task, False
        self.connection, other = context.Pipe()
        self._process: Any = context.Process(target=_serve, args=(other,), daemon=True)
        with threads_of_children(1):
            self._process.start()
        other.close()

    def send(self, task: PairTask) -> None:
        with suppress(OSError):  # it has died, as `receive` will tell
            self.connection.send(task)

    def receive(self) -> Any:
        """What it sent; None where it has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> str:
        """Ends the process where it has not ended; returns why it did, in words."""
        self.connection.close()
        # One that waits for a task ends when its connection closes; one that is dying needs a moment.
        self._process.join(0.2)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
            return "it was ended"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"{name}, for want of memory perhaps" if name == "SIGKILL" else name
        return f"status {code}"


def _ready(workers: list[_Worker]) -> list[_Worker]:
    ready = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in ready]


def _serve(connection: Connection) -> None:
    """Does the tasks that come, and tells how far each is, until the connection closes."""
    depend_on_parent()
    # What libraries print does not belong on the terminal.
    sink = os.open(os.devnull, os.O_WRONLY)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is not None:
            stream.flush()
        os.dup2(sink, number)
    told = 0.0

    def tell(fraction: float, message: str) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            connection.send((fraction, message))

    connection.send("ready")
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(do_pair(task, tell))
        _tidy()


def _tidy() -> None:
    """Gives back to the system what a task took. A process took 1.1 GB after six pairs of 128^3, now 0.76."""
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()  # libraries are not looked through again
    with suppress(OSError, AttributeError, TypeError):  # another system than that of GNU
        ctypes.CDLL(None).malloc_trim(0)
