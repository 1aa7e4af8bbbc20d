"""Reads the log that SkyScan's reconstruction (NRecon) leaves beside its slices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LARGEST_LOG = 1 << 20


@dataclass(frozen=True)
class SkyScanLog:
    """What the log of a reconstruction says.

    Attributes:
        prefix: what the names of its slices start with; the number of the section follows.
        first, last: numbers of the sections; None where the log does not say.
        step: from one section to the next.
        pixel_um: size of a voxel, 0 where the log does not say.
        size: ``(y, x)`` of a slice, 0 where the log does not say.
    """

    prefix: str
    first: int | None
    last: int | None
    step: int
    pixel_um: float
    size: tuple[int, int]

    def section(self, file: Path) -> int | None:
        """The number of the section that a file holds, or None where it is none of this reconstruction."""
        found = re.fullmatch(re.escape(self.prefix) + r"_*([0-9]+)", file.stem, re.IGNORECASE)
        if not found:
            return None
        number = int(found[1])
        outside = (self.first is not None and number < self.first) or (self.last is not None and number > self.last)
        return None if outside else number

    def keep(self, files: list[Path]) -> list[Path]:
        """The files of this reconstruction."""
        return [file for file in files if self.section(file) is not None]

    def pixel(self, shape: tuple[int, ...]) -> float:
        """The voxel size in mm, or 0 where the slices ``(z, y, x)`` are not those of the log: then they were scaled."""
        cropped = [told for told, has in zip(self.size, shape[1:], strict=True) if told and told != has]
        return 0.0 if cropped else self.pixel_um / 1000


def read_log(folder: Path, files: list[Path]) -> SkyScanLog | None:
    """The log in a folder that describes most of its slices, or None where there is none, or several do."""
    logs = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".log" and path.is_file() and path.stat().st_size <= _LARGEST_LOG:
            log = _parse(path)
            if log is not None and len(log.keep(files)) > 1:
                logs.append(log)
    return logs[0] if len(logs) == 1 else None


def _parse(path: Path) -> SkyScanLog | None:
    sections: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    for line in path.read_text("latin-1").splitlines():
        if found := re.fullmatch(r"\s*\[(.*)\]\s*", line):
            fields = sections.setdefault(found[1].strip().lower(), {})
        elif "=" in line:
            name, value = line.split("=", 1)
            fields[" ".join(name.lower().split())] = value.strip()
    made = sections.get("reconstruction")
    if made is None:
        return None
    named = sections.get("file name convention", {})

    def number(name: str) -> float | None:
        try:
            value = float(made.get(name, ""))
        except ValueError:
            return None
        return value if abs(value) < 1e9 else None

    prefix = named.get("filename prefix") or path.stem
    first, last = number("first section"), number("last section")
    width, height = number("result image width (pixels)"), number("result image height (pixels)")
    return SkyScanLog(
        prefix,
        None if first is None else int(first),
        None if last is None else int(last),
        int(number("section to section step") or 1),
        max(number("pixel size (um)") or 0.0, 0.0),
        (int(height or 0), int(width or 0)),
    )
