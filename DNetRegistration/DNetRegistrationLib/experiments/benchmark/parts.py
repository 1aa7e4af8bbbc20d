"""What `benchmark` measures: kinds of pairs, and one pair of each kind aligned and compared with the truth."""

from __future__ import annotations

import csv
import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ...core.errors import ScanError
from ...core.files import staged, writing
from ...version import __version__
from ..metrics import SUCCESS_UM

#: Pairs of different parts have different seeds, and none has one of those the confidence was calibrated on.
SEEDS_PER_PART = 10_000
CALIBRATION_SEEDS = 1_000_000


def _code() -> str:
    """The version and a hash of the code and the calibration: outcomes of different code are not put together."""
    folder = Path(__file__).parents[2]
    content = hashlib.sha256()
    for file in sorted((*folder.rglob("*.py"), *folder.rglob("*.json"))):
        content.update(file.read_bytes())
    return f"{__version__}+{content.hexdigest()[:12]}"


CODE = _code()

#: A network's proposal that is turned by more than this is no start for a refinement.
FAR_DEG = 15.0

SECTIONS = ("success", "accuracy", "impostors", "network", "paper", "repeat", "refinement", "speed")

#: Ways of aligning, as options to `align`.
SEARCH = {"hypotheses": "search"}
ALONE = {"hypotheses": "dnet", "refine": "none"}
DEFAULT = {"hypotheses": "auto"}
PAPER = {**ALONE, "weights": "dnet"}


@dataclass(frozen=True)
class Part:
    """Pairs of one kind.

    Attributes:
        section: what ``--only`` calls it.
        options: to `synthesis.make_pair`.
        ways: options to `align`; each pair is aligned in each of these ways.
    """

    section: str
    options: dict
    ways: tuple[dict, ...] = (SEARCH,)


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
}
_IMPOSTORS = ("animal", "relative", "mirror")
STAGES = ("preprocess", "dnet", "search", "refine", "verify", "total")


@dataclass(frozen=True)
class Task:
    """One alignment to make: the pair number `number` of a part, in the `run`-th of its ways."""

    part: str
    number: int
    run: int
    first_seed: int = 0

    @property
    def seed(self) -> int:
        return self.first_seed + list(PARTS).index(self.part) * SEEDS_PER_PART + self.number

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells its result from others."""
        return self.part, self.seed, self.run


@dataclass(frozen=True)
class Outcome:
    """What came of one alignment.

    Attributes:
        part, seed, run: of its `Task`.
        kind: "same" for two scans of one bone, else the kind of impostor.
        error_um: true mean target error over the bone; NaN for impostors, infinite where nothing came out.
        angle_deg: of the rotation still missing.
        dice_true: where nothing was refined, the Dice that the true pose gives.
        accepted, confidence, expected_error_um, dice_before, dice, hypothesis: of the `Alignment`.
        digest: equal for bitwise equal transforms and confidences.
        seconds: for each of `STAGES`.
        failure: the message of an error, or nothing.
        version: of this package, and a hash of its code.
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
    digest: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    version: str = CODE

    @property
    def success(self) -> bool:
        """One bone, and aligned; an impostor never is."""
        return self.kind == "same" and self.error_um < SUCCESS_UM

    @property
    def way(self) -> dict:
        """The options it was aligned with."""
        return PARTS[self.part].ways[self.run]

    @property
    def key(self) -> tuple[str, int, int]:
        """That of its `Task`."""
        return self.part, self.seed, self.run


def measure(tasks: Sequence[Task]) -> list[Outcome]:
    """Makes a pair, aligns it in some ways of its part, and compares with the truth; a failure is an outcome too.

    Args:
        tasks: of one pair.
    """
    from ...synthesis.pairs import make_pair

    part, number = tasks[0].part, tasks[0].number
    options = dict(PARTS[part].options)
    if part == "impostors":
        options["impostor"] = _IMPOSTORS[number % len(_IMPOSTORS)]
    pair = make_pair(tasks[0].seed, **options)
    return [compare(task, pair, pair.drawn["impostor"] or "same") for task in tasks]


