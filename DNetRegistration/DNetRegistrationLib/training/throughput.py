"""How fast training is, and how far from what the device could do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

PROBE_SECONDS = 0.3


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second in a plain product of square matrices: the device's limit, in practice."""
    edge = 8192 if device.type == "cuda" else 1024
    generator = torch.Generator(device).manual_seed(0)
    first, second = (torch.randn(edge, edge, generator=generator, device=device).to(dtype) for _ in range(2))
    best, began = float("inf"), time.perf_counter()
    while best == float("inf") or time.perf_counter() - began < PROBE_SECONDS:
        start = time.perf_counter()
        first @ second
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * edge**3 / best


def operations(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of a loss and its gradient, in convolutions and products of matrices.

    Args:
        loss: computes it; it is run once, attention as plain products since fused ones are not counted everywhere.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    return counter.get_total_flops()


def wait_for(device: torch.device) -> None:
    """Until everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up the seconds that the device spends on what is asked of it inside `running`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._device.type == "cuda":
            # The clock of the device: this process only queues what it shall do, and must not wait for it.
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def read(self) -> float:
        """Seconds since it was last read; waits for the device."""
        wait_for(self._device)
        seconds = self._seconds + sum(start.elapsed_time(end) for start, end in self._events) / 1000
        self._seconds, self._events = 0.0, []
        return seconds
