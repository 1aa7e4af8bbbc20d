"""Fits the model of confidence and expected error that `verification` reads, on synthetic pairs of known truth.

Evidence ranges from clear successes through near misses to impostors: other animals, close relatives in shape space,
mirror images, a bone at its second-best pose. A logistic model gives the probability of success, a log-linear one the
error. Brier score and area under the receiver operating characteristic are of pairs left out of the fit.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import optimize, special

from ..bone.cortex import cortical_bone
from ..bone.images import native_scan
from ..bone.prepare import prepare
from ..bone.threshold import find_bone_scale
from ..core.processes import completed_calls
from ..core.progress import ProgressFunction, no_progress
from ..geometry.rigid import rotation_about, rotation_from_axis_angle
from ..registration.refinement import Refined, distance, refine
from ..registration.search import FAST, search
from ..registration.verification import verify
from ..synthesis.pairs import make_pair, target_registration_error
from .store import ResultStore, measuring_code

CODE = measuring_code("experiments/calibrate.py")

# Calibration draws from seeds that nothing else uses.
FIRST_SEED = 1_000_000
KINDS = ("same", "cut", "plain", "fine", "animal", "relative", "mirror")
# How often each kind of pair is drawn.
SHARES = (0.16, 0.3, 0.04, 0.04, 0.16, 0.2, 0.1)

# Of the weights of `Evidence.features`: constant, three correlations, share, disagreement.
BOUNDS = ((None, None), (0, None), (0, None), (0, None), (0, None), (None, 0))


@dataclass(frozen=True)
class Sample:
    """Evidence and truth of one pose of one pair.

    Attributes:
        seed, kind: of the pair, one of `KINDS`.
        pose: "best", "second" or "off".
        features: of the `Evidence`.
        ended: logarithm of the voxel size at which refinement ended, as a share of the working one.
        working: working voxel, mm.
        error: true target error, mm; infinite for impostors.
        code: hash of the code that measured it.
    """

    seed: int
    kind: str
    pose: str
    features: tuple[float, ...]
    ended: float
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
    kind = str(generator.choice(KINDS, p=np.array(SHARES) / sum(SHARES)))
    options = {
        "same": {},
        "cut": {"keep": 0.5},
        "plain": {"contrast": False},
        "fine": {"spacing": 0.04, "size": 128},
        "relative": {"impostor": "relative", "relative_amount": float(generator.uniform(0.1, 0.6))},
    }.get(kind, {"impostor": kind})
    if kind in ("animal", "relative", "mirror") and generator.random() < 0.4:
        options["keep"] = 0.5
    pair = make_pair(seed, **options)
    scans = pair.fixed, pair.moving
    scales = [find_bone_scale(scan) for scan in scans]
    natives = [native_scan(*of, None, torch.device("cpu")) for of in zip(scans, scales, strict=True)]
    fixed, moving = prepare(*natives)
    bones = [cortical_bone(scan, x.threshold, fixed.cube.spacing) for scan, x in zip(scans, scales, strict=True)]
    poses = search(fixed.cube, moving.cube, FAST)
    out = []

    def add(pose: str, refined: Refined) -> None:
        evidence = verify(fixed, moving, refined, bones).evidence
        error = target_registration_error(pair, refined.pose.numpy()) if pair.same else np.inf
        ended = float(np.log(evidence.spacing / fixed.cube.spacing))
        out.append(Sample(seed, kind, pose, tuple(evidence.features()), ended, fixed.cube.spacing, float(error)))

    best = refine(fixed, moving, poses[0], native=True)
    add("best", best)
    for pose in poses[1:]:
        other = refine(fixed, moving, pose, native=False)
        if distance(other.pose, best.pose, fixed.place) > fixed.cube.spacing:
            add("second", other)
            break
    if pair.same:
        off = _put_off(best.pose, fixed, generator)
        led = refine(fixed, moving, off, native=False)
        add("off", Refined(off, led.disagreement + distance(off, led.pose, fixed.place), led.spacing))
    return out


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


def fit(samples: list[Sample]) -> dict[str, Any]:
    """Fits the model that `verification` reads."""
    features = np.array([s.features for s in samples])
    right = np.array([s.right for s in samples])
    found = [s for s in samples if s.right]
    design = np.array([(*s.features, s.ended) for s in found])
    log_error = np.log([s.error / s.working for s in found])
    wrong = [s.error / s.working for s in samples if not s.right and np.isfinite(s.error)]
    return {
        "confidence": fit_logistic(features, right).tolist(),
        "log_error": np.linalg.lstsq(design, log_error, rcond=None)[0].tolist(),
        "wrong_error_voxels": float(np.median(wrong)),
        "samples": len(samples),
        "right": int(right.sum()),
    }


def held_out(samples: list[Sample]) -> dict[str, float]:
    """Brier score and ROC area of all samples, each judged by a model fitted without its fifth of the pairs."""
    features, right = np.array([s.features for s in samples]), np.array([s.right for s in samples])
    clear, fold = np.array([s.clear for s in samples]), np.array([s.seed % 5 for s in samples])
    probability = np.empty(len(samples))
    for k in range(5):
        fitted = clear & (fold != k)
        weights = fit_logistic(features[fitted], right[fitted])
        probability[fold == k] = special.expit(features[fold == k] @ weights)
    order = probability.argsort().argsort() + 1
    area = (order[right].sum() - right.sum() * (right.sum() + 1) / 2) / (right.sum() * (~right).sum())
    return {"brier": float(((probability - right) ** 2).mean()), "roc_area": float(area)}


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
