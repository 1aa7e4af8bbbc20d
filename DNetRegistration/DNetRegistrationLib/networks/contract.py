"""What training and registration ask of a network; all six keep it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from .batch import PairBatch

#: Judges what a network predicts for a batch: the loss, a scalar, and figures for the log. See `training.losses`.
Criterion = Callable[[Any, PairBatch], tuple[Tensor, dict[str, Any]]]


class Candidate(NamedTuple):
    """A motion about the centres of two cubes, to be refined and verified.

    Attributes:
        rotation: ``(3, 3)`` float64 on the CPU, of vectors (x, y, z).
        translation: ``(3,)`` float64 on the CPU, mm.
        spread: median distance in mm, over the bone, of the answers that it is the median of; NaN for a single one.
    """

    rotation: Tensor
    translation: Tensor
    spread: float = math.nan


class Network(nn.Module, ABC):
    """Sees pairs of canonical cubes and tells the motion between them.

    Cubes are ``(b, 1, 64, 64, 64)`` bone values, indexed [z, y, x], 0 outside the field of view; `inside` is 1 in it.

    Attributes:
        name: by which `registry.build` makes it and a weights file knows it.
        pairs_to_fit: how many pairs `fit` is given before the network is trained; 0 where it has nothing to fit.
        turns: how many ways a pair is turned for it, see `networks.turns`; 1 where its answer turns with the pair.
        readouts: names of the submodules that read an answer off what the others see; Muon does not step them.
    """

    name: str
    pairs_to_fit: int = 0
    turns: int = 1
    readouts: tuple[str, ...] = ()

    @abstractmethod
    def loss(
        self, batch: PairBatch, criterion: Criterion, both_directions: bool = False
    ) -> tuple[Tensor, dict[str, Any]]:
        """The loss of a batch.

        Args:
            batch: pairs with the truth about them.
            criterion: judges the prediction; each kind of network has its own, see `training.losses`.
            both_directions: count (moving, fixed) with the inverse motion too; without meaning for a network whose
                answer is inverted when its inputs are swapped.

        Returns:
            The loss, a scalar, and figures for the log.
        """

    @abstractmethod
    def estimate(
        self, fixed: Tensor, moving: Tensor, fixed_inside: Tensor, moving_inside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The most likely motion of each pair, about the cubes' centres.

        Returns:
            Rotations ``(b, 3, 3)`` and translations ``(b, 3)`` in mm at the paper's spacing, float64.
        """

    @abstractmethod
    def candidates(
        self,
        fixed: Tensor,
        moving: Tensor,
        fixed_inside: Tensor,
        moving_inside: Tensor,
        spacing: float,
        turns: int = 1,
    ) -> list[list[Candidate]]:
        """Motions worth verifying, for each pair, the most likely first; possibly none, possibly not finite.

        Args:
            fixed, moving, fixed_inside, moving_inside: the cubes.
            spacing: of both cubes in mm.
            turns: how many ways to turn a pair. A network whose `turns` are 1 answers the same whatever is given.

        Raises:
            OptionError: `turns` is out of range.
        """

    def fit(self, batch: PairBatch) -> None:
        """Takes from some pairs what the network must know of its inputs: once, before it is trained."""
        raise NotImplementedError(f"{self.name} has nothing to fit")

    def sample_links(self, voxels: int) -> None:
        """Lets non-local links look at so many voxels in training, drawn at random; 0 for all."""
