"""An alignment in a process of its own: the request goes out as files, events come back as lines.

A process leaves the application free, gives its memory back, survives a fault of the GPU, and can be ended. It can be
started ahead of its alignment, so that PyTorch is loaded by then. This file knows neither Slicer nor Qt: the function
that starts a process is an argument, and makes all callbacks.
"""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..core.errors import DNetError, FileError, PackageError, RunError, Setting, one_line
from ..core.private_folder import PrivateFolder, remove_abandoned
from ..core.processes import end_tree
from ..imaging.volume import Volume
from ..registration.result import Alignment
from . import events
from .request import JobOptions, Masks, write_request

#: The folder that this package lies in.
HOME = Path(__file__).resolve().parents[2]
#: Additions to the environment of a process that imports this package. A file of the user's that is called like a
#: module, such as numpy.py in the working directory, is not imported (Python 3.11 and later).
ENVIRONMENT = {"PYTHONPATH": str(HOME), "PYTHONSAFEPATH": "1"}

_PREFIX = "dnet-registration-job-"  # of the folder of a job
_LINES_KEPT = 15  # of what the process wrote beside its events,
_BYTES_KEPT = 1000  # and of each line, its end
_LONGEST = 1 << 16  # bytes of a line; an event is shorter
_ROOM = 64 << 20  # bytes of disk for everything that is small beside a scan


