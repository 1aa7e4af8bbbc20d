"""The work on a cohort in another process. Knows neither Slicer nor Qt; see `job`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..core.errors import DNetError, RunError
from ..core.processes import end_tree
from . import events
from .job import ENVIRONMENT, Launch, Lines, Process

_LINES_KEPT = 15  # of what the process wrote beside its events


class CohortJob:
    """A check of a cohort, or its alignment, in the background.

    Args:
        what: "check" or "align".
        scans, results: paths; see `cohort_worker`.
        python: the interpreter to run.
        launch: see `job.Launch`.
        progress: called with a fraction, 0 to 1, and a message.
        finished: called once, with this job and None or what went wrong; not where it was cancelled.

    Attributes:
        rows: what a check found; None before it has ended.
        over: whether it has ended or was cancelled.
        log: the last lines that the process wrote beside its events.
    """

    def __init__(
        self,
        what: str,
        scans: str,
        results: str,
        *,
        python: str,
        launch: Launch,
        progress: Callable[[float, str], None],
        finished: Callable[[CohortJob, DNetError | None], None],
    ) -> None:
        self._progress, self._finished = progress, finished
        self.rows: list[list[str]] | None = None
        self.log: deque[str] = deque(maxlen=_LINES_KEPT)
        self._failure: dict | None = None  # the values of an error event
        self.over = False
        self._output, self._errors = Lines(self._event), Lines(self._note)
        command = [python, "-m", "DNetRegistrationLib.slicer_module.cohort_worker", what, scans, results]
        environment = {**ENVIRONMENT, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
        self._process: Process = launch(command, environment, self._output.add, self._errors.add, self._end)

    def cancel(self) -> None:
        """Ends the process and all of its children. What is done of the cohort stays, and is not done again."""
        if not self.over:
            self.over = True
            end_tree(self._process.pid)
            self._process.kill()

    def _event(self, line: bytes) -> None:
        event = events.from_line(line)
        if event is None:
            self._note(line)
        elif self.over:
            return
        elif event["event"] == events.PROGRESS:
            self._progress(event["fraction"], event["message"])
        elif event["event"] == events.FOUND:
            self.rows = event["rows"]
        elif event["event"] == events.ERROR:
            self._failure = event

    def _note(self, line: bytes) -> None:
        self.log.append(line.decode("utf-8", "replace").rstrip())

    def _end(self, status: int | None) -> None:
        if self.over:
            return
        self._output.end()
        self._errors.end()
        self.over = True
        error = None if self._failure is None else events.error_of(self._failure)
        if error is None and status != 0:
            cause = self._failure["problem"] if self._failure else f"exit status {status}"
            error = RunError(f"The work ended unexpectedly ({cause})", "try again; what is done is not done again")
        self._finished(self, error)
