"""The devices that can align here, named; run as ``python -m DNetRegistrationLib.device_list`` it prints them as JSON.

torch is slow to import and need not be there: an application asks in a process of its own.
"""

from __future__ import annotations

import json
import sys


def present_devices() -> list[tuple[str, str]]:
    """Pairs of a name that ``--device`` knows and what to call it; the CPU first."""
    import torch

    found = [("cpu", "CPU")]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found += [(f"cuda:{n}", f"{torch.cuda.get_device_name(n)} (cuda:{n})") for n in range(count)]
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU (mps)"))
    return found


if __name__ == "__main__":
    print(json.dumps(present_devices()))
    sys.exit(0)
