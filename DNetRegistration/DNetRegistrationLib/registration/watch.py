"""Progress, cancelling, time by stage and warnings of one alignment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..bone.cortex import CorticalBone
from .result import AlignmentCancelled

STAGES = ("preprocess", "dnet", "search", "refine", "verify")


@dataclass
class Watch:
    """Progress, cancelling, time by stage and warnings."""

    progress: Callable[[float, str], None] | None
    cancelled: Callable[[], bool] | None
    posed: Callable[[np.ndarray, tuple[CorticalBone, CorticalBone]], None] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    warnings: list[str] = field(default_factory=list)
    fraction: float = 0.0
    network_ran: bool = False
    network_spread: float = math.nan

    def check(self) -> None:
        if self.cancelled is not None and self.cancelled():
            raise AlignmentCancelled("the alignment was cancelled")

    def tell(self, fraction: float, message: str) -> None:
        """Reports progress. The fraction never falls, although a stage may be run again."""
        self.check()
        self.fraction = max(self.fraction, fraction)
        if self.progress is not None:
            self.progress(self.fraction, message)

    def part(self, start: float, end: float) -> Watch:
        """A watch for a part of the work that takes the progress from `start` to `end`."""
        return Watch(lambda fraction, message: self.tell(start + fraction * (end - start), message), self.cancelled)

    def within(self, start: float, end: float, message: str) -> Callable[[float], None]:
        """Returns a report for a step that takes the progress from `start` to `end`."""
        return lambda fraction: self.tell(start + fraction * (end - start), message)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
