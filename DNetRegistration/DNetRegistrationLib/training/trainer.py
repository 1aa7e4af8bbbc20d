"""One iteration after another: pairs in, weights out; where it stops it can go on, to the same bits.

Nothing here depends on the clock or on what was drawn before: pairs, learning rate and range of rotations follow from
the number of the iteration. So a run that was interrupted and resumed ends with the bits of one that was not (on a
processor; GPUs add up in an order of their own), and one process with those of several, to rounding (with Muon to that
of its matrices, which are in bfloat16).
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
from ..geometry.rigid import rotation_from_6d
from ..networks.batch import PairBatch
from ..networks.siamese import NonLocalLink, split_parameters
from . import pose_stage as poses
from .distributed import Processes
from .hardware import Stopwatch, precision_on
from .losses import LOSSES
from .optimizers import MuonWithAdamW, adamw
from .recipes import Recipe
from .validation import errors

MOMENTUM = 0.9
GRADIENT_NORM = "gradient_norm"  # among the figures, before clipping
MOST_FAILURES = 20  # iterations in a row without a finite gradient, after which there is no hope


class Pairs(Protocol):
    """What training takes its pairs from, a `pairs.PairSource`."""

    def draw(self, number: int, count: int, *, max_angle: float, reduction: int) -> PairBatch: ...


class Means(NamedTuple):
    """Means over the iterations since it was last taken; without the iterations that were skipped.

    Attributes:
        figures: "loss", `GRADIENT_NORM`, and "re_deg" and "te_um" or whatever else the network's own loss tells.
        waited: seconds that the device spent on making pairs.
    """

    figures: dict[str, float]
    waited: float


class Trainer:
    """Trains a network.

    Args:
        network: as in `networks`, or with a loss of its own: ``network.loss(batch)`` gives the loss and what to log.
            It is moved to the device.
        recipe: with its `micro_batch` decided.
        pairs: on the device.
        device: where to compute.
        seed: of what the network itself may draw at random.
        processes: that train together.

    Attributes:
        iteration: how many have been made.
        skipped: how many of them gave no finite gradient and changed nothing.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        pairs: Pairs,
        device: torch.device,
        seed: int = 0,
        processes: Processes | None = None,
    ) -> None:
        self.network = network.to(device).train().requires_grad_(True)
        self.recipe, self.device, self.seed = recipe, device, seed
        self.processes = processes or Processes()
        self.dtype = precision_on(device, recipe.precision)
        self.iteration = self.skipped = 0
        for link in network.modules():
            if isinstance(link, NonLocalLink):
                link.sampled = recipe.linked_voxels
        self._composer: nn.Sequential | None = None
        if recipe.pose_iterations:
            network.readout = poses.Readout(network, seed).to(device)
        self._averaged = copy.deepcopy(network).eval().requires_grad_(False) if recipe.ema_decay else None
        self._optimizer = _optimizer(network, recipe)
        self.pairs = pairs
        self._parts = recipe.batch // recipe.micro_batch
        share = self._parts // self.processes.count
        self._own = range(self.processes.rank * share, (self.processes.rank + 1) * share)
        self._ahead: tuple[tuple[int, int], PairBatch] | None = None
        self._sums: Counter[str] = Counter()
        self._summed = self._failures = 0
        self._making = Stopwatch(device)

    @property
    def trained(self) -> nn.Module:
        """The network to validate and to save, with averaged weights where the recipe averages."""
        network = self.network if self._averaged is None else self._averaged
        if not self.recipe.pose_iterations:
            return network
        self.learn_to_compose()
        return poses.without_readout(network, self._composer if self.posing else None)

    @property
    def posing(self) -> bool:
        """Whether the next iteration is for poses."""
        return self.iteration < self.recipe.pose_iterations

    @property
    def reduction(self) -> int:
        """By how much the cubes of the next iteration are smaller."""
        return self.recipe.reduction_at(self.iteration)

    @property
    def must_compose(self) -> bool:
        """Whether `learn_to_compose` has something to do."""
        return self.posing and self._composer is None

    def learn_to_compose(self) -> None:
        """What comes before poses are learned, and takes a minute: a head to work out the motion from two of them.

        By itself `step` does so where it must. Of several processes all do so at once, and get the first one's.
        """
        if self.must_compose:
            hidden = self.network.head[0].out_features
            composer = poses.composer(hidden, self.seed) if self.processes.first else None
            self._composer = self.processes.from_first(composer)

    def step(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Makes one iteration; or none of it, when before one of its parts this process, or another, said `stop`.

        Returns:
            Whether one said so.

        Raises:
            RunError: too many iterations in a row gave no finite gradient.
        """
        self.learn_to_compose()
        self.network.train()
        self._optimizer.zero_grad()
        told: dict[str, Tensor] = {}
        stopped = False
        for part in self._own:
            if stopped := stop():
                break
            figures = self.backward(self._take(part))
            told = {name: value + told.get(name, 0) for name, value in figures.items()}
        if self.processes.any(stopped, self.device):
            return True
        if self.iteration + 1 < self.recipe.iterations:
            # The device has something to do while this process waits for the gradient's norm.
            self._ahead = (self.iteration + 1, self._own[0]), self._draw(self.iteration + 1, self._own[0])
        values = self._reduced(list(told.values()))
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip or math.inf)
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
        """Adds this part's share of the gradient of a batch; gives its share of what is logged, float64."""
        loss, figures = self.loss(batch)
        (loss / self._parts).backward()
        figures = {"loss": loss.detach(), **figures}
        return {
            name: torch.as_tensor(value, dtype=torch.float64, device=self.device) / self._parts
            for name, value in figures.items()
        }

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
        """The mean loss of pairs, and what to log beside it."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if hasattr(self.network, "loss"):
                return self.network.loss(batch)
            if self.recipe.pose_iterations:
                return self._loss_with_poses(batch)
            if self.recipe.both_directions:
                there, back = self.network.both_directions(batch.fixed, batch.moving)
            else:
                there, back = self.network(batch.fixed, batch.moving), None
        return self._motion_loss(there, back, batch)

    def _loss_with_poses(self, batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
        features = self.network.features(batch.fixed, batch.moving)
        seen = self.network.readout(torch.stack(features, 1)).float()
        loss = poses.poses_loss(seen, batch.to_bank).mean()
        if self.posing:
            turned, shifted = errors(*poses.motion(seen.detach().double()), batch)
            return loss, {"re_deg": turned.mean(), "te_um": shifted.mean()}
        # Features that see a new resolution find back by poses: as long as these are wrong, the motion tells little.
        there, back = self.network.regressed(*features)
        motion_loss, figures = self._motion_loss(there, back if self.recipe.both_directions else None, batch)
        return motion_loss + loss, figures

    def _motion_loss(self, there: Tensor, back: Tensor | None, batch: PairBatch) -> tuple[Tensor, dict[str, Any]]:
        per_pair = LOSSES[self.recipe.loss]
        loss = per_pair(there.float(), batch.rotation, batch.translation).mean()
        if back is not None:
            turned_back = batch.rotation.transpose(-1, -2)
            shift_back = -(turned_back @ batch.translation[..., None])[..., 0]
            loss = (loss + per_pair(back.float(), turned_back, shift_back).mean()) / 2
        translation, rotation = split_parameters(there.detach().double())
        turned, shifted = errors(rotation_from_6d(rotation), translation, batch)
        return loss, {"re_deg": turned.mean(), "te_um": shifted.mean()}

    def means(self) -> Means:
        """What happened since this was last asked for; waits for the device."""
        figures = {name: value / self._summed for name, value in self._sums.items()} if self._summed else {}
        self._sums, self._summed = Counter(), 0
        return Means(figures, self._making.read())

    def state(self) -> dict[str, Any]:
        """All that going on needs: plain numbers and tensors."""
        return {
            "iteration": self.iteration,
            "skipped": self.skipped,
            "failures": self._failures,
            "sums": dict(self._sums),
            "summed": self._summed,
            "network": self.network.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "composer": self._composer.state_dict() if self.posing and self._composer is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to what `state` gave, of a trainer of the same network and recipe.

        Raises:
            KeyError, RuntimeError, ValueError: it is of another one.
        """
        self.iteration, self.skipped, self._failures = (state[key] for key in ("iteration", "skipped", "failures"))
        self._sums, self._summed = Counter(state["sums"]), state["summed"]
        self.network.load_state_dict(state["network"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["composer"] is not None:
            self._composer = poses.composing_head(self.network.head[0].out_features).requires_grad_(False)
            self._composer.load_state_dict(state["composer"])
        self._ahead = None

    def _begin_with_motion(self) -> None:
        """The weights as they are on average, with a head that composes what they see."""
        if self._averaged is not None:
            self.network.load_state_dict(self._averaged.state_dict())
            poses.set_head(self._averaged, self._composer)
        poses.set_head(self.network, self._composer)

    def _take(self, part: int) -> PairBatch:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (self.iteration, part):
            batch = ahead[1]
        else:
            batch = self._draw(self.iteration, part)
        # What a network draws by itself depends on this alone too.
        drawn = np.random.SeedSequence((self.seed, self.iteration, part)).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0]))
        return batch

    def _draw(self, iteration: int, part: int) -> PairBatch:
        with self._making.running():
            return self.pairs.draw(
                iteration * self._parts + part,
                self.recipe.micro_batch,
                max_angle=self.recipe.largest_angle_at(iteration),
                reduction=self.recipe.reduction_at(iteration),
            )

    def _reduced(self, values: list[Tensor]) -> list[Tensor]:
        """Adds up gradients, in place, and values over all processes."""
        told = torch.stack(values)
        if self.processes.count > 1:
            gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
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
        # At the start of a stage the average is short, so that it forgets weights that were drawn, or saw other cubes.
        weight = 1 - min(self.recipe.ema_decay, (1 + made) / (10 + made))
        with torch.no_grad():
            for mean, value in zip(self._averaged.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, weight)
            for kept, value in zip(self._averaged.buffers(), self.network.buffers(), strict=True):
                kept.copy_(value)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer | MuonWithAdamW:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), recipe.learning_rate, momentum=MOMENTUM)
    if recipe.optimizer == "muon":
        return MuonWithAdamW(network, ("head", "readout"), recipe.learning_rate, recipe.weight_decay)
    return adamw(list(network.parameters()), recipe.learning_rate, recipe.weight_decay)
