"""Findings with a limit: what was measured, and whether it is as required."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..statistics import rate
from ..tables import Finding

if TYPE_CHECKING:
    import pandas


def at_most(what: str, measured: str, value: float, most: float | None, unit: str = "") -> Finding:
    """A finding that holds up to a value; without one nothing is required."""
    if most is None:
        return Finding(what, measured)
    return Finding(what, measured, f"at most {most:g}{unit}", bool(value <= most))


def at_least(what: str, measured: str, value: float, least: float | None, unit: str = "") -> Finding:
    """A finding that holds from a value on; without one nothing is required."""
    if least is None:
        return Finding(what, measured)
    return Finding(what, measured, f"at least {least:g}{unit}", bool(value >= least))


def enough(what: str, number: int, least: int) -> Finding:
    """A count that holds from where what is required can be judged; below, nobody knows whether that holds."""
    return at_least(what, f"{number}", number, least)


def few(what: str, outcomes: Iterable[bool], most: float) -> Finding:
    """How often something happened, which must be at most this share."""
    found = rate(outcomes)
    return at_most(what, found.counted, 100 * found.share, 100 * most, " %")


def many(what: str, outcomes: Iterable[bool], least: float) -> Finding:
    """How often something happened, which must be at least this share."""
    found = rate(outcomes)
    return at_least(what, found.counted, 100 * found.share, 100 * least, " %")


def count(outcomes: pandas.Series) -> str:
    """How many of how many, as text."""
    return f"{int(outcomes.sum())} of {len(outcomes)}"
