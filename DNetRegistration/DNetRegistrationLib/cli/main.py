"""The command line's main function: errors in one line, exit statuses, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager

from ..version import PROGRAM, __version__
from . import align, benchmark, compare, demo, evaluate, synthesize, train
from .arguments import STATUSES, Parser
from .wording import explain

COMMANDS = (align, demo, synthesize, benchmark, train, evaluate, compare)

ACCEPTED, NOT_ACCEPTED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        # File names need not be encodable.
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    options = None
    try:
        with _interruptible():
            options = build_parser().parse_args(arguments)
            return options.run(options)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(f"error: {explain(error, vars(options) if options else ())}", BAD_INPUT)


def build_parser() -> Parser:
    """All commands and their options."""
    parser = Parser(
        prog=PROGRAM,
        description="Aligns two micro-CT scans of the same bone, turned any way round, and says\nwhether to trust it.",
        epilog=f'Start with "{PROGRAM} demo", then "{PROGRAM} align --help".\n\n{STATUSES}',
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for command in COMMANDS:
        group = command.add_parser(commands).add_argument_group("messages")
        group.add_argument("--verbose", action="store_true", help="a line for each stage, also without a terminal")
        group.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser


def _fail(message: str, status: int) -> int:
    print(f"{PROGRAM}: {message}", file=sys.stderr)
    return status


@contextmanager
def _interruptible():
    """Being told to end (SIGTERM, SIGHUP) is handled as Ctrl-C is; a burst of signals counts once.

    Otherwise an impatient second Ctrl-C would interrupt the cleaning up after the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # A command that was started in the background ignores Ctrl-C, and goes on doing so.
    numbers = [number for number in known if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    last = float("-inf")

    def stop(number, frame):
        nonlocal last
        burst, last = time.monotonic() - last < 2, time.monotonic()
        if not burst:
            raise KeyboardInterrupt

    previous = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
