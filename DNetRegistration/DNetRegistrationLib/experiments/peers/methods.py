"""What is compared: this project in its ways, and what a user would otherwise pick."""

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
class Method:
    """One way of aligning.

    Attributes:
        key: what ``--methods`` calls it.
        title: what tables and plots call it.
        home: the module of this package whose `aligner` makes it.
        options: to that.
        package: what it stands on, as installers call it, and `optional`: whether this project does without it.
        weights: of the network it asks, the name of some that ship.
    """

    key: str
    title: str
    home: str
    options: tuple[str, ...] = ()
    package: str = "torch"
    optional: bool = False
    weights: str = ""

    def load(self) -> Callable[..., Answer]:
        """The function (fixed, moving, threads) -> `Answer` of two `Volume`; brings what it needs with it."""
        return import_module(f".{self.home}", __package__).aligner(*self.options)

    def missing(self) -> str | None:
        """Why it cannot run here, and what would help; None where it can."""
        if self.weights and self.key == self.weights and self.weights not in available_weights():
            return f"no weights of the network {self.weights} ship with this version"
        if self.optional and not _installed(self.package):
            return f"{self.package} is not installed; install it: pip install {self.package}"
        return None

    @property
    def version(self) -> str:
        """Of what it stands on: package and, where it asks a network, a hash of the weights."""
        found = f"{self.package} {_installed(self.package)}".strip()
        if self.weights in available_weights():
            card = json.loads((FOLDER / f"{self.weights}.json").read_text(encoding="utf-8"))
            found += f", weights {card['sha256'][:8]}"
        return found


def _installed(package: str) -> str:
    """The version of an installed package; empty where it is not, or does not tell."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


#: This project as it is by default: what every other method is measured against.
FULL = "full"

METHODS = {
    method.key: method
    for method in (
        Method(FULL, "this project", "ours_method", ("auto",), weights=DEFAULT_WEIGHTS),
        Method("search", "its search alone", "ours_method", ("search",)),
        *(Method(name, f"its network {name} alone", "ours_method", ("dnet", name), weights=name) for name in SHIPPED),
        Method("axes", "principal axes recipe", "axes_method", (), "SimpleITK"),
        Method("simpleitk", "SimpleITK", "simpleitk_method", (), "SimpleITK"),
        Method("elastix", "elastix", "elastix_method", (), "itk-elastix", optional=True),
        Method("ants", "ANTs", "ants_method", (), "antspyx", optional=True),
    )
}
#: Those that are not of this project.
PEERS = ("axes", "simpleitk", "elastix", "ants")
