"""The work on a cohort in another process. Knows neither Slicer nor Qt."""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import DNetError, RunError
from . import events
from .worker_process import Launch, WorkerProcess


class CohortJob(WorkerProcess):
    """A check of a cohort, or its alignment, in the background.

    Args:
        what: "check" or "align".
        scans, results: paths; see `cohort_worker`.
        python: the interpreter to run.
        launch: see `worker_process.Launch`.
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
        super().__init__(python, launch)
        self._finished = finished
        self.rows: list[list[str]] | None = None
        self._handlers |= {
            events.PROGRESS: lambda event: progress(event["fraction"], event["message"]),
            events.FOUND: self._found,
        }
        self._run("cohort_worker", what, scans, results)

    def cancel(self) -> None:
        """Ends the process and all of its children. What is done of the cohort stays, and is not done again."""
        if not self.over:
            self._kill()

    def _found(self, event: dict) -> None:
        self.rows = event["rows"]

    def _ended(self, status: int | None) -> None:
        self.over = True
        error = self._error
        if error is None and status != 0:
            problem = f"The work ended unexpectedly ({self._cause(status)})"
            error = RunError(problem, "try again; what is done is not done again")
        self._finished(self, error)
