"""Parsing that all commands share: converters of arguments, and a parser that raises errors."""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Iterable
from difflib import SequenceMatcher

from ..core.errors import OptionError
from ..core.words import choice, counted
from ..version import PROGRAM


class Parser(argparse.ArgumentParser):
    """A parser that raises an `OptionError` for bad usage, and takes no abbreviations of options.

    Attributes:
        columns: names that are no options of the command, but columns of the list that it can be given.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, **options) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        # That of argparse takes a negative number with an exponent for an option.
        self._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)

    def error(self, message: str):
        raise OptionError(message, f"see {self.prog} --help")

    def parse_known_args(self, args=None, namespace=None):
        """As of argparse; but the command itself tells what it does not know, since its own help is what is needed."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            problem, remedy = _unknown(unknown, self._option_string_actions, self.columns)
            raise OptionError(problem, f"{remedy} see {self.prog} --help".lstrip())
        return namespace, unknown


def _unknown(words: list[str], options: Iterable[str], columns: tuple[str, ...] = ()) -> tuple[str, str]:
    """What is wrong with the words of a command line that nothing takes, and a guess of what was meant or nothing."""
    unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
    if not unknown:
        # The shell parts a name at its spaces.
        return f"{counted(len(words), 'word')} too many: {' '.join(words)}", 'put a name with spaces in quotes ("...");'
    if late := [name for name in unknown if name in options]:
        return f"behind -- all words are names of files, {choice(late)} too", "give options before it;"
    listed = [column for column in columns if option_name(column) in unknown]
    if listed:
        problem = f"{choice([option_name(column) for column in listed])} is no option of this command"
        return problem, f"give it to each pair, in the column {choice(listed)} of a list of pairs;"
    near = list(dict.fromkeys(option for name in unknown for option in near_options(name, options)))
    problem = f"unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
    return problem, f"did you mean {choice(near)}?" if near else ""


def near_options(name: str, options: Iterable[str]) -> list[str]:
    """The options whose spelling is near to that of one that does not exist, in their order; at most four.

    Example:
        >>> near_options("--spaceing", ["--overlay", "--fixed-spacing", "--moving-spacing"])
        ['--fixed-spacing', '--moving-spacing']
    """
    word = name.lstrip("-").lower()

    def nearness(option: str) -> float:
        full = option.lstrip("-")
        if len(word) > 2 and full.startswith(word):
            return 1.0
        # "--spacing" for "--fixed-spacing": the last word alone counts too.
        return max(SequenceMatcher(None, word, key).ratio() for key in (full, full.rpartition("-")[2]))

    found = {option: nearness(option) for option in options if option.startswith("--")}
    best = max(found.values(), default=0.0)
    return [option for option, ratio in found.items() if ratio >= max(0.7, best - 0.05)][:4]


def triple(text: str) -> tuple[float, ...]:
    """A converter of argparse to one number or three."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        what = "a voxel size in mm, one number or three, with decimal points: 0.01 or 0.01,0.01,0.02"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return values


def number(kind: type, low: float = -math.inf, high: float = math.inf):
    """A converter of argparse to a finite number of a kind, int or float, from `low` to `high`."""
    what = "whole number" if kind is int else "number"
    where = "" if math.isinf(low) and math.isinf(high) else f" from {low:g} to {high:g}"

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and math.isfinite(value)):
            point = "; write a decimal point, not a comma" if "," in text else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}{where}{point}")
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
  1    not accepted: outputs are written, and report and pictures say so
  2    bad input, bad usage, or an output cannot be written: nothing is written
  3    done and written, but the result could not be printed (a full disk)
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP): nothing is half-written
"""

REAL = number(float)
COUNT = number(int, 0, 10_000)
# With a number of pairs counted up from it, a seed stays within 32 bits.
SEED = number(int, 0, 10**9)
SIZE = number(int, 16, 2048)
SPACING = number(float, 1e-4, 10)
SHARE = number(float, 0, 1)
ITERATIONS = number(int, 1, 10**9)
MANY = number(int, 1, 100_000)
JOBS = number(int, 1, 1024)
