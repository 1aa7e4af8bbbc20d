"""Fits what `verification` believes, on synthetic pairs whose truth is known.

``python -m DNetRegistrationLib.calibration`` gathers evidence from clear successes through near misses to impostors
(other animals, close relatives in shape space, mirror images, a bone at its second-best pose), fits a logistic model of
success and a log-linear one of the error, and writes ``calibration.json``. Brier score and area under the receiver
operating characteristic are told on pairs left out of the fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import optimize, special

from ..bone.cortex import cortical_bone
from ..bone.images import native_scan, prepare
from ..bone.threshold import find_bone_scale
from ..core.files import atomic_write
from ..geometry.rigid import rotation_about, rotation_from_axis_angle
from ..registration.refinement import Refined, distance, refine
from ..registration.search import FAST, search
from ..registration.verification import CALIBRATION, verify
from ..synthesis.pairs import make_pair, target_registration_error

# Calibration draws from seeds that nothing else uses.
FIRST_SEED = 1_000_000
KINDS = ("same", "cut", "plain", "fine", "animal", "relative", "mirror")
# How often each kind of pair is drawn.
SHARES = (0.16, 0.3, 0.04, 0.04, 0.16, 0.2, 0.1)

# Of the weights of `Evidence.features`: constant, three correlations, share, disagreement.
BOUNDS = ((None, None), (0, None), (0, None), (0, None), (0, None), (None, 0))


@dataclass(frozen=True)
class Sample:
    """Evidence and truth of one pose of one pair: `features` of `Evidence`, `error` in mm, infinite for impostors."""

    seed: int
    kind: str
    pose: str
    features: tuple[float, ...]
    ended: float
    working: float
    error: float

    @property
    def right(self) -> bool:
        """The error is below one working voxel."""
        return self.error < self.working

    @property
    def clear(self) -> bool:
        """Not a pose put off by 0.4 to 1 voxel: right by the letter, yet such as no refinement leaves behind.

        The fit leaves them out; the held-out figures do not.
        """
        return self.pose != "off" or not 0.4 <= self.error / self.working < 1


def samples_of(seed: int) -> list[Sample]:
    """Every sample of one pair: the best pose, the second best, and one put off by 20 to 500 um."""
    torch.set_num_threads(1)
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
    poses, _ = search(fixed.cube, moving.cube, FAST)
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


def gather(seeds: list[int], jobs: int) -> Iterator[list[Sample]]:
    """Samples of the pairs of some seeds, as they come."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(samples_of, seeds)


def fit_logistic(features: np.ndarray, right: np.ndarray, ridge: float = 1e-4) -> np.ndarray:
    """Weights of a logistic model, by maximum likelihood with a slight ridge.

    Better evidence must never count less: agreement has weights of zero or more, disagreement of zero or less.
    """
    signs = np.where(right, 1.0, -1.0)

    def loss(weights):
        margin = signs * (features @ weights)
        value = np.logaddexp(0, -margin).mean() + ridge * (weights[1:] ** 2).sum()
        gradient = -(features * (signs * special.expit(-margin))[:, None]).mean(0)
        gradient[1:] += 2 * ridge * weights[1:]
        return value, gradient

    return optimize.minimize(loss, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", bounds=BOUNDS).x


def fit(samples: list[Sample]) -> dict:
    """The model that `verification` reads."""
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


def held_out(samples: list[Sample]) -> dict:
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m DNetRegistrationLib.calibration", description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--samples", default="calibration.jsonl", help="samples, a line each; those there are kept")
    options = parser.parse_args()
    path = Path(options.samples)
    samples = [Sample(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    done = {sample.seed for sample in samples}
    seeds = [seed for seed in range(FIRST_SEED, FIRST_SEED + options.pairs) if seed not in done]
    with path.open("a") as file:
        for number, found in enumerate(gather(seeds, options.jobs), 1):
            samples += found
            file.writelines(json.dumps(asdict(sample)) + "\n" for sample in found)
            file.flush()
            if number % 50 == 0:
                print(f"{number} of {len(seeds)} pairs", flush=True)
    samples.sort(key=lambda sample: sample.seed)
    pairs = len({sample.seed for sample in samples})
    clear = [sample for sample in samples if sample.clear]
    model = {**fit(clear), "held_out": held_out(samples), "pairs": pairs, "first_seed": FIRST_SEED}
    with atomic_write() as staging:
        staging.path(CALIBRATION).write_text(json.dumps(model, indent=1) + "\n")
    print(json.dumps(model, indent=1))


if __name__ == "__main__":
    main()
