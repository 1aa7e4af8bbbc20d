"""Memory of processes."""

from __future__ import annotations

import subprocess
import sys

import places
import pytest


def test_peak_memory_grows():
    code = """
import numpy as np
from DNetRegistrationLib.core.processes import peak_memory
before = peak_memory()
np.ones(50_000_000)
print(peak_memory() - before)
"""
    environment = places.environment()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert float(result.stdout) == pytest.approx(4e8, rel=0.02)
