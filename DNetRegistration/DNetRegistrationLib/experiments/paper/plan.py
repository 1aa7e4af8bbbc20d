"""What an evaluation is made of: strategies, tests and methods, as Sec. 2.4 and 2.5 of the paper set them.

Needs neither torch nor NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Strategy:
    """A way to train and to test: on scans of `train`, all or only those without contrast agent; on all of `test`."""

    name: str
    train: str
    test: str
    contrast: bool


STRATEGIES = {
    "S1": Strategy("S1", "A", "B", contrast=True),
    "S2": Strategy("S2", "B", "A", contrast=True),
    "S3": Strategy("S3", "A", "B", contrast=False),
    "S4": Strategy("S4", "B", "A", contrast=False),
}
#: What Table 1 puts together.
GROUPS = {"S1&S2": ("S1", "S2"), "S3&S4": ("S3", "S4")}
FOLDS = ("A", "B")


@dataclass(frozen=True)
class Method:
    """One way to align.

    Attributes:
        name: as options and files have it.
        label: as tables and figures have it.
        network: that it asks, one of `recipes.NETWORKS`; None where nothing is trained.
        own_budget: the network is trained for as long as is its own, not as long as all others.
    """

    name: str
    label: str
    network: str | None = None
    own_budget: bool = False


#: The method that leaves both scans where they are: what errors begin with.
UNMOVED = "unmoved"
_LABELS = {"me": "ME", "se": "SE", "sed": "SED", "snl-sed": "SNL-SED", "dnet": "D-net"}
#: In the order of Table 1, what it is to do nothing first, this project's own last.
METHODS = {
    method.name: method
    for method in (
        Method(UNMOVED, "Left as they are"),
        Method("sitk", "SITK"),
        *(Method(name, label, name) for name, label in _LABELS.items()),
        Method("equivariant", "Equivariant D-net", "equivariant"),
        Method("equivariant-own", "Equivariant D-net, own budget", "equivariant", own_budget=True),
        Method("search", "Search"),
        Method("full", "Full pipeline"),
    )
}

#: "rotation": turned about `AXIS` with a fixed translation; "translation": the reverse; "real": pre against post.
TESTS = ("rotation", "translation", "real")
#: The axis of both synthetic tests, LPS.
AXIS = (1 / math.sqrt(3),) * 3
#: mm, the translation of the rotation test.
FIXED_TRANSLATION = (0.4, 0.4, 0.4)
#: radians, the rotation of the translation test.
FIXED_ANGLE = math.pi / 2
#: The ends of both ranges: radians, and mm along `AXIS`.
LARGEST_ANGLE, LARGEST_SHIFT = math.pi, math.sqrt(3) / 2
STEPS = 11


def positions(test: str, steps: int = STEPS) -> list[float]:
    """Where a test looks: angles in radians, shifts in mm, or the one place of the real test, called 0."""
    if test == "real":
        return [0.0]
    end = LARGEST_ANGLE if test == "rotation" else LARGEST_SHIFT
    return [-end + 2 * end * step / (steps - 1) for step in range(steps)]


@dataclass(frozen=True)
class Network:
    """One network to be trained, or given: for a strategy, with a budget."""

    strategy: str
    method: str

    @property
    def name(self) -> str:
        """As ``--weights`` and folders have it: ``S1/dnet``."""
        return f"{self.strategy}/{self.method}"


def networks(strategies: tuple[str, ...], methods: tuple[str, ...]) -> list[Network]:
    """All networks that an evaluation of these needs."""
    return [Network(strategy, name) for strategy in strategies for name in methods if METHODS[name].network]


@dataclass(frozen=True)
class Task:
    """One pair of scans to be aligned by several methods.

    Attributes:
        test: one of `TESTS`.
        bone: its name.
        scan: "pre" or "post", the scan that is moved; "both" in the real test.
        step, position: which of the test's positions.
        runs: what aligns it: method, and the strategy its network was trained by or "" where nothing is trained.
    """

    test: str
    bone: str
    scan: str
    step: int
    position: float
    runs: tuple[tuple[str, str], ...]


def plan(
    folds: dict[str, str],
    strategies: tuple[str, ...],
    methods: tuple[str, ...],
    tests: tuple[str, ...],
    steps: int = STEPS,
) -> list[Task]:
    """All pairs, those of one scan one after another.

    Args:
        folds: "A" or "B" for the name of each bone.
        strategies, methods, tests: what was asked for.
        steps: of the synthetic tests.
    """
    tasks = []
    tested = {STRATEGIES[strategy].test for strategy in strategies}
    for bone, fold in sorted(folds.items()):
        if fold not in tested:
            continue
        own = [strategy for strategy in strategies if STRATEGIES[strategy].test == fold]
        runs = tuple(
            (name, strategy) for name in methods for strategy in (own if METHODS[name].network is not None else [""])
        )
        for scan, of_scan in groupby(_SCANNED, lambda one: one[1]):
            for test, _ in of_scan:
                if test in tests:
                    tasks += [Task(test, bone, scan, i, at, runs) for i, at in enumerate(positions(test, steps))]
    return tasks


_SCANNED = (
    ("rotation", "pre"), ("translation", "pre"), ("rotation", "post"), ("translation", "post"), ("real", "both"),
)  # fmt: skip
