"""What the benchmark measures: kinds of pairs, and one pair of each kind aligned and compared with the truth."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bone.cortex import cortical_bone, dice
from ...geometry.transforms import rotation_error_deg
from ..metrics import SUCCESS_UM
from ..store import measuring_code

if TYPE_CHECKING:
    from ...imaging.volume import Volume
    from ...registration.result import Alignment

CODE = measuring_code("experiments/benchmark/parts.py")

#: Pairs of different parts have different seeds. None is a seed that the confidence was calibrated on.
SEEDS_PER_PART = 10_000
CALIBRATION_SEEDS = 1_000_000

#: A network's estimate that is off by a larger rotation is no start for a refinement.
FAR_DEG = 15.0

SECTIONS = ("success", "accuracy", "impostors", "network", "paper", "repeat", "speed", "coverage", "adversarial")
STAGES = ("preprocess", "dnet", "search", "refine", "verify", "total")

#: Ways of aligning, as options to `align`.
SEARCH = {"hypotheses": "search"}
ALONE = {"hypotheses": "dnet", "refine": "none"}
DEFAULT = {"hypotheses": "auto"}
PAPER = {**ALONE, "weights": "dnet"}


@dataclass(frozen=True)
class Part:
    """Pairs of one kind.

    Attributes:
        section: the name that selects the part.
        options: to `synthesis.make_pair`. Adversarial pairs have none: their kinds take turns.
        ways: options to `align`. Each pair is aligned in each of these ways.
    """

    section: str
    options: dict[str, Any]
    ways: tuple[dict[str, Any], ...] = (SEARCH,)


_COARSE = {"size": 64, "spacing": 0.08}
_FINE = {"size": 200, "spacing": 0.025}
# Fields of view cut down to half the bone, as a repeated scan may be.
_HARD = {**_COARSE, "keep": 0.5}

PARTS = {
    "success": Part("success", {**_HARD, "contrast": True}),
    "80 um plain": Part("accuracy", {**_COARSE, "contrast": False}),
    "80 um contrast": Part("accuracy", {**_COARSE, "contrast": True}),
    "25 um plain": Part("accuracy", {**_FINE, "contrast": False}),
    "25 um contrast": Part("accuracy", {**_FINE, "contrast": True}),
    "impostors": Part("impostors", {**_HARD, "contrast": True}),
    "repeat": Part("repeat", {**_HARD, "contrast": True}, (SEARCH, SEARCH)),
    "speed": Part("speed", {**_COARSE, "contrast": True}),
    "default speed": Part("speed", {**_COARSE, "contrast": True}, (DEFAULT,)),
    "network whole": Part("network", {**_COARSE, "contrast": True}, (ALONE, DEFAULT)),
    "network cut": Part("network", {**_HARD, "contrast": True}, (ALONE, DEFAULT)),
    "paper whole": Part("paper", {**_COARSE, "contrast": True}, (PAPER,)),
    # Every other pair is with contrast agent.
    "coverage whole": Part("coverage", _COARSE, (DEFAULT,)),
    "coverage cut": Part("coverage", _HARD, (DEFAULT,)),
    "adversarial": Part("adversarial", {}, (DEFAULT,)),
}
_IMPOSTORS = ("animal", "relative", "mirror")


@dataclass(frozen=True)
class Trial:
    """One alignment to make: pair `number` of a part, aligned in the `run`-th of the part's ways."""

    part: str
    number: int
    run: int
    first_seed: int = 0

    @property
    def seed(self) -> int:
        """The seed of the pair."""
        return self.first_seed + list(PARTS).index(self.part) * SEEDS_PER_PART + self.number

    @property
    def key(self) -> tuple[str, int, int]:
        """That of its `Outcome`."""
        return self.part, self.seed, self.run


