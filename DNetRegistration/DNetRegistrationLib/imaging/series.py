"""Which scan to take where a path holds several: series of DICOM, stacks of slices, channels and time points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ScanError, Setting


@dataclass(frozen=True)
class Series:
    """One of several scans at one path.

    Attributes:
        uid: a name that no other scan at the path has.
        description: what it is called there, for a person.
        size: its size, for a person.
        members: what it is made of.
    """

    uid: str
    description: str
    size: str
    members: Sequence[Any]


def choose(path: Path, listed: list[Series], wanted: str | int | None, role: str | None) -> Series:
    """Chooses one scan: the one that is wanted, or the only one.

    Args:
        path: the file or folder.
        listed: the scans at the path, in the order that their numbers count.
        wanted: the uid, the description or the number (from 1) of a scan; None where there is only one.
        role: "fixed" or "moving" where the scan is one of a pair.

    Raises:
        ScanError: none or several fit; it lists them all.
    """
    if wanted is None and len(listed) == 1:
        return listed[0]
    text = "" if wanted is None else str(wanted).strip()
    matches = [s for s in listed if text == s.uid] or [
        s for s in listed if text and text.lower() == s.description.strip().lower()
    ]
    if not matches and text.isdecimal() and 1 <= int(text) <= len(listed):
        matches = [listed[int(text) - 1]]
    if len(matches) == 1:
        return matches[0]
    table = ", ".join(
        f"{n} is {s.uid} ({s.description or 'no description'}, {s.size})" for n, s in enumerate(listed, 1)
    )
    where = "folder" if path.is_dir() else "file"
    many = "several scans" if matches else "no scan"
    problem = f"holds {len(listed)} scans" if wanted is None else f"holds {many} called {text!r}"
    raise ScanError(f"{path}: the {where} {problem}: {table}", "choose one by number or name", Setting("series", role))
