"""Pairs that invite a wrong answer: metal, holders, wrong grids, two bones, bones that are not the same, and others.

Each is drawn from a seed, with its truth. Whether an answer is right is asked of the pair: `AdversarialPair.error_mm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ..core.errors import OptionError, Setting
from ..imaging.volume import Volume
from . import kinds
from .cases import Case


@dataclass(frozen=True)
class AdversarialPair:
    """Two scans, and what is known about them.

    Attributes:
        kind: one of `KINDS`.
        fixed, moving: the scans.
        points: ``(n, 3)`` bone of the fixed scan, where the scan says that it is, LPS mm.
        partners: ``(n, 3)`` where the moving scan says that the same bone is. Both are empty where no answer is right:
            the scans are of two bones, or of one and its mirror image.
        bones: ``(n,)`` int, which bone a point is of: 0, 1, ...
        answerable: an answer that is right ought to be accepted. It need not where the pose is one of many, where too
            little is shown, or where the scan misstates what it shows.
        drawn: what was drawn, in plain numbers and words that JSON can hold.
    """

    kind: str
    fixed: Volume
    moving: Volume
    points: np.ndarray
    partners: np.ndarray
    bones: np.ndarray
    answerable: bool
    drawn: dict

    def errors_mm(self, matrix: np.ndarray) -> np.ndarray:
        """The true error of an answer for each bone: the mean distance of its points to their partners.

        Args:
            matrix: ``(4, 4)``, fixed to moving points, LPS mm.

        Returns:
            ``(bones,)`` mm, empty where no answer is right.
        """
        away = np.linalg.norm(self.points @ matrix[:3, :3].T + matrix[:3, 3] - self.partners, axis=1)
        return np.array([away[self.bones == bone].mean() for bone in np.unique(self.bones)])

    def error_mm(self, matrix: np.ndarray) -> float:
        """The true error of an answer for that bone where it is largest; infinite where no answer is right."""
        return float(self.errors_mm(matrix).max(initial=-np.inf)) if len(self.points) else float("inf")


def make_adversarial(seed: int, kind: str | None = None) -> AdversarialPair:
    """Draws a pair that invites a wrong answer; the same for the same arguments.

    Args:
        seed: of everything.
        kind: one of `KINDS`; drawn when None.

    Raises:
        OptionError: there is no such kind.

    Example:
        >>> pair = make_adversarial(1, "ball")
        >>> pair.answerable, pair.error_mm(np.eye(4)) > 0.1
        (False, True)
    """
    generator = np.random.default_rng([seed, 31])
    drawn_kind = str(generator.choice(list(KINDS)))
    kind = drawn_kind if kind is None else kind
    if kind not in KINDS:
        raise OptionError(f"adversarial kind {kind!r} is unknown", f"give one of {', '.join(KINDS)}", Setting("kind"))
    case = KINDS[kind](generator)
    fixed, moving = case.fixed, case.moving
    usable = fixed.inside & np.isfinite(moving.landmarks).all(1)
    return AdversarialPair(
        kind,
        fixed.volume,
        moving.volume,
        fixed.world[usable],
        moving.world[usable],
        case.bones[usable],
        case.answerable,
        {"seed": seed, "kind": kind, **case.drawn},
    )


KINDS: dict[str, Callable[[Generator], Case]] = {
    "plain": kinds.plain,
    "metal": kinds.metal,
    "holder": kinds.holder,
    "strain": kinds.strain,
    "shear": kinds.shear,
    "missing": kinds.missing,
    "doubled": kinds.doubled,
    "two bones": kinds.two_bones,
    "mirrored": kinds.mirrored,
    "other": kinds.other,
    "littermate": kinds.littermate,
    "refilled": kinds.refilled,
    "ball": kinds.ball,
    "shaft": kinds.shaft,
    "capped": kinds.capped,
    "plate": kinds.plate,
    "crop": kinds.crop,
    "symmetric": kinds.symmetric,
    "slender": kinds.slender,
    "padding": kinds.padding,
    "clipped": kinds.clipped,
    "wrapped": kinds.wrapped,
    "inverted": kinds.inverted,
    "overlap": kinds.overlap,
    "callus": kinds.callus,
    "resorbed": kinds.resorbed,
    "thick": kinds.thick,
    "kernel": kinds.kernel,
    "clinical": kinds.clinical,
    "littermate crop": kinds.littermate_crop,
    "slender relative": kinds.slender_relative,
}
