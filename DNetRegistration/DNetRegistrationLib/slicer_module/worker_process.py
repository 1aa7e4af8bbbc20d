"""A process that works for the panel: events come back as lines of its standard output. Knows neither Slicer nor Qt.

The function that starts a process is an argument, and makes all callbacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..core.errors import DNetError
from ..core.processes import end_tree
from . import events

#: The folder that this package lies in.
HOME = Path(__file__).resolve().parents[2]
#: Additions to the environment of a process that imports this package. A file of the user's that is called like a
#: module, such as numpy.py in the working directory, is not imported (Python 3.11 and later).
ENVIRONMENT = {"PYTHONPATH": str(HOME), "PYTHONSAFEPATH": "1"}

_LINES_KEPT = 15  # of what the process wrote beside its events,
_BYTES_KEPT = 1000  # and of each line, its end
_LONGEST = 1 << 16  # bytes of a line; an event is shorter


class Process(Protocol):
    """A process that a launcher has started."""

    pid: int

    def kill(self) -> None:
        """Ends it, if it still runs, and waits until it is gone, one second at most."""


Read = Callable[[bytes], None]
#: Starts a program with arguments, with additions to the environment (put in front of a path that is already there);
#: calls back with each piece of its standard output, with each of its standard error, and with its exit status (None
#: where it could not be started).
Launch = Callable[[list[str], dict[str, str], Read, Read, Callable[["int | None"], None]], Process]


class Lines:
    """Joins pieces of output to lines; a line that is longer than `_LONGEST` loses its start."""

    def __init__(self, line: Read) -> None:
        self._line, self._rest = line, b""

    def add(self, piece: bytes) -> None:
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[-_LONGEST:]
        for line in lines:
            if line.strip():
                self._line(line)

    def end(self) -> None:
        self.add(b"\n")


class WorkerProcess:
    """Routes what a process tells. What becomes of its events and of its end, the classes say that this is a base of.

    Args:
        python: the interpreter to run, in Slicer ``PythonSlicer``.
        launch: see `Launch`.

    Attributes:
        over: nothing that the process tells counts any more.
        log: the last lines that it wrote beside its events.
    """

    def __init__(self, python: str, launch: Launch) -> None:
        self._python, self._launch = python, launch
        self._process: Process | None = None
        self._output, self._errors = Lines(self._event), Lines(self._note)
        self._handlers: dict[str, Callable[[dict], None]] = {events.ERROR: self._failed}
        self._failure: dict | None = None  # the values of an error event
        self.log: deque[str] = deque(maxlen=_LINES_KEPT)
        self.over = False

    def _run(self, module: str, *arguments: str) -> None:
        """Starts a module of this package."""
        command = [self._python, "-m", f"{__package__}.{module}", *arguments]
        environment = {**ENVIRONMENT, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
        self._process = self._launch(command, environment, self._output.add, self._errors.add, self._closed)

    def _ended(self, status: int | None) -> None:
        """The process has ended by itself, or could not be started (None)."""
        raise NotImplementedError

    def _kill(self) -> None:
        """Ends the process and all of its children."""
        self.over = True  # before the process ends, which `_closed` may be told of at once
        if self._process is not None:
            end_tree(self._process.pid)
            self._process.kill()

    @property
    def _error(self) -> DNetError | None:
        """The error that the process told; None where there is none, or one that nobody expected."""
        return None if self._failure is None else events.error_of(self._failure)

    def _cause(self, status: int | None) -> str:
        """Why it ended, in words, where it told no error that is known."""
        if self._failure is not None:
            return f"{self._failure['kind']}: {self._failure['problem']}"
        # A signal shows as its negative number or, with a launcher in between, as 128 more than its number.
        killed = ": it was killed, perhaps for want of memory" if status in (-9, 9, 137) else ""
        return f"exit status {status}{killed}"

    def _event(self, line: bytes) -> None:
        event = events.from_line(line)
        if event is None:
            self._note(line)
        elif not self.over and event["event"] in self._handlers:
            self._handlers[event["event"]](event)

    def _failed(self, event: dict) -> None:
        self._failure = event

    def _note(self, line: bytes) -> None:
        self.log.append(line[-_BYTES_KEPT:].decode("utf-8", "replace").rstrip())

    def _closed(self, status: int | None) -> None:
        if not self.over:
            self._output.end()
            self._errors.end()
            self._ended(status)
