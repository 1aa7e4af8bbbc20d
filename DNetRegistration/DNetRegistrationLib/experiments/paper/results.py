"""Results of pairs as a data frame, and the selections that tables and figures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from ..tables import frame
from .measure import PairResult
from .plan import GROUPS, METHODS, STRATEGIES, network_of


@dataclass(frozen=True)
class Criterion:
    """A quantity of Table 1, or one beside it.

    Attributes:
        name: as in the paper.
        unit: that of Table 1.
        field: of `PairResult`, which `factor` brings to the unit.
        factor: see there.
        smaller_is_better: true for errors.
    """

    name: str
    unit: str
    field: str
    factor: float
    smaller_is_better: bool

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})"


TE = Criterion("TE", "um", "te_um", 1, True)
RE = Criterion("RE", "degrees", "re_deg", 1, True)
DSC = Criterion("DSC", "%", "dice", 100, False)
TRUE_DSC = Criterion("DSC at the true pose", "%", "dice_true", 100, False)
TARGET = Criterion("target error", "um", "target_um", 1, True)
SECONDS = Criterion("time", "s", "seconds", 1, True)
#: Everything that is summarised.
ALL_CRITERIA = (TE, RE, DSC, TRUE_DSC, TARGET, SECONDS)
#: The criteria of Table 1 by test.
CRITERIA = {"translation": (TE, RE, DSC), "rotation": (TE, RE, DSC), "real": (DSC,)}
#: Is said of a network, and stands in place of numbers that would only tell how wrong it is.
NOT_LEARNED = "not learned"
#: A network has learned whose answers have a mean RE below this share of the one that they have to other pairs' truths.
LEARNED = 0.75
# Degrees. Where true rotations differ by less on average, what a network has learned about them cannot be told.
_DIFFERENT = 45.0
_GROUP_OF = {"": "", **{strategy: group for group, strategies in GROUPS.items() for strategy in strategies}}


class EvaluationResults:
    """The results of an evaluation that belong together.

    Args:
        results: all that are kept.
        trained: what `TrainedNetwork.plain` tells of each network, by its name. Results of other weights are left out.

    Attributes:
        frame: a row for each result: the fields of `PairResult`; each criterion by its name, in its unit; "success",
            1 or 0 and NaN where the truth is not known; and "group", "S1&S2", "S3&S4", or "" without a strategy.
    """

    def __init__(self, results: Iterable[PairResult], trained: Mapping[str, Mapping[str, Any]]) -> None:
        weights = {name: one["weights"] for name, one in trained.items()}
        current = (one for one in results if one.weights == weights.get(network_of(one.method, one.strategy).name, ""))
        self.frame = frame(PairResult, current)
        for criterion in ALL_CRITERIA:
            self.frame[criterion.name] = criterion.factor * self.frame[criterion.field]
        success = (self.frame.target_um < self.frame.spacing_um).astype(float)
        self.frame["success"] = success.where(self.frame.target_um.notna())
        self.frame["group"] = self.frame.strategy.map(_GROUP_OF)

    def __len__(self) -> int:
        return len(self.frame)

    def of(self, test: str, method: str, strategies: Iterable[str]) -> pandas.DataFrame:
        """The rows of a test and a method for pairs that these strategies test."""
        found = self.frame[(self.frame.test == test) & (self.frame.method == method)]
        if not METHODS[method].by_strategy:
            return found[found.fold.isin([STRATEGIES[strategy].test for strategy in strategies])]
        return found[found.strategy.isin(list(strategies))]

    def learned(self, method: str, strategies: Iterable[str]) -> bool:
        """Whether the network of a method tells the rotation of one pair from that of another; see `LEARNED`.

        One that answers the same to all pairs, or at random, has learned nothing. True also where it cannot be told, as
        without a known truth, and of a method without a network.
        """
        if METHODS[method].network is None:
            return True
        strategies = list(strategies)
        found = pandas.concat([self.of(test, method, strategies) for test in CRITERIA])
        found = found[found.truth.map(bool)]
        if len(found) < 2:
            return True
        answers, truths = (
            np.array(found[name].tolist()).reshape(-1, 4, 4)[:, :3, :3] for name in ("estimate", "truth")
        )
        if _mean_of_others(_angles(truths, truths)) < _DIFFERENT:
            return True
        errors = _angles(answers, truths)
        return bool(np.diag(errors).mean() < LEARNED * _mean_of_others(errors))

    def label(self, method: str, strategies: Iterable[str]) -> str:
        """The method's label, with the strategies of which its network has not learned."""
        strategies = list(strategies)
        label = METHODS[method].label
        if not METHODS[method].by_strategy:
            return label if self.learned(method, strategies) else f"{label}, {NOT_LEARNED}"
        without = [name for name in strategies if not self.learned(method, [name])]
        if not without:
            return label
        return f"{label}, {NOT_LEARNED}" + ("" if without == strategies else f" by {' and '.join(without)}")

    @property
    def methods(self) -> list[str]:
        """The methods that have results, in the order of Table 1."""
        return [name for name in METHODS if (self.frame.method == name).any()]

    @property
    def tests(self) -> list[str]:
        """The tests that have results, in the order of Table 1."""
        return [test for test in CRITERIA if (self.frame.test == test).any()]

    @property
    def strategies(self) -> list[str]:
        """The strategies that networks were trained by; without networks, those that test the bones that there are."""
        trained = [name for name in STRATEGIES if (self.frame.strategy == name).any()]
        folds = set(self.frame.fold)
        return trained or [one.name for one in STRATEGIES.values() if one.contrast and one.test in folds]

    @property
    def main_strategies(self) -> list[str]:
        """The strategies that figures show: S1 and S2 as far as they have results, else all."""
        return [name for name in GROUPS["S1&S2"] if name in self.strategies] or self.strategies


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(n, m)`` angles in degrees between rotations ``(n, 3, 3)`` and ``(m, 3, 3)``."""
    traces = first.reshape(-1, 9) @ second.reshape(-1, 9).T
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def _mean_of_others(matrix: np.ndarray) -> float:
    """The mean of a square matrix off its diagonal."""
    return float(matrix[~np.eye(len(matrix), dtype=bool)].mean())
