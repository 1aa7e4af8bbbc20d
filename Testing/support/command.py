"""The command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import places

COMMAND = [sys.executable, "-m", "DNetRegistrationLib"]


def run(*arguments, code=None, **options):
    """A command in a process of its own."""
    start = COMMAND if code is None else [sys.executable, "-c", textwrap.dedent(code)]
    environment = places.environment()
    return subprocess.run([*start, *arguments], capture_output=True, text=True, env=environment, timeout=120, **options)
