"""Whether methods differ by more than chance, by analyses of variance as in Sec. 3 of the paper.

They are two-way (method, and angle or translation) in the synthetic tests, one-way in the real test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas

from ..statistics import Effect, TooFewValues, one_way_anova, two_way_anova
from .plan import GROUPS, METHODS, UNMOVED
from .results import CRITERIA, Criterion, EvaluationResults

# The pairs of methods that the paper compares, and those of this project.
_COMPARED = {
    "dnet": ("sitk", "me", "se", "sed", "snl-sed"),
    "sed": ("sitk", "me", "se"),
    "equivariant": ("sitk", "me", "se", "sed", "snl-sed", "dnet"),
    "full": ("sitk", "me", "se", "sed", "snl-sed", "dnet", "equivariant", "search"),
}
#: The paper's level of significance.
LEVEL = 1e-4


@dataclass(frozen=True)
class VarianceAnalysis:
    """One analysis of variance.

    Attributes:
        test, criterion: what was analysed.
        strategies: "S1&S2" or "S3&S4".
        methods: names of two methods, or of all.
        effects: that of the method first.
        means: of two methods, in the criterion's unit; empty where all are compared.
    """

    test: str
    criterion: Criterion
    strategies: str
    methods: tuple[str, ...]
    effects: tuple[Effect, ...]
    means: tuple[float, ...] = ()

    @property
    def p(self) -> float:
        """p of the method."""
        return self.effects[0].p

    @property
    def first_is_better(self) -> bool:
        """Whether the first of two methods has the better mean."""
        return (self.means[0] < self.means[1]) == self.criterion.smaller_is_better


def analyses(results: EvaluationResults) -> Iterator[VarianceAnalysis]:
    """All analyses that the results allow.

    Raises:
        PackageError: statsmodels is missing.
    """
    there = tuple(method for method in results.methods if method != UNMOVED)
    pairs = [(first, second) for first, others in _COMPARED.items() for second in others]
    compared = [methods for methods in (there, *pairs) if methods and set(methods) <= set(there)]
    for group, strategies in GROUPS.items():
        if set(strategies) & set(results.strategies):
            for test in results.tests:
                for criterion in CRITERIA[test]:
                    for methods in compared:
                        try:
                            yield _analysis(results, test, criterion, group, methods)
                        except TooFewValues:
                            continue


def _analysis(
    results: EvaluationResults, test: str, criterion: Criterion, group: str, methods: tuple[str, ...]
) -> VarianceAnalysis:
    found = [results.of(test, method, GROUPS[group]).dropna(subset=criterion.name) for method in methods]
    for method, of in zip(methods, found, strict=True):
        if not len(of):
            raise TooFewValues(f"{METHODS[method].label} has no values")
    every = pandas.concat(found)
    values, names = every[criterion.name].tolist(), every.method.tolist()
    if test == "real":
        effects = one_way_anova(values, names, "method")
    else:
        factors = ("method", "angle" if test == "rotation" else "translation")
        effects = two_way_anova(values, names, every.position.round(6).tolist(), factors)
    means = tuple(float(of[criterion.name].mean()) for of in found) if len(methods) == 2 else ()
    return VarianceAnalysis(test, criterion, group, methods, tuple(effects), means)