def compare(task: Task, pair, kind: str) -> Outcome:
    """Aligns a pair and compares with its truth."""
    import numpy as np

    from ...geometry.transforms import rotation_error_deg
    from ...registration.align import align
    from ...synthesis.pairs import target_registration_error

    way = PARTS[task.part].ways[task.run]
    began = time.perf_counter()
    try:
        alignment = align(pair.fixed, pair.moving, device="cpu", **way)
    except Exception as error:
        # One pair that cannot be aligned is a failure to count, not the end of the benchmark.
        return Outcome(task.part, task.seed, task.run, kind, failure=f"{type(error).__name__}: {error}")
    seconds = {**alignment.seconds, "total": time.perf_counter() - began}
    same = kind == "same"
    content = np.append(alignment.matrix, alignment.confidence).tobytes()
    return Outcome(
        task.part,
        task.seed,
        task.run,
        kind,
        error_um=1000 * target_registration_error(pair, alignment.matrix) if same else math.nan,
        angle_deg=rotation_error_deg(pair.matrix, alignment.matrix) if same else math.nan,
        dice_true=_true_dice(pair, alignment) if way.get("refine") == "none" else math.nan,
        accepted=bool(alignment.accepted),
        confidence=float(alignment.confidence),
        expected_error_um=float(alignment.expected_error_um),
        dice_before=float(alignment.dice_before),
        dice=float(alignment.dice),
        hypothesis=alignment.hypothesis,
        digest=hashlib.sha256(content).hexdigest()[:16],
        seconds={stage: float(seconds.get(stage, 0.0)) for stage in STAGES},
    )


def _true_dice(pair, alignment) -> float:
    from ...bone.cortex import cortical_bone, dice

    thresholds = alignment.fixed_threshold, alignment.moving_threshold
    bones = [
        cortical_bone(scan, threshold, alignment.working_spacing)
        for scan, threshold in zip((pair.fixed, pair.moving), thresholds, strict=True)
    ]
    return dice(*bones, pair.matrix)


class Record:
    """Outcomes, in memory and, one line for each as it comes, in a CSV file that a later run carries on from.

    Args:
        path: of the file, or None.

    Raises:
        ScanError: the file there is of other code, or cannot be read or written.
    """

    _NAMES = (*(f.name for f in fields(Outcome) if f.name != "seconds"), *(f"seconds_{stage}" for stage in STAGES))

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.outcomes: dict[tuple[str, int, int], Outcome] = {}
        if path is None or not path.exists():
            return
        with writing(path), open(path, newline="", encoding="utf-8") as stream:
            read = [self._from_row(row) for row in csv.DictReader(stream)]
        self.outcomes = {outcome.key: outcome for outcome in read if outcome is not None}
        if others := {outcome.version for outcome in self.outcomes.values()} - {CODE}:
            raise ScanError(f"{path}: was measured with version {others.pop()}; give another folder")
        # Anew, without a last line that was cut short.
        with staged() as staging:
            self._append(staging.path(path), self.outcomes.values())

    def add(self, outcome: Outcome) -> None:
        """Keeps an outcome."""
        self.outcomes[outcome.key] = outcome
        if self._path is not None:
            with writing(self._path):
                self._append(self._path, [outcome])

    def _append(self, path: Path, outcomes: Iterable[Outcome]) -> None:
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self._NAMES)
            if new:
                writer.writeheader()
            writer.writerows(self._to_row(outcome) for outcome in outcomes)

    def of(self, tasks: Iterable[Task]) -> list[Outcome]:
        """The outcomes there are of some tasks."""
        return [self.outcomes[task.key] for task in tasks if task.key in self.outcomes]

    def _to_row(self, outcome: Outcome) -> dict[str, str]:
        row = {name: getattr(outcome, name) for name in self._NAMES if not name.startswith("seconds_")}
        row |= {f"seconds_{stage}": outcome.seconds.get(stage, 0.0) for stage in STAGES}
        # repr keeps every digit of a float.
        return {name: repr(value) if isinstance(value, float) else str(value) for name, value in row.items()}

    @classmethod
    def _from_row(cls, row: dict[str, str]) -> Outcome | None:
        """None for a line that was cut short when the process was killed."""
        if any(row.get(name) is None for name in cls._NAMES):
            return None
        read = {"int": int, "float": float, "bool": "True".__eq__, "str": str}
        values = {f.name: read[f.type](row[f.name]) for f in fields(Outcome) if f.name != "seconds"}
        return Outcome(**values, seconds={stage: float(row[f"seconds_{stage}"]) for stage in STAGES})
