"""Pictures, which need matplotlib. It is imported when one is drawn, never through pyplot: a caller's state is left."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from .errors import PackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REMEDY = 'install it: pip install "dnet-registration[pictures]"'


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def require_matplotlib(what: str) -> None:
    """Checks, before long work, that pictures can be drawn.

    Raises:
        PackageError: `what` needs matplotlib, which is missing.
    """
    if not has_matplotlib():
        raise PackageError(f"{what} needs matplotlib", _REMEDY)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty white figure of so many inches, which `savefig` writes as .png, .pdf or .svg.

    Raises:
        PackageError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PackageError("a picture needs matplotlib", _REMEDY) from error
    return Figure(figsize=(width, height), dpi=150, layout=layout, facecolor="white")
