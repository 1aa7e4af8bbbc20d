"""The few array operations that NumPy and torch spell differently, so that one code serves both."""

from __future__ import annotations

import numpy as np


class Arrays:
    """Makes, indexes and returns arrays, of NumPy (`device` None) or of torch on a device ("cpu", "cuda").

    Everything that both spell alike (`sin`, `where`, `clip`, ...) is reached through `xp`.

    Attributes:
        xp: the module, ``numpy`` or ``torch``.
        chunk: how many points to work on at once: little enough for a CPU's cache, much for a GPU.
    """

    def __init__(self, device: str | None = None) -> None:
        self.device = device
        if device is None:
            self.xp = np
        else:
            import torch

            self.xp = torch
        self.chunk = 1 << 15 if device in (None, "cpu") else 1 << 22

    def array(self, data, dtype: str = "float32"):
        data = np.ascontiguousarray(data, dtype=dtype)
        return data if self.device is None else self.xp.as_tensor(data, device=self.device)

    def zeros(self, shape, dtype: str = "float32"):
        if self.device is None:
            return np.zeros(shape, dtype)
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def cast(self, values, dtype: str):
        """The values as another dtype; towards integers, the fraction is dropped."""
        return values.astype(dtype) if self.device is None else values.to(getattr(self.xp, dtype))

    def take(self, table, index):
        """Elements of a flat table."""
        return table.take(index) if self.device is None else table.index_select(0, index)

    def nonzero(self, mask):
        """Flat indices at which a mask is true."""
        return np.flatnonzero(mask) if self.device is None else mask.reshape(-1).nonzero()[:, 0]

    def generator(self, seed: int):
        if self.device is None:
            return np.random.Generator(np.random.SFC64(seed))
        return self.xp.Generator(self.device).manual_seed(int(seed))

    def normal(self, shape, generator):
        if self.device is None:
            return generator.standard_normal(shape, dtype=np.float32)
        return self.xp.randn(shape, generator=generator, device=self.device)

    def numpy(self, values) -> np.ndarray:
        return values if self.device is None else values.cpu().numpy()
