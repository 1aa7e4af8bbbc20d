"""The design of the paper's experiments: strategies, tests and methods (Sec. 2.4 and 2.5), and the pairs they make.

Needs neither torch nor NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...bone.scan_file import ScanFile


@dataclass(frozen=True)
class Strategy:
    """A way to train and to test (Sec. 2.4).

    Attributes:
        name: as in the paper, "S1" to "S4".
        train: the half of the animals that networks are trained on, "A" or "B".
        test: the other half.
        contrast: networks see scans with contrast agent in training too. Tests use all scans.
    """

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
#: Table 1 takes these strategies together.
GROUPS = {"S1&S2": ("S1", "S2"), "S3&S4": ("S3", "S4")}
FOLDS = ("A", "B")


@dataclass(frozen=True)
class EvaluatedMethod:
    """One way to align.

    Attributes:
        name: in options and files.
        label: in tables and figures.
        network: the network that it uses, one of `recipes.NETWORKS`; None where nothing is trained.
        own_budget: its network has a training budget of its own instead of the one of all others.
        turns: how many ways a pair is turned when its network is asked; the answer is the median of all.
        asks: the method whose network it asks; "" where it has its own.
        shipped: name of the weights that ship which it takes, whatever it is tested on; "" where they are trained.
    """

    name: str
    label: str
    network: str | None = None
    own_budget: bool = False
    turns: int = 1
    asks: str = ""
    shipped: str = ""

    @property
    def by_strategy(self) -> bool:
        """Whether strategies differ in its network."""
        return self.network is not None and not self.shipped


#: The method that leaves both scans where they are. Its errors are those to start from.
UNMOVED = "unmoved"
_LABELS = {"me": "ME", "se": "SE", "sed": "SED", "snl-sed": "SNL-SED", "dnet": "D-net"}
#: In the order of Table 1, between the method that does nothing and this project's own.
METHODS = {
    method.name: method
    for method in (
        EvaluatedMethod(UNMOVED, "Left as they are"),
        EvaluatedMethod("sitk", "SITK"),
        *(EvaluatedMethod(name, label, name) for name, label in _LABELS.items()),
        EvaluatedMethod("dnet-turned", "D-net, 8 turns", "dnet", turns=8, asks="dnet"),
        EvaluatedMethod("dnet-shipped", "D-net that ships", "dnet", shipped="dnet"),
        EvaluatedMethod(
            "dnet-shipped-turned", "D-net that ships, 8 turns", "dnet", turns=8, asks="dnet-shipped", shipped="dnet"
        ),
        EvaluatedMethod("equivariant", "Equivariant D-net", "equivariant"),
        EvaluatedMethod("equivariant-own", "Equivariant D-net, own budget", "equivariant", own_budget=True),
        EvaluatedMethod("search", "Search"),
        EvaluatedMethod("full", "Full pipeline"),
    )
}

#: "rotation" varies the angle about `AXIS`, "translation" the shift along it; "real" aligns pre and post.
TESTS = ("rotation", "translation", "real")
#: The axis of both synthetic tests, LPS.
AXIS = (1 / math.sqrt(3),) * 3
#: The translation of the rotation test, mm.
FIXED_TRANSLATION = (0.4, 0.4, 0.4)
#: The rotation of the translation test, radians.
FIXED_ANGLE = math.pi / 2
#: The ends of both ranges: radians, and mm along `AXIS`.
LARGEST_ANGLE, LARGEST_SHIFT = math.pi, math.sqrt(3) / 2
STEPS = 11


def positions(test: str, steps: int = STEPS) -> list[float]:
    """The positions of a test: angles in radians, shifts in mm, or the single position 0 of the real test."""
    if test == "real":
        return [0.0]
    end = LARGEST_ANGLE if test == "rotation" else LARGEST_SHIFT
    return [-end + 2 * end * step / (steps - 1) for step in range(steps)]


@dataclass(frozen=True)
class ScannedBone:
    """One bone, scanned without (`pre`) and with (`post`) contrast agent.

    Attributes:
        name: of the bone.
        animal: the animal it is from. Bones of one animal are in one half.
        fold: "A" or "B"; "" before the split.
        pre, post: its scans.
        transform: file of the true transform, pre to post points, LPS mm; None where it is not known.
    """

    name: str
    animal: str
    fold: str
    pre: ScanFile
    post: ScanFile
    transform: Path | None = None

    def scan(self, which: str) -> ScanFile:
        """The scan "pre" or "post"."""
        return self.pre if which == "pre" else self.post


@dataclass(frozen=True)
class PlannedNetwork:
    """A network to be trained or given: that of one method, for one strategy, or for all ("")."""

    strategy: str
    method: str

    @property
    def name(self) -> str:
        """As options and folders have it: ``S1/dnet``, or ``dnet-shipped``."""
        return "/".join(filter(None, (self.strategy, self.method)))


def network_of(method: str, strategy: str) -> PlannedNetwork:
    """The network that a method asks, which may be that of another method."""
    return PlannedNetwork(strategy, METHODS[method].asks or method)


def networks(strategies: Sequence[str], methods: Sequence[str]) -> list[PlannedNetwork]:
    """All networks that these strategies and methods need."""
    needed = [
        network_of(name, strategy if METHODS[name].by_strategy else "")
        for strategy in strategies
        for name in methods
        if METHODS[name].network
    ]
    return list(dict.fromkeys(needed))


@dataclass(frozen=True)
class PlannedPair:
    """One pair of scans, to be aligned by several methods.

    Attributes:
        test: one of `TESTS`.
        bone: its name.
        scan: "pre" or "post", the scan that is moved; "both" in the real test.
        step, position: number and value of the test's position, see `positions`.
        runs: the methods that align it, each with the strategy that its network was trained by, "" without one.
    """

    test: str
    bone: str
    scan: str
    step: int
    position: float
    runs: tuple[tuple[str, str], ...]


def plan(
    folds: Mapping[str, str],
    strategies: Sequence[str],
    methods: Sequence[str],
    tests: Sequence[str],
    steps: int = STEPS,
) -> list[PlannedPair]:
    """All pairs; those of one scan follow one another.

    Args:
        folds: "A" or "B" by the name of the bone.
        strategies, methods, tests: names of what is wanted.
        steps: positions of each synthetic test.
    """
    pairs = []
    for bone, fold in sorted(folds.items()):
        own = [strategy for strategy in strategies if STRATEGIES[strategy].test == fold]
        if not own:
            continue
        runs = tuple((name, strategy) for name in methods for strategy in (own if METHODS[name].by_strategy else [""]))
        for test, scan in _SCANS:
            if test in tests:
                pairs += [PlannedPair(test, bone, scan, i, at, runs) for i, at in enumerate(positions(test, steps))]
    return pairs


_SCANS = (
    ("rotation", "pre"), ("translation", "pre"), ("rotation", "post"), ("translation", "post"), ("real", "both"),
)  # fmt: skip
