"""How well cartilage is measured: pairs aligned by the product itself, against the thickness of their surfaces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ...core.progress import ProgressFunction, no_progress
from ..store import measuring_code
from ..tables import Finding
from .cases import CaseTable, measure_cases
from .limits import at_most

CODE = measuring_code("cartilage", "experiments/benchmark/cartilage.py")

#: Kinds of pairs, as options to `make_pair`; the seed of a kind's first pair; and what is allowed: bias and standard
#: deviation of a compartment's mean, and the median error of a point, um.
KINDS = {
    "20 um": ({"size": 128, "spacing": 0.02, "agent": "even"}, 300_000, (4.0, 5.0, 12.0)),
    "20 um varied": ({"size": 128, "spacing": 0.02, "agent": "varied"}, 310_000, (None, None, None)),
    "10 um": ({"size": 256, "spacing": 0.01, "agent": "even"}, 320_000, (2.0, 3.0, 6.0)),
    "10 um varied": ({"size": 256, "spacing": 0.01, "agent": "varied"}, 330_000, (None, None, None)),
}
# A point of the map belongs to the point of the true surface within this distance, mm; else its truth is bare bone.
_NEAR = 0.03
# A compartment counts from this area of points on, mm^2, that soft tissue leaves free.
_LEAST_AREA = 0.2


@dataclass(frozen=True)
class CartilageResult:
    """What came of one pair.

    Attributes:
        kind, seed: of the pair.
        accepted, agent: of the alignment and of the measurement.
        errors_um: of the mean thickness of each compartment of which enough is free of soft tissue.
        true_um: the true means of the same.
        point_error_um: median absolute error of the points that soft tissue leaves free.
        touched: share of the measured area that soft tissue lies on.
        processor_s: of measuring.
        failure: the message of an error, or nothing.
        code: hash of the code that measured it.
    """

    kind: str
    seed: int
    accepted: bool = False
    agent: bool = False
    errors_um: tuple[float, ...] = ()
    true_um: tuple[float, ...] = ()
    point_error_um: float = np.nan
    touched: float = np.nan
    processor_s: float = np.nan
    failure: str = ""
    code: str = CODE

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others."""
        return self.kind, self.seed


class CartilageTable(CaseTable[CartilageResult]):
    """All results, and whether they are as required."""

    def findings(self) -> list[Finding]:
        """What was measured, kind by kind; of accepted alignments alone."""
        return [one for kind in KINDS for one in self._kind(kind)]

    def _kind(self, kind: str) -> list[Finding]:
        rows = [one for one in self.results if one.kind == kind]
        good = [one for one in rows if one.accepted and one.agent and not one.failure]
        errors = np.array([error for one in good for error in one.errors_um])
        if len(errors) < 2:
            return []
        bias, spread, point = KINDS[kind][2]
        points = float(np.median([one.point_error_um for one in good]))
        mean, deviation = float(errors.mean()), float(errors.std(ddof=1))
        return [
            at_most(
                f"{kind}: mean thickness of {len(errors)} compartments, bias", f"{mean:.2f} um", abs(mean), bias, " um"
            ),
            at_most("  standard deviation of its error", f"{deviation:.2f} um", deviation, spread, " um"),
            Finding("  median absolute error of it", f"{np.median(np.abs(errors)):.2f} um"),
            at_most("  error of a point, median", f"{points:.1f} um", points, point, " um"),
            Finding("  processor time of a pair, median", f"{np.median([one.processor_s for one in good]):.1f} s"),
            Finding("  pairs that ended with an error", f"{sum(bool(one.failure) for one in rows)} of {len(rows)}"),
        ]


def benchmark_cartilage(
    pairs: int = 20,
    seed: int = 0,
    jobs: int | None = None,
    output: str | os.PathLike | None = None,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> CartilageTable:
    """Measures the cartilage of synthetic pairs, aligned by the product, and compares it with the truth.

    It starts processes, so a script calls it below ``if __name__ == "__main__":``.

    Args:
        pairs: of each of `KINDS`.
        seed: added to all seeds.
        jobs: processes of one thread each; one a processor by default.
        output: a folder that gets a row for each pair, and the table. What was measured into it before, by the same
            code, is not measured again.
        progress: called with the fraction done and a message.
        tell: called with the table as Markdown, also when the benchmark is interrupted.

    Raises:
        FileError: the folder cannot be written, or holds results of other code.
        RunError: a process died.
    """
    return measure_cases(
        measure_pair,
        [(kind, first + seed + number) for kind, (_, first, _) in KINDS.items() for number in range(pairs)],
        CartilageResult,
        CartilageTable,
        name="cartilage",
        says=lambda result: result.kind,
        unit="pairs",
        jobs=jobs,
        output=output,
        progress=progress,
        tell=tell,
    )


def measure_pair(kind: str, seed: int) -> CartilageResult:
    """Makes a pair, aligns it and measures its cartilage. A failure is a result too."""
    from ...cartilage.measure import measure_cartilage
    from ...registration.align import align
    from ...synthesis.pairs import JOINT, make_pair

    pair = make_pair(seed, focus=JOINT, max_translation=0.1, **KINDS[kind][0])
    try:
        alignment = align(pair.fixed, pair.moving, device="cpu")
        began = time.process_time()
        found = measure_cartilage(alignment, pair.fixed, pair.moving, anyway=True)
    except Exception as error:
        return CartilageResult(kind, seed, failure=f"{type(error).__name__}: {error}")
    seconds = time.process_time() - began
    truth, surface = pair.cartilage, found.map
    apart, nearest = cKDTree(truth.points).query(surface.points)
    on = apart < _NEAR
    thickness = np.where(on, 1000 * truth.thickness_mm[nearest], 0.0)
    touched = on & truth.touched[nearest]
    free = surface.measured & ~touched
    errors, means = [], []
    for number in (0, 1):
        here = free & (surface.compartment == number)
        areas = surface.areas_mm2[here]
        if areas.sum() >= _LEAST_AREA:
            means.append(float(np.average(thickness[here], weights=areas)))
            errors.append(float(np.average(surface.thickness_um[here], weights=areas)) - means[-1])
    measured = surface.areas_mm2[surface.measured].sum()
    return CartilageResult(
        kind,
        seed,
        bool(alignment.accepted),
        found.agent,
        tuple(errors),
        tuple(means),
        float(np.median(np.abs(surface.thickness_um - thickness)[free])) if free.any() else np.nan,
        float(surface.areas_mm2[surface.measured & touched].sum() / measured) if measured else np.nan,
        seconds,
    )
