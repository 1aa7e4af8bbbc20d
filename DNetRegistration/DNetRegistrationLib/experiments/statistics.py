"""Statistics of results: summaries, success rates with their intervals, and analyses of variance.

Summaries and rates use NumPy and SciPy. Analyses of variance use statsmodels, which is imported when one is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy.stats import binomtest

from ..core.errors import PackageError


@dataclass(frozen=True)
class Summary:
    """A summary of values, without those that are NaN. `sd` is the sample's (n - 1), NaN for fewer than two values."""

    count: int
    mean: float
    median: float
    sd: float


def summarize(values: Iterable[float]) -> Summary:
    """Mean, median and standard deviation; NaN where there are no values."""
    values = _known(values)
    if not len(values):
        return Summary(0, math.nan, math.nan, math.nan)
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summary(len(values), float(values.mean()), float(np.median(values)), sd)


def median(values: Iterable[float]) -> float:
    """The median, without values that are NaN; infinities count. NaN where there are no values."""
    values = _known(values)
    return float(np.median(values)) if len(values) else math.nan


def largest(values: Iterable[float]) -> float:
    """The largest value, without those that are NaN; NaN where there are no values."""
    return float(max(_known(values), default=math.nan))


def _known(values: Iterable[float]) -> np.ndarray:
    values = np.fromiter(values, float)
    return values[~np.isnan(values)]


@dataclass(frozen=True)
class Rate:
    """A share of successes with its 95 % interval (Wilson 1927); share and interval are NaN of a total of zero."""

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else math.nan

    def __str__(self) -> str:
        return self.text() if self.total else "-"

    def text(self, digits: int = 1) -> str:
        """The share and its interval in per cent, with so many digits after the point."""
        share, low, high = (f"{100 * value:.{digits}f}" for value in (self.share, self.low, self.high))
        return f"{share} % [{low}, {high}]"

    @property
    def counted(self) -> str:
        """Count, total, share and interval, such as "199 of 200, 99.50 % [97.22, 99.91]"."""
        return f"{self.count} of {self.total}, {self.text(2)}" if self.total else "-"


def rate(outcomes: Iterable[bool]) -> Rate:
    """The share of outcomes that are true, with Wilson's 95 % interval."""
    outcomes = [bool(outcome) for outcome in outcomes]
    count, total = sum(outcomes), len(outcomes)
    if not total:
        return Rate(0, 0, math.nan, math.nan)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Rate(count, total, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Effect:
    """One row of an analysis of variance: how much of the scatter a factor explains.

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
    """An analysis of variance is not possible: there are fewer than two groups, or no scatter within them."""


def has_anova() -> bool:
    """Whether statsmodels is installed."""
    return find_spec("statsmodels") is not None


def one_way_anova(values: Sequence[float], groups: Sequence[str], name: str = "group") -> list[Effect]:
    """Tests whether the means of groups differ. Returns the effect of the group, and the residual.

    Args:
        values: ``(n,)``, one for each observation.
        groups: ``(n,)``, the group of each observation.
        name: what the factor is called.

    Raises:
        TooFewValues: there is one group only, or no scatter within groups.
        PackageError: statsmodels is missing.
    """
    return _anova("value ~ C(first)", {"value": values, "first": groups}, (name,))


def two_way_anova(
    values: Sequence[float], first: Sequence[str], second: Sequence[float], names: tuple[str, str] = ("first", "second")
) -> list[Effect]:
    """Tests whether means differ by two factors, both taken as categories.

    Returns both effects, their interaction and the residual. Sums of squares are of type II. With equally many
    observations in each cell, as in the paper's tests, types I, II and III are the same. With one observation in each
    cell the interaction cannot be told from the residual and is left out.

    Args:
        values: ``(n,)``, one for each observation.
        first, second: ``(n,)``, the levels of the two factors.
        names: what the factors are called.

    Raises:
        TooFewValues: a factor has one level only, or there is no scatter left.
        PackageError: statsmodels is missing.
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
        raise PackageError("an analysis of variance needs statsmodels", remedy) from error
    model = ols(formula, pandas.DataFrame(data)).fit()
    # Rounding errors are no scatter to compare with.
    if model.df_resid < 1 or model.ssr <= 1e-20 * max(float((values**2).sum()), 1e-300):
        raise TooFewValues("there is no scatter within groups")
    table = anova_lm(model, typ=2)
    called = dict(zip(("C(first)", "C(second)"), names, strict=False))
    called |= {"C(first):C(second)": "interaction", "Residual": "residual"}
    return [
        Effect(called[row], *(float(table.loc[row, column]) for column in ("sum_sq", "df", "F", "PR(>F)")))
        for row in table.index
    ]
