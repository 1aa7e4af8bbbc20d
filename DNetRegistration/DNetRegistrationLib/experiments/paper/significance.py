"""Whether methods differ by more than chance, as Sec. 3 of the paper asks it: two-way analyses of variance (method, and
angle or translation) in the synthetic tests, one-way ones in the real test."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from ..statistics import Effect, TooFewValues, one_way_anova, two_way_anova
from .plan import GROUPS, METHODS, UNMOVED
from .results import CRITERIA, Criterion, Results

#: What is compared: the paper's claims, and this project's own.
_CLAIMS = (
    ("dnet", ("sitk", "me", "se", "sed", "snl-sed")),
    ("sed", ("sitk", "me", "se")),
    ("equivariant", ("sitk", "me", "se", "sed", "snl-sed", "dnet")),
    ("full", ("sitk", "me", "se", "sed", "snl-sed", "dnet", "equivariant", "search")),
)
#: What the paper calls significant.
LEVEL = 1e-4


@dataclass(frozen=True)
class VarianceAnalysis:
    """One analysis of variance.

    Attributes:
        test, criterion: of what.
        strategies: "S1&S2" or "S3&S4".
        methods: names, two or all.
        effects: see `evaluation_statistics`; the first is that of the method.
        means: of the two methods, in the criterion's unit; empty where all are compared.
    """

    test: str
    criterion: Criterion
    strategies: str
    methods: tuple[str, ...]
    effects: tuple[Effect, ...]
    means: tuple[float, ...] = ()

    @property
    def p(self) -> float:
        """That of the method."""
        return self.effects[0].p

    @property
    def first_is_better(self) -> bool:
        """By the means."""
        return (self.means[0] < self.means[1]) == self.criterion.smaller_is_better


def claims() -> list[tuple[str, str]]:
    """The pairs of methods that are compared."""
    return [(first, second) for first, others in _CLAIMS for second in others]


def comparisons(results: Results) -> Iterator[VarianceAnalysis]:
    """All analyses that the results allow.

    Raises:
        ScanError: statsmodels is missing.
    """
    there = [method for method in results.methods() if method != UNMOVED]
    pairs = [pair for pair in claims() if set(pair) <= set(there)]
    for group, strategies in GROUPS.items():
        if not set(strategies) & set(results.strategies()):
            continue
        for test in results.tests():
            for criterion in CRITERIA[test]:
                for methods in (tuple(there), *pairs):
                    try:
                        yield _compare(results, test, criterion, group, methods)
                    except TooFewValues:
                        continue


def _compare(
    results: Results, test: str, criterion: Criterion, group: str, methods: tuple[str, ...]
) -> VarianceAnalysis:
    values, names, positions, means = [], [], [], []
    for method in methods:
        found = [(criterion.of(result), result.position) for result in results.of(test, method, GROUPS[group])]
        found = [(value, position) for value, position in found if value == value]
        if not found:
            raise TooFewValues(f"{METHODS[method].label} has no values")
        values += [value for value, _ in found]
        positions += [round(position, 6) for _, position in found]
        names += [method] * len(found)
        means.append(statistics.fmean(value for value, _ in found))
    if test == "real":
        effects = one_way_anova(values, names, "method")
    else:
        effects = two_way_anova(values, names, positions, ("method", "angle" if test == "rotation" else "translation"))
    return VarianceAnalysis(test, criterion, group, methods, tuple(effects), tuple(means) if len(methods) == 2 else ())
