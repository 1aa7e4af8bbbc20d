"""How the pairs of a cohort are aligned, and what is written of each."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bone.scan_file import ABOUT_SCAN
from ..core.errors import OptionError, Setting
from ..core.pictures import has_matplotlib
from ..core.threads import checked_threads
from ..core.words import choice
from ..outputs.paths import ENDINGS, OutputPaths
from .pairs import ROLES

#: What is no argument of `align_files`.
_NOT_OF_A_PAIR = ("outputs", "scans", "loops")
_MASKS = tuple(f"{role}_mask" for role in ROLES)


def usual_outputs() -> dict[str, str]:
    """What is written of each pair if nothing is said: transform, report, and the pictures that can be drawn here."""
    names = ["transform", "report"]
    if has_matplotlib():
        names.append("overlay")
        if find_spec("PIL") is not None:
            names += ["before", "after"]
    return {name: ENDINGS[name][0] for name in names}


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """What holds for all pairs of a cohort.

    Attributes:
        outputs: the ending of each file to write, by the name of the output; see `OutputPaths`.
        scans: what holds for the scans whose list says nothing else, by names as ``fixed_spacing`` and
            ``moving_threshold``; see `ScanFile`.
        contrast: which scan has the contrast agent, "fixed" or "moving".
        anyway: measure cartilage although an alignment was not accepted, and mark it.
        check: turn each moving scan, align again and compare; see `registration.check`.
        weights, bone, spacing, device, hypotheses, refine: as `align` takes them. Of bones that moved on their own only
            the largest can be aligned.
        loops: also align what closes loops where there are three scans or more of one bone; see
            `closing.closing_pairs`.
        threads: of each pair. Many pairs at once, of one thread each, are done soonest.

    Raises:
        OptionError: an output, an ending or a name is unknown.
    """

    outputs: dict[str, str] = field(default_factory=usual_outputs)
    scans: dict[str, Any] = field(default_factory=dict)
    contrast: str = "moving"
    anyway: bool = False
    check: bool = False
    weights: str | None = None
    bone: str | None = None
    spacing: float | None = None
    device: str = "auto"
    hypotheses: str = "auto"
    refine: str = "native"
    loops: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        for name, ending in self.outputs.items():
            if name not in ENDINGS or ending not in ENDINGS[name]:
                problem = f"{name} cannot be written as {ending!r}"
                raise OptionError(problem, f"use {choice(ENDINGS.get(name, ENDINGS))}", Setting(name))
        known = {f"{role}_{name}" for role in ROLES for name in ABOUT_SCAN}
        for name in self.scans:
            if name not in known:
                raise OptionError(f"{name!r} says nothing of a scan", f"use {', '.join(sorted(known))}")
        checked_threads(self.threads)
        if self.bone not in (None, "largest"):
            raise OptionError(f"bone {self.bone!r} is unknown in a cohort", "align the largest", Setting("bone"))

    def absolute(self) -> CohortOptions:
        """The same with absolute paths of files, which do not depend on where a process was started."""
        masks = {
            name: os.path.abspath(path) for name, path in self.scans.items() if name in _MASKS and path is not None
        }
        weights = self.weights_file()
        return replace(
            self, scans=self.scans | masks, weights=self.weights if weights is None else os.path.abspath(weights)
        )

    def paths(self, folder: Path) -> OutputPaths:
        """Where the outputs of a pair go, in its folder."""
        return OutputPaths(**{name: folder / f"{name}{ending}" for name, ending in self.outputs.items()})

    def of_alignment(self) -> dict[str, Any]:
        """What `align_files` takes beside the pair."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in _NOT_OF_A_PAIR}

    def for_pair(self, closing: bool) -> CohortOptions:
        """Those for a pair; of one that closes loops nothing is written but its transform."""
        if not closing:
            return self
        transform = self.outputs.get("transform", ENDINGS["transform"][0])
        return replace(self, outputs={"transform": transform}, anyway=False, check=False)

    def told(self) -> dict[str, Any]:
        """Those that are not the default, for the record."""
        usual = CohortOptions(outputs=self.outputs)
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        changed = {name: value for name, value in values.items() if value != getattr(usual, name)}
        return {"outputs": sorted(self.outputs), **changed}

    def weights_file(self) -> str | None:
        """The file of the weights, where they are not some that ship."""
        return self.weights if self.weights is not None and Path(self.weights).is_file() else None


def folder_name(name: str, taken: bool = False) -> str:
    """The name of a pair's folder: the pair's own where all file systems take it, else one that is like it.

    Args:
        name: of the pair.
        taken: another pair has the folder of this name, perhaps in other cases of letters.

    Example:
        >>> folder_name("Mouse 07"), folder_name("a/b")
        ('Mouse 07', 'a_b-c14cddc0')
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in name)[:80].rstrip(".")
    reserved = name.split(".")[0].rstrip(" ").lower() in _RESERVED
    odd = reserved or plain != name.replace(" ", "_") or name != name.strip(" ") or name[:1] in ("", ".")
    if not (odd or taken):
        return name
    plain = f"_{plain}" if reserved else plain.lstrip(".") or "pair"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


#: Names of devices on Windows, which no file may have, whatever it ends in.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
