"""The options of an evaluation, and the record of what it is made of, kept in one file beside its results.

Needs neither torch nor NumPy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...bone.scan_file import ScanFile
from ...core.errors import FileError, OptionError, Setting, one_line
from ...core.files import atomic_write, writing
from ...core.provenance import machine
from ...core.threads import available_processors
from ...networks.weights import SHIPPED
from ...version import __version__
from .plan import METHODS, STEPS, STRATEGIES, TESTS, ScannedBone

#: In the folder of an evaluation: its record, its results, synthetic scans, networks.
SETTINGS, PAIRS, SCANS, TRAINING = "evaluation.json", "pairs.csv", "scans", "training"
#: What an option is where it is None: in a full evaluation, and in a quick one.
DEFAULTS = {
    "animals": (16, 4), "size": (128, 64), "spacing": (0.04, 0.08), "steps": (STEPS, 5), "iterations": (1000, 4),
    "batch": (8, 2), "own_iterations": (300, 2), "own_batch": (16, 2), "strategies": (tuple(STRATEGIES), ("S1", "S3")),
}  # fmt: skip
_FORMAT = "DNetRegistration evaluation 1"
#: Options that only synthetic scans have.
SYNTHETIC_SCANS = ("animals", "size", "spacing")
_KEPT = (*DEFAULTS, "processor_minutes", "seed", "methods", "tests", "recipe", "precision")
# These decide results, so they must stay the same when an evaluation is continued.
_FIXED = ("scans", "seed", "processor_minutes", "steps", "recipe", "precision", "batch", "own_batch")


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate. Options that are None have the value of `DEFAULTS`, which depends on `quick`.

    Attributes:
        output: folder of all results. An evaluation that is there is continued.
        scans: two folders (the halves A and B), one folder, or one CSV file; none for synthetic scans.
        quick: a small setting that shows everything in some minutes.
        train_only: stop when the networks are trained.
        seed: of synthetic bones, of the split in halves and of training.
        scan_spacing: voxel size of the scans in mm, a tuple of one number or of three (x, y, z), where files lack it.
        animals, size, spacing: of synthetic scans: how many, voxels along each axis, voxel size in mm.
        strategies, methods, tests: names of `plan.STRATEGIES`, `plan.METHODS` and `plan.TESTS`.
        steps: positions of each synthetic test.
        subjects: names of the bones in Fig. 5; None for the first two.
        recipe: training recipe of the paper's networks, a name of `recipes.RECIPES`.
        iterations, batch: training budget of all networks: steps of the optimizer, and pairs of each step.
        processor_minutes: train each network for so long instead, counted in processor time. How many iterations that
            takes is measured once for each of them.
        own_iterations, own_batch: likewise of methods with a budget of their own.
        precision: of the paper's networks in training, one of `recipes.PRECISIONS`.
        weights: files of weights, or names of weights that ship, to use instead of training, by network (``S1/dnet``)
            or method (``dnet``).
        device: to train on: "auto", "cpu", "cuda".
        jobs: processes that align, of one thread each.

    Raises:
        OptionError: a name is unknown, or a number is too small.
        FileError: a file of `weights` does not exist.
    """

    output: str | os.PathLike
    scans: Sequence[str | os.PathLike] = ()
    quick: bool = False
    train_only: bool = False
    seed: int = 0
    scan_spacing: Sequence[float] | None = None
    animals: int | None = None
    size: int | None = None
    spacing: float | None = None
    strategies: Sequence[str] | None = None
    methods: Sequence[str] = tuple(METHODS)
    tests: Sequence[str] = TESTS
    steps: int | None = None
    subjects: Sequence[str] | None = None
    recipe: str = "fast"
    iterations: int | None = None
    batch: int | None = None
    processor_minutes: float | None = None
    own_iterations: int | None = None
    own_batch: int | None = None
    precision: str = "auto"
    weights: Mapping[str, str | os.PathLike] = field(default_factory=dict)
    device: str = "auto"
    jobs: int = available_processors()

    def __post_init__(self) -> None:
        if isinstance(self.scans, str | os.PathLike):
            raise OptionError(f"scans is a single path, {self.scans}", "give a list of paths", Setting("scans"))
        for name, known in (("strategies", STRATEGIES), ("methods", METHODS), ("tests", TESTS)):
            for value in getattr(self, name) or ():
                if value not in known:
                    problem = f"{value!r} is none of the {name}"
                    raise OptionError(problem, f"choose from {', '.join(known)}", Setting(name))
        for name, least in (("animals", 2), ("steps", 2), ("jobs", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} cannot be {value}", f"give {least} or more", Setting(name))
        if self.processor_minutes is not None and not self.processor_minutes > 0:
            problem = f"processor_minutes cannot be {self.processor_minutes}"
            raise OptionError(problem, "give more than 0", Setting("processor_minutes"))
        for name, path in self.weights.items():
            strategy, _, method = name.rpartition("/")
            own = method in METHODS and METHODS[method].by_strategy and not METHODS[method].asks
            if not own or strategy not in ("", *STRATEGIES):
                raise OptionError(f"{name!r} names no network", "name one as dnet or S1/dnet", Setting("weights"))
            if path not in SHIPPED and not Path(path).is_file():
                raise FileError(f"{path}: there is no such file of weights", "check the path", Setting("weights"))

    def resolved(self) -> EvaluationOptions:
        """The same options with a value for each that is None in `DEFAULTS`."""
        values = {name: both[self.quick] for name, both in DEFAULTS.items() if getattr(self, name) is None}
        spacing = None if self.scan_spacing is None else tuple(self.scan_spacing)
        return replace(self, **values, scan_spacing=spacing)

    def budget(self, method: str) -> tuple[int, int]:
        """The training budget of a method's network: steps of the optimizer, and pairs of each step."""
        own = METHODS[method].own_budget
        return (self.own_iterations, self.own_batch) if own else (self.iterations, self.batch)


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation is made of, as kept in its folder.

    Attributes:
        options: plain values by the names of `EvaluationOptions`, and the "fingerprint" of all voxels (None before they
            are read).
        bones: by name.
        trained: what is known of the training of each network, by `PlannedNetwork.name`.
        machine: what it ran on, in words.
        command: the options, as a person would give them.
    """

    options: dict[str, Any]
    bones: dict[str, ScannedBone]
    trained: dict[str, dict[str, Any]]
    machine: str
    command: str

    @classmethod
    def begun(cls, options: EvaluationOptions, command: str) -> EvaluationRecord:
        """The record of resolved options, before scans are read."""
        kept = {name: getattr(options, name) for name in _KEPT}
        kept |= {"scans": [Path(path).name for path in options.scans], "scan_spacing": options.scan_spacing}
        # Tuples become lists, as they do in the file.
        kept = json.loads(json.dumps({**kept, "fingerprint": None}))
        return cls(kept, {}, {}, f"{machine()}, {options.jobs} process{'es' if options.jobs > 1 else ''}", command)

    def require_continuable(self, now: EvaluationRecord, folder: Path) -> None:
        """Raises `FileError` where `self`, found in `folder`, is of other scans or settings than `now`."""
        for name in (*_FIXED, *(() if now.options["scans"] else SYNTHETIC_SCANS)):
            if self.options.get(name) != now.options[name]:
                differs = f"with {name.replace('_', ' ')} {self.options.get(name)}, not {now.options[name]}"
                raise _of_another(folder, differs)
        prints = self.options.get("fingerprint"), now.options["fingerprint"]
        if None not in prints and prints[0] != prints[1]:
            raise _of_another(folder, "of scans with other voxels")

    def save(self, folder: Path) -> None:
        """Writes the record; raises `FileError` where it cannot be written."""
        content = {
            "format": _FORMAT,
            "version": __version__,
            "command": self.command,
            "machine": self.machine,
            "options": self.options,
            "trained": self.trained,
            "bones": {bone.name: _plain(bone, folder) for bone in self.bones.values()},
        }
        with atomic_write() as staging, writing(folder / SETTINGS):
            text = json.dumps(content, indent=1)
            staging.path(folder / SETTINGS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EvaluationRecord:
        """Reads the record; raises `FileError` where there is none, or a damaged one."""
        path = folder / SETTINGS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError("another format")
            bones = {name: _bone(name, entry, folder) for name, entry in content["bones"].items()}
            return cls(
                content["options"], bones, dict(content["trained"]), str(content["machine"]), str(content["command"])
            )
        except FileNotFoundError as error:
            raise FileError(
                f"{path}: does not exist, so nothing was evaluated in this folder yet", "check the folder"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(
                f"{path}: cannot be read, or is damaged ({one_line(error)})",
                "restore it from a copy, or evaluate into another folder",
            ) from error


def _of_another(folder: Path, differs: str) -> FileError:
    return FileError(f"{folder}: holds an evaluation {differs}", "evaluate into another folder", Setting("output"))


def _plain(bone: ScannedBone, folder: Path) -> dict[str, Any]:
    def of(path: Path | None) -> str | None:
        if path is None:
            return None
        # Synthetic scans move with the folder.
        inside = path.resolve().is_relative_to(folder.resolve())
        return str(path.resolve().relative_to(folder.resolve()) if inside else path.resolve())

    def scan(file: ScanFile) -> str | dict[str, Any] | None:
        about = file.about | ({} if file.mask is None else {"mask": of(Path(file.mask))})
        return {"path": of(Path(file.path)), **about} if about else of(Path(file.path))

    return {
        "animal": bone.animal, "fold": bone.fold, "pre": scan(bone.pre), "post": scan(bone.post),
        "transform": of(bone.transform),
    }  # fmt: skip


def _bone(name: str, entry: Mapping[str, Any], folder: Path) -> ScannedBone:
    def scan(told: str | dict[str, Any]) -> ScanFile:
        about = {"path": told} if isinstance(told, str) else dict(told)
        about |= {key: str(folder / about[key]) for key in ("path", "mask") if key in about}
        return ScanFile(**about | ({"spacing": tuple(about["spacing"])} if "spacing" in about else {}))

    transform = None if entry["transform"] is None else folder / entry["transform"]
    return ScannedBone(name, entry["animal"], entry["fold"], scan(entry["pre"]), scan(entry["post"]), transform)
