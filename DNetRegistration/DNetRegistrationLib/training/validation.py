"""How well a network does on pairs that it was not trained on: the paper's rotation and translation errors."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..geometry import rigid
from ..networks.batch import PairBatch
from ..networks.contract import Network
from .distributed import Processes
from .pairs import PairSource

BEYOND = 15.0  # degrees; refinement does not correct a larger error


@dataclass(frozen=True)
class Figures:
    """Errors over pairs: of rotations in degrees, of translations (about the cubes' centres) in um.

    `beyond` is the share of pairs whose rotation is more than `BEYOND` off.
    """

    pairs: int
    re_mean_deg: float
    re_median_deg: float
    te_mean_um: float
    te_median_um: float
    beyond: float

    def __str__(self) -> str:
        return (
            f"RE {self.re_median_deg:.2f} deg (mean {self.re_mean_deg:.2f}), TE {self.te_median_um:.0f} um "
            f"(mean {self.te_mean_um:.0f}), {100 * self.beyond:.1f} % beyond {BEYOND:g} deg, {self.pairs} pairs"
        )


def errors(rotation: Tensor, translation: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """The paper's RE in degrees and TE in um (Sec. 2.5), ``(b,)`` each."""
    turned = rigid.geodesic_angle(batch.rotation, rotation.to(batch.rotation)).rad2deg()
    return turned, 1000 * (translation.to(batch.translation) - batch.translation).norm(dim=-1)


def validate(
    network: Network,
    source: PairSource,
    pairs: int,
    micro_batch: int,
    dtype: torch.dtype = torch.float32,
    processes: Processes | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Figures | None:
    """The figures of a network on `pairs` pairs, the same ones every time; None where `cancelled` said so.

    Args:
        network: on the device of the source's dataset; left in evaluation mode.
        pairs: a multiple of `micro_batch`, else rounded up to one.
        micro_batch: pairs that go through the network at once.
        dtype: ``torch.bfloat16`` for autocast.
        processes: that share the work; all get the figures.
        cancelled: asked before each micro-batch.
    """
    processes = processes or Processes()
    network.eval()
    found: list[tuple[float, float]] = []
    stop = False
    for number in range(processes.rank, -(-pairs // micro_batch), processes.count):
        if stop := cancelled():
            break
        batch = source.draw(number, micro_batch)
        device = batch.fixed.device.type
        with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
            answer = network.estimate(batch.fixed, batch.moving, batch.fixed_inside, batch.moving_inside)
        found += zip(*(values.tolist() for values in errors(*answer, batch)), strict=True)
    shares = processes.gathered((stop, found))
    if any(stop for stop, _ in shares):
        return None
    turned, shifted = zip(*(pair for _, share in shares for pair in share), strict=True)
    return Figures(
        len(turned),
        statistics.fmean(turned),
        statistics.median(turned),
        statistics.fmean(shifted),
        statistics.median(shifted),
        sum(angle > BEYOND for angle in turned) / len(turned),
    )
