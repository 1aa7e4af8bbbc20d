"""What is kept of each alignment of the comparison, and what is read from all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..metrics import SUCCESS_UM
from ..statistics import Rate, rate
from ..store import code_without
from .methods import METHODS, Method
from .pairs import BINS, ComparedPair, target_error_um
from .process import Run

#: Of the code that decides results: not that of the paper's experiments and of training.
CODE = code_without("experiments/paper", "training")


@dataclass(frozen=True)
class Compared:
    """What one method made of one pair.

    Attributes:
        method: a key of `METHODS`; and `version`, what it stands on.
        pair, size, keep, contrast, bin: of the `ComparedPair`; `angle_deg` of its rotation.
        threads: that the method might use, on which `machine`.
        error_um: true mean target error over the bone; infinite where nothing came out.
        rotation_error_deg: angle of the rotation still missing.
        trusted, seconds, peak_gb, before_gb, failure, late: of the `Run`.
        limit_s: seconds that it might take.
        matrix: 16 numbers by rows, fixed to moving points, LPS mm.
        code: see `CODE`.
    """

    method: str
    version: str
    pair: str
    size: int
    keep: float
    contrast: bool
    bin: int
    angle_deg: float
    threads: int
    machine: str
    error_um: float
    rotation_error_deg: float
    trusted: str
    seconds: float
    peak_gb: float
    before_gb: float
    failure: str
    late: bool
    limit_s: float
    matrix: tuple[float, ...]
    code: str = CODE

    @property
    def key(self) -> tuple:
        """What tells it from others: the method as installed, the pair, and what there was to run on."""
        return self.method, self.version, self.pair, self.keep, self.contrast, self.threads, self.machine

    @property
    def success(self) -> bool:
        """Aligned: a mean error over the bone of less than the paper's voxel."""
        return self.error_um < SUCCESS_UM

    @property
    def unnoticed(self) -> bool:
        """Wrong, and neither an error nor a word of the method says so."""
        return not self.success and not self.failure and self.trusted != "no"


@dataclass(frozen=True)
class Terms:
    """What all methods run under: threads that they may use, seconds that an alignment may take, the machine."""

    threads: int
    limit: float
    machine: str

    def key(self, method: Method, pair: ComparedPair) -> tuple:
        """That of the `Compared` of a method and a pair."""
        return method.key, method.version, pair.name, pair.keep, pair.contrast, self.threads, self.machine


def measured(method: Method, pair: ComparedPair, folder: str, run: Run, terms: Terms) -> Compared:
    """The result of a run, measured against the truth; a transform that is not rigid is a failure.

    Args:
        folder: where `write_pair` wrote the pair.
    """
    from ...geometry.transforms import require_rigid, rotation_error_deg

    error, turned, failure = math.inf, math.inf, run.failure
    if run.matrix:
        try:
            matrix = require_rigid(np.reshape(run.matrix, (4, 4)), "the transform")
            error, turned = target_error_um(pair, folder, matrix), rotation_error_deg(pair.matrix, matrix)
        except ValueError as wrong:
            failure = str(wrong)
    return Compared(
        method=method.key,
        version=method.version,
        pair=pair.name,
        size=pair.size,
        keep=pair.keep,
        contrast=pair.contrast,
        bin=pair.bin,
        angle_deg=rotation_error_deg(np.eye(4), pair.matrix),
        threads=terms.threads,
        machine=terms.machine,
        error_um=error,
        rotation_error_deg=turned,
        trusted=run.trusted,
        seconds=run.seconds,
        peak_gb=run.peak_gb,
        before_gb=run.before_gb,
        failure=failure,
        late=run.late,
        limit_s=terms.limit,
        matrix=run.matrix,
    )


class Comparison:
    """Results that belong together.

    Args:
        turns: results of the pairs over all angles; `growth`: of the pairs of ever larger volumes.
        skipped: why a method was not run, by its key.
    """

    def __init__(self, turns: Iterable[Compared], growth: Iterable[Compared], skipped: dict[str, str]) -> None:
        self.turns, self.growth, self.skipped = list(turns), list(growth), skipped

    def methods(self) -> list[str]:
        """Those that have results, in order."""
        there = {result.method for result in (*self.turns, *self.growth)}
        return [key for key in METHODS if key in there]

    def of(self, method: str, bin: int | None = None) -> list[Compared]:
        """Those of one method, of all angles or of one of the `BINS`."""
        return [result for result in self.turns if result.method == method and bin in (None, result.bin)]

    def sizes(self) -> list[int]:
        """Voxels along an axis of the growing volumes."""
        return sorted({result.size for result in self.growth})

    def at(self, method: str, size: int) -> Compared | None:
        """The result of one method on the growing pair of one size."""
        return next((r for r in self.growth if (r.method, r.size) == (method, size)), None)

    def both(self, first: str, second: str) -> tuple[list[Compared], list[Compared]]:
        """The results of two methods on those pairs that both were run on, in one order."""
        one, other = ({result.pair: result for result in self.of(method)} for method in (first, second))
        pairs = [pair for pair in one if pair in other]
        return [one[pair] for pair in pairs], [other[pair] for pair in pairs]


def success_rate(results: Iterable[Compared]) -> Rate:
    """How many are aligned."""
    return rate(result.success for result in results)


def median(values: Iterable[float]) -> float:
    """The median, infinities counted, NaN left out; NaN of nothing."""
    values = [value for value in values if not math.isnan(value)]
    return float(np.median(values)) if values else math.nan


def most(values: Iterable[float]) -> float:
    """The largest; NaN where none is known."""
    values = [value for value in values if not math.isnan(value)]
    return max(values) if values else math.nan


def bin_name(bin: int) -> str:
    """As "30-60"."""
    return f"{BINS[bin]:g}-{BINS[bin + 1]:g}"
