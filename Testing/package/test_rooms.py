"""The rooms of the library: which may import which, lazy imports included (`[tool.importlinter]` in pyproject.toml)."""

from __future__ import annotations

import ast
import subprocess
import sys

import places
import pytest

MODULES = sorted(places.LIBRARY.rglob("*.py"))
ROOMS = sorted(file.parent.name for file in places.LIBRARY.glob("*/__init__.py"))


def test_no_room_imports_one_that_it_may_not():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, cwd=places.ROOT, env=places.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "one way down KEPT" in done.stdout


def imported(file) -> set[str]:
    """The library's modules that a module imports, lazily or not, by dotted name without the library's."""
    home = file.relative_to(places.LIBRARY).parent.parts
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == places.LIBRARY.name for alias in node.names), file
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.split(".")[0] != places.LIBRARY.name, f"{file}:{node.lineno}: make it relative"
        elif isinstance(node, ast.ImportFrom):
            start = (*home[: len(home) - node.level + 1], *(node.module or "").split("."))
            base = ".".join(part for part in start if part)
            names.add(base)
            names.update(f"{base}.{alias.name}".lstrip(".") for alias in node.names)
    return names


def test_no_circles():
    """Of modules, where the contract of rooms does not look."""
    names = {".".join(file.relative_to(places.LIBRARY).with_suffix("").parts): file for file in MODULES}
    left = {name: imported(file) & set(names) - {name} for name, file in names.items()}
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left, "these import each other: " + ", ".join(sorted(left))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for(room):
    assert ast.get_docstring(ast.parse((places.LIBRARY / room / "__init__.py").read_text(encoding="utf-8")))
