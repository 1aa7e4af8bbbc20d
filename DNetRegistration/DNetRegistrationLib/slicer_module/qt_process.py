"""A `worker_process.Launch` by Qt: the output and the end of the process arrive as events of the application's loop.

``slicer.util.launchConsoleProcess`` would not do: it reads in a Python thread, which in Slicer advances only while the
main thread is in Python, and before Slicer 5.12 it blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import qt


class QtProcess:
    """A `worker_process.Process`; see `worker_process.Launch` for the arguments.

    Attributes:
        pid: of the process; 0 where it could not be started.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        output: Callable[[bytes], None],
        errors: Callable[[bytes], None],
        end: Callable[[int | None], None],
    ) -> None:
        self._output, self._errors, self._end = output, errors, end
        self._process = qt.QProcess()
        variables = qt.QProcessEnvironment.systemEnvironment()
        for name, value in environment.items():
            # Slicer's own folders must stay on a search path.
            rest = variables.value(name, "") if name.endswith("PATH") else ""
            variables.insert(name, value + os.pathsep + rest if rest else value)
        self._process.setProcessEnvironment(variables)
        self._process.connect("readyReadStandardOutput()", self._readOutput)
        self._process.connect("readyReadStandardError()", self._readErrors)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process.start(command[0], command[1:])
        self.pid = int(self._process.processId())

    def kill(self) -> None:
        """Ends it, if it still runs, and waits until it is gone, one second at most."""
        if self._process.state() != qt.QProcess.NotRunning:
            self._process.kill()
            self._process.waitForFinished(1000)

    def _readOutput(self) -> None:
        self._output(bytes(self._process.readAllStandardOutput().data()))

    def _readErrors(self) -> None:
        self._errors(bytes(self._process.readAllStandardError().data()))

    def _finished(self, code: int, status) -> None:
        self._readOutput()
        self._readErrors()
        self._end(-abs(code) if status == qt.QProcess.CrashExit else code)

    def _failed(self, error) -> None:
        # After all other errors Qt tells of the end.
        if error == qt.QProcess.FailedToStart:
            self._end(None)
