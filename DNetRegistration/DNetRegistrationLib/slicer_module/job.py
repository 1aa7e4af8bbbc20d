"""An alignment in a process of its own: the request goes out as files, events come back as lines.

A process leaves the application free, gives its memory back, survives a fault of the GPU, and can be ended. It can be
started ahead of its alignment, so that PyTorch is loaded by then. This file knows neither Slicer nor Qt.
"""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import DNetError, FileError, PackageError, RunError, Setting, one_line
from ..core.private_folder import PrivateFolder, remove_abandoned
from ..registration.result import MOST_BONES, Alignment
from . import events
from .request import Request, write_request
from .worker_process import Launch, WorkerProcess

_PREFIX = "dnet-registration-job-"  # of the folder of a job
_STEPS_KEPT = 500  # of what the process tells
_ROOM = 64 << 20  # bytes of disk for everything that is small beside a scan


class JobOutcome(enum.Enum):
    """How a job ended."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not accepted"  # or one bone of several is not
    FAILED = "failed"  # and the error says what to do
    CRASHED = "crashed"  # and the log may say why
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class JobResult:
    """The end of a job.

    Attributes:
        outcome: how it ended.
        folder: where its files lie until `Job.close`, where it aligned; see `contents`. Else None.
        alignments: where it aligned, accepted or not: one, or one of each bone that moved by itself, the largest first.
        error: where it failed or crashed.
        log: the last lines that the process wrote beside its events.
        history: those and the steps of its work, line by line, with the seconds since it was asked.
    """

    outcome: JobOutcome
    folder: Path | None
    alignments: tuple[Alignment, ...] = ()
    error: DNetError | None = None
    log: str = ""


class Job(WorkerProcess):
    """One alignment in the background.

    Args:
        python: the interpreter to run, in Slicer ``PythonSlicer``.
        launch: see `Launch`.
        temporary: the folder in which the private one is made; None is the system's.

    Attributes:
        folder: the private folder; None before `start` and after the end.
        alive: whether the process was started and has not ended.
        over: whether it was cancelled, or has told how it ended.
        log: the last lines that the process wrote beside its events.
    """

    def __init__(self, *, python: str, launch: Launch, temporary: str | os.PathLike | None = None) -> None:
        super().__init__(python, launch)
        self._temporary = temporary
        self._progress: Callable[[float, str], None] = lambda fraction, message: None
        self._posed: Callable[[np.ndarray], None] = lambda matrix: None
        self._finished: Callable[[JobResult], None] | None = None  # before an alignment is asked for
        self._handlers |= {
            events.PROGRESS: self._progressed,
            events.POSE: lambda event: self._posed(np.array(event["matrix"], np.float64)),
            events.WARNING: lambda event: self._noted(event["message"]),
            events.RESULT: self._resulted,
        }
        self._steps: deque[str] = deque(maxlen=_STEPS_KEPT)
        self._asked, self._step = time.monotonic(), ""
        self._alignments: tuple[Alignment, ...] = ()
        self._status: list[int | None] = []  # of the process, once it has ended
        self._folder: PrivateFolder | None = None

    @property
    def history(self) -> str:
        return "\n".join(self._steps)

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
            self._run("worker", str(self._folder.path))
        except OSError as error:
            self.close()
            raise self._no_room(error) from error
        except BaseException:
            self.close()
            raise

    def align(
        self,
        request: Request,
        *,
        progress: Callable[[float, str], None],
        posed: Callable[[np.ndarray], None],
        finished: Callable[[JobResult], None],
    ) -> Iterator[None]:
        """Hands an alignment to the process that was started; once.

        Args:
            request: what to align, and how.
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
        self._asked = time.monotonic()
        if self._status:  # it ended before, or could not be started
            self._ended(*self._status)
            return
        try:
            self._check_room(request)
            for _ in write_request(self._folder.path, request):
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

    def _check_room(self, request: Request) -> None:
        size, options = request.fixed.voxels.size, request.options
        made = request.moving.voxels.itemsize * size * options.resampled + 4 * size * options.subtraction
        given = sum(volume.voxels.nbytes for volume in request.volumes.values())
        needed = given + made * (MOST_BONES if options.bone == "each" else 1) + _ROOM
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

    def _progressed(self, event: dict) -> None:
        if event["message"] != self._step:
            self._step = event["message"]
            self._keep(self._step)
        self._progress(event["fraction"], event["message"])

    def _noted(self, text: str) -> None:
        self.log.append(text)
        self._keep(text)

    def _note(self, line: bytes) -> None:
        super()._note(line)
        self._keep(self.log[-1])

    def _keep(self, text: str) -> None:
        self._steps.append(f"{time.monotonic() - self._asked:7.2f} s  {text}")

    def _resulted(self, event: dict) -> None:
        with suppress(KeyError, TypeError, ValueError):  # a result that is incomplete counts as none
            self._alignments = tuple(Alignment.from_dict(one) for one in event["alignments"])

    def _ended(self, status: int | None) -> None:
        self._status = [status]
        if self._finished is None:
            self.close()
            return
        error = self._error
        if status is None:
            error = RunError(f"{self._python}: cannot be started", "install the application again")
            self._finish(JobOutcome.CRASHED, error)
        elif status == 0 and self._alignments:
            accepted = all(one.accepted for one in self._alignments)
            self._finish(JobOutcome.ACCEPTED if accepted else JobOutcome.NOT_ACCEPTED)
        elif error is not None:
            # The log says what kept the package from loading.
            self._finish(JobOutcome.CRASHED if isinstance(error, PackageError) else JobOutcome.FAILED, error)
        else:
            problem = f"The alignment ended unexpectedly ({self._cause(status)})"
            remedy = "try again, and if it happens again report it with the lines below"
            self._finish(JobOutcome.CRASHED, RunError(problem, remedy))

    def _finish(self, outcome: JobOutcome, error: DNetError | None = None) -> None:
        self.over = True
        aligned = self._alignments if outcome in (JobOutcome.ACCEPTED, JobOutcome.NOT_ACCEPTED) else ()
        try:
            if self._finished is not None:
                self._finished(JobResult(outcome, self.folder, aligned, error, "\n".join(self.log)))
        except BaseException:
            aligned = ()
            raise
        finally:
            if not aligned:
                self.close()

    def _abandon(self) -> None:
        if self.over:
            return
        self._kill()
        self.close()
