"""Trained weights: a file knows its network, and loading it runs nothing from it.

A weights file is a PyTorch file of plain tensors and strings: the network's name, its card as JSON text, its state.
The model card (recipe, seed, validation figures, ...) also lies beside it under the same name with the suffix
``.json``, and holds the SHA-256 of the file. Weights that ship are `pretrained/<name>.pt` and
`pretrained/<name>.json`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.constants import PLACEMENTS, Placement
from ..core.errors import FileError, OptionError, Setting
from ..core.files import atomic_write, writing
from .tensor_files import load_plain

if TYPE_CHECKING:
    from .contract import Network

FOLDER = Path(__file__).parent / "pretrained"
SHIPPED = ("equivariant", "dnet")  # names of weights that ship, best first
DEFAULT_WEIGHTS = SHIPPED[0]

_FORMAT = "DNetRegistration weights 1"
_KEYS = {"format", "network", "card", "state"}
_LARGEST = 1 << 30  # bytes; the largest network of Table 1 has 37 MB


class LoadedWeights(NamedTuple):
    """A network ready for use, and where its weights come from.

    Attributes:
        network: in evaluation mode, float32, on the CPU.
        card: the model card; its "network" and "sha256" (of the file) are always there.
    """

    network: Network
    card: dict[str, Any]

    @property
    def placement(self) -> Placement:
        """Where the cubes lay that the network learned on, and so where those must lie that it is asked about.

        A card that does not say it is taken to mean the bone, as all weights that ship do.
        """
        recipe = self.card.get("recipe")
        return recipe.get("placement", PLACEMENTS[0]) if isinstance(recipe, dict) else PLACEMENTS[0]


def available_weights() -> tuple[str, ...]:
    """The names of the weights that ship, best first; needs no torch."""
    paths = {name: FOLDER / f"{name}.pt" for name in SHIPPED}
    return tuple(name for name, path in paths.items() if path.is_file() and _card_path(path).is_file())


def save_weights(network: Network, path: str | os.PathLike, card: dict[str, Any], half: bool = False) -> None:
    """Writes the weights of a network, and its card beside them; both appear, or neither.

    Args:
        network: one that `registry.build` knows by its `name`.
        path: of the weights file, with the suffix ``.pt``; the card goes to the same name with ``.json``.
        card: what JSON can hold. "network" and "sha256" are filled in.
        half: store in half precision, half the size; loading gives float32 again.

    Raises:
        FileError: another suffix, weights that are not finite (in half precision), or files that cannot be written.
    """
    import torch

    path = Path(path)
    if path.suffix != ".pt":
        raise FileError(f"{path}: a weights file ends in .pt", f"name it {path.with_suffix('.pt').name}")
    state = {}
    for key, value in network.state_dict().items():
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if half and value.is_floating_point() else value
        if not state[key].isfinite().all():
            precision = " in half precision" if half else ""
            raise FileError(f"{path}: {key} is not finite{precision}", "train on from an earlier checkpoint")
    card = {**card, "network": network.name}
    card.pop("sha256", None)  # a file cannot hold its own
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, "network": network.name, "card": json.dumps(card), "state": state}, buffer)
    content = buffer.getvalue()
    card["sha256"] = hashlib.sha256(content).hexdigest()
    with atomic_write() as staging, writing(path):
        staging.path(path).write_bytes(content)
        staging.path(_card_path(path)).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_weights(name_or_path: str | os.PathLike) -> LoadedWeights:
    """The network of a weights file, with its weights, in evaluation mode.

    Args:
        name_or_path: the name of weights that ship, one of `SHIPPED`, or the path of a weights file. A card beside the
            file must agree with it; only shipped weights must have one.

    Raises:
        OptionError: the name is of weights that are not installed.
        FileError: the file is missing, truncated, tampered with, or not a weights file of this project.
    """
    path = require_weights(name_or_path)
    remedy = _remedy(name_or_path)
    content = _read(path, remedy)
    sha256 = hashlib.sha256(content).hexdigest()
    beside = _read_card(path, remedy)
    if beside is not None and beside.get("sha256") != sha256:
        raise FileError(
            f"{path}: its SHA-256 is not that of its card {_card_path(path).name} (truncated, changed, or a card of "
            "another file)",
            f"copy both again, or {remedy}",
        )
    stored = _unpack(content, path, remedy)
    card = beside or _parse_card(stored["card"], path, remedy)
    if card.get("network", stored["network"]) != stored["network"]:
        raise FileError(f"{path}: the file is of {stored['network']!r}, its card of {card['network']!r}", remedy)
    network = _fill(stored["network"], stored["state"], path, remedy)
    loaded = LoadedWeights(network, {**card, "network": stored["network"], "sha256": sha256})
    if loaded.placement not in PLACEMENTS:
        problem = f"{path}: learned on cubes that are placed in another way, {str(loaded.placement)[:200]!r}"
        raise FileError(problem, f"{remedy}, or update this package")
    return loaded


def require_weights(name_or_path: str | os.PathLike) -> Path:
    """The file of weights, if there is one; needs no torch.

    Raises:
        OptionError, FileError: there is none; see `load_weights`.
    """
    path = weights_path(name_or_path)
    if name_or_path in SHIPPED and name_or_path not in available_weights():
        raise OptionError(
            f"no trained weights named {name_or_path!r} are installed",
            "give the path of a weights file, or do without a network",
            Setting("hypotheses", value="search"),
        )
    with _reading(path):
        if not path.exists():
            names = ", ".join(available_weights()) or "none yet"
            raise FileError(f"{path}: no such weights file", f"give an existing one, or a name that ships ({names})")
        if not path.is_file():
            raise FileError(f"{path}: this is not a file", _remedy(name_or_path))
    return path


def _remedy(name_or_path: str | os.PathLike) -> str:
    return "install this package again" if name_or_path in SHIPPED else "give a weights file that training wrote"


def weights_path(name_or_path: str | os.PathLike) -> Path:
    """The file of weights that ship, by their name, or the path as it is; needs no torch."""
    return FOLDER / f"{name_or_path}.pt" if name_or_path in SHIPPED else Path(name_or_path)


def weights_stamp(name_or_path: str | os.PathLike) -> tuple:
    """What changes when a weights file or its card is written anew: times and sizes; empty where there is no file."""
    path = weights_path(name_or_path)
    try:
        return tuple((s.st_mtime_ns, s.st_size) for s in (p.stat() for p in (path, _card_path(path)) if p.exists()))
    except (OSError, ValueError):  # a zero byte in the name
        return ()


def _card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path, remedy: str) -> bytes:
    with _reading(path):
        if path.stat().st_size > _LARGEST:
            raise FileError(f"{path}: too large for a weights file of this project", remedy)
        return path.read_bytes()  # once, so that what is checked is what is loaded


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns errors of reading a weights file inside the block into a `FileError`."""
    try:
        yield
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{path}: cannot be read ({cause})", "check its name and permissions") from error


