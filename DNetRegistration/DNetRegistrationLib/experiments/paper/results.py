"""Results of pairs, chosen by what tables and figures ask for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .measure import PairResult
from .plan import METHODS, STRATEGIES


@dataclass(frozen=True)
class Criterion:
    """What is measured, in the units of the paper's Table 1: `attribute` of a `PairResult`, times `factor`."""

    name: str
    unit: str
    attribute: str
    factor: float
    smaller_is_better: bool

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})"

    def of(self, result: PairResult) -> float:
        """The value; NaN where the truth is not known."""
        return self.factor * getattr(result, self.attribute)


TE = Criterion("TE", "um", "te_um", 1, True)
RE = Criterion("RE", "degrees", "re_deg", 1, True)
DSC = Criterion("DSC", "%", "dice", 100, False)
TRUE_DSC = Criterion("DSC at the true pose", "%", "dice_true", 100, False)
TARGET = Criterion("target error", "um", "target_um", 1, True)
SECONDS = Criterion("time", "s", "seconds", 1, True)
#: Those of Table 1 by test.
CRITERIA = {"translation": (TE, RE, DSC), "rotation": (TE, RE, DSC), "real": (DSC,)}


class Results:
    """Results of pairs that belong together.

    Args:
        results: all that are kept.
        trained: of each network, ``S1/dnet``, what `training.TrainedNetwork.plain` tells; results of other weights
            are left out.
    """

    def __init__(self, results: Iterable[PairResult], trained: Mapping[str, Mapping[str, Any]]) -> None:
        self._results = [
            result
            for result in results
            if result.weights == trained.get(f"{result.strategy}/{result.method}", {}).get("weights", "")
        ]
        self._by_method: dict[tuple[str, str], list[PairResult]] = defaultdict(list)
        for result in self._results:
            self._by_method[result.test, result.method].append(result)

    def __len__(self) -> int:
        return len(self._results)

    def of(self, test: str, method: str, strategies: Iterable[str]) -> list[PairResult]:
        """Of one test and method: the pairs tested by these strategies, each once where the method is not trained."""
        strategies = set(strategies)
        folds = {STRATEGIES[strategy].test for strategy in strategies}
        untrained = METHODS[method].network is None
        return [
            result
            for result in self._by_method.get((test, method), ())
            if (result.fold in folds if untrained else result.strategy in strategies)
        ]

    def values(self, criterion: Criterion, test: str, method: str, strategies: Iterable[str]) -> list[float]:
        """The numbers of a criterion, without those that are not known."""
        values = (criterion.of(result) for result in self.of(test, method, strategies))
        return [value for value in values if not math.isnan(value)]

    def methods(self) -> list[str]:
        """Those that have any result, in order."""
        there = {result.method for result in self._results}
        return [name for name in METHODS if name in there]

    def tests(self) -> list[str]:
        """Those that have any result, in the order of Table 1."""
        there = {result.test for result in self._results}
        return [test for test in CRITERIA if test in there]

    def strategies(self) -> list[str]:
        """Those that networks were trained by; where there are no networks, those that test what was tested."""
        there = {result.strategy for result in self._results} - {""}
        folds = {result.fold for result in self._results}
        return [
            s.name for s in STRATEGIES.values() if s.name in there or (not there and s.contrast and s.test in folds)
        ]

    def bones(self, test: str) -> list[str]:
        """Names of the bones that have a result in a test."""
        return sorted({result.bone for result in self._results if result.test == test})

    def failures(self) -> list[PairResult]:
        """Those that ended with an error."""
        return [result for result in self._results if result.failure]
