"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import OptionError, Setting
from .contract import Network
from .equivariant import Equivariant
from .global_net import MixedEncoder
from .siamese import Decoder, Encoder, Siamese, Sum

#: The five of Table 1, and the equivariant one.
NETWORKS: dict[str, Callable[[], Network]] = {
    "se": lambda: Siamese("se", Encoder(link=None), Sum()),
    "sed": lambda: Siamese("sed", Encoder(link=None), Decoder()),
    "snl-sed": lambda: Siamese("snl-sed", Encoder(link="self"), Decoder()),
    "dnet": lambda: Siamese("dnet", Encoder(link="mutual"), Decoder()),
    "me": MixedEncoder,
    "equivariant": Equivariant,
}


def build(name: str) -> Network:
    """A network with fresh weights, drawn from torch's default generator.

    Raises:
        OptionError: no network has this name.
    """
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise OptionError(f"there is no network {name!r}", f"choose one of {known}", Setting("network"))
    return NETWORKS[name]()
