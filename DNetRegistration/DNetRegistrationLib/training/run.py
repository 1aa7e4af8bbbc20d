"""A training run: iterations, log, validation, checkpoints, and the weights that come out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..core.csv_table import CsvTable
from ..core.errors import FileError, Setting
from ..core.interrupts import deferred
from ..networks.weights import save_weights
from ..version import __version__
from . import checkpoints
from .checkpoints import Checkpoint
from .hardware import describe, operations, wait_for
from .pairs import PairSource
from .trainer import GRADIENT_NORM, Trainer
from .validation import Figures, validate

LOG, VALIDATION, WEIGHTS = "log.csv", "validation.csv", "weights.pt"
TRAINED_FOR_ONE = 8  # pairs, for each that is validated
LINE_SECONDS = 2.0  # from one line that is shown to the next; the log has them all


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When a run stops to log, to validate, to write; none of it changes what is computed.

    Attributes:
        log_every: iterations from one line of the log to the next.
        validate_every: iterations from one validation to the next; None for 40 in all, or for fewer where a run is
            short: at most one pair is validated for eight that are trained on.
        validation_pairs: pairs of each kind.
        checkpoint_minutes: from one checkpoint to the next.
        minutes: after which the run stops; the same options go on from there. None for never.
    """

    log_every: int = 20
    validate_every: int | None = None
    validation_pairs: int = 128
    checkpoint_minutes: float = 5.0
    minutes: float | None = None


