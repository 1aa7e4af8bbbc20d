"""Measures pairs of scans with all methods and criteria, over processes, and keeps each result as it comes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from ...core.errors import one_line
from ...core.processes import completed_calls
from ...core.progress import ProgressFunction, no_progress
from ..store import ResultStore, measuring_code
from .plan import PlannedNetwork, PlannedPair, ScannedBone, network_of

_NAN = math.nan
_CODE = measuring_code(*(f"experiments/paper/{name}.py" for name in ("cohort", "measure", "methods", "pairs", "plan")))


@dataclass(frozen=True)
class PairResult:
    """The result of one method on one pair of scans.

    Where a method fails with an error, its estimate is the identity and `failure` has the error.

    Attributes:
        test, bone, scan, step: of the `PlannedPair`.
        method, strategy: names of `METHODS` and `STRATEGIES`; no strategy, "", where none trained the method's network.
        fold: the half that the bone is in.
        position: of the test, in degrees or mm.
        te_um, re_deg, target_um, dice, dice_true: see `experiments.metrics.Metrics`.
        dice_before: Dice with the scans where they are.
        spacing_um: the working voxel. A target error below it is a success.
        seconds: time that the method took, on one thread where several processes work.
        estimate, truth: ``(4, 4)`` row by row, fixed to moving points, LPS mm; no truth where it is not known.
        weights: SHA-256 of the network's weights, or "".
        failure: the message of the error, or "".
        code: version of the code that measured.
    """

    test: str
    bone: str
    scan: str
    step: int
    method: str
    strategy: str
    fold: str
    position: float
    te_um: float = _NAN
    re_deg: float = _NAN
    target_um: float = _NAN
    dice: float = _NAN
    dice_true: float = _NAN
    dice_before: float = _NAN
    spacing_um: float = _NAN
    seconds: float = _NAN
    estimate: tuple[float, ...] = ()
    truth: tuple[float, ...] = ()
    weights: str = ""
    failure: str = ""
    code: str = _CODE

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        """Identifies the pair, the method and the strategy."""
        return self.test, self.bone, self.scan, self.step, self.method, self.strategy


@dataclass(frozen=True)
class WeightsFile:
    """The file of a network's weights, and its SHA-256."""

    path: Path
    sha256: str


def missing(
    pairs: Sequence[PlannedPair], store: ResultStore[PairResult], networks: Mapping[PlannedNetwork, WeightsFile]
) -> list[PlannedPair]:
    """The pairs with those of their methods that have no result yet, or one of other weights."""
    left = []
    for pair in pairs:
        runs = []
        for method, strategy in pair.runs:
            known = store.results.get((pair.test, pair.bone, pair.scan, pair.step, method, strategy))
            if known is None or known.weights != _sha256(networks, method, strategy):
                runs.append((method, strategy))
        if runs:
            left.append(replace(pair, runs=tuple(runs)))
    return left


def measure_all(
    pairs: Sequence[PlannedPair],
    bones: Mapping[str, ScannedBone],
    networks: Mapping[PlannedNetwork, WeightsFile],
    store: ResultStore[PairResult],
    jobs: int,
    spacing: Sequence[float] | None = None,
    progress: ProgressFunction = no_progress,
) -> None:
    """Measures pairs, and keeps each result as soon as it is there.

    Args:
        pairs: from `missing`.
        bones: by name.
        networks: weights of each network that the pairs are aligned by.
        store: for the results.
        jobs: processes, of one thread each; 1 works in this process.
        spacing: true voxel size of the scans in mm, where files lack it.
        progress: called with the fraction done and a message.

    Raises:
        ScanError: a scan cannot be read any more.
        FileError: the results cannot be written.
        RunError: a process died.
    """
    began = time.monotonic()
    calls = []
    for pair in pairs:
        asked = [network_of(method, strategy) for method, strategy in pair.runs]
        own = {network: networks[network] for network in asked if network in networks}
        calls.append((pair, bones[pair.bone], own, spacing))
    here = jobs == 1 or len(calls) < 2
    results_of = (measure_pair(*call) for call in calls) if here else completed_calls(measure_pair, calls, jobs)
    with closing(results_of) as measured:
        for done, results in enumerate(measured, 1):
            for result in results:
                store.add(result)
            left = timedelta(seconds=round((time.monotonic() - began) / done * (len(calls) - done)))
            progress(done / len(calls), f"{done} of {len(calls)} pairs, {left} left")


def measure_pair(
    planned: PlannedPair,
    bone: ScannedBone,
    networks: Mapping[PlannedNetwork, WeightsFile],
    spacing: Sequence[float] | None = None,
) -> list[PairResult]:
    """The results of all methods of one pair; arguments as in `measure_all`."""
    from ...bone.cortex import dice
    from ..metrics import measure
    from .methods import estimate
    from .pairs import load_pair

    pair = load_pair(planned, bone, spacing)
    before = dice(*pair.bones, np.eye(4))
    true = None if pair.truth is None else dice(*pair.bones, pair.truth)
    results = []
    for method, strategy in planned.runs:
        weights = networks.get(network_of(method, strategy))
        began, failure = time.perf_counter(), ""
        try:
            matrix = estimate(method, pair, None if weights is None else weights.path)
        except Exception as error:
            # A pair that cannot be aligned counts as a failure and does not end the evaluation.
            matrix, failure = np.eye(4), f"{type(error).__name__}: {one_line(error)}"
        seconds = time.perf_counter() - began
        found = measure(matrix, pair.truth, pair.fixed.center, pair.bones, true)
        results.append(
            PairResult(
                planned.test,
                planned.bone,
                planned.scan,
                planned.step,
                method,
                strategy,
                bone.fold,
                math.degrees(planned.position) if planned.test == "rotation" else planned.position,
                **vars(found),
                dice_before=before,
                spacing_um=1000 * pair.spacing,
                seconds=seconds,
                estimate=tuple(matrix.ravel().tolist()),
                truth=() if pair.truth is None else tuple(pair.truth.ravel().tolist()),
                weights=_sha256(networks, method, strategy),
                failure=failure,
            )
        )
    return results


def _sha256(networks: Mapping[PlannedNetwork, WeightsFile], method: str, strategy: str) -> str:
    weights = networks.get(network_of(method, strategy))
    return "" if weights is None else weights.sha256
