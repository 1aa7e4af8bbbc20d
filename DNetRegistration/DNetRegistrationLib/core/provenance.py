"""Where results come from: the code that made them and the machine that it ran on."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
#: What files name the line by that says they are made of an alignment which is not accepted.
MARKED = "DNetRegistration"
#: How what they say begins.
NOT_ACCEPTED = "not accepted"


def code_hash(*rooms: str) -> str:
    """Hashes the content of code and fitted numbers (``.py``, ``.json``); names and places of files have no part in it.

    So a file that is renamed or moved leaves the hash as it was, and results stay valid.

    Args:
        rooms: folders or files of the package, such as "bone" or "experiments/metrics.py"; all of it where none is
            given.

    Returns:
        12 hexadecimal digits.

    Raises:
        ValueError: the package has no such folder or file.

    Example:
        >>> code_hash("bone", "geometry") == code_hash("geometry", "bone")
        True
    """
    files: set[Path] = set()
    for room in rooms or (".",):
        place = PACKAGE / room
        found = [place] if place.is_file() else [*place.rglob("*.py"), *place.rglob("*.json")]
        if not found:
            raise ValueError(f"{room}: the package has no such folder or file")
        files.update(found)
    contents = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:12]


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers depend on, where they are installed; loads none."""
    found = {"Python": platform.python_version()}
    for name in ("torch", "NumPy", "SciPy", "SimpleITK"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor, how many of it there are, the system and Python, in words, as far as the system tells."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"
