"""Time and memory of aligning a pair as large as scanners make them, in a process of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...core.files import temporary_folder
from ...core.processes import completed_calls, peak_memory
from ..pair_files import PairFiles

SIZE, SPACING = 512, 0.01


@dataclass(frozen=True)
class LargePair:
    """What the alignment of a large pair took.

    Attributes:
        seconds: from images in memory to the verified transform.
        stages: seconds of each stage of it.
        peak_gb: largest resident memory of the process, in 1e9 bytes; NaN where the system does not tell.
        scans_gb: size of the two scans.
        error_um: true mean target error over the bone.
        accepted: by verification.
        threads: of torch.
    """

    seconds: float
    stages: dict[str, float]
    peak_gb: float
    scans_gb: float
    error_um: float
    accepted: bool
    threads: int


def measure_large(seed: int) -> LargePair:
    """Makes a pair in one process and aligns it in another, so that the memory is that of aligning alone."""
    with temporary_folder() as folder:
        files = PairFiles(folder)
        list(completed_calls(_make, [(seed, files)], 1))
        (measured,) = completed_calls(_align, [(files,)], 1, threads=None)
    return measured


def _make(seed: int, files: PairFiles) -> None:
    from ...synthesis.pairs import make_pair

    files.write(make_pair(seed, size=SIZE, spacing=SPACING, scale="raw"))


def _align(files: PairFiles) -> LargePair:
    import torch

    from ...registration.align import align

    fixed, moving = files.scans()
    began = time.perf_counter()
    alignment = align(fixed, moving, hypotheses="search", device="cpu")
    seconds = time.perf_counter() - began
    peak = peak_memory() / 1e9
    return LargePair(
        seconds,
        dict(alignment.seconds),
        peak,
        files.scans_gb(),
        files.target_error_um(alignment.matrix),
        bool(alignment.accepted),
        torch.get_num_threads(),
    )
