"""What loops of transforms tell of their errors: three scans of one bone aligned with each other, and the truth."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from ...core.progress import ProgressFunction, no_progress
from ...geometry.loops import close_loops, star_and_ring
from ...geometry.transforms import mean_point_error
from ..store import measuring_code
from ..tables import Finding
from .cases import CaseTable, measure_cases
from .limits import at_least

CODE = measuring_code("geometry/loops.py", "experiments/benchmark/loops.py")

#: Of the first triplet. The third scan of a triplet has another seed.
FIRST_SEED, _THIRD = 340_000, 5_000
#: One transform is put off by this, um; every loop must then be open by more than this.
PUT_OFF_UM, SEEN_UM = 40.0, 20.0
#: Rank correlation of what a loop leaves with the true error.
CORRELATION = 0.7
# Fewer triplets have no order.
_LEAST = 3
# Fields of view hold U(keep, 1) of the bone: some triplets are hard, others easy.
_KEEPS = (1.0, 0.6, 0.35)


@dataclass(frozen=True)
class LoopResult:
    """What came of three scans.

    Attributes:
        seed: of the first two.
        accepted: whether all three alignments were.
        loop_um: what the loop leaves, mean over the bone.
        true_um: the true mean errors of the three transforms.
        expected_um: the expected ones.
        put_off_um: what the loop leaves with each of the three transforms in turn put off, in a direction drawn.
        failure: the message of an error, or nothing.
        code: hash of the code that measured it.
    """

    seed: int
    accepted: bool = False
    loop_um: float = np.nan
    true_um: tuple[float, ...] = ()
    expected_um: tuple[float, ...] = ()
    put_off_um: tuple[float, ...] = ()
    failure: str = ""
    code: str = CODE

    @property
    def key(self) -> tuple[int]:
        """What tells it from others."""
        return (self.seed,)


class LoopTable(CaseTable[LoopResult]):
    """All results, and whether they are as required."""

    def findings(self) -> list[Finding]:
        """What was measured, over the triplets whose three alignments are accepted."""
        good = [one for one in self.results if one.accepted and not one.failure]
        counted = f"{len(self.results)}; {len(good)}"
        accepted = at_least("triplets; all three accepted", counted, len(good), _LEAST)
        if len(good) < _LEAST:
            return [accepted]
        loop = np.array([one.loop_um for one in good])
        true = np.array([one.true_um for one in good])
        expected = np.array([one.expected_um for one in good])
        # Errors of three independent transforms add up in squares.
        total, allowed = (np.linalg.norm(values, axis=1) for values in (true, expected))
        least = min(min(one.put_off_um) for one in good)
        rank, largest = float(spearmanr(loop, total).statistic), float(spearmanr(loop, true.max(1)).statistic)
        return [
            accepted,
            Finding("what a loop leaves, median, largest", f"{np.median(loop):.2f}, {loop.max():.2f} um"),
            Finding("root sum of squares of the true errors", f"{np.median(total):.2f}, {total.max():.2f} um"),
            at_least("rank correlation of the two", f"{rank:.2f}", rank, CORRELATION),
            Finding("  with the largest of the true errors", f"{largest:.2f}"),
            Finding("  of the expected errors with the true ones", f"{spearmanr(allowed, total).statistic:.2f}"),
            Finding("a loop leaves more than its expected errors", f"{int((loop > allowed).sum())} of {len(good)}"),
            at_least(f"one transform put off by {PUT_OFF_UM:g} um: least", f"{least:.1f} um", least, SEEN_UM, " um"),
        ]


def benchmark_loops(
    pairs: int = 30,
    seed: int = 0,
    jobs: int | None = None,
    output: str | os.PathLike | None = None,
    progress: ProgressFunction = no_progress,
    tell: Callable[[str], None] = lambda text: None,
) -> LoopTable:
    """Aligns three synthetic scans of one bone with each other, closes the loop, and compares it with the truth.

    It starts processes, so a script calls it below ``if __name__ == "__main__":``.

    Args:
        pairs: how many triplets.
        seed: added to all seeds.
        jobs: processes of one thread each; one a processor by default.
        output: a folder that gets a row for each triplet, and the table. What was measured into it before, by the same
            code, is not measured again.
        progress: called with the fraction done and a message.
        tell: called with the table as Markdown, also when the benchmark is interrupted.

    Raises:
        FileError: the folder cannot be written, or holds results of other code.
        RunError: a process died.
    """
    return measure_cases(
        measure_triplet,
        [(FIRST_SEED + seed + number,) for number in range(pairs)],
        LoopResult,
        LoopTable,
        name="loops",
        says=lambda result: "loops",
        unit="triplets",
        jobs=jobs,
        output=output,
        progress=progress,
        tell=tell,
    )


def measure_triplet(seed: int) -> LoopResult:
    """Scans a bone three times, aligns each scan with each, and closes the loop. A failure is a result too.

    Every other triplet is with contrast agent in the second and the third scan.
    """
    from ...registration.align import align
    from ...synthesis.pairs import make_pair

    about = {"contrast": seed % 2 == 0, "keep": _KEEPS[seed % 3]}
    first = make_pair(seed, **about)
    third = make_pair(seed + _THIRD, fixed_animal=first.fixed_animal, moving_animal=first.fixed_animal, **about)
    scans = {"a": first.fixed, "b": first.moving, "c": third.moving}
    poses = {"a": first.fixed_pose, "b": first.moving_pose, "c": third.moving_pose}
    bones = {"a": first.fixed_bone, "b": first.moving_bone, "c": third.moving_bone}
    points = {name: scan.to_world(np.argwhere(bones[name])[:, ::-1]) for name, scan in scans.items()}
    try:
        found = {(a, b): align(scans[a], scans[b], device="cpu") for a, b in star_and_ring(list(scans))}
    except Exception as error:
        return LoopResult(seed, failure=f"{type(error).__name__}: {error}")
    matrices = {pair: alignment.matrix for pair, alignment in found.items()}
    errors = [
        mean_point_error(matrix, poses[b] @ np.linalg.inv(poses[a]), points[a]) for (a, b), matrix in matrices.items()
    ]
    generator = np.random.default_rng(seed)
    put_off = []
    for pair, matrix in matrices.items():
        away = np.eye(4)
        direction = generator.standard_normal(3)
        away[:3, 3] = PUT_OFF_UM / 1000 * direction / np.linalg.norm(direction)
        put_off.append(_left_um({**matrices, pair: away @ matrix}, points))
    return LoopResult(
        seed,
        all(one.accepted for one in found.values()),
        _left_um(matrices, points),
        tuple(1000 * error for error in errors),
        tuple(one.expected_error_um for one in found.values()),
        tuple(put_off),
    )


def _left_um(matrices: dict[tuple[str, str], np.ndarray], points: dict[str, np.ndarray]) -> float:
    (loop,) = close_loops(matrices, points)
    return 1000 * loop.error