def _read_card(path: Path, remedy: str) -> dict[str, Any] | None:
    beside = _card_path(path)
    if beside == path or not beside.is_file():
        return None
    try:
        return _parse_card(beside.read_text(encoding="utf-8"), beside, remedy)
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{beside}: the model card cannot be read as text", remedy) from error


def _parse_card(text: Any, path: Path, remedy: str) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise FileError(f"{path}: the model card is not JSON", remedy) from error
    if not isinstance(card, dict):
        raise FileError(f"{path}: the model card is not a JSON object", remedy)
    return card


def _unpack(content: bytes, path: Path, remedy: str) -> dict[str, Any]:
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = load_plain(content)
    except pickle.UnpicklingError as error:
        # Also what `weights_only` answers to a file that names code to run: it has not been run.
        raise FileError(
            f"{path}: not plain weights (no PyTorch file, or one that asks to run code, which was refused)", remedy
        ) from error
    except Exception as error:  # torch's reader raises many kinds on damaged archives
        raise FileError(f"{path}: damaged or truncated", f"copy it again, or {remedy}") from error
    if not isinstance(stored, dict) or set(stored) != _KEYS or stored["format"] != _FORMAT:
        raise FileError(f"{path}: a PyTorch file, but not a weights file of this project or version", remedy)
    return stored


def _fill(name: Any, state: Any, path: Path, remedy: str) -> Network:
    from .registry import build

    try:
        network = build(name)
    except (TypeError, OptionError) as error:
        problem = f"{path}: there is no network {str(name)[:200]!r}"
        raise FileError(problem, f"{remedy}, or update this package") from error
    expected = {key: value.shape for key, value in network.state_dict().items()}
    found = {k: _shape(v) for k, v in state.items()} if isinstance(state, dict) else {}
    if found != expected:
        raise FileError(f"{path}: its weights do not fit the network {name!r}", f"{remedy}, or update this package")
    for key, value in state.items():
        # As the network will hold them: 1e300 is finite, and infinite in single precision.
        if not (value.is_floating_point() and value.float().isfinite().all()):
            raise FileError(f"{path}: {key} holds numbers that are not finite reals", remedy)
    network.load_state_dict(state)  # copies into the network's float32
    return network.eval().requires_grad_(False)


def _shape(value: Any) -> Any:
    """The shape of a tensor that holds numbers in the plain way; None of anything else."""
    import torch

    plain = isinstance(value, torch.Tensor) and not (value.is_nested or value.is_meta)
    return value.shape if plain and value.layout == torch.strided else None
