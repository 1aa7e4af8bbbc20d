"""Errors for a person: what is wrong and what to do about it, as data that each room can put into its own words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .pip import pip_install


@dataclass(frozen=True)
class Setting:
    """Something that a user can set. The command line calls it by its option, the panel by its control.

    Attributes:
        quantity: by its name in Python, such as "spacing", "threshold", "hypotheses" or "learning_rate".
        scan: "fixed" or "moving" where each scan has its own, else None.
        value: what to set it to, where that is known.
    """

    quantity: str
    scan: str | None = None
    value: str | None = None


class DNetError(Exception):
    """Something is wrong that a person can mend. Its text is one line: the problem, a semicolon, the remedy.

    Args:
        problem: what is wrong. It names the file, the scan or the quantity.
        remedy: what to do, in words that hold in Python, on the command line and in the panel.
        setting: what to set to do so, where it can be set.

    Example:
        >>> error = ScanError("a.tif: has no voxel size", "give it in mm", Setting("spacing", "fixed"))
        >>> str(error)
        'a.tif: has no voxel size; give it in mm'
        >>> error.setting.quantity, error.setting.scan
        ('spacing', 'fixed')
    """

    def __init__(self, problem: str, remedy: str | None = None, setting: Setting | None = None) -> None:
        super().__init__(problem, remedy, setting)  # as `args`, so that the error can be sent between processes
        self.problem, self.remedy, self.setting = problem, remedy, setting

    def __str__(self) -> str:
        text = self.problem if self.remedy is None else f"{self.problem}; {self.remedy}"
        return " ".join(text.splitlines())  # the name of a file may hold a line break


class ScanError(DNetError, ValueError):
    """Something is wrong with a scan."""


class OptionError(DNetError, ValueError):
    """An argument or an option has a value that cannot be used."""


class FileError(DNetError, ValueError):
    """A file or a folder other than a scan cannot be read, written or used."""


class PackageError(DNetError, ImportError):
    """A package is missing, or does not load."""


class RunError(DNetError, RuntimeError):
    """The work itself failed: a device, a process, memory, a training that diverges."""


def known_error(error: BaseException) -> DNetError | None:
    """The error that another exception stands for: memory, a missing package, a file. None where it is none of these.

    Example:
        >>> str(known_error(ModuleNotFoundError("No module named 'torch'", name="torch")))
        'torch is not installed; install it: pip install torch'
    """
    package = (getattr(error, "name", None) or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and package in ("torch", "scipy", "SimpleITK"):
        return PackageError(f"{package} is not installed", f"install it: {pip_install(package)}")
    # torch says so in a RuntimeError; a library that finds no room while it loads, in an ImportError.
    told = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in told or told.endswith("segment from shared object"):
        return RunError("not enough memory", "close other programs, or crop the scans to the bone")
    if isinstance(error, OSError) and error.filename is not None:
        return FileError(f"{error.filename}: cannot be used ({one_line(error)})", "check the path and its permissions")
    return None


def one_line(error: BaseException) -> str:
    """Shortens an exception to one line: of a multi-line ITK error, the line with the cause."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line is SimpleITK's own place in its source, not a reason.
    if len(lines) > 1 and lines[0].startswith("Exception thrown"):
        lines = lines[1:]
    # Teem (NRRD) goes from the general to the particular, MetaImage gives a reason: there the last line tells.
    told_last = bool(lines) and lines[-1].startswith(("[nrrd]", "Reason:"))
    line = lines[-1 if told_last else 0] if lines else type(error).__name__
    # "ITK ERROR: NrrdImageIO(0x5f3a): Read: ..." is "Read: ..." to a reader.
    line = re.sub(r"^((ITK ERROR|itk::ERROR|sitk::ERROR|Reason|\[nrrd\]): ?|\w+\(0x[0-9a-f]+\): |\[nrrd\] )*", "", line)
    return line if len(line) <= 160 else line[:157] + "..."
