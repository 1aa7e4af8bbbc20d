"""Choice of the device to compute on, and whether an error is its fault.

Run as ``python -m DNetRegistrationLib.registration.devices`` it prints the devices that are present as JSON. torch is
slow to import and may be missing, so an application asks in another process.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..core.errors import OptionError, Setting

if TYPE_CHECKING:
    import torch


def choose_device(name: str, kinds: tuple[str, ...] = ("cpu", "cuda", "mps"), index: int | None = None) -> torch.device:
    """The device of a name that torch knows.

    Args:
        name: "auto" (a CUDA GPU that computes, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
        kinds: those that can do the work.
        index: of the GPU that is meant where the name has none; None leaves it to torch.

    Raises:
        OptionError: the device is not available, or cannot do the work.
    """
    import torch

    gpu = "cuda" if index is None else f"cuda:{index}"
    if name == "auto":
        return torch.device(gpu if torch.cuda.is_available() and _computes(gpu) else "cpu")
    try:
        device = torch.device(gpu if name == "cuda" else name)
        if device.type not in kinds:
            raise NotImplementedError(device.type)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        problem = f"the device {name!r} is not available here"
        raise OptionError(problem, 'use "cpu" or "auto"', Setting("device")) from error
    return device


def device_fault(error: Exception) -> str | None:
    """Why a device, not the input, is at fault, as the end of a sentence; None where it is not known to be."""
    import torch

    # torch.OutOfMemoryError exists from torch 2.5 on; Apple's devices raise a plain RuntimeError.
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "ALLOC_FAILED" in text:
        return "ran out of memory"
    if "no kernel image" in text:
        return "is not supported by this build of torch"
    # What Apple's devices cannot do (float64, some integers) they refuse by the name of MPS, as either kind of error.
    if isinstance(error, NotImplementedError) or "MPS" in text:
        return "lacks an operation in this version of torch"
    return None


def present_devices() -> list[tuple[str, str]]:
    """Pairs of a name for `choose_device` and what to call the device; the CPU first."""
    import torch

    found = [("cpu", "CPU")]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found += [(f"cuda:{n}", f"{torch.cuda.get_device_name(n)} (cuda:{n})") for n in range(count)]
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU (mps)"))
    return found


def _computes(device: str) -> bool:
    """Whether the device computes; torch also counts cards that this build of it has no kernels for."""
    import torch

    try:
        return float(torch.zeros(1, device=device) + 1) == 1
    except Exception:  # whatever drivers raise
        return False


if __name__ == "__main__":
    print(json.dumps(present_devices()))
