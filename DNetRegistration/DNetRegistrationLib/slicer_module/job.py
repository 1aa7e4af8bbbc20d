"""An alignment in a process of its own: scans out as files, progress back as lines, the report in at the end.

A process keeps the application alive, gives its memory back, survives a fault of the GPU, and can be ended. This file
knows neither Slicer nor Qt: what starts a process is given to it, and all callbacks come from there.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..core.errors import ScanError, one_line
from ..core.processes import end_tree
from ..imaging.nrrd import write_nrrd
from ..imaging.volume import Volume
from ..outputs.report import read_report
from ..registration.result import Alignment

#: The folder that this package lies in: what ``PYTHONPATH`` of the process must hold.
HOME = Path(__file__).resolve().parents[2]

_PROGRESS = re.compile(r"^\s*(\d{1,3})% (.+)$")
_ERROR = re.compile(r"^dnet-registration: error: (.+)$")
_TORCH_DOES_NOT_LOAD = re.compile(r"torch is not installed|torch[/\\]__init__\.py|^\s*import torch$", re.MULTILINE)
_TORCH_REMEDY = (
    "in the module PyTorch Utils click Uninstall PyTorch, restart Slicer, then click Align again to install it anew"
)
# The command line's remedies in the application's words.
_REMEDIES = (
    (
        r"give the true (one|voxel size in mm) with .*",
        "correct it in the module Volumes, under Volume Information, Image Spacing (mm)",
    ),
    (r"(;|,) give it its true spacing", r"\1 correct its Image Spacing (mm) in the module Volumes"),
    (r"use hypotheses=.*", 'choose "network, then search" under Advanced, Hypotheses'),
)
_PREFIX = "dnet-registration-job-"  # of the folder of a job
_LINES_KEPT, _LINES_SHOWN = 400, 15
_ROOM = 64 << 20  # bytes beside the scans and the outputs that are as large as one


class How(enum.Enum):
    """How a job ended."""

    ACCEPTED = "accepted"
    NOT_ACCEPTED = "not accepted"
    BAD_INPUT = "bad input"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Options:
    """How to align, and what to make of it. Names and meanings are those of `alignment.align` and `write_outputs`."""

    fixed_threshold: float | None = None
    moving_threshold: float | None = None
    working_spacing: float | None = None
    device: str = "auto"
    weights: str | None = None
    hypotheses: str = "auto"
    refine: str = "native"
    contrast: str = "moving"
    resampled: bool = False
    subtraction: bool = False


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        how: in which way.
        alignment: what the report says, where there is one.
        message: for a person: the verdict, or what went wrong and what to do, in one line.
        log: the last lines that the process wrote.
        folder: where its files lie, until the callback returns: `Job.SEGMENTATION` and what was asked for.
    """

    how: How
    alignment: Alignment | None
    message: str
    log: str
    folder: Path


class Process(Protocol):
    """A process that a launcher has started."""

    pid: int

    def kill(self) -> None:
        """Ends it, if it still runs, and waits until it is gone, one second at most."""


#: Starts a program with arguments, with additions to the environment (put in front of a path that is already there);
#: calls back with each piece of its output, and with its exit status (None where it could not be started).
Launch = Callable[[list[str], dict[str, str], Callable[[bytes], None], Callable[["int | None"], None]], Process]