class JobOutcome(enum.Enum):
    """How a job ended."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not accepted"
    FAILED = "failed"  # and the error says what to do
    CRASHED = "crashed"  # and the log may say why
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobResult:
    """The end of a job.

    Attributes:
        outcome: how it ended.
        folder: where its files lie until `Job.close`, where it aligned; see `contents`. Else None.
        alignment: where it aligned, accepted or not.
        error: where it failed or crashed.
        log: the last lines that the process wrote beside its events.
    """

    outcome: JobOutcome
    folder: Path | None
    alignment: Alignment | None = None
    error: DNetError | None = None
    log: str = ""


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


class Job:
    """One alignment in the background.

    Args:
        python: the interpreter to run, in Slicer ``PythonSlicer``.
        launch: see `Launch`.
        temporary: the folder in which the private one is made; None is the system's.

    Attributes:
        folder: the private folder; None before `start` and after the end.
        alive: whether the process was started and has not ended.
        over: whether it was cancelled, or has told how it ended.
    """

    def __init__(self, *, python: str, launch: Launch, temporary: str | os.PathLike | None = None) -> None:
        self._python, self._launch, self._temporary = python, launch, temporary
        self._progress: Callable[[float, str], None] = lambda fraction, message: None
        self._posed: Callable[[np.ndarray], None] = lambda matrix: None
        self._finished: Callable[[JobResult], None] | None = None  # before an alignment is asked for
        self._process: Process | None = None
        self._output, self._errors = Lines(self._event), Lines(self._note)
        self._log: deque[str] = deque(maxlen=_LINES_KEPT)
        self._alignment: Alignment | None = None
        self._failure: dict | None = None  # the values of an error event
        self._status: list[int | None] = []  # of the process, once it has ended
        self._folder: PrivateFolder | None = None
        self.over = False

    @property
    def folder(self) -> Path | None:
        return None if self._folder is None else self._folder.path

    @property
    def alive(self) -> bool:
        return self._process is not None and not self._status and not self.over

    def start(self) -> None:
        """Starts the process, which loads PyTorch and waits.

        Raises:
            FileError: its folder cannot be made; nothing is left behind.
        """
        if self._temporary is not None:
            remove_abandoned(_PREFIX, self._temporary)
        try:
            self._folder = PrivateFolder(_PREFIX, self._temporary)
            command = [self._python, "-m", "DNetRegistrationLib.slicer_module.worker", str(self._folder.path)]
            environment = {**ENVIRONMENT, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
            self._process = self._launch(command, environment, self._output.add, self._errors.add, self._end)
        except OSError as error:
            self.close()
            raise self._no_room(error) from error
        except BaseException:
            self.close()
            raise

    def align(
        self,
        fixed: Volume,
        moving: Volume,
        options: JobOptions,
        masks: Masks = (None, None),
        *,
        progress: Callable[[float, str], None],
        posed: Callable[[np.ndarray], None],
        finished: Callable[[JobResult], None],
    ) -> Iterator[None]:
        """Hands an alignment to the process that was started; once.

        Args:
            fixed, moving: the scans in world coordinates.
            options: how to align.
            masks: where to look for bone in the fixed and in the moving scan, on any grid.
            progress: called with a fraction, 0 to 1, and a message.
            posed: called with a ``(4, 4)`` matrix, fixed to moving, LPS mm, for which nothing vouches yet; perhaps
                several times, perhaps not at all.
            finished: called once with a `JobResult`. Where it aligned, `close` must follow.

        Yields:
            Between the parts of scans that are written: the application can go on. The alignment begins at the end.

        Raises:
            FileError: the scans cannot be written; the job is over, and nothing is left behind.
        """
        self._progress, self._posed, self._finished = progress, posed, finished
        if self._status:  # it ended before, or could not be started
            self._end(*self._status)
            return
        try:
            self._check_room(fixed, moving, options, masks)
            for _ in write_request(self._folder.path, fixed, moving, options, masks):
                yield
                if self.over:
                    return
        except OSError as error:
            self._abandon()
            raise self._no_room(error) from error
        except BaseException:
            self._abandon()
            raise

    def cancel(self) -> None:
        """Ends the process and all of its children, and removes the files; an alignment ends as cancelled."""
        if not self.over:
            self._abandon()
            self._finish(JobOutcome.CANCELLED)

    def close(self) -> None:
        """Removes the files."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _check_room(self, fixed: Volume, moving: Volume, options: JobOptions, masks: Masks) -> None:
        size = fixed.voxels.size
        made = moving.voxels.itemsize * size * options.resampled + 4 * size * options.subtraction
        given = sum(scan.voxels.nbytes for scan in (fixed, moving, *masks) if scan is not None)
        needed = given + made + _ROOM
        free = shutil.disk_usage(self._folder.path).free
        if free < needed:
            raise OSError(f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")

    def _no_room(self, error: OSError) -> FileError:
        return FileError(
            f"{self._temporary or tempfile.gettempdir()}: the scans cannot be written there for the alignment "
            f"({one_line(error)})",
            "make room, or choose another temporary folder",
            Setting("temporary_folder"),
        )

    def _event(self, line: bytes) -> None:
        event = events.from_line(line)
        if event is None:
            self._note(line)
        elif self.over:
            return
        elif event["event"] == events.PROGRESS:
            self._progress(event["fraction"], event["message"])
        elif event["event"] == events.POSE:
            self._posed(np.array(event["matrix"], np.float64))
        elif event["event"] == events.WARNING:
            self._log.append(event["message"])
        elif event["event"] == events.ERROR:
            self._failure = event
        elif event["event"] == events.RESULT:
            with suppress(KeyError, TypeError, ValueError):  # a result that is incomplete counts as none
                self._alignment = Alignment.from_dict(event["alignment"])

    def _note(self, line: bytes) -> None:
        self._log.append(line[-_BYTES_KEPT:].decode("utf-8", "replace").rstrip())

    def _end(self, status: int | None) -> None:
        if self.over:
            return
        self._output.end()
        self._errors.end()
        self._status = [status]
        if self._finished is None:
            self.close()
            return
        error = None if self._failure is None else events.error_of(self._failure)
        if status is None:
            error = RunError(f"{self._python}: cannot be started", "install the application again")
            self._finish(JobOutcome.CRASHED, error)
        elif status == 0 and self._alignment is not None:
            self._finish(JobOutcome.ACCEPTED if self._alignment.accepted else JobOutcome.NOT_ACCEPTED)
        elif error is not None:
            # The log says what kept the package from loading.
            self._finish(JobOutcome.CRASHED if isinstance(error, PackageError) else JobOutcome.FAILED, error)
        else:
            self._finish(JobOutcome.CRASHED, self._unexpected(status))

    def _unexpected(self, status: int) -> RunError:
        if self._failure is not None:
            cause = f"{self._failure['kind']}: {self._failure['problem']}"
        # A signal shows as its negative number or, with a launcher in between, as 128 more than its number.
        elif status in (-9, 9, 137):
            cause = f"exit status {status}: it was killed, perhaps for want of memory"
        else:
            cause = f"exit status {status}"
        return RunError(
            f"The alignment ended unexpectedly ({cause})",
            "try again, and if it happens again report it with the lines below",
        )

    def _finish(self, outcome: JobOutcome, error: DNetError | None = None) -> None:
        self.over = True
        aligned = self._alignment if outcome in (JobOutcome.ACCEPTED, JobOutcome.NOT_ACCEPTED) else None
        try:
            if self._finished is not None:
                self._finished(JobResult(outcome, self.folder, aligned, error, "\n".join(self._log)))
        except BaseException:
            aligned = None
            raise
        finally:
            if aligned is None:
                self.close()

    def _abandon(self) -> None:
        if self.over:
            return
        self.over = True  # before the process ends, which `_end` may be told of at once
        if self._process is not None:
            end_tree(self._process.pid)
            self._process.kill()
        self.close()
