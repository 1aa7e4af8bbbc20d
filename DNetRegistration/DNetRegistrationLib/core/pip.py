"""The command that installs packages into the Python that runs."""

from __future__ import annotations

import sys
from pathlib import Path


def pip_install(packages: str, extra: str | None = None) -> str:
    """The command that installs packages which are missing.

    Args:
        packages: what pip calls them.
        extra: of this program, which brings them where pip installed it. Into Slicer pip does not install it.

    Example:
        >>> pip_install("tifffile")
        'pip install tifffile'
    """
    # Slicer's Python is its folder lib/Python.
    if any(Path(sys.prefix, "..", "..", "bin").glob("PythonSlicer*")):
        return f"PythonSlicer -m pip install {packages}"
    return f"pip install {packages}" if extra is None else f'pip install "dnet-registration[{extra}]"'
