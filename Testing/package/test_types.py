"""Types: mypy finds nothing in the rooms that align nor in `typed_use`; the stub says what the package exports."""

import ast
import subprocess
import sys

import DNetRegistrationLib
import places
import pytest


@pytest.mark.slow
def test_types_hold(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stub_exports_what_the_package_loads():
    tree = ast.parse((places.LIBRARY / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    # Only "name as name" exports a name from a stub.
    exported = {alias.asname: node.module for node in imports for alias in node.names if alias.name == alias.asname}
    assert exported.pop("__version__") == "version"
    assert exported == DNetRegistrationLib._HOME
    assert (places.LIBRARY / "py.typed").is_file()