class Job:
    """One alignment in the background.

    Args:
        fixed, moving: the scans in world coordinates; their voxels are not held after `start`.
        options: how to align.
        python: the interpreter to run, in Slicer ``PythonSlicer``.
        launch: see `Launch`.
        progress: called with a fraction, 0 to 1, and a message.
        finished: called once with an `Ended`, unless `start` raised. The folder is removed when it returns.
        temporary: where the private folder is made; None is the system's place.
    """

    SEGMENTATION, RESAMPLED, SUBTRACTION = "cortices.seg.nrrd", "resampled.nrrd", "subtraction.nrrd"
    _REPORT, _TRANSFORM = "report.json", "transform.tfm"

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        options: Options,
        *,
        python: str,
        launch: Launch,
        progress: Callable[[float, str], None],
        finished: Callable[[Ended], None],
        temporary: str | os.PathLike | None = None,
    ) -> None:
        self._scans: dict[str, Volume] = {"fixed": fixed, "moving": moving}
        self._names = {role: scan.name for role, scan in self._scans.items()}
        self._spacings = {role: scan.spacing for role, scan in self._scans.items()}
        self._options, self._python, self._launch = options, python, launch
        self._progress, self._finished, self._temporary = progress, finished, temporary
        self._process: Process | None = None
        self._rest, self._log = b"", deque(maxlen=_LINES_KEPT)
        self.over = False  # whether its end has been told
        self.folder: Path | None = None

    def start(self) -> None:
        """Writes the scans and starts the process.

        Raises:
            ScanError: the scans cannot be written, for want of room or otherwise; nothing is left behind.
        """
        if self._temporary is not None:
            _remove_abandoned(self._temporary)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._temporary))
            self._write_scans()
        except OSError as error:
            self._clean()
            where = self._temporary or tempfile.gettempdir()
            raise ScanError(
                f"{where}: the scans cannot be written there for the alignment ({one_line(error)}); make room, or "
                "choose another temporary folder (Edit, Application Settings, Modules)"
            ) from error
        except BaseException:
            self._clean()
            raise
        environment = {"PYTHONPATH": str(HOME), "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}
        self._process = self._launch(self.command(), environment, self._output, self._end)

    def command(self) -> list[str]:
        """The command line of the process."""
        options, file = self._options, lambda name: str(self.folder / name)
        words = [self._python, "-m", "DNetRegistrationLib", "align", file("fixed.nrrd"), file("moving.nrrd")]
        words += ["--verbose", "--debug", "--report", file(self._REPORT), "--transform", file(self._TRANSFORM)]
        words += ["--segmentation", file(self.SEGMENTATION), "--contrast", options.contrast]
        if options.resampled:
            words += ["--resampled", file(self.RESAMPLED)]
        if options.subtraction:
            words += ["--subtraction", file(self.SUBTRACTION)]
        for role, spacing in self._spacings.items():
            # Said although the file has it: whoever starts this has been asked about spacings that look lost.
            words.append(f"--{role}-spacing=" + ",".join(repr(float(s)) for s in spacing))
        for name in ("fixed_threshold", "moving_threshold", "working_spacing", "weights"):
            value = getattr(options, name)
            if value is not None:
                words.append(f"--{name.replace('_', '-')}={value}")
        return [*words, f"--device={options.device}", "--hypotheses", options.hypotheses, "--refine", options.refine]

    def cancel(self) -> None:
        """Ends the process with all of its children and removes its files; the job ends as cancelled."""
        if not self.over:
            self.over = True  # first: the end of the process may be told while it is being ended
            self._kill()
            self._finish(How.CANCELLED, None, "Cancelled: nothing was changed.")

    def _write_scans(self) -> None:
        sizes = [scan.voxels.nbytes for scan in self._scans.values()]
        voxels = self._scans["fixed"].voxels
        extra = 4 * voxels.size * (2 * self._options.resampled + self._options.subtraction) + voxels.size // 4
        needed, free = sum(sizes) + extra + _ROOM, shutil.disk_usage(self.folder).free
        if free < needed:
            raise OSError(f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
        for role, scan in self._scans.items():
            write_nrrd(self.folder / f"{role}.nrrd", scan.voxels, scan.voxels.shape, scan.voxels.dtype, scan.affine)
        self._scans.clear()

    def _output(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace").rstrip())

    def _line(self, line: str) -> None:
        if self.over or not line:
            return
        self._log.append(line)
        if match := _PROGRESS.match(line):
            self._progress(int(match[1]) / 100, match[2])

    def _end(self, status: int | None) -> None:
        if self.over:
            return
        self._output(b"\n")
        if status is None:
            self._finish(How.CRASHED, None, f"{self._python}: cannot be started; install the application again")
            return
        errors = [match[1] for line in self._log if (match := _ERROR.match(line))]
        alignment = self._read_report() if status in (0, 1) else None
        if alignment is not None:
            self._finish(How.ACCEPTED if status == 0 else How.NOT_ACCEPTED, alignment, alignment.verdict)
        elif errors and _TORCH_DOES_NOT_LOAD.search("\n".join(self._log)):
            cause = re.sub("; add --debug.*|; install it.*", "", errors[-1])
            self._finish(How.CRASHED, None, f"PyTorch does not load ({cause}); {_TORCH_REMEDY}")
        elif status == 2 and errors and not errors[-1].startswith("unexpected "):
            self._finish(How.BAD_INPUT, None, self._in_users_words(errors[-1]))
        else:
            cause = errors[-1] if errors else f"exit status {status}{_reason(status)}"
            cause = re.sub("; add --debug.*", "", cause)
            cause = self._in_users_words(cause)
            self._finish(
                How.CRASHED,
                None,
                f"The alignment ended unexpectedly ({cause}); try again, and if it happens again report it with the "
                "lines below",
            )

    def _read_report(self) -> Alignment | None:
        try:
            return read_report(self.folder / self._REPORT)
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def _in_users_words(self, text: str) -> str:
        for role, name in self._names.items():
            text = text.replace(str(self.folder / f"{role}.nrrd"), name)
        for pattern, words in _REMEDIES:
            text = re.sub(pattern, words, text)
        return text

    def _finish(self, how: How, alignment: Alignment | None, message: str) -> None:
        self.over = True
        log = "\n".join(list(self._log)[-_LINES_SHOWN:])
        if how is How.CANCELLED:
            self._clean()
        try:
            self._finished(Ended(how, alignment, message, log, self.folder))
        finally:
            self._clean()

    def _kill(self) -> None:
        if self._process is not None:
            end_tree(self._process.pid)
            self._process.kill()

    def _clean(self) -> None:
        # Windows frees the files of a process some moments after its end.
        for _ in range(10):
            if self.folder is None or not self.folder.exists():
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                time.sleep(0.05)


def _remove_abandoned(temporary) -> None:
    """Removes the scans that an application which crashed a day ago or earlier has left."""
    for folder in Path(temporary).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > 86400:
                shutil.rmtree(folder, ignore_errors=True)


def _reason(status: int) -> str:
    # A process that a signal ended has its negative number, or 128 more than it where a launcher stands between.
    return ": it was killed, perhaps for want of memory" if status in (-9, 9, 137) else ""
