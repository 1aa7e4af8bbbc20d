"""Pictures, which need matplotlib. It is imported when one is drawn, never through pyplot: a caller's state is left."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from .errors import PackageError
from .packages import needed
from .pip import pip_install

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def how_to_install() -> str:
    """The command that installs what draws pictures."""
    return pip_install("matplotlib pillow", extra="pictures")


def require_matplotlib(what: str) -> None:
    """Checks, before long work, that pictures can be drawn.

    Raises:
        PackageError: `what` needs matplotlib, which is missing or does not load.
    """
    if not has_matplotlib():
        raise PackageError(f"{what} needs matplotlib", f"install it: {how_to_install()}")
    _figure_class(what)


def require_pillow(what: str) -> None:
    """Checks that small pictures can be drawn, and those of others read.

    Raises:
        PackageError: `what` needs Pillow, which is missing or does not load.
    """
    needed("PIL.Image", what, "pillow", f"install it: {how_to_install()}")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty white figure of so many inches, which `savefig` writes as .png, .pdf or .svg.

    Raises:
        PackageError: matplotlib is missing.
    """
    return _figure_class("a picture")(figsize=(width, height), dpi=150, layout=layout, facecolor="white")


def _figure_class(what: str) -> type[Figure]:
    try:
        try:
            from matplotlib.figure import Figure
        except ValueError:
            # A notebook hands its backend on to the processes that it starts, where it need not be installed.
            backend = os.environ.pop("MPLBACKEND", None)
            # What was imported before matplotlib failed would not be bound to it again.
            for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
                del sys.modules[name]
            try:
                from matplotlib.figure import Figure
            finally:
                if backend is not None:
                    os.environ["MPLBACKEND"] = backend
    except ImportError as error:
        raise PackageError(f"{what} needs matplotlib", f"install it: {how_to_install()}") from error
    return Figure
