"""Where training computes, how much fits there, and how long things take."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv3d
from torch.utils.flop_counter import FlopCounterMode

from ..core.threads import torch_threads

_BYTES_PER_PAIR = 0.5e9  # D-net keeps 0.21e9 for the backward pass, and the dataset of bones takes room too
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_ROOM_ON_CPU = 8  # more are no faster there, and memory is for other things too
# A processor without instructions for bfloat16 took 24 to 60 times as long as in float32; one with them takes less.
_SLOW = 2.0


def describe(device: torch.device) -> str:
    """A device's name, for a model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def precision_on(device: torch.device, wanted: str) -> torch.dtype:
    """The precision of a network's computations: `wanted` as in `recipes.Recipe.precision`."""
    if wanted == "auto":
        wanted = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]


def slow_precision(device: torch.device, dtype: torch.dtype) -> str | None:
    """A sentence where a processor is so slow in this precision that training should not use it, else None.

    It is timed: what a processor states of itself is named differently on each kind, and torch does not publish it.
    """
    if device.type != "cpu" or dtype == torch.float32:
        return None
    times = _seconds_of_convolution(dtype) / _seconds_of_convolution(torch.float32)
    if times < _SLOW:
        return None
    name = str(dtype).removeprefix("torch.")
    return f"this processor takes about {times:.0f} times as long in {name} as in float32: use the precision float32"


def _seconds_of_convolution(dtype: torch.dtype) -> float:
    """The least of some times that a small convolution takes, forward and backward."""
    weights = torch.ones(32, 32, 3, 3, 3, requires_grad=True)
    features = torch.ones(2, 32, 8, 8, 8, requires_grad=True)
    seconds = []
    with torch_threads(1):  # several would wait for each other beside other work
        for _ in range(5):
            began = time.perf_counter()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = conv3d(features, weights, padding=1).sum()
            loss.backward()
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:])  # the first one warms up


def room_for_pairs(device: torch.device) -> int:
    """How many pairs fit the device's memory at once when a network of Table 1 is trained in float32."""
    if device.type == "cuda":
        return max(1, int(torch.cuda.get_device_properties(device).total_memory / _BYTES_PER_PAIR))
    return _ROOM_ON_CPU


def keep_freed_memory() -> None:
    """Makes this process keep the memory that it frees, where the C library is glibc; elsewhere nothing happens.

    glibc returns large blocks to the system and takes fresh ones, page by page, for each tensor. Training on a
    processor spends more time on that than on computing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def operations(loss: Callable[[], Tensor]) -> int:
    """Floating-point operations of a loss and its gradient, in convolutions and matrix products.

    Args:
        loss: computes the loss. It is called once, with attention as plain products, since fused attention is not
            counted everywhere.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss().backward()
    return counter.get_total_flops()


def wait_for(device: torch.device) -> None:
    """Waits until everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Adds up the seconds that a device spends on what is asked of it inside `running`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._device.type == "cuda":
            # The clock of the device counts: this process only queues work, and must not wait for it.
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
