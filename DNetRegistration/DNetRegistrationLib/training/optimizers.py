"""Optimizers: Muon for what a network sees with and AdamW for the rest, AdamW alone, or SGD.

Muon (Jordan et al., 2024; `torch.optim.Muon`) steps along the orthogonal matrix nearest to the momentum of a weight's
gradient, so that all directions of a layer's input are learned at one pace. With it D-net learned a bone's pose in a
cube in any orientation, from scratch, from a seventh of the pairs that AdamW takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..core.errors import PackageError, Setting
from ..networks.contract import Network
from .recipes import Recipe

MOMENTUM = 0.9


def require_muon() -> None:
    """Checks that torch has Muon.

    Raises:
        PackageError: this torch has none.
    """
    if not hasattr(torch.optim, "Muon"):
        raise PackageError(
            f"torch {torch.__version__} has no Muon",
            "update to 2.9 or later, or use another optimizer",
            Setting("optimizer", value="adamw"),
        )


class MuonWithAdamW:
    """Steps as a `torch.optim.Optimizer` does, at one learning rate for both.

    Convolutions and linear layers of more than one input, as matrices (outputs, inputs * 27), are Muon's, with steps
    as large as AdamW's (Liu et al., 2025). Convolutions of one channel, the submodules of `others`, norms and biases
    are AdamW's.

    Args:
        network: with its weights to be trained.
        others: names of submodules that are left to AdamW.
        learning_rate: to begin with; it is changed in `param_groups`.
        weight_decay: of weights, not of biases and norms.
        more: weights beside the network, for AdamW.
    """

    def __init__(
        self,
        network: nn.Module,
        others: tuple[str, ...],
        learning_rate: float,
        weight_decay: float,
        more: Sequence[nn.Parameter] = (),
    ) -> None:
        self._all = [*network.parameters(), *more]
        self._weights, rest = [], []
        for name, weight in network.named_parameters():
            mixes = weight.ndim > 1 and weight.shape[1] > 1 and name.split(".")[0] not in others
            (self._weights if mixes else rest).append(weight)
        rest += more
        self._matrices = [_matrix(weight) for weight in self._weights]
        self._optimizers: list[torch.optim.Optimizer] = []  # torch's own take no empty lists
        if rest:
            self._optimizers.append(adamw(rest, learning_rate, weight_decay))
        if self._matrices:
            muon = torch.optim.Muon(
                self._matrices, learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self._optimizers.append(muon)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        for weight in self._all:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            # The weights may have been set since.
            matrix.copy_(weight.flatten(1))
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimizer in self._optimizers:
            optimizer.step()
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            weight.copy_(matrix.view_as(weight))

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for optimizer, its in zip(self._optimizers, state, strict=True):
            optimizer.load_state_dict(its)


def optimizer_for(
    network: Network, recipe: Recipe, more: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer | MuonWithAdamW:
    """The optimizer of a recipe.

    Args:
        network: with its weights to be trained.
        recipe: its optimizer, learning rate and weight decay count.
        more: weights beside the network.
    """
    if recipe.optimizer == "muon":
        return MuonWithAdamW(network, network.readouts, recipe.learning_rate, recipe.weight_decay, more)
    weights = [*network.parameters(), *more]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(weights, recipe.learning_rate, MOMENTUM)
    return adamw(weights, recipe.learning_rate, recipe.weight_decay)


def adamw(weights: list[nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices, not for biases and norms."""
    matrices = [weight for weight in weights if weight.ndim > 1]
    others = [weight for weight in weights if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], learning_rate)


def _matrix(weight: nn.Parameter) -> torch.Tensor:
    return weight.detach().flatten(1).clone().requires_grad_(True)
