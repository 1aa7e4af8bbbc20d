"""The package as a whole: what importing costs, that it runs on old Pythons, that its version and command are right."""

from __future__ import annotations

import ast
import importlib
import re

import DNetRegistrationLib
import pytest
from command import run
from places import LIBRARY, ROOT

MODULES = sorted(path.relative_to(LIBRARY).with_suffix("").as_posix() for path in LIBRARY.rglob("*.py"))
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

#: What must work before torch is there: Slicer shows thresholds and makes sample data while it is being installed.
WITHOUT_TORCH = (
    "bone.cortex", "bone.threshold", "cli.align", "cli.main", "core.progress", "core.files", "imaging.reading",
    "imaging.volume", "networks.weights", "outputs.overlay", "outputs.report", "outputs.segmentation",
    "outputs.subtraction", "outputs.write", "synthesis.dataset", "synthesis.pairs",
)  # fmt: skip


def test_importing_is_cheap():
    result = run(
        code="""
import sys
before = set(sys.modules)
import DNetRegistrationLib
assert not {"typing", "re", "pathlib", "dataclasses"} & (set(sys.modules) - before)
from DNetRegistrationLib.cli import main
heavy = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "tqdm"} & set(sys.modules)
print(sorted(heavy))
"""
    )
    assert result.stdout == "[]\n", result.stderr


def test_what_needs_no_torch_works_without():
    result = run(
        code=f"""
import sys
sys.modules["torch"] = None
from importlib import import_module
for name in {WITHOUT_TORCH}:
    import_module("DNetRegistrationLib." + name)
from DNetRegistrationLib import Volume, available_weights, find_bone_scale, make_pair, read_volume, write_volume
pair = make_pair(1, size=32, spacing=0.16)
print(find_bone_scale(pair.fixed).threshold > 0)
"""
    )
    assert result.stdout == "True\n", result.stderr


@pytest.mark.parametrize("name", DNetRegistrationLib.__all__)
def test_names_are_there(name):
    assert getattr(DNetRegistrationLib, name).__name__ == name
    assert name in dir(DNetRegistrationLib)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'aling'"):
        _ = DNetRegistrationLib.aling


@pytest.mark.parametrize("name", MODULES)
def test_module_is_python_3_10_and_says_what_it_is_for(name):
    source = (LIBRARY / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 10))
    assert ast.get_docstring(tree)


def test_version_is_said_once():
    match = re.search(r'attr = "([\w.]+)\.(\w+)"', PROJECT)
    assert getattr(importlib.import_module(match[1]), match[2]) == DNetRegistrationLib.__version__


def test_command_is_the_main_function():
    module, function = re.search(r'^dnet-registration = "([\w.]+):(\w+)"', PROJECT, re.MULTILINE).groups()
    assert callable(getattr(importlib.import_module(module), function))
