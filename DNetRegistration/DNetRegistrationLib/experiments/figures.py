"""Pictures of results. matplotlib is imported when one is drawn, never through pyplot: the caller's state is left."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..core.errors import PackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def has_matplotlib() -> bool:
    """Whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which `savefig` writes as .png, .pdf or .svg.

    Raises:
        PackageError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        remedy = 'install it: pip install "dnet-registration[pictures]"'
        raise PackageError("a picture needs matplotlib", remedy) from error
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def plain_numbers(axis) -> None:
    """Labels a logarithmic axis with plain numbers, at 1, 2 and 5 in each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