@dataclass(frozen=True)
class Outcome:
    """What came of one alignment.

    Attributes:
        part, seed, run: of the `Trial`.
        kind: "same" for two scans of one bone, else the kind of impostor, or of adversarial pair.
        error_um: true mean target error over the bone, of several bones the largest; NaN for impostors, infinite where
            the alignment failed and for adversarial pairs of which no answer is right.
        angle_deg: angle of the rotation still missing; likewise.
        dice_true: Dice at the true pose, where nothing was refined.
        accepted, confidence, expected_error_um, dice_before, dice, hypothesis: of the `Alignment`.
        errors_um: the error of each bone in an adversarial pair.
        voxel_um: the working voxel. An answer is right whose error is below it.
        answerable: an answer that is right ought to be accepted.
        doubts: of the `Alignment`, with semicolons between them.
        drawn: what an adversarial pair is, as JSON.
        digest: equal for transforms and confidences that are equal to the bit.
        seconds_preprocess and so on: seconds of each of `STAGES`.
        failure: the message of an error, or nothing.
        code: hash of the code that measured it.
    """

    part: str
    seed: int
    run: int
    kind: str
    error_um: float = math.inf
    angle_deg: float = math.inf
    dice_true: float = math.nan
    accepted: bool = False
    confidence: float = 0.0
    expected_error_um: float = math.inf
    dice_before: float = math.nan
    dice: float = math.nan
    hypothesis: str = ""
    errors_um: tuple[float, ...] = ()
    voxel_um: float = SUCCESS_UM
    answerable: bool = True
    doubts: str = ""
    drawn: str = ""
    digest: str = ""
    failure: str = ""
    seconds_preprocess: float = 0.0
    seconds_dnet: float = 0.0
    seconds_search: float = 0.0
    seconds_refine: float = 0.0
    seconds_verify: float = 0.0
    seconds_total: float = 0.0
    code: str = CODE

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells it from others."""
        return self.part, self.seed, self.run

    @property
    def success(self) -> bool:
        """Whether it is one bone, and aligned. An impostor never is."""
        return self.kind == "same" and self.error_um < SUCCESS_UM

    @property
    def right(self) -> bool:
        """Whether all bones of an adversarial pair, or the one of another pair, lie within a working voxel."""
        return self.error_um < self.voxel_um

    @property
    def alone(self) -> bool:
        """Whether the network answered alone, with nothing refined."""
        return PARTS[self.part].ways[self.run].get("refine") == "none"


@dataclass(frozen=True)
class _Known:
    """A pair of which the truth is known: see `Outcome`.

    Attributes:
        errors_mm: of each bone, of a ``(4, 4)`` matrix; none where no answer is right.
        matrix: ``(4, 4)`` the truth, or None where it is not one matrix.
    """

    fixed: Volume
    moving: Volume
    kind: str
    errors_mm: Callable[[np.ndarray], Sequence[float]]
    matrix: np.ndarray | None = None
    answerable: bool = True
    drawn: str = ""


def measure(trials: Sequence[Trial]) -> list[Outcome]:
    """Makes a pair, aligns it in some ways of its part, and compares with the truth. A failure is an outcome too.

    Args:
        trials: of one pair.
    """
    pair = _make(trials[0])
    return [_measure_one(trial, pair) for trial in trials]


def _make(trial: Trial) -> _Known:
    from ...synthesis.adversarial import KINDS, make_adversarial
    from ...synthesis.pairs import make_pair, target_registration_error

    if trial.part == "adversarial":
        made = make_adversarial(trial.seed, list(KINDS)[trial.number % len(KINDS)])
        drawn = json.dumps(made.drawn)
        return _Known(made.fixed, made.moving, made.kind, made.errors_mm, None, made.answerable, drawn)
    options = dict(PARTS[trial.part].options)
    if trial.part == "impostors":
        options["impostor"] = _IMPOSTORS[trial.number % len(_IMPOSTORS)]
    if PARTS[trial.part].section == "coverage":
        options["contrast"] = trial.number % 2 == 0
    pair = make_pair(trial.seed, **options)
    if not pair.same:
        return _Known(pair.fixed, pair.moving, pair.drawn["impostor"], lambda matrix: [math.nan], answerable=False)

    def errors_mm(matrix: np.ndarray) -> Sequence[float]:
        return [target_registration_error(pair, matrix)]

    return _Known(pair.fixed, pair.moving, "same", errors_mm, pair.matrix)


def _measure_one(trial: Trial, pair: _Known) -> Outcome:
    from ...registration import align as registration

    way = PARTS[trial.part].ways[trial.run]
    about = {"answerable": pair.answerable, "drawn": pair.drawn}
    began = time.perf_counter()
    try:
        alignment = registration.align(pair.fixed, pair.moving, device="cpu", **way)
    except Exception as error:
        # A pair that cannot be aligned is a failure to count, not the end of the benchmark.
        failure = f"{type(error).__name__}: {error}"
        return Outcome(trial.part, trial.seed, trial.run, pair.kind, **about, failure=failure)
    seconds = {**alignment.seconds, "total": time.perf_counter() - began}
    content = np.append(alignment.matrix, alignment.confidence).tobytes()
    errors_um = tuple(1000 * float(error) for error in pair.errors_mm(alignment.matrix))
    return Outcome(
        trial.part,
        trial.seed,
        trial.run,
        pair.kind,
        error_um=max(errors_um, default=math.inf),
        angle_deg=math.nan if pair.matrix is None else rotation_error_deg(pair.matrix, alignment.matrix),
        dice_true=_true_dice(pair, alignment) if way.get("refine") == "none" else math.nan,
        accepted=bool(alignment.accepted),
        confidence=float(alignment.confidence),
        expected_error_um=float(alignment.expected_error_um),
        dice_before=float(alignment.dice_before),
        dice=float(alignment.dice),
        hypothesis=alignment.hypothesis,
        errors_um=errors_um,
        voxel_um=1000 * alignment.working_spacing,
        **about,
        doubts="; ".join(alignment.doubts),
        digest=hashlib.sha256(content).hexdigest()[:16],
        **{f"seconds_{stage}": float(seconds.get(stage, 0.0)) for stage in STAGES},
    )


def _true_dice(pair: _Known, alignment: Alignment) -> float:
    thresholds = alignment.fixed_threshold, alignment.moving_threshold
    bones = [
        cortical_bone(scan, threshold, alignment.working_spacing)
        for scan, threshold in zip((pair.fixed, pair.moving), thresholds, strict=True)
    ]
    return dice(*bones, pair.matrix)
