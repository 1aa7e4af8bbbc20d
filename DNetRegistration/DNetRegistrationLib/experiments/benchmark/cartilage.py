"""How well cartilage is measured: pairs aligned by the product itself, against the thickness of their surfaces."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats
from scipy.spatial import cKDTree

from ...core.progress import ProgressFunction, no_progress
from ..store import chosen, measuring_code
from ..tables import Finding
from .cases import CaseTable, measure_cases
from .limits import at_most, enough, few, many

CODE = measuring_code("cartilage", "experiments/benchmark/cartilage.py")

#: Kinds of pairs, as options to `make_pair`, of which those of 20 um show the whole plateau; the seed of a kind's first
#: pair; and what is allowed: bias and standard deviation of a compartment's mean, the median error of a point, um, and
#: the median error of a volume, %.
KINDS = {
    "20 um": ({"size": 176, "spacing": 0.02, "agent": "even"}, 300_000, (4.0, 5.0, 12.0, 10.0)),
    "20 um again": ({"size": 176, "spacing": 0.02, "agent": "even"}, 300_000, (4.0, 5.0, 12.0, 10.0)),
    "20 um varied": ({"size": 176, "spacing": 0.02, "agent": "varied"}, 310_000, (None, None, None, None)),
    "10 um": ({"size": 256, "spacing": 0.01, "agent": "even"}, 320_000, (2.0, 3.0, 6.0, 5.0)),
    "10 um varied": ({"size": 256, "spacing": 0.01, "agent": "varied"}, 330_000, (None, None, None, None)),
    "20 um without": ({"size": 176, "spacing": 0.02, "contrast": False}, 340_000, (None, None, None, None)),
}
#: The animals of the first kind are scanned again as those of the second; what is allowed: coefficients of variation of
#: thickness and of volume, %.
AGAIN, FIRST, MOST_VARIATION = "20 um again", "20 um", (3.0, 5.0)
#: Without agent in either scan at most this share of the surface may be given a thickness.
WITHOUT, _MOST_GIVEN = "20 um without", 0.01
#: Bone without agent in air, without noise: what a subtraction shows at its edge is of the subtraction.
EDGES = "edges"
_EDGES = {"size": 80, "spacing": 0.03, "contrast": False, "clean": True, "max_translation": 0.05}
_MOST_EDGES = 8
# Mean difference in the outermost voxels of bone and in the voxels on it, as a share of the bone's height, %.
_MOST_EDGE = 0.5, 1.5
# So far apart are the seeds of an animal's sessions.
_OTHER_SESSION = 5_000_000
# Two groups of so many animals, whose thickness varies by this share in a group, and differs by that one between them;
# so many studies, of which this share must tell them apart.
_GROUP, _ANIMALS_VARY, _THINNER, _STUDIES, _TOLD = 8, 0.06, 0.15, 2000, 0.9
# A mean may be off by more than twice its standard error in this share of compartments.
_BEYOND = 0.05
# A point of the map belongs to the point of the true surface within this distance, mm; else its truth is bare bone.
_NEAR = 0.03
# Cartilage measured farther than this from the true joint's surface, mm, is of other tissue: at most this share.
_OFF_THE_JOINT, _MOST_OTHER = 0.1, 0.01
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
        given: share of the surface that is given a thickness above 0, measured or filled.
        other: share of what is measured above 0 that lies off the true joint's surface.
        stated_um, standard_errors_um: mean thickness of the medial and the lateral compartment as stated, touched or
            not, and its standard error; NaN where not measured.
        stated_true_um: the true means of the same compartments, hidden parts included.
        volumes_mm3, true_volumes_mm3: likewise.
        edges: of kind `EDGES`, what a subtraction leaves in the outermost voxels of bone and in those on it, % of the
            bone's height: as interpolation leaves it, then as `interpolation_blur` does.
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
    given: float = np.nan
    other: float = np.nan
    stated_um: tuple[float, ...] = ()
    standard_errors_um: tuple[float, ...] = ()
    stated_true_um: tuple[float, ...] = ()
    volumes_mm3: tuple[float, ...] = ()
    true_volumes_mm3: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
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
        return [
            *(one for kind in KINDS if kind != WITHOUT for one in self._kind(kind)),
            *self._again(),
            *self._groups(),
            *self._without(),
            *self._edges(),
        ]

    def _good(self, kind: str) -> list[CartilageResult]:
        return [one for one in self.results if one.kind == kind and one.accepted and one.agent and not one.failure]

    def _kind(self, kind: str) -> list[Finding]:
        rows = [one for one in self.results if one.kind == kind]
        good = self._good(kind)
        errors = np.array([error for one in good for error in one.errors_um])
        bias, spread, point, share = KINDS[kind][2]
        if len(errors) < 2:
            asked = rows and bias is not None
            return [enough(f"{kind}: compartments whose mean thickness is measured", len(errors), 2)] if asked else []
        off, errors_of_volume = _stated(good)
        points = float(np.nanmedian([one.point_error_um for one in good]))
        mean, deviation = float(errors.mean()), float(errors.std(ddof=1))
        return [
            at_most(
                f"{kind}: mean thickness of {len(errors)} compartments, bias", f"{mean:.2f} um", abs(mean), bias, " um"
            ),
            at_most("  standard deviation of its error", f"{deviation:.2f} um", deviation, spread, " um"),
            Finding("  median absolute error of it", f"{np.median(np.abs(errors)):.2f} um"),
            at_most("  error of a point, median", f"{points:.1f} um", points, point, " um"),
            few("  means off by more than twice their standard error", off, _BEYOND),
            at_most(
                "  error of a compartment's volume, median",
                f"{errors_of_volume:.1f} %",
                errors_of_volume,
                share,
                " %",
            ),
            at_most(
                "  cartilage measured off the joint, share of its area",
                f"{100 * (other := _mean([one.other for one in good])):.2f} %",
                100 * other,
                100 * _MOST_OTHER,
                " %",
            ),
            Finding(
                "  pairs of which nothing could be measured",
                f"{sum(not np.isfinite(one.stated_um).any() for one in good)} of {len(good)}",
            ),
            Finding("  processor time of a pair, median", f"{np.median([one.processor_s for one in good]):.1f} s"),
            Finding("  pairs that ended with an error", f"{sum(bool(one.failure) for one in rows)} of {len(rows)}"),
        ]

    def _again(self) -> list[Finding]:
        """Of animals that were scanned twice. What is hidden moves the borders of a compartment, which is told apart
        from errors by the truth of the same surface."""
        first, again = ({one.seed: one for one in self._good(kind)} for kind in (FIRST, AGAIN))
        pairs = [(first[seed], again[seed]) for seed in sorted(first.keys() & again.keys())]

        def values(field: str) -> np.ndarray:
            return np.array([[getattr(one, field) for one in pair] for pair in pairs], float).reshape(-1, 2, 2)

        findings = []
        for name, field, most in zip(
            ("mean thickness", "volume"), ("stated_um", "volumes_mm3"), MOST_VARIATION, strict=True
        ):
            varied, count = _variation(values(field))
            if count > 1:
                what = f"{AGAIN}: {name} of {count} compartments, coefficient of variation"
                findings.append(at_most(what, f"{varied:.1f} %", varied, most, " %"))
            elif any(one.kind == AGAIN for one in self.results):
                findings.append(enough(f"{AGAIN}: {name} of compartments measured both times", count, 2))
        if pairs:
            of_errors, _ = _variation(values("stated_um") / values("stated_true_um"))
            findings.append(Finding("  of both, over the truth of the same surface", f"{of_errors:.1f} %"))
        return findings

    def _groups(self) -> list[Finding]:
        """How often two groups would be told apart, with errors drawn from those of the first kind."""
        good = self._good(FIRST)
        stated, true = (np.array([getattr(one, name) for one in good]) for name in ("stated_um", "stated_true_um"))
        errors = (stated - true)[np.isfinite(stated)] if good else np.zeros(0)
        if len(errors) < 2:
            return []
        generator = np.random.default_rng(0)
        groups = []
        for thinner in (0.0, _THINNER):
            animals = (
                np.nanmedian(true) * (1 - thinner) * (1 + _ANIMALS_VARY * generator.standard_normal((_STUDIES, _GROUP)))
            )
            groups.append(animals + generator.choice(errors, animals.shape))
        told = stats.ttest_ind(*groups, axis=1).pvalue < 0.05
        return [many(f"two groups of {_GROUP}, one {100 * _THINNER:.0f} % thinner, simulated: told apart", told, _TOLD)]

    def _without(self) -> list[Finding]:
        """Of accepted pairs without agent."""
        tried = [one for one in self.results if one.kind == WITHOUT]
        rows = [one for one in tried if one.accepted and not one.failure]
        if not rows:
            return [enough(f"{WITHOUT} agent: accepted pairs that were measured", 0, 1)] if tried else []
        given = 100 * _mean([one.given for one in rows])
        what = f"{WITHOUT} agent, {len(rows)} pairs: share of the surface that is given a thickness"
        said = sum(one.agent for one in rows)
        return [
            at_most(what, f"{given:.2f} %", given, 100 * _MOST_GIVEN, " %"),
            Finding("  pairs of which agent is said to be there", f"{said} of {len(rows)}"),
            Finding("  pairs that ended with an error", f"{sum(bool(one.failure) for one in tried)} of {len(tried)}"),
        ]

    def _edges(self) -> list[Finding]:
        edges = np.array([one.edges for one in self.results if one.kind == EDGES and not one.failure])
        if not len(edges):
            return []
        before, after = np.abs(edges.mean(0)).reshape(2, 2)
        return [
            at_most(f"edge of bare bone in subtractions, {where}", f"{now:.2f} %, was {then:.2f} %", now, most, " %")
            for where, now, then, most in zip(("inside", "outside"), after, before, _MOST_EDGE, strict=True)
        ]


def _mean(shares: list[float]) -> float:
    """Of those that are known; 0 where none is."""
    known = [share for share in shares if np.isfinite(share)]
    return float(np.mean(known)) if known else 0.0


def _variation(values: np.ndarray) -> tuple[float, int]:
    """Coefficient of variation, %, within ``(n, 2, k)`` values that were found twice, and how many were."""
    # The variance of two values is half the square of their difference.
    ratio = (values[:, 0] - values[:, 1]) / values.mean(1)
    ratio = ratio[np.isfinite(ratio)]
    return 100 * float(np.sqrt(np.mean(ratio**2) / 2)) if len(ratio) else np.nan, len(ratio)


def _stated(good: list[CartilageResult]) -> tuple[np.ndarray, float]:
    """Whether each stated mean is off by more than twice its standard error, and the median error of a volume, %."""
    names = ("stated_um", "stated_true_um", "standard_errors_um", "volumes_mm3", "true_volumes_mm3")
    means, true, error, volume, true_volume = (
        np.concatenate([np.asarray(getattr(one, name), float) for one in good]) for name in names
    )
    known = np.isfinite(means)
    ratio = np.abs(volume / true_volume - 1)[known]
    return (np.abs(means - true) > 2 * error)[known], 100 * float(np.median(ratio)) if known.any() else np.nan


def benchmark_cartilage(
    pairs: int = 20,
    seed: int = 0,
    jobs: int | None = None,
    output: str | os.PathLike | None = None,
    kinds: Collection[str] | None = None,
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
        kinds: keys of `KINDS`, and `EDGES`; None takes all.
        progress: called with the fraction done and a message.
        tell: called with the table as Markdown, also when the benchmark is interrupted.

    Raises:
        OptionError: a kind is unknown.
        FileError: the folder cannot be written, or holds results of other code.
        RunError: a process died.
    """
    firsts = {**{kind: first for kind, (_, first, _) in KINDS.items()}, EDGES: 0}
    return measure_cases(
        measure_pair,
        [
            (kind, firsts[kind] + seed + number)
            for kind in chosen(kinds, firsts, "kinds")
            for number in range(min(pairs, _MOST_EDGES) if kind == EDGES else pairs)
        ],
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
    if kind == EDGES:
        return CartilageResult(kind, seed, edges=_edges_of(seed))
    from ...cartilage.measure import measure_cartilage
    from ...registration.align import align
    from ...synthesis.pairs import JOINT, make_pair

    options = {"focus": JOINT, "max_translation": 0.1, **KINDS[kind][0]}
    if kind == AGAIN:
        # A few voxels of a pair have its animal.
        animal = make_pair(seed, **{**options, "size": 8}).fixed_animal
        pair = make_pair(seed + _OTHER_SESSION, fixed_animal=animal, **options)
    else:
        pair = make_pair(seed, **options)
    truth = pair.cartilage
    medial = truth.points[truth.medial].mean(0)
    try:
        alignment = align(pair.fixed, pair.moving, device="cpu")
        began = time.process_time()
        found = measure_cartilage(alignment, pair.fixed, pair.moving, medial=medial, anyway=True)
    except Exception as error:
        return CartilageResult(kind, seed, failure=f"{type(error).__name__}: {error}")
    seconds = time.process_time() - began
    surface = found.map
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
    rows = [found.compartment(name) for name in ("medial", "lateral")]
    parts = [np.isfinite(surface.filled_um) & (surface.compartment == number) for number in (0, 1)]
    areas = [surface.areas_mm2[part] for part in parts]
    volumes = [float(area @ thickness[part]) / 1000 for part, area in zip(parts, areas, strict=True)]
    measured = surface.areas_mm2[surface.measured].sum()
    bears = surface.measured & (surface.thickness_um > 0)
    given = bears | (np.nan_to_num(surface.filled_um) > 0)
    return CartilageResult(
        kind,
        seed,
        bool(alignment.accepted),
        bool(found.agent),
        tuple(errors),
        tuple(means),
        float(np.median(np.abs(surface.thickness_um - thickness)[free])) if free.any() else np.nan,
        float(surface.areas_mm2[surface.measured & touched].sum() / measured) if measured else np.nan,
        float(surface.areas_mm2[given].sum() / surface.areas_mm2.sum()) if len(given) else 0.0,
        float(np.average(apart[bears] > _OFF_THE_JOINT, weights=surface.areas_mm2[bears])) if bears.any() else np.nan,
        tuple(row.mean_thickness_um for row in rows),
        tuple(row.standard_error_um for row in rows),
        tuple(1000 * one / area.sum() if len(area) else np.nan for one, area in zip(volumes, areas, strict=True)),
        tuple(row.volume_mm3 for row in rows),
        tuple(volumes),
        processor_s=seconds,
    )


def _edges_of(seed: int) -> tuple[float, ...]:
    """What subtractions at the true pose leave at the edge of bone; see `CartilageResult.edges`."""
    from ...bone.threshold import find_bone_scale
    from ...imaging.equal_blur import blurred_slices, interpolation_blur
    from ...imaging.resample import resample
    from ...synthesis.pairs import JOINT, make_pair

    pair = make_pair(seed, focus=JOINT, scale="hu", background="water", **_EDGES)
    carried = resample(pair.moving, pair.fixed, pair.matrix).voxels
    blurred = np.stack(list(blurred_slices(pair.fixed, interpolation_blur(pair.moving, pair.fixed, pair.matrix))))
    bone = pair.fixed.voxels > find_bone_scale(pair.fixed).threshold
    seen = np.isfinite(carried)
    edges = [seen & bone & ~ndimage.binary_erosion(bone), seen & ~bone & ndimage.binary_dilation(bone)]
    height = np.median(carried[seen & ndimage.binary_erosion(bone, iterations=2)]) - np.median(carried[seen & ~bone])
    return tuple(
        100 * float((carried - still)[edge].mean() / height) for still in (pair.fixed.voxels, blurred) for edge in edges
    )
