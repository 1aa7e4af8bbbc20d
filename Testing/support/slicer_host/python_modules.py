"""`slicer.i18n` and `slicer.packaging`, in the part that modules use."""

from __future__ import annotations

import types
from pathlib import Path

from packaging.requirements import Requirement

# slicer.i18n: no translations are installed.

i18n = types.ModuleType("slicer.i18n", "Translation of a module's texts; the host returns them as they are.")
i18n.tr = lambda text: _text(text)
i18n.translate = lambda context, text: _text(text)


def _text(text):
    if not isinstance(text, str):
        raise TypeError(f"only a string can be translated, not {text!r}")
    return text


# slicer.packaging: nothing is ever installed.

packaging = types.ModuleType("slicer.packaging", "Python packages of Slicer; the host records and installs nothing.")
installations: list[tuple] = []
"""What a module asked to install since the host was reset: (requirements, requester)."""


def load_requirements(path):
    """The requirements of a requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def pip_ensure(requirements, requester=None, **options):
    """Record what would be installed if it is missing or too old."""
    from importlib import metadata

    wanted = [requirements] if isinstance(requirements, (str, Requirement)) else requirements
    for requirement in (Requirement(str(entry)) for entry in wanted):
        try:
            met = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
        except metadata.PackageNotFoundError:
            met = False
        if not met:
            installations.append((str(requirement), requester))


def pip_install(requirements, **options):
    """Record what would be installed."""
    installations.append((requirements, options.get("requester")))


packaging.load_requirements = load_requirements
packaging.pip_ensure = pip_ensure
packaging.pip_install = pip_install
