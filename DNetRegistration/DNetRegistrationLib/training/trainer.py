"""Iterations of training; where they stop, they can go on to the same bits.

Nothing here depends on the clock or on what was drawn before: pairs, learning rate and range of rotations follow from
the number of the iteration. So a run that was interrupted and resumed ends with the bits of one that was not (on a
processor; GPUs add up in an order of their own). Several processes end with the weights of one, to rounding (with Muon
to that of its matrices, which are in bfloat16).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import RunError, Setting
from ..networks.batch import PairBatch
from ..networks.contract import Network
from .distributed import Processes
from .hardware import Stopwatch, precision_on
from .losses import criterion_for
from .optimizers import optimizer_for
from .pose_stage import PoseStage
from .recipes import Recipe

GRADIENT_NORM = "gradient_norm"  # among the figures, before clipping
MOST_FAILURES = 20  # iterations in a row without a finite gradient, after which training has failed


class BatchSource(Protocol):
    """What training takes its pairs from, such as `pairs.PairSource`."""

    def draw(self, number: int, count: int, *, max_angle: float, reduction: int) -> PairBatch: ...


class Means(NamedTuple):
    """Means over the iterations since they were last asked for, without those that were skipped.

    Attributes:
        figures: "loss", `GRADIENT_NORM`, and the figures of the criterion, such as "re_deg" and "te_um".
        waited: seconds that the device spent on making pairs.
    """

    figures: dict[str, float]
    waited: float


class Trainer:
    """Trains a network.

    Args:
        network: is moved to the device. With pose pre-training a `Siamese` one.
        recipe: with its `micro_batch` decided.
        pairs: on the device.
        device: where to compute.
        seed: of what the network itself draws at random, and of the pose stage.
        processes: that train together.

    Attributes:
        iteration: how many have been made.
        skipped: how many of them gave no finite gradient and changed nothing.
        pose_stage: None without pose pre-training.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        pairs: BatchSource,
        device: torch.device,
        seed: int = 0,
        processes: Processes | None = None,
    ) -> None:
        self.network = network.to(device).train().requires_grad_(True)
        self.network.sample_links(recipe.linked_voxels)
        self.recipe, self.pairs, self.device, self.seed = recipe, pairs, device, seed
        self.processes = processes or Processes()
        self.dtype = precision_on(device, recipe.precision)
        self.iteration = self.skipped = 0
        self.pose_stage = PoseStage(network, seed) if recipe.pose_iterations else None
        # What is learned: the network, and the readout of poses where there is one.
        readout = [] if self.pose_stage is None else [self.pose_stage.readout.to(device)]
        self._learned = nn.ModuleList([network, *readout])
        self._averaged = copy.deepcopy(self._learned).eval().requires_grad_(False) if recipe.ema_decay else None
        self._optimizer = optimizer_for(network, recipe, [p for module in readout for p in module.parameters()])
        self._criterion = criterion_for(recipe.loss)
        self._micro_batches = recipe.batch // recipe.micro_batch
        share = self._micro_batches // self.processes.count
        self._own = range(self.processes.rank * share, (self.processes.rank + 1) * share)
        self._ahead: tuple[tuple[int, int], PairBatch] | None = None
        self._sums: Counter[str] = Counter()
        self._summed = self._failures = 0
        self._making = Stopwatch(device)

    @property
    def trained(self) -> Network:
        """The network to validate and to save, with averaged weights where the recipe averages.

        Raises:
            RuntimeError: `prepare` must come first.
        """
        network, *readout = self._learned if self._averaged is None else self._averaged
        if not self.learns_poses:
            return network
        self._require_prepared()
        return self.pose_stage.with_head(network, *readout)

    @property
    def learns_poses(self) -> bool:
        """Whether the next iteration is for poses alone."""
        return self.iteration < self.recipe.pose_iterations

    @property
    def must_prepare(self) -> bool:
        """Whether `prepare` has something to do, which takes a minute."""
        return self.learns_poses and self.pose_stage.composer is None

    def prepare(self, check: Callable[[float], bool] = lambda fraction: False) -> bool:
        """Does what comes before the first iteration: of several processes all do so at once.

        Args:
            check: called with the fraction done; where it returns true, it is left undone.

        Returns:
            Whether it is done.
        """
        return not self.must_prepare or self.pose_stage.prepare(self.processes, check)

    def _require_prepared(self) -> None:
        if self.must_prepare:
            raise RuntimeError("the trainer is not prepared; call prepare() first")

    def step(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Makes one iteration; or none of it, where this process or another says `stop` before a micro-batch.

        Returns:
            Whether one said so.

        Raises:
            RuntimeError: `prepare` must come first.
            RunError: too many iterations in a row gave no finite gradient.
        """
        self._require_prepared()
        self._learned.train()
        self._optimizer.zero_grad()
        told: dict[str, Tensor] = {}
        stopped = False
        for number in self._own:
            if stopped := stop():
                break
            figures = self.backward(self._take(number))
            told = {name: value + told.get(name, 0) for name, value in figures.items()}
        if self.processes.any(stopped, self.device):
            return True
        if self.iteration + 1 < self.recipe.iterations:
            # Keeps the device busy while this process waits for the gradient's norm.
            self._ahead = (self.iteration + 1, self._own[0]), self._draw(self.iteration + 1, self._own[0])
        values = self._reduced(list(told.values()))
        norm = nn.utils.clip_grad_norm_(self._learned.parameters(), self.recipe.grad_clip or math.inf)
        norm, *values = torch.stack([norm.double(), *values]).tolist()
        figures = dict(zip(told, values, strict=True))
        if math.isfinite(norm) and math.isfinite(figures["loss"]):
            self._update()
            self._sums.update({**figures, GRADIENT_NORM: norm})
            self._summed += 1
            self._failures = 0
        else:
            self.skipped += 1
            self._failures += 1
        self.iteration += 1
        if self.iteration == self.recipe.pose_iterations:
            self._begin_with_motion()
        if self._failures >= MOST_FAILURES:
            raise RunError(
                f"training failed: no finite gradient in {self._failures} iterations in a row, up to {self.iteration}",
                "use a smaller learning rate, or the precision float32",
                Setting("learning_rate"),
            )
        return False

    def backward(self, batch: PairBatch) -> dict[str, Tensor]:
        """Adds a micro-batch's share of the gradient; gives its share of the figures, float64."""
        loss, figures = self.loss(batch)
        (loss / self._micro_batches).backward()
        figures = {"loss": loss.detach(), **figures}
        return {
            name: torch.as_tensor(value, dtype=torch.float64, device=self.device) / self._micro_batches
            for name, value in figures.items()
        }

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
        """The mean loss of pairs, and figures for the log."""
        both = self.recipe.both_directions
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.pose_stage is None:
                return self.network.loss(batch, self._criterion, both)
            return self.pose_stage.loss(self.network, batch, self._criterion, both, poses_alone=self.learns_poses)

    def cost(self, iteration: int, clock: Callable[[], float]) -> float:
        """What an iteration of this number takes by a clock, which is asked before and after.

        The weights change, and not as in training: this is for a trainer that is thrown away.
        """
        self.iteration = iteration
        began = clock()
        self._optimizer.zero_grad()
        for number in self._own:
            self.backward(self._take(number))
        self._update()
        return clock() - began

    def means(self) -> Means:
        """Means since they were last asked for; waits for the device."""
        figures = {name: value / self._summed for name, value in self._sums.items()} if self._summed else {}
        self._sums, self._summed = Counter(), 0
        return Means(figures, self._making.read())

    def state(self) -> dict[str, Any]:
        """All that going on needs: plain numbers and tensors."""
        averaged = [None, None] if self._averaged is None else [module.state_dict() for module in self._averaged]
        stage = None if self.pose_stage is None else {**self.pose_stage.state(), "averaged": averaged[1]}
        return {
            "iteration": self.iteration,
            "skipped": self.skipped,
            "failures": self._failures,
            "sums": dict(self._sums),
            "summed": self._summed,
            "network": self.network.state_dict(),
            "averaged": averaged[0],
            "optimizer": self._optimizer.state_dict(),
            "pose_stage": stage,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to what `state` gave, of a trainer of the same network and recipe.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: it is of another one.
        """
        self.iteration, self.skipped, self._failures = (state[key] for key in ("iteration", "skipped", "failures"))
        self._sums, self._summed = Counter(state["sums"]), state["summed"]
        self.network.load_state_dict(state["network"])
        averaged = [state["averaged"]]
        if self.pose_stage is not None:
            self.pose_stage.restore(state["pose_stage"])
            averaged.append(state["pose_stage"]["averaged"])
        if self._averaged is not None:
            for module, stored in zip(self._averaged, averaged, strict=True):
                module.load_state_dict(stored)
        self._optimizer.load_state_dict(state["optimizer"])
        self._ahead = None

    def _begin_with_motion(self) -> None:
        """Goes on from the averaged weights, with a head that works out the motion from what they see."""
        if self._averaged is not None:
            self._learned.load_state_dict(self._averaged.state_dict())
            self.pose_stage.set_head(*self._averaged)
        self.pose_stage.set_head(*self._learned)
        self.pose_stage.composer = None

    def _take(self, number: int) -> PairBatch:
        """The micro-batch of this number in the current iteration."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (self.iteration, number):
            batch = ahead[1]
        else:
            batch = self._draw(self.iteration, number)
        # What a network draws by itself depends on these numbers alone too.
        drawn = np.random.SeedSequence((self.seed, self.iteration, number)).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0]))
        return batch

    def _draw(self, iteration: int, number: int) -> PairBatch:
        with self._making.running():
            return self.pairs.draw(
                iteration * self._micro_batches + number,
                self.recipe.micro_batch,
                max_angle=self.recipe.largest_angle_at(iteration),
                reduction=self.recipe.reduction_at(iteration),
            )

    def _reduced(self, values: list[Tensor]) -> list[Tensor]:
        """Sums gradients, in place, and values over all processes."""
        told = torch.stack(values)
        if self.processes.count > 1:
            gradients = [p.grad for p in self._learned.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            self.processes.sum(flat)
            self.processes.sum(told)
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(total.view_as(gradient))
        return list(told)

    def _update(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.iteration)
        self._optimizer.step()
        if self._averaged is None:
            return
        made = self.iteration - self.recipe.stage_at(self.iteration)
        # The average is short at the start of a stage: it forgets random weights, and those trained on other cubes.
        weight = 1 - min(self.recipe.ema_decay, (1 + made) / (10 + made))
        with torch.no_grad():
            for mean, value in zip(self._averaged.parameters(), self._learned.parameters(), strict=True):
                mean.lerp_(value, weight)
            for kept, value in zip(self._averaged.buffers(), self._learned.buffers(), strict=True):
                kept.copy_(value)
