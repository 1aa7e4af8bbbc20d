"""The command line's words for errors: the options that they name are there."""

from __future__ import annotations

import ast
import re

import places
import pytest
from DNetRegistrationLib.cli.arguments import Parser
from DNetRegistrationLib.cli.main import installed_commands
from DNetRegistrationLib.cli.wording import explain, option_of
from DNetRegistrationLib.core.errors import (
    DNetError,
    FileError,
    OptionError,
    PackageError,
    RunError,
    ScanError,
    Setting,
)

MEMORY = "not enough memory; close other programs, or crop the scans to the bone"
SCANS = ("fixed_spacing", "moving_spacing")


def actions():
    """Each option of each command."""
    for command in installed_commands():
        commands = Parser(prog="test").add_subparsers()
        for action in command.add_parser(commands)._actions:
            if action.dest != "help":
                yield command.__name__.rpartition(".")[2], action


@pytest.mark.parametrize(
    ("setting", "options", "words"),
    [
        (Setting("spacing", "fixed"), SCANS, "--fixed-spacing"),
        (Setting("spacing", "moving"), SCANS, "--moving-spacing"),
        (Setting("spacing"), SCANS, "--fixed-spacing or --moving-spacing"),
        (Setting("spacing"), ("scan_spacing", "spacing_of_something_else"), "--scan-spacing"),
        (Setting("hypotheses", value="auto"), ("hypotheses",), "--hypotheses auto"),
        (Setting("learning_rate"), ("learning_rate",), "--learning-rate"),
        (Setting("hypotheses", value="auto"), SCANS, None),
        (Setting("series", "moving"), SCANS, None),
    ],
)
def test_option_of(setting, options, words):
    assert option_of(setting, options) == words


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ScanError("a: is no scan", "give one", Setting("spacing", "fixed")),
            "a: is no scan; give one (--fixed-spacing)",
        ),
        (ScanError("a: is no scan", "give one"), "a: is no scan; give one"),
        (OptionError("a fault", None, Setting("device")), "a fault"),
        (RunError("two\nlines", "do this"), "two lines; do this"),
        (MemoryError(), MEMORY),
        (RuntimeError("can't allocate memory: 5 bytes"), MEMORY),
        (ModuleNotFoundError(name="scipy.ndimage"), "scipy is not installed; install it: pip install scipy"),
        (KeyError("x"), "unexpected KeyError: 'x'; add --debug to see where it arose, and report it"),
    ],
)
def test_explain(error, line):
    assert explain(error, SCANS) == line


def test_an_option_is_called_like_what_it_sets():
    """Or `option_of` would name one that is not there."""
    for command, action in actions():
        if action.option_strings:
            assert "--" + action.dest.replace("_", "-") in action.option_strings, f"{command}: {action.dest}"


ROOMS = sorted({file.parent.name for file in places.LIBRARY.glob("*/__init__.py")} - {"cli", "slicer_module"})
KINDS = {kind.__name__ for kind in (DNetError, FileError, OptionError, PackageError, RunError, ScanError)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_message_names_no_option_and_keeps_its_remedy_apart(room):
    """Which option it is, the command line says, and which control, the panel."""
    found = []
    for file in (places.LIBRARY / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in KINDS:
                parts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                text = " ".join(part for part in parts if isinstance(part, str))
                if re.search(r"--[a-z]|\b[a-z_]+=(?!=)", text) or (len(node.args) == 1 and "; " in text):
                    found.append(f"{file.name}:{node.lineno}: {text}")
    assert not found, "\n".join(found)


def test_every_quantity_that_an_error_names_can_be_set():
    known = {action.dest for _, action in actions()}
    for file in places.LIBRARY.rglob("*.py"):
        if "slicer_module" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Setting"
            if called and node.args and isinstance(node.args[0], ast.Constant):
                setting = Setting(node.args[0].value)
                assert option_of(setting, known) is not None, f"{file}:{node.lineno}: {setting.quantity}"
