"""How much memory there is to use."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that may still be taken: of the machine, and of the limits of this process's cgroups.

    Infinity where the system does not tell.

    Args:
        proc, groups: where Linux tells of memory and of cgroups.
    """
    return max(0.0, min([_of_machine(proc), *_of_groups(proc, groups)]))


def _of_machine(proc: Path) -> float:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    if os.name == "nt":

        class Status(ctypes.Structure):
            _fields_ = (
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *((n, ctypes.c_ulonglong) for n in _SIZES),
            )

        status = Status(length=ctypes.sizeof(Status))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined]
            return float(status.free)
    try:  # macOS does not tell how much of it others have
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


#: Of MEMORYSTATUSEX in the Windows API.
_SIZES = ("whole", "free", "page_whole", "page_free", "virtual_whole", "virtual_free", "extended")


def _of_groups(proc: Path, groups: Path) -> Iterator[float]:
    """What is left to each cgroup of this process and to each group above it. What files take can be had back."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            top, limit, used, cache = groups, "memory.max", "memory.current", "file "
        elif "memory" in controllers.split(","):  # version 1
            top, cache = groups / "memory", "total_cache "
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            try:
                left = float((group / limit).read_text()) - float((group / used).read_text())
                statistics = (group / "memory.stat").read_text().splitlines()
                yield left + sum(float(one.split()[1]) for one in statistics if one.startswith(cache))
            except (OSError, ValueError, IndexError):  # no such file, or "max"
                pass
            if group == top:
                break
