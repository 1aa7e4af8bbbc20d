"""What is compared: this project in its ways, and what a user would otherwise take.

Needs neither torch nor NumPy, so that the command line starts fast and no method's memory holds another's libraries.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ...networks.weights import DEFAULT_WEIGHTS, FOLDER, SHIPPED, available_weights

if TYPE_CHECKING:
    from .answer import Answer


@dataclass(frozen=True)
class ComparedMethod:
    """One way of aligning.

    Attributes:
        key: its name in Python, on the command line and in files.
        title: its name in tables and pictures.
        module: the module of this folder that has it.
        options: further arguments of the module's function.
        package: the package that it rests on, by its name on PyPI.
        optional: whether this project does without that package.
        weights: the name of the shipped network that it asks.
        near: it is given a start near the truth and only refines it; `load` then returns the module's `refine_start`.
    """

    key: str
    title: str
    module: str
    options: tuple[str, ...] = ()
    package: str = "torch"
    optional: bool = False
    weights: str = ""
    near: bool = False

    def load(self) -> Callable[..., Answer]:
        """The function (fixed, moving, threads) -> `Answer` of two `Volume`, with a start as fourth where `near`.

        Imports what the method needs.
        """
        module = import_module(f".{self.module}", __package__)
        function = module.refine_start if self.near else module.align
        return lambda *given: function(*given, *self.options)

    def missing(self) -> str | None:
        """Why it cannot run here, and what would help; None where it can."""
        if self.weights and self.key == self.weights and self.weights not in available_weights():
            return f"no weights of the network {self.weights} ship with this version"
        if self.optional and not _installed(self.package):
            return f"{self.package} is not installed; install it: pip install {self.package}"
        return None

    @property
    def version(self) -> str:
        """The version of the package and, where it asks a network, a hash of the weights."""
        found = f"{self.package} {_installed(self.package)}".strip()
        if self.weights in available_weights():
            card = json.loads((FOLDER / f"{self.weights}.json").read_text(encoding="utf-8"))
            found += f", weights {card['sha256'][:8]}"
        return found


def _installed(package: str) -> str:
    """The version of an installed package; empty where it is not installed, or does not tell."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


#: This project as it is by default. Every other method is measured against it.
FULL = "full"

METHODS = {
    method.key: method
    for method in (
        ComparedMethod(FULL, "this project", "ours", ("auto",), weights=DEFAULT_WEIGHTS),
        ComparedMethod("search", "its search alone", "ours", ("search",)),
        *(
            ComparedMethod(name, f"its network {name} alone{turned}", "ours", ("dnet", name), weights=name)
            for name, turned in zip(SHIPPED, ("", ", 8 turns"), strict=True)
        ),
        ComparedMethod("axes", "principal axes recipe", "principal_axes", (), "SimpleITK"),
        ComparedMethod("simpleitk", "SimpleITK", "simpleitk", (), "SimpleITK"),
        ComparedMethod("elastix", "elastix", "elastix", (), "itk-elastix", optional=True),
        ComparedMethod("ants", "ANTs", "ants", (), "antspyx", optional=True),
    )
}
#: The methods of others that search.
PEERS = ("axes", "simpleitk", "elastix", "ants")


def _refiners(
    key: str, title: str, package: str, metrics: dict[str, str], masks: tuple[str, ...]
) -> list[ComparedMethod]:
    """A tool's ways to refine a start, by its metrics (with their titles) and each of the masks."""
    optional = package != "SimpleITK"
    about = {
        "all": "",
        "dilated": ", mask dilated",
        "eroded": ", mask eroded",
        "shrunk": ", mask dilated and then shrunk",
    }
    return [
        ComparedMethod(
            "-".join(filter(None, (key, metric, mask))),
            f"{title}{', ' * bool(words)}{words}{about[mask]}",
            key,
            tuple(filter(None, (metric, mask))),
            package,
            optional,
            near=True,
        )
        for metric, words in metrics.items()
        for mask in masks
    ]


#: This project's refinement alone, from a start near the truth.
REFINE = "refine"
_INFORMATION = {"information": "mutual information"}
_GLOBAL = {"correlation": "correlation", **_INFORMATION}

#: What refines a start near the truth: this project, and its peers by their metrics and masks.
REFINERS = {
    method.key: method
    for method in (
        ComparedMethod(REFINE, "this project", "ours", near=True),
        *_refiners("elastix", "elastix", "itk-elastix", _GLOBAL, ("all", "dilated", "eroded", "shrunk")),
        *_refiners("simpleitk", "SimpleITK", "SimpleITK", _GLOBAL, ("dilated", "eroded")),
        *_refiners(
            "simpleitk", "SimpleITK", "SimpleITK", {"neighbourhood": "neighbourhood correlation"}, ("dilated", "eroded")
        ),
        *_refiners("ants", "ANTs", "antspyx", _INFORMATION, ("all", "dilated", "eroded")),
        *_refiners("ants", "ANTs", "antspyx", {"correlation": "local correlation"}, ("dilated", "eroded")),
        *_refiners("neuroreg", "neuroreg", "neuroreg", {"": ""}, ("all", "dilated", "eroded")),
    )
}
