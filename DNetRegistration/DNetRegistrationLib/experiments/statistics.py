"""Statistics of results: summaries with a success rate and its interval, and analyses of variance.

What tables need uses NumPy and SciPy; the analyses of variance are statsmodels', which is imported when they are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy.stats import binomtest

from ..core.errors import ScanError


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927)."""
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Summary:
    """Of some values, NaN left out; `sd` is that of a sample (n - 1), NaN of less than two."""

    count: int
    mean: float
    median: float
    sd: float


def summarize(values: Iterable[float]) -> Summary:
    """Mean, median and standard deviation; NaN where there are no values."""
    values = np.array([value for value in values if not math.isnan(value)], float)
    if not len(values):
        return Summary(0, math.nan, math.nan, math.nan)
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summary(len(values), float(values.mean()), float(np.median(values)), sd)


@dataclass(frozen=True)
class Rate:
    """A share of successes with its 95 % interval (Wilson 1927); all NaN where there was nothing to try."""

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else math.nan

    def __str__(self) -> str:
        if not self.total:
            return "-"
        return f"{100 * self.share:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def rate(outcomes: Iterable[bool]) -> Rate:
    """The share of true ones."""
    outcomes = [bool(outcome) for outcome in outcomes]
    low, high = wilson(sum(outcomes), len(outcomes)) if outcomes else (math.nan, math.nan)
    return Rate(sum(outcomes), len(outcomes), low, high)


@dataclass(frozen=True)
class Effect:
    """One line of an analysis of variance: what explains how much of the scatter.

    Attributes:
        source: the name of the factor, "interaction" or "residual".
        squares: its sum of squares (type II).
        freedom: its degrees of freedom.
        f, p: NaN for the residual.
    """

    source: str
    squares: float
    freedom: float
    f: float
    p: float


class TooFewValues(ValueError):
    """An analysis of variance has nothing to tell: fewer than two groups, or no scatter left within them."""


def has_anova() -> bool:
    """Whether statsmodels is installed."""
    return find_spec("statsmodels") is not None


def one_way_anova(values: Sequence[float], groups: Sequence[str], name: str = "group") -> list[Effect]:
    """Whether the means of groups differ: the effect of the group, and the residual.

    Args:
        values: ``(n,)``, one an observation.
        groups: ``(n,)``, which group each belongs to.
        name: what the factor is called.

    Raises:
        TooFewValues: see there.
        ScanError: statsmodels is missing.
    """
    return _anova("value ~ C(first)", {"value": values, "first": groups}, (name,))


def two_way_anova(
    values: Sequence[float], first: Sequence[str], second: Sequence[float], names: tuple[str, str] = ("first", "second")
) -> list[Effect]:
    """Whether means differ by two factors, both taken as categories: both effects, their interaction, the residual.

    Sums of squares are of type II, which for equally many observations in each cell, as in the tests of the paper, are
    those of types I and III too. With one observation in each cell the interaction cannot be told from the residual and
    is left out.

    Args:
        values: ``(n,)``, one an observation.
        first, second: ``(n,)``, the levels of the two factors.
        names: what the factors are called.

    Raises:
        TooFewValues: see there.
        ScanError: statsmodels is missing.
    """
    cells = set(zip(first, second, strict=True))
    if len(set(first)) < 2 or len(set(second)) < 2:
        raise TooFewValues(f"{names[0]} and {names[1]} must both have two levels or more")
    between = "*" if len(values) > len(cells) else "+"
    data = {"value": values, "first": first, "second": second}
    return _anova(f"value ~ C(first) {between} C(second)", data, names)


def _anova(formula: str, data: dict[str, Sequence], names: Sequence[str]) -> list[Effect]:
    values = np.asarray(data["value"], float)
    if len(set(data["first"])) < 2:
        raise TooFewValues(f"{names[0]} has only one level")
    if not np.isfinite(values).all():
        raise ValueError("values that are not finite have no variance; leave them out")
    try:
        import pandas
        from statsmodels.formula.api import ols
        from statsmodels.stats.anova import anova_lm
    except ImportError as error:
        remedy = 'install it: pip install "dnet-registration[evaluation]"'
        raise ScanError(f"an analysis of variance needs statsmodels; {remedy}") from error
    model = ols(formula, pandas.DataFrame(data)).fit()
    # Rounding alone is no scatter to compare with.
    if model.df_resid < 1 or model.ssr <= 1e-20 * max(float((values**2).sum()), 1e-300):
        raise TooFewValues("there is no scatter within groups")
    table = anova_lm(model, typ=2)
    called = dict(zip(("C(first)", "C(second)"), names, strict=False))
    called |= {"C(first):C(second)": "interaction", "Residual": "residual"}
    return [
        Effect(called[row], *(float(table.loc[row, column]) for column in ("sum_sq", "df", "F", "PR(>F)")))
        for row in table.index
    ]
