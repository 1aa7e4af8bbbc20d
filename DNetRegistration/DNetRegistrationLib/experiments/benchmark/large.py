"""Time and memory of a pair as large as scanners make them, measured in a process of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ...core.processes import fresh_processes, peak_memory

SIZE, SPACING = 512, 0.01


@dataclass(frozen=True)
class LargePair:
    """What the alignment of a large pair took.

    Attributes:
        seconds: from images in memory to the verified transform, and `stages`: its shares.
        peak_gb: largest resident memory of the process, in 1e9 bytes; NaN where the system does not tell.
        scans_gb: the two scans' own size.
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
    import numpy as np

    with TemporaryDirectory(prefix="dnet-benchmark-") as folder:
        _fresh_process(_make, seed, folder)
        matrix, seconds, stages, peak, accepted, threads = _fresh_process(_align, folder)
        truth = np.load(Path(folder, "truth.npz"))
        points = truth["points"]
        difference = matrix - truth["matrix"]
        error = np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1).mean()
        size = sum(Path(folder, f"{role}.npy").stat().st_size for role in ("fixed", "moving"))
    return LargePair(seconds, stages, peak / 1e9, size / 1e9, 1000 * float(error), accepted, threads)


def _fresh_process(function, *arguments):
    with fresh_processes(1) as pool:
        return pool.submit(function, *arguments).result()


def _make(seed: int, folder: str) -> None:
    import numpy as np

    from ...synthesis.pairs import make_pair

    pair = make_pair(seed, size=SIZE, spacing=SPACING, scale="raw")
    for role in ("fixed", "moving"):
        scan = getattr(pair, role)
        np.save(Path(folder, f"{role}.npy"), scan.voxels)
        np.save(Path(folder, f"{role}_affine.npy"), scan.affine)
    # A sample of the bone is enough for its mean error.
    flat = np.flatnonzero(pair.fixed_bone)[::1000]
    index = np.stack(np.unravel_index(flat, pair.fixed_bone.shape)[::-1], -1)
    np.savez(Path(folder, "truth.npz"), points=pair.fixed.to_world(index), matrix=pair.matrix)


def _align(folder: str):
    import numpy as np
    import torch

    from ...imaging.volume import Volume
    from ...registration.align import align

    fixed, moving = (
        Volume(np.load(Path(folder, f"{role}.npy")), np.load(Path(folder, f"{role}_affine.npy")), f"{role} scan")
        for role in ("fixed", "moving")
    )
    began = time.perf_counter()
    alignment = align(fixed, moving, hypotheses="search", device="cpu")
    seconds = time.perf_counter() - began
    result = alignment.matrix, seconds, dict(alignment.seconds)
    return (*result, peak_memory(), bool(alignment.accepted), torch.get_num_threads())
