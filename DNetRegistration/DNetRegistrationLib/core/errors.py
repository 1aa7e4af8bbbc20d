"""Errors that end in one line for a person, and what one line of an error is."""

from __future__ import annotations

import re

NAME = "dnet-registration"


class ScanError(ValueError):
    """Something is wrong with a scan or a file; the message names it, the cause and the remedy, in one line."""


class UsageError(ScanError):
    """The command line is wrong."""


def condensed(error: BaseException) -> str:
    """The gist of an error in at most one line: of ITK's many lines the one that says why, without source locations."""
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
