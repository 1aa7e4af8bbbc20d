"""From tasks to results: one pair of scans, all methods on it, all criteria; over processes, kept as they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...core.errors import ScanError, one_line
from ...core.processes import fresh_processes
from ..store import ResultStore, code_without
from .cohort import Bone
from .plan import Network, Task

_NAN = math.nan
_CODE = code_without("experiments/benchmark", "experiments/peers")


@dataclass(frozen=True)
class PairResult:
    """What one method made of one pair of scans.

    A method that fails with an error leaves the scans where they are: it is taken to have said that nothing moves, and
    `failure` tells why.

    Attributes:
        test, bone, scan, step: of the `evaluation_plan.Task`.
        method, strategy: a name of `METHODS`, and of `STRATEGIES` where it was trained by one, else "".
        fold: half that the bone is in.
        position: of the test: degrees, or mm.
        te_um, re_deg, target_um, dice, dice_true: see `evaluation_metrics.Metrics`.
        dice_before: Dice with the scans where they are.
        spacing_um: the working voxel; a target error below it is a success.
        seconds: that the method took, alone on one thread where processes share the work.
        estimate, truth: 16 numbers by rows, fixed to moving points, LPS mm; no truth where it is not known.
        weights: SHA-256 of the network's weights, or "".
        failure: the message of an error, or "".
        code: what measured it.
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
        """What tells it from others."""
        return self.test, self.bone, self.scan, self.step, self.method, self.strategy

    @property
    def success(self) -> bool:
        """The target error is known, and below one working voxel."""
        return self.target_um < self.spacing_um

    @property
    def matrix(self) -> np.ndarray:
        """The ``(4, 4)`` estimate."""
        return np.array(self.estimate).reshape(4, 4)


@dataclass(frozen=True)
class Weights:
    """A network's weights: their file, and its SHA-256."""

    path: Path
    sha256: str


def missing(tasks: Sequence[Task], store: ResultStore[PairResult], networks: Mapping[Network, Weights]) -> list[Task]:
    """Tasks with the methods that have no result yet, or one of other weights."""
    left = []
    for task in tasks:
        runs = []
        for method, strategy in task.runs:
            known = store.results.get((task.test, task.bone, task.scan, task.step, method, strategy))
            if known is None or known.weights != _sha256(networks, method, strategy):
                runs.append((method, strategy))
        if runs:
            left.append(replace(task, runs=tuple(runs)))
    return left


def measure_all(
    tasks: Sequence[Task],
    bones: Mapping[str, Bone],
    networks: Mapping[Network, Weights],
    store: ResultStore[PairResult],
    jobs: int,
    spacing=None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> None:
    """Measures what is missing and keeps it; what was kept is not lost, whatever ends this.

    Args:
        tasks: from `missing`.
        bones: by name.
        networks: weights of each network that the tasks ask for.
        store: for the results.
        jobs: processes of one thread each; 1 works in this one.
        spacing: true voxel size of the scans in mm, where files lack it.
        progress: called with the fraction done and a message.

    Raises:
        ScanError: a scan cannot be read any more, the results cannot be written, or a process died.
    """
    began = time.monotonic()
    calls = [(task, bones[task.bone], _of(task, networks), spacing) for task in tasks]
    with closing(_over_processes(calls, jobs)) as measured:
        for done, results in enumerate(measured, 1):
            for result in results:
                store.add(result)
            left = (time.monotonic() - began) / done * (len(calls) - done)
            progress(done / len(calls), f"{done} of {len(calls)} pairs, {_duration(left)} left")


def measure_task(task: Task, bone: Bone, networks: Mapping[Network, Weights], spacing=None) -> list[PairResult]:
    """All methods of a task on its pair of scans."""
    from ...bone.cortex import dice
    from ..metrics import measure
    from .methods import estimate
    from .pairs import pair_of

    pair = pair_of(task, bone, spacing)
    before = dice(*pair.bones, np.eye(4))
    true = None if pair.truth is None else dice(*pair.bones, pair.truth)
    results = []
    for method, strategy in task.runs:
        weights = networks.get(Network(strategy, method))
        began, failure = time.perf_counter(), ""
        try:
            matrix = estimate(method, pair, None if weights is None else weights.path)
        except Exception as error:
            # One pair that cannot be aligned is a failure to count, not the end of the evaluation.
            matrix, failure = np.eye(4), f"{type(error).__name__}: {one_line(error)}"
        seconds = time.perf_counter() - began
        found = measure(matrix, pair.truth, pair.fixed.center, pair.bones, true)
        results.append(
            PairResult(
                task.test,
                task.bone,
                task.scan,
                task.step,
                method,
                strategy,
                bone.fold,
                math.degrees(task.position) if task.test == "rotation" else task.position,
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


def _over_processes(calls: list[tuple], jobs: int) -> Iterator[list[PairResult]]:
    if jobs == 1 or len(calls) < 2:
        yield from (measure_task(*call) for call in calls)
        return
    try:
        with fresh_processes(min(jobs, len(calls)), threads=1) as pool:
            for future in as_completed([pool.submit(measure_task, *call) for call in calls]):
                yield future.result()
    except BrokenProcessPool as error:
        raise ScanError("a process died, of too little memory perhaps; give fewer --jobs") from error


def _of(task: Task, networks: Mapping[Network, Weights]) -> dict[Network, Weights]:
    asked = [Network(strategy, method) for method, strategy in task.runs]
    return {network: networks[network] for network in asked if network in networks}


def _sha256(networks: Mapping[Network, Weights], method: str, strategy: str) -> str:
    weights = networks.get(Network(strategy, method))
    return "" if weights is None else weights.sha256


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
