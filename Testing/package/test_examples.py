"""The examples in the docstrings of the library are true."""

import doctest
from importlib import import_module

import places
import pytest

# The room `slicer_module` needs Slicer.
MODULES = sorted(
    ".".join(path.relative_to(places.SOURCE).with_suffix("").parts)
    for path in (places.SOURCE / "DNetRegistrationLib").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8") and path.parent.name != "slicer_module"
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(import_module(name)).failed == 0
