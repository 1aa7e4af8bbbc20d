"""The command line's main function: errors in one line, exit statuses, Ctrl-C."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ..core.interrupts import raised_once
from ..core.progress import all_was_said, say_aside
from ..core.threads import let_threads_sleep
from ..version import PROGRAM, __version__
from .arguments import STATUSES, Parser
from .wording import explain

#: The modules of the commands, in the order of the help. Slicer installs only some of them.
COMMANDS = ("align", "apply", "cartilage", "cohort", "demo", "synthesize", "benchmark", "train", "evaluate", "compare")

#: Exit statuses of a command that does not end by itself.
BAD_INPUT, UNPRINTED, INTERRUPTED = 2, 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status. Errors are told in one line.

    Args:
        arguments: the words after the program's name; None for those of this process.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # File names need not be encodable.
        sys.stdout.reconfigure(errors="backslashreplace")
    let_threads_sleep()
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    options, interrupted = None, lambda: False
    try:
        with raised_once() as interrupted:
            options = build_parser().parse_args(arguments)
            status = options.run(options)
            return status if all_was_said() else UNPRINTED
    except SystemExit as done:  # --help and --version
        return int(done.code or 0) if all_was_said() else UNPRINTED
    except (Exception, KeyboardInterrupt) as error:
        if interrupted() or isinstance(error, KeyboardInterrupt):
            return _fail("interrupted", INTERRUPTED)
        if debug:
            say_aside(traceback.format_exc())
        return _fail(f"error: {explain(error, vars(options) if options else ())}", BAD_INPUT)


def installed_commands() -> list[ModuleType]:
    """The modules of the commands that are installed."""
    names = [f"{__package__}.{name}" for name in COMMANDS]
    return [import_module(name) for name in names if find_spec(name) is not None]


def build_parser() -> Parser:
    """The commands that are installed, and their options."""
    modules = installed_commands()
    demo = f'"{PROGRAM} demo", then ' if len(modules) == len(COMMANDS) else ""
    parser = Parser(
        prog=PROGRAM,
        description="Aligns two micro-CT scans of the same bone in any orientation, and says\nwhether to trust it.",
        epilog=f'Start with {demo}"{PROGRAM} align --help".\n\n{STATUSES}',
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for command in modules:
        group = command.add_parser(commands).add_argument_group("messages")
        group.add_argument("--verbose", action="store_true", help="a line for each stage, also without a terminal")
        group.add_argument("--debug", action="store_true", help="show where in the program an error arose")
    return parser


def _fail(message: str, status: int) -> int:
    say_aside(f"{PROGRAM}: {message}")
    return status
