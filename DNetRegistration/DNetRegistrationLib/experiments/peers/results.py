"""What is kept of each alignment of a comparison, and results that belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...geometry.transforms import require_rigid, rotation_error_deg
from ..method_process import MethodRun
from ..methods import METHODS, ComparedMethod
from ..metrics import SUCCESS_UM
from ..pair_files import PairFiles
from ..store import measuring_code
from ..tables import frame
from .pairs import ComparedPair

if TYPE_CHECKING:
    import pandas

CODE = measuring_code(
    "experiments/pair_files.py", "experiments/methods", "experiments/method_process.py", "experiments/peers/pairs.py"
)


@dataclass(frozen=True)
class MethodResult:
    """What one method made of one pair.

    Attributes:
        method, version: a key of `METHODS`, and the version of what it rests on.
        pair, size, keep, contrast, angle_bin: of the `ComparedPair`.
        angle_deg: of the pair's true rotation.
        threads, machine: how many threads the method could use, and where.
        error_um: true mean target error over the bone; infinite where the method failed.
        rotation_error_deg: angle of the rotation still missing.
        trusted, seconds, peak_gb, before_gb, failure, late, matrix: of the `MethodRun`.
        limit_s: seconds that the method could take.
        code: hash of the code that measured it.
    """

    method: str
    version: str
    pair: str
    size: int
    keep: float
    contrast: bool
    angle_bin: int
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
        """What tells it from others: the method as installed, the pair, and the means to run."""
        return self.method, self.version, self.pair, self.keep, self.contrast, self.threads, self.machine

    @property
    def success(self) -> bool:
        """Whether the pair is aligned: the mean error over the bone is below the paper's voxel."""
        return self.error_um < SUCCESS_UM

    @property
    def unnoticed(self) -> bool:
        """Whether the answer is wrong, without an error or a warning of the method's own."""
        return not self.success and not self.failure and self.trusted != "no"


@dataclass(frozen=True)
class Conditions:
    """What all methods run under.

    Attributes:
        threads: how many a method may use.
        limit: seconds that an alignment may take.
        machine: in words.
    """

    threads: int
    limit: float
    machine: str

    def key(self, method: ComparedMethod, pair: ComparedPair) -> tuple:
        """That of the `MethodResult` of a method and a pair."""
        return method.key, method.version, pair.name, pair.keep, pair.contrast, self.threads, self.machine


def measured(
    method: ComparedMethod, pair: ComparedPair, files: PairFiles, run: MethodRun, conditions: Conditions
) -> MethodResult:
    """The result of a run, measured against the truth. A transform that is not rigid is a failure."""
    error, turned = math.inf, math.inf
    if run.matrix:
        try:
            matrix = require_rigid(np.reshape(run.matrix, (4, 4)), "the transform")
            error, turned = files.target_error_um(matrix), rotation_error_deg(pair.matrix, matrix)
        except ValueError as wrong:
            run = replace(run, failure=str(wrong))
    return MethodResult(
        method=method.key,
        version=method.version,
        pair=pair.name,
        **{name: getattr(pair, name) for name in ("size", "keep", "contrast", "angle_bin")},
        angle_deg=rotation_error_deg(np.eye(4), pair.matrix),
        threads=conditions.threads,
        machine=conditions.machine,
        limit_s=conditions.limit,
        error_um=error,
        rotation_error_deg=turned,
        **vars(run),
    )


@dataclass(frozen=True)
class PeerResults:
    """Results that belong together.

    Attributes:
        turned: of pairs over all angles.
        growing: of pairs of ever larger volumes.
        skipped: why a method was not run, by its key.
    """

    turned: Sequence[MethodResult] = ()
    growing: Sequence[MethodResult] = ()
    skipped: dict[str, str] = field(default_factory=dict)

    @cached_property
    def table(self) -> pandas.DataFrame:
        """A row for each result; `group` is "angle" or "size"."""
        results = [*self.turned, *self.growing]
        table = frame(MethodResult, results, "success", "unnoticed")
        groups = (("angle", self.turned), ("size", self.growing))
        return table.assign(group=[name for name, some in groups for _ in some])

    def of(self, group: str) -> pandas.DataFrame:
        """The rows of one group."""
        return self.table[self.table.group == group]

    def methods(self, group: str) -> list[str]:
        """Methods that have results in a group, in the order of `METHODS`."""
        there = set(self.of(group).method)
        return [key for key in METHODS if key in there]

    def both(self, first: str, second: str) -> tuple[pandas.DataFrame, pandas.DataFrame]:
        """The rows of two methods on those turned pairs that both were run on, in the same order."""
        turned = self.of("angle")
        one, other = (turned[turned.method == method].set_index("pair") for method in (first, second))
        common = one.index.intersection(other.index, sort=False)
        return one.loc[common], other.loc[common]
