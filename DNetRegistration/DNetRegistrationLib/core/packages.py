"""Packages that are imported only where they are needed, and may be missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import PackageError
from .pip import pip_install


def needed(module: str, what: str, package: str | None = None, remedy: str | None = None) -> Any:
    """Imports a module.

    Args:
        module: its name.
        what: what needs it, for a person.
        package: what pip calls it, where that is another name.
        remedy: what to do, where that is more than to install the package by itself.

    Raises:
        PackageError: it is not installed, or does not load.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module
        command = pip_install(f'"{name}"')
        raise PackageError(f"{what} needs {name}", remedy or f"install it: {command}") from error