class Run:
    """A run of a trainer, new or continued.

    Args:
        trainer: a fresh one.
        validation: sources of validation pairs, by a word for their kind.
        folder: an existing one, for all that is written.
        settings: what decides the result; the checkpoint holds it.
        pace: when to stop for what.
        card: entries of the model card that the run itself does not know.
        checkpoint: of this folder, to go on from.
        half: save weights in half precision.
        report: called with each line that tells how it goes.
    """

    def __init__(
        self,
        trainer: Trainer,
        validation: Mapping[str, PairSource],
        folder: Path,
        settings: dict[str, Any],
        pace: Pace,
        *,
        card: dict[str, Any] | None = None,
        checkpoint: Checkpoint | None = None,
        half: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.trainer, self.recipe, self.processes = trainer, trainer.recipe, trainer.processes
        self.validation, self.folder, self.settings, self.pace = validation, folder, settings, pace
        self.card, self.half, self.report = card or {}, half, report
        if checkpoint is not None:
            try:
                trainer.restore(checkpoint.state)
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                raise FileError(
                    f"{folder / checkpoints.NAME}: is of another network or version",
                    "choose another folder",
                    Setting("output"),
                ) from error
        self._spent = 0.0 if checkpoint is None else checkpoint.seconds  # before this process
        self._began = self._written = time.monotonic()
        self._validated: float | None = None  # seconds of the last validation
        first = self.processes.first
        self._fresh = checkpoint is None
        self.log = CsvTable(folder / LOG if first else None, checkpoint.log if checkpoint else [])
        self.validations = CsvTable(folder / VALIDATION if first else None, checkpoint.validation if checkpoint else [])

    @property
    def seconds(self) -> float:
        """Spent on training so far, before and after interruptions."""
        return self._spent + time.monotonic() - self._began

    def go(self) -> bool:
        """Trains to the end, or until the time is up, and writes checkpoint and weights.

        Returns:
            Whether all iterations are made.

        Raises:
            KeyboardInterrupt: interrupted; checkpoint and weights are written.
            FileError: something could not be written.
            RunError: training failed.
        """
        trainer, stopped = self.trainer, False
        with deferred() as interrupted:
            if self._fresh:
                self._checkpoint()  # from now on the folder is this run's
            if trainer.must_prepare:
                if not self._prepare(interrupted):
                    raise KeyboardInterrupt
                self._checkpoint()
            self._count()
            self._began = self._written = self._window = self._shown = time.monotonic()
            self._window_iteration = trainer.iteration
            while trainer.iteration < self.recipe.iterations and not stopped:
                if self._validation_is_due() and not self._validate(interrupted):
                    break
                stopped = trainer.step(lambda: interrupted() or self._time_is_up())
                if trainer.iteration % self.pace.log_every == 0 and not stopped:
                    self._add_line()
                if time.monotonic() - self._written > 60 * self.pace.checkpoint_minutes:
                    self._checkpoint()
            # A validation follows when the time is up, but not when someone waits at the keyboard.
            if not self.processes.any(interrupted(), trainer.device):
                self._validate(interrupted)
            self._checkpoint()
            self._save_weights()
            if self.processes.any(interrupted(), trainer.device):
                self._say(f"stopped at iteration {trainer.iteration}; the same options go on from there")
                raise KeyboardInterrupt
        return trainer.iteration >= self.recipe.iterations

    def _prepare(self, interrupted: Callable[[], bool]) -> bool:
        """Prepares the trainer; whether it was not interrupted."""
        shown = time.monotonic()

        def check(fraction: float) -> bool:
            nonlocal shown
            if time.monotonic() - shown >= LINE_SECONDS:
                shown = time.monotonic()
                self._say(f"before the first iteration: {100 * fraction:.0f} % of the head")
            return interrupted()

        self._say("a head learns to work out the motion from two poses, for a minute or two")
        return self.trainer.prepare(check)

    def _time_is_up(self) -> bool:
        return self.pace.minutes is not None and time.monotonic() - self._began > 60 * self.pace.minutes

    @property
    def _validate_every(self) -> int:
        if self.pace.validate_every:
            return self.pace.validate_every
        pairs = len(self.validation) * self.pace.validation_pairs
        return max(1, self.recipe.iterations // 40, -(-TRAINED_FOR_ONE * pairs // self.recipe.batch))

    def _validation_is_due(self) -> bool:
        return self.trainer.iteration > 0 and self.trainer.iteration % self._validate_every == 0

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Keeps the time inside out of the speed of training."""
        began = time.monotonic()
        yield
        wait_for(self.trainer.device)
        self._window += time.monotonic() - began

    def _count(self) -> None:
        """Counts the operations of a pair, forward and backward, at each reduction that is still to come."""
        trainer = self.trainer
        self._operations: dict[int, int] = {}
        for reduction, iterations in self.recipe.reductions_from(trainer.iteration).items():
            if iterations:
                pair = trainer.pairs.draw(0, 1, max_angle=math.pi, reduction=reduction)
                self._operations[reduction] = operations(lambda pair=pair: trainer.loss(pair)[0])

    def _add_line(self) -> None:
        trainer, recipe = self.trainer, self.recipe
        figures, making = trainer.means()
        now = time.monotonic()
        seconds, iterations = now - self._window, trainer.iteration - self._window_iteration
        self._window, self._window_iteration = now, trainer.iteration
        if not figures or not iterations:
            return
        speed = iterations * recipe.batch / seconds
        line = {
            "iteration": trainer.iteration,
            "pairs": trainer.iteration * recipe.batch,
            "seconds": self.seconds,
            **figures,
            "learning_rate": recipe.learning_rate_at(trainer.iteration - 1),
            "largest_angle_deg": math.degrees(recipe.largest_angle_at(trainer.iteration - 1)),
            "skipped": trainer.skipped,
            "pairs_per_second": speed,
            "share_making_pairs": making / seconds,
        }
        self.log.add(line)
        if now - self._shown < LINE_SECONDS:
            return
        self._shown = now
        left = self._seconds_left(seconds / iterations, now)
        said = {"loss": "loss {:.4g}", "re_deg": "RE {:.2f} deg", "te_um": "TE {:.0f} um"}
        means = ", ".join(
            said.get(name, name + " {:.3g}").format(value) for name, value in figures.items() if name != GRADIENT_NORM
        )
        skipped = f", {trainer.skipped} skipped" if trainer.skipped else ""
        self._say(
            f"{trainer.iteration}/{recipe.iterations}: {means}{skipped}; {speed:.3g} pairs/s, "
            f"{100 * making / seconds:.0f} % of the time making pairs; {_duration(left)} left"
        )

    def _seconds_left(self, last: float, now: float) -> float:
        """Until the run ends, where the last iteration took `last` seconds; at most until the time is up."""
        # The time of an iteration is proportional to its operations: those on larger cubes take longer.
        done = self.trainer.iteration
        ahead = self.recipe.reductions_from(done).items()
        work = sum(count * self._operations[reduction] for reduction, count in ahead if count)
        operation = last / (self._operations[self.recipe.reduction_at(done - 1)] * self.recipe.batch)
        left = work * self.recipe.batch * operation + self._validations_ahead() * self._seconds_to_validate(operation)
        return left if self.pace.minutes is None else min(left, 60 * self.pace.minutes - (now - self._began))

    def _validations_ahead(self) -> int:
        """How many there will be: each time they are due, and at the end."""
        every, done, end = self._validate_every, self.trainer.iteration, self.recipe.iterations
        return end // every - (done - 1) // every + (end % every > 0)

    def _seconds_to_validate(self, operation: float) -> float:
        """What the last one took; before the first, what its passes take, which are a third of those in training."""
        if self._validated is not None:
            return self._validated
        return len(self.validation) * self.pace.validation_pairs * max(self._operations.values()) * operation / 3

    def _validate(self, interrupted) -> bool:
        """Validates, once at an iteration; returns whether it was not interrupted."""
        trainer = self.trainer
        if any(line["iteration"] == trainer.iteration for line in self.validations.rows):
            return True
        found: dict[str, Figures] = {}
        began = time.monotonic()
        with self._aside():
            network = trainer.trained
            for kind, source in self.validation.items():
                figures = validate(
                    network,
                    source,
                    self.pace.validation_pairs,
                    self.recipe.micro_batch,
                    trainer.dtype,
                    self.processes,
                    interrupted,
                )
                if figures is None:
                    return False
                found[kind] = figures
        self._validated = time.monotonic() - began
        for kind, figures in found.items():
            self.validations.add({"iteration": trainer.iteration, "views": kind, **asdict(figures)})
            self._say(f"{trainer.iteration}/{self.recipe.iterations}: validation, {kind} views: {figures}")
        return True

    def _checkpoint(self) -> None:
        if self.processes.first:
            checkpoints.write(
                Checkpoint(
                    self.settings,
                    self.recipe.micro_batch,
                    self.trainer.state(),
                    self.log.rows,
                    self.validations.rows,
                    self.seconds,
                ),
                self.folder,
            )
        self._written = time.monotonic()

    def _save_weights(self) -> None:
        if not self.processes.first:
            return
        trainer = self.trainer
        last = {line["views"]: line for line in self.validations.rows}
        card = {
            "recipe": asdict(self.recipe),
            **self.card,
            "iterations": trainer.iteration,
            "pairs": trainer.iteration * self.recipe.batch,
            "skipped": trainer.skipped,
            "hours": round(self.seconds / 3600, 3),
            "device": describe(trainer.device),
            "precision": str(trainer.dtype).removeprefix("torch."),
            "processes": self.processes.count,
            "torch": torch.__version__,
            "version": __version__,
            "validation": last,
        }
        save_weights(trainer.trained, self.folder / WEIGHTS, card, half=self.half)

    def _say(self, text: str) -> None:
        if self.processes.first:
            self.report(text)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
