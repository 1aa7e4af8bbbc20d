"""Parsing that all commands share: converters of arguments, and a parser that raises errors."""

from __future__ import annotations

import argparse
import shlex

from ..core.errors import OptionError
from ..version import PROGRAM


class Parser(argparse.ArgumentParser):
    """A parser that raises an `OptionError` for bad usage, and takes no abbreviations of options."""

    def __init__(self, **options) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str):
        raise OptionError(message, f"see {self.prog} --help")


def triple(text: str) -> tuple[float, ...]:
    """A converter of argparse to one number or three."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not a spacing in mm, one number or three as in 0.01,0.01,0.02")
    return values


def number(kind: type, low: float, high: float):
    """A converter of argparse to a number of a kind, int or float, from `low` to `high`."""
    what = "whole number" if kind is int else "number"

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what} from {low:g} to {high:g}")
        return value

    return convert


def several(known):
    """A converter of argparse to a tuple of known names, in the order of `known`."""

    def convert(text: str) -> tuple[str, ...]:
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is unknown; choose from {', '.join(known)}")
        return tuple(name for name in known if name in names)

    return convert


def add_threads(group) -> None:
    """Adds the option for how many threads of the CPU to use."""
    group.add_argument("--threads", metavar="N", type=JOBS, help="threads of the CPU (as many as there are processors)")


def option_name(quantity: str) -> str:
    """How the command line calls what Python calls `quantity`."""
    return "--" + quantity.replace("_", "-")


def spell(command: str, *words, **options) -> str:
    """A command as a user types it.

    Args:
        command: its name.
        words: its arguments without a name.
        options: a tuple is spelled with commas, an item of a list each with the option before it, True as the option
            alone; None and False are left out.

    Example:
        >>> spell("evaluate", "A", "B", tests=("rotation", "real"), train_only=True, seed=None)
        'dnet-registration evaluate A B --tests rotation,real --train-only'
    """
    spelled = [str(word) for word in words]
    for name, values in options.items():
        for value in values if isinstance(values, list) else [values]:
            if value is None or value is False:
                continue
            spelled.append(option_name(name))
            if value is not True:
                spelled.append(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return shlex.join([PROGRAM, command, *spelled])


#: What the exit status of a command that aligns means, for its help.
STATUSES = """\
exit status:
  0    aligned, and accepted: verification says that the result can be trusted
  1    aligned, but not accepted: outputs are written, and marked as such
  2    bad input or bad usage: nothing is written
  3    done and written, but the result could not be printed (a full disk)
  130  interrupted (Ctrl-C): nothing is half-written
"""

COUNT = number(int, 0, 10_000)
# With a number of pairs counted up from it, a seed stays within 32 bits.
SEED = number(int, 0, 10**9)
SIZE = number(int, 16, 2048)
SPACING = number(float, 1e-4, 10)
SHARE = number(float, 0, 1)
ITERATIONS = number(int, 1, 10**9)
MANY = number(int, 1, 100_000)
JOBS = number(int, 1, 1024)
