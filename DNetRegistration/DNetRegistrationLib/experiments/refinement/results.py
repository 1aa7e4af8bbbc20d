"""What is kept of each refinement of the contest, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..methods import REFINE, REFINERS, ComparedMethod
from ..store import measuring_code

CODE = measuring_code(
    "experiments/pair_files.py",
    "experiments/methods",
    "experiments/method_process.py",
    *(f"experiments/refinement/{name}.py" for name in ("bound", "kinds", "run")),
)

#: Where refinements start: the truth put off by a voxel and two degrees, and this project's own proposal.
STARTS = ("near", "proposal")
#: Refinements that converge end at one place from both starts. The proposal is tried on the first of so many pairs.
PROPOSALS = 4
#: Rows of a pair that no tool measured: the Cramer-Rao bound, and the error of the start itself.
BOUND, START = "bound", "start"
#: This project's refinement of the same scans without contrast agent: what would be left if nothing of it were seen.
ORACLE = "oracle"

#: What refines, by key; the oracle comes last.
CONTESTANTS: dict[str, ComparedMethod] = {
    **REFINERS,
    ORACLE: replace(REFINERS[REFINE], key=ORACLE, title="this project, had there been no agent"),
}


@dataclass(frozen=True)
class RefinementResult:
    """What one method made of one start of a pair.

    Attributes:
        kind, seed: of the pair.
        start: one of `STARTS`.
        method, version: a key of `CONTESTANTS`, `BOUND` or `START`; and what it rests on.
        error_um: target registration error, infinite where the method failed. Of the bound, the least median one.
        bias_um: the mean error along the bone's axis, proximal positive.
        seconds, failure, late: of the `MethodRun`.
        limit_s: seconds that the method could take.
        matrix: 16 numbers by rows, fixed to moving points, LPS mm.
        code: hash of the code that measured it.
    """

    kind: str
    seed: int
    start: str
    method: str
    version: str = ""
    error_um: float = float("inf")
    bias_um: float = float("nan")
    seconds: float = float("nan")
    failure: str = ""
    late: bool = False
    limit_s: float = float("nan")
    matrix: tuple[float, ...] = ()
    code: str = CODE

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        """What tells it from others."""
        return self.kind, self.seed, self.start, self.method, self.version
