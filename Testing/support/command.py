"""The command, or a program, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import places

COMMAND = [sys.executable, "-m", "DNetRegistrationLib"]
# Seconds that only a process takes which hangs: a busy machine is slow, and no test decides by its clock.
_HANGS = 1800


def run(*arguments, code=None, env=None, **options):
    """Runs the command with these arguments, or a program that is given as `code`; options as `subprocess.run` has."""
    start = COMMAND if code is None else [sys.executable, "-c", textwrap.dedent(code)]
    env = env or places.environment()
    return subprocess.run([*start, *arguments], capture_output=True, text=True, env=env, timeout=_HANGS, **options)
