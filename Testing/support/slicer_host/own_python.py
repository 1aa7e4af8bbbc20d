"""Slicer's own Python in place of the host's imitations, where a folder of Slicer's source is given.

The wheel slicer-core holds `slicer.util` alone. With the environment variable `SLICER_SOURCE` set to a checkout of
Slicer, the host takes `ScriptedLoadableModule`, `parameterNodeWrapper` and `i18n` from there, and the tests of the
module run on the very code that it meets in that version of Slicer:

    git clone --depth 1 --filter=blob:none --sparse --branch v5.12.3 https://github.com/Slicer/Slicer
    git -C Slicer sparse-checkout set Base/Python/slicer
    SLICER_SOURCE=$PWD/Slicer pytest Testing/slicer_module

`packaging` stays imitated, since it installs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import slicer

#: Of `slicer`, in the order in which they need each other.
NAMES = ("i18n", "parameterNodeWrapper", "ScriptedLoadableModule")

# Classes that Slicer's code compares widgets with, and of which the host has no widget.
_CTK = ("ctkCheckBox", "ctkCheckablePushButton", "ctkColorPickerButton", "ctkDirectoryButton")
_CTK += ("ctkDoubleRangeSlider", "ctkDoubleSlider", "ctkRangeWidget")
_QMRML = ("qMRMLSpinBox", "qMRMLRangeWidget")


def folder() -> Path | None:
    """The folder of Slicer's Python package; None where none is given."""
    source = os.environ.get("SLICER_SOURCE")
    return Path(source) / "Base" / "Python" / "slicer" if source else None


def modules() -> dict[str, types.ModuleType]:
    """Slicer's own modules by their names within `slicer`; empty where no folder is given.

    Raises:
        FileNotFoundError: the folder is not one of Slicer's source.
    """
    own = folder()
    if own is None:
        return {}
    for owner, names in ((sys.modules["ctk"], _CTK), (slicer, _QMRML)):
        for name in names:
            if not hasattr(owner, name):
                setattr(owner, name, type(name, (), {}))
    loaded = {}
    for name in NAMES:
        package = own / name / "__init__.py"
        path = package if package.is_file() else own / f"{name}.py"
        places = [str(package.parent)] if path is package else None
        spec = importlib.util.spec_from_file_location(f"slicer.{name}", path, submodule_search_locations=places)
        loaded[name] = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        setattr(slicer, name, loaded[name])
        spec.loader.exec_module(loaded[name])
    return loaded
