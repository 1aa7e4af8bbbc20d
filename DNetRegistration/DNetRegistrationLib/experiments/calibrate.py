"""Fits the model of confidence and expected error that `verification` reads, on synthetic pairs of known truth.

Evidence ranges from clear successes through near misses to impostors: other animals, close relatives in shape space,
pieces of their shafts, one outline with other trabeculae, mirror images, a bone at its second-best pose. Right pairs
include thick slices, blur, clinical voxel sizes, slender bones, pieces of shaft, and bones that changed between the
scans. A logistic model gives the probability of success, a log-linear one the error. Brier score, area under the
receiver operating characteristic and coverage of the expected error are of pairs left out of the fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import optimize, sparse, special

from ..bone.cortex import cortical_bone
from ..bone.images import native_scan
from ..bone.prepare import prepare
from ..bone.threshold import find_bone_scale
from ..core.processes import completed_calls
from ..core.progress import ProgressFunction, no_progress
from ..geometry.rigid import rotation_about, rotation_from_axis_angle
from ..registration.evidence import find_evidence
from ..registration.holders import ScanPair
from ..registration.interior import refine_fully
from ..registration.refinement import Refined, distance
from ..registration.search import FAST, search
from ..synthesis.adversarial import make_adversarial
from ..synthesis.cases import thick_grid
from ..synthesis.grid import Grid
from ..synthesis.pairs import make_pair, target_registration_error
from .store import ResultStore, measuring_code

CODE = measuring_code("experiments/calibrate.py")

# Calibration draws from seeds that nothing else uses.
FIRST_SEED = 1_000_000
# How often each kind of pair is drawn: of `make_pair`, and of `make_adversarial`.
TIBIAE = {
    "same": 0.1, "cut": 0.2, "fine": 0.04, "animal": 0.06, "relative": 0.1, "mirror": 0.05, "thick impostor": 0.06,
}  # fmt: skip
OTHERS = {
    "plain": 0.06, "overlap": 0.08, "thick": 0.06, "kernel": 0.03, "clinical": 0.05, "callus": 0.05, "resorbed": 0.03,
    "slender": 0.04, "crop": 0.07, "refilled": 0.06, "other": 0.03, "littermate crop": 0.06,
}  # fmt: skip
# The true error stays below twice the expected one in this share of right poses.
COVERED = 0.96

# Of the weights of `Evidence.features` and `Evidence.error_features`, in their order: worse evidence never counts more,
# nor means a smaller error.
_ANY, _MORE, _LESS = (None, None), (0, None), (None, 0)
BOUNDS = (_ANY, _MORE, _MORE, _MORE, _ANY, _MORE, _MORE, _LESS, _ANY)
ERROR_BOUNDS = (_ANY, _LESS, _LESS, _LESS, _ANY, _LESS, _LESS, *[_MORE] * 7)


@dataclass(frozen=True)
class Sample:
    """Evidence and truth of one pose of one pair.

    Attributes:
        seed, kind: of the pair, one of `TIBIAE` or `OTHERS`.
        pose: "best", "second" or "off".
        features, error_features: of the `Evidence`.
        working: working voxel, mm.
        error: true target error, mm; infinite for impostors.
        code: hash of the code that measured it.
    """

    seed: int
    kind: str
    pose: str
    features: tuple[float, ...]
    error_features: tuple[float, ...]
    working: float
    error: float
    code: str = CODE

    @property
    def key(self) -> tuple[int, str]:
        """What tells it from others."""
        return self.seed, self.pose

    @property
    def right(self) -> bool:
        """Whether the error is below one working voxel."""
        return self.error < self.working

    @property
    def clear(self) -> bool:
        """Whether the sample takes part in the fit.

        A pose put off by 0.4 to 1 voxel does not: it is within tolerance, but with an error that refinement never
        leaves. Figures of held-out pairs include it.
        """
        return self.pose != "off" or not 0.4 <= self.error / self.working < 1


def samples_of(seed: int) -> list[Sample]:
    """The samples of one pair: the best pose, the second best, and one put off by 20 to 500 um."""
    generator = np.random.default_rng(seed)
    shares = {**TIBIAE, **OTHERS}
    kind = str(generator.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))
    pair, error_mm = _drawn(seed, kind, generator)
    scans = pair.fixed, pair.moving
    scales = [find_bone_scale(scan) for scan in scans]
    natives = [native_scan(*of, None, torch.device("cpu")) for of in zip(scans, scales, strict=True)]
    fixed, moving = prepare(*natives)
    bones = [cortical_bone(scan, x.threshold, fixed.cube.spacing) for scan, x in zip(scans, scales, strict=True)]
    both = ScanPair(fixed, moving, (bones[0], bones[1]))
    poses = search(fixed.cube, moving.cube, FAST)
    out = []

    def add(pose: str, refined: Refined) -> None:
        evidence = find_evidence(fixed, moving, refined, bones)
        working = fixed.cube.spacing
        numbers = tuple(evidence.features(working)), tuple(evidence.error_features(working))
        out.append(Sample(seed, kind, pose, *numbers, working, error_mm(refined.pose.numpy())))

    best = refine_fully(both, poses[0], True)
    add("best", best)
    for pose in poses[1:]:
        other = refine_fully(both, pose, False)
        if distance(other.pose, best.pose, fixed.place) > fixed.cube.spacing:
            add("second", other)
            break
    if np.isfinite(error_mm(best.pose.numpy())):
        off = _put_off(best.pose, fixed, generator)
        led = refine_fully(both, off, False)
        add("off", Refined(off, led.disagreement + distance(off, led.pose, fixed.place), led.spacing))
    return out


def _drawn(seed: int, kind: str, generator: np.random.Generator) -> tuple[Any, Callable[[np.ndarray], float]]:
    """A pair, and the true error in mm of an answer ``(4, 4)``; infinite where none is right."""
    if kind in OTHERS:
        adversarial = make_adversarial(seed, kind)
        return adversarial, adversarial.error_mm
    options = {
        "same": {},
        "cut": {"keep": 0.5},
        "fine": {"spacing": 0.04, "size": 128},
        "relative": {"impostor": "relative", "relative_amount": float(generator.uniform(0.1, 0.6))},
        "thick impostor": {
            "impostor": str(generator.choice(("animal", "relative"))),
            "fixed_grid": _thick_grid(generator),
            "moving_grid": _thick_grid(generator),
        },
    }.get(kind, {"impostor": kind})
    if kind in ("animal", "relative", "mirror") and generator.random() < 0.4:
        options["keep"] = 0.5
    pair = make_pair(seed, **options)
    return pair, lambda matrix: float(target_registration_error(pair, matrix)) if pair.same else np.inf


def _thick_grid(generator: np.random.Generator) -> Grid:
    """A grid whose voxels are up to four times as long along one axis."""
    width, axis = generator.uniform(0.05, 0.1), generator.integers(3)
    return thick_grid(width, generator.uniform(1, 4), axis)


def _put_off(pose: torch.Tensor, fixed, generator: np.random.Generator) -> torch.Tensor:
    size = 10 ** generator.uniform(np.log10(0.02), np.log10(0.5))
    axis, shift = torch.from_numpy(generator.normal(size=(2, 3)))
    angle = torch.tensor(generator.normal() * size / fixed.place.radius)
    motion = rotation_about(rotation_from_axis_angle(axis, angle), torch.tensor(fixed.place.center))
    motion[:3, 3] += shift / shift.norm() * size * generator.uniform()
    return pose @ motion


def fit_logistic(features: np.ndarray, right: np.ndarray, ridge: float = 1e-4) -> np.ndarray:
    """Weights of a logistic model, by maximum likelihood with a slight ridge.

    Better evidence must never count less, so weights of agreement are zero or more, those of disagreement zero or less.
    """
    signs = np.where(right, 1.0, -1.0)

    def loss(weights):
        margin = signs * (features @ weights)
        value = np.logaddexp(0, -margin).mean() + ridge * (weights[1:] ** 2).sum()
        gradient = -(features * (signs * special.expit(-margin))[:, None]).mean(0)
        gradient[1:] += 2 * ridge * weights[1:]
        return value, gradient

    return optimize.minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", bounds=BOUNDS).x


def fit_quantile(features: np.ndarray, values: np.ndarray, quantile: float, counts: np.ndarray) -> np.ndarray:
    """Weights of a linear model of a quantile of `values` ``(n,)``, given `features` ``(n, k)``.

    Each value counts as much as `counts` ``(n,)`` says.

    Least pinball loss (Koenker & Bassett, Econometrica 46:33, 1978), as a linear program: each value is the model's
    plus a part above and less a part below, which cost `quantile` and its complement.
    """
    count, size = features.shape
    cost = np.r_[np.zeros(size), quantile * counts, (1 - quantile) * counts]
    parts = sparse.hstack((sparse.csr_array(features), sparse.eye_array(count), -sparse.eye_array(count)))
    bounds = [*ERROR_BOUNDS[:size], *[(0, None)] * (2 * count)]
    return optimize.linprog(cost, A_eq=parts, b_eq=values, bounds=bounds, method="highs").x[:size]


def fit(samples: list[Sample]) -> dict[str, Any]:
    """Fits the model that `verification` reads.

    The error told is half of what `COVERED` of the right poses stay below. A rare kind of pair counts by the root of
    how many there are, so that it is not neglected.
    """
    features = np.array([s.features for s in samples])
    right = np.array([s.right for s in samples])
    found = [s for s in samples if s.right]
    design = np.array([s.error_features for s in found])
    log_error = np.log([s.error / s.working for s in found])
    often = Counter(s.kind for s in found)
    counts = np.array([often[s.kind] ** -0.5 for s in found])
    wrong = [s.error / s.working for s in samples if not s.right and np.isfinite(s.error)]
    return {
        "confidence": fit_logistic(features, right).tolist(),
        "log_error": fit_quantile(design, log_error - np.log(2), COVERED, counts).tolist(),
        "wrong_error_voxels": float(np.median(wrong)),
        "samples": len(samples),
        "right": int(right.sum()),
    }


def held_out(samples: list[Sample]) -> dict[str, float]:
    """Brier score, ROC area and coverage, each sample judged by a model fitted without its fifth of the pairs.

    Coverage is the share of right best poses whose error is below twice the expected one.
    """
    features, right = np.array([s.features for s in samples]), np.array([s.right for s in samples])
    clear, fold = np.array([s.clear for s in samples]), np.array([s.seed % 5 for s in samples])
    probability, expected = np.empty(len(samples)), np.empty(len(samples))
    for k in range(5):
        model = fit([sample for sample, used in zip(samples, clear & (fold != k), strict=True) if used])
        probability[fold == k] = special.expit(features[fold == k] @ model["confidence"])
        left_out = np.array([s.error_features for s in samples if s.seed % 5 == k])
        expected[fold == k] = np.exp(left_out @ model["log_error"])
    order = probability.argsort().argsort() + 1
    area = (order[right].sum() - right.sum() * (right.sum() + 1) / 2) / (right.sum() * (~right).sum())
    found = [
        s.error / s.working < 2 * told
        for s, told in zip(samples, expected, strict=True)
        if s.right and s.pose == "best"
    ]
    brier = ((probability - right) ** 2).mean()
    return {"brier": float(brier), "roc_area": float(area), "covered": float(np.mean(found))}


def calibrate(
    pairs: int = 1000,
    jobs: int = 2,
    samples: Path | None = None,
    progress: ProgressFunction = no_progress,
) -> dict[str, Any]:
    """Gathers samples of synthetic pairs and fits the model.

    It starts processes, so a script calls it below ``if __name__ == "__main__":``.

    Args:
        pairs: how many.
        jobs: processes of one thread each.
        samples: a CSV file that keeps the samples; those in it are not measured again.
        progress: called with the fraction done and a message.

    Returns:
        the content of ``calibration.json``.

    Raises:
        FileError: the file cannot be written, is damaged, or holds samples of other code.
        RunError: a process died.
    """
    store = ResultStore(samples, Sample)
    seeds = range(FIRST_SEED, FIRST_SEED + pairs)
    # The best pose of a pair is added last: where it is there, all of them are.
    missing = [seed for seed in seeds if (seed, "best") not in store.results]
    with closing(completed_calls(samples_of, [(seed,) for seed in missing], jobs)) as measured:
        for done, found in enumerate(measured, 1):
            for sample in reversed(found):
                store.add(sample)
            progress(done / len(missing), f"{done} of {len(missing)} pairs")
    kept = sorted((s for s in store.results.values() if s.seed in seeds), key=lambda sample: sample.seed)
    model = {**fit([sample for sample in kept if sample.clear]), "held_out": held_out(kept)}
    return {**model, "pairs": pairs, "first_seed": FIRST_SEED}
