"""Training over several processes, on one machine or many, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, distributed

# How long processes wait for one another, as while the first makes bones; torch's own limit may be ten minutes.
WAIT = timedelta(hours=6)


class Processes:
    """The processes that train together. Without arguments, the one process that trains alone.

    Attributes:
        rank: of this process, 0 and up; only 0 writes and speaks.
        count: of processes.
        local: rank among those of this machine, which is the number of its GPU.
        beside: how many run on this machine.
    """

    def __init__(self, rank: int = 0, count: int = 1, local: int = 0, beside: int = 1) -> None:
        self.rank, self.count, self.local, self.beside = rank, count, local, beside

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over all processes, which has the same bits in each of them."""
        if self.count > 1:
            distributed.all_reduce(tensor)

    def any(self, value: bool, device: torch.device) -> bool:
        """Whether the value is true in at least one of the processes."""
        if self.count > 1:
            flag = torch.tensor(float(value), device=device)
            self.sum(flag)
            value = flag.item() > 0
        return value

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks; plain numbers and containers of them."""
        values = [value]
        if self.count > 1:
            values = [None] * self.count
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The value of the first process."""
        values = [value]
        if self.count > 1:
            distributed.broadcast_object_list(values)
        return values[0]


@contextmanager
def launched(device: str) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, or this one alone; GPUs talk by NCCL, processors by Gloo.

    Args:
        device: "auto", "cpu" or "cuda".
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local)
    # This module keeps the group that exists when it is first imported, as an optimizer's first step does. The group
    # would outlive its end, and its threads may abort the interpreter; so the import comes before the group.
    import_module("torch.distributed.nn.functional")
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=WAIT)
    try:
        yield Processes(rank, count, local, beside)
    finally:
        distributed.destroy_process_group()
