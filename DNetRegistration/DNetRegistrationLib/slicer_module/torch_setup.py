"""Installs PyTorch before it is needed, through Slicer's PyTorch extension.

Nothing here imports torch or Slicer: the installed version is looked up, and the extension is an argument.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import os
import re
import sysconfig
from collections.abc import Callable

from ..core.errors import PackageError, one_line

REQUIRED = (2, 3)
REQUIREMENT = ">=" + ".".join(str(part) for part in REQUIRED)

# Windows' own limit on a path. Slicer's Python does not lift it, whatever the system's setting for long paths.
_WINDOWS_PATH = 259
# The longest path in torch's wheels for Windows (2.12.1, 2.13.0, 2.14.0 and 2.14.1, of Python 3.12: 119, 167, 121 and
# 121 characters; 2.13 brings licences deep in folders), and 6 for what a version may end in, such as +cu126.
_LONGEST, _LONGEST_BUT_2_13 = 173, 127

_ANEW = "in the module PyTorch Utils click Uninstall PyTorch, restart Slicer, and click Align again"
_OFFLINE = re.compile(
    r"connection|network|timed? ?out|resolve|unreachable|proxy|ssl|urlopen|no matching distribution", re.IGNORECASE
)


def installed_version() -> str | None:
    """The version of the installed torch; "" where it is installed only in part; None where it is not installed.

    Nothing is imported: an installation could not replace files that are in use.
    """
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("torch")
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if spec is None and version is None:
        return None
    # An interrupted installation leaves a folder without __init__.py, whose spec has no file.
    return version if version and spec is not None and spec.origin is not None else ""


def requirement(folder: str, windows: bool) -> str:
    """The versions of torch to ask for, as pip is told them.

    Args:
        folder: that packages are installed to.
        windows: whether paths are limited as on Windows.

    Raises:
        PackageError: no version is known whose paths are short enough.

    Example:
        >>> requirement("C:/Slicer/lib/Python/Lib/site-packages", windows=True)
        '>=2.3'
    """
    room = _WINDOWS_PATH - len(folder) - 1 if windows else math.inf
    if room >= _LONGEST:
        return REQUIREMENT
    if room >= _LONGEST_BUT_2_13:
        return f"{REQUIREMENT},!=2.13.*,<2.15"  # of later ones the paths are not known
    raise PackageError(
        f"PyTorch cannot be installed in {folder}: its files would have longer paths than Windows takes",
        r"install Slicer in a folder with a short name, such as C:\Slicer, and click Align again",
    )


def ensure_torch(installer: Callable[[], object]) -> None:
    """Asks the PyTorch extension to install torch where it is not installed.

    Args:
        installer: makes a ``PyTorchUtils.PyTorchUtilsLogic``; raises ImportError where the extension is missing.

    Raises:
        PackageError: the extension is missing, paths would be too long, the user refused, torch could not be
            downloaded, is installed only in part, is too old, or needs a restart.
    """
    found = installed_version()
    if found is not None:
        _check(found)
        return
    try:
        logic = installer()
    except ImportError as error:
        raise PackageError(
            "PyTorch is needed, and the extension that installs it is missing",
            "install the extension PyTorch with the Extension Manager (View, Extensions Manager), restart Slicer, and "
            "click Align again",
        ) from error
    wanted = _requirement_here()
    try:
        torch = logic.installTorch(askConfirmation=True, torchVersionRequirement=wanted)
    except Exception as error:  # pip, light-the-torch and torch itself raise many kinds
        if installed_version():
            raise PackageError(
                f"PyTorch was installed but does not load yet ({one_line(error)})",
                f"restart Slicer and click Align again; if it says so again, {_ANEW}",
            ) from error
        why = "there seems to be no connection" if _OFFLINE.search(str(error)) else one_line(error)
        raise PackageError(
            f"PyTorch could not be downloaded and installed ({why})",
            "check the connection to the internet and the free disk space and click Align again; without a connection, "
            "install it by hand: PythonSlicer -m pip install FILE, with a torch wheel FILE copied here. What pip said "
            "is in the Python console",
        ) from error
    if torch is None:
        raise PackageError("PyTorch is needed to align and was not installed", "click Align again and confirm")
    found = installed_version()
    if found is None:
        raise PackageError("PyTorch was installed", "restart Slicer, and click Align again")
    _check(found)


def require_torch() -> None:
    """Checks that torch is installed, without asking the user.

    Raises:
        PackageError: torch is not installed, installed only in part, or too old.
    """
    found = installed_version()
    if found is None:
        raise PackageError(
            "PyTorch is not installed",
            "click Align once in the module D-net Registration, which installs it, or run "
            f'PythonSlicer -m pip install "torch{_requirement_here()}"',
        )
    _check(found)


def _requirement_here() -> str:
    return requirement(sysconfig.get_paths()["purelib"], os.name == "nt")


def _check(version: str) -> None:
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not numbers:
        raise PackageError("PyTorch is installed only in part", _ANEW)
    if numbers < REQUIRED:
        raise PackageError(f"PyTorch {version} is installed, {REQUIREMENT[2:]} or later is needed", _ANEW)
