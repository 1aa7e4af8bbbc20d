"""Methods for the tests of a comparison: each does one thing, in a process that must be able to import it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np
from DNetRegistrationLib.experiments.methods.answer import Answer


@dataclass(frozen=True)
class StandIn:
    """Looks like a `ComparedMethod`."""

    key: str
    does: str
    title: str = "stand-in"
    version: str = "1"
    near: bool = False

    def missing(self):
        return "it is not there" if self.does == "is missing" else None

    def load(self):
        if self.does == "does not load":
            raise ImportError("no such library")
        return getattr(self, self.does)

    def identity(self, fixed, moving, threads):
        return Answer(np.eye(4), True)

    def starts(self, fixed, moving, threads, start):
        return Answer(start)

    def shears_start(self, fixed, moving, threads, start):
        return self.shears(fixed, moving, threads)

    def tells_brightness(self, fixed, moving, threads, start):
        raise RuntimeError(f"mean {moving.voxels.mean()}")

    def shears(self, fixed, moving, threads):
        matrix = np.eye(4)
        matrix[0, 1] = 0.5
        return Answer(matrix)

    def fails(self, fixed, moving, threads):
        raise RuntimeError("nothing overlaps")

    def dies(self, fixed, moving, threads):
        os.kill(os.getpid(), signal.SIGKILL)

    def sleeps(self, fixed, moving, threads, start=None):
        time.sleep(60)

    def sleeps_at_32(self, fixed, moving, threads):
        if fixed.size[0] == 32:
            time.sleep(60)
        return Answer(np.eye(4))

    def takes_memory(self, fixed, moving, threads):
        np.ones(25_000_000)
        return Answer(np.eye(4), False)

    def tells_threads(self, fixed, moving, threads):
        counts = {os.environ[name] for name in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")}
        raise RuntimeError(f"{threads} {sorted(counts)}")

    def prints(self, fixed, moving, threads):
        os.write(1, b"noise of a library\n")
        return Answer(np.eye(4))

    def has_torch(self, fixed, moving, threads):
        return Answer(np.eye(4), "torch" in sys.modules)
