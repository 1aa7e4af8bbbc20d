"""Weights files: what goes in comes out, and every damaged or foreign file is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile

import pytest
import torch
from DNetRegistrationLib.core.errors import FileError, OptionError, Setting
from DNetRegistrationLib.networks import weights
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.weights import available_weights, load_weights, save_weights


def fresh(name="me", seed=0):
    torch.manual_seed(seed)
    return build(name)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mine.pt"
    save_weights(fresh(), path, {"recipe": "fast", "seed": 3})
    return path


def refused(path, *words):
    """The message of the refusal: one line that names the file."""
    with pytest.raises(FileError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and ";" in message
    for word in words:
        assert word in message
    return message


def rewrite(path, **changes):
    """A file of the same form with other content, and no card beside it."""
    stored = torch.load(path, weights_only=True)
    other = path.with_name("other.pt")
    torch.save({key: value for key, value in {**stored, **changes}.items() if value is not None}, other)
    return other


@pytest.mark.parametrize("name", ["me", "dnet", "se", "sed", "snl-sed"])
def test_round_trip(tmp_path, name):
    network = fresh(name)
    save_weights(network, tmp_path / "w.pt", {"seed": 1, "validation": {"re_deg": 2.5}})
    torch.manual_seed(99)
    loaded, card = load_weights(tmp_path / "w.pt")
    assert loaded.name == name and not loaded.training
    assert loaded.state_dict().keys() == network.state_dict().keys()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]) and value.dtype == torch.float32
    content = (tmp_path / "w.pt").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert card == {"seed": 1, "validation": {"re_deg": 2.5}, "network": name, "sha256": sha256}
    assert json.loads((tmp_path / "w.json").read_text()) == card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.json", "w.pt"]


def test_half_precision_is_half_the_size_and_loads_as_float32(tmp_path):
    network = fresh("dnet")
    save_weights(network, tmp_path / "half.pt", {}, half=True)
    assert (tmp_path / "half.pt").stat().st_size < 11e6
    loaded, _ = load_weights(tmp_path / "half.pt")
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, network.state_dict()[key].half().float())
    assert any(not torch.equal(v, network.state_dict()[k]) for k, v in loaded.state_dict().items())


def test_same_weights_same_bytes_whatever_the_name(tmp_path):
    save_weights(fresh(), tmp_path / "a.pt", {"seed": 1})
    save_weights(fresh(), tmp_path / "another.pt", {"seed": 1, "sha256": "stale"})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_a_file_without_its_card_still_knows_itself(saved):
    (saved.with_suffix(".json")).unlink()
    network, card = load_weights(os.fspath(saved))
    assert network.name == card["network"] == "me" and card["recipe"] == "fast"
    assert card["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()


def test_no_weights_ship_yet_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert available_weights() == ()
    for name in ("equivariant", "dnet"):
        with pytest.raises(OptionError, match=f"no trained weights named '{name}' are installed; give") as caught:
            load_weights(name)
        assert caught.value.setting == Setting("hypotheses", value="search")


def test_shipped_names(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    save_weights(fresh("dnet"), tmp_path / "dnet.pt", {}, half=True)
    assert available_weights() == ("dnet",)
    assert load_weights("dnet").network.name == "dnet"
    content = bytearray((tmp_path / "dnet.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "dnet.pt").write_bytes(content)
    with pytest.raises(FileError, match=r"dnet\.pt: its SHA-256 .*install this package again"):
        load_weights("dnet")
    (tmp_path / "dnet.json").unlink()  # a shipped file without a card cannot be checked, so it is none
    with pytest.raises(OptionError):
        load_weights("dnet")


@pytest.mark.parametrize("where", [0, 100, 0.25, 0.5, 0.999])
def test_tampered(saved, where):
    content = bytearray(saved.read_bytes())
    content[int(where * len(content)) if where < 1 else where] ^= 0xFF
    saved.write_bytes(content)
    refused(saved, "SHA-256", "mine.json")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else kept])
    refused(saved, "SHA-256", "truncated")
    saved.with_suffix(".json").unlink()
    refused(saved, "copy it again" if kept not in (0, 1) else "file")


def test_weights_without_a_card_have_checksums_too(saved):
    """One bit of each of many places: nothing that was changed is taken for weights."""
    saved.with_suffix(".json").unlink()
    content, (first, *_) = saved.read_bytes(), torch.load(saved, weights_only=True)["state"].values()
    assert first.numel() > 100
    start = content.index(first.numpy().tobytes())
    for place in range(start, start + first.numel() * 4, 97):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        refused(saved, "damaged or truncated")


def test_an_empty_card_vouches_for_nothing(saved):
    saved.with_suffix(".json").write_text("{}")
    refused(saved, "SHA-256")


def test_what_would_unpack_to_much_more_is_refused(saved):
    """torch writes nothing compressed. The file of a large network of zeros is a thousandth of what it unpacks to."""
    packed = saved.with_name("packed.pt")
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    refused(packed, "damaged or truncated")


def test_card_of_another_file(saved, tmp_path):
    save_weights(fresh(seed=1), tmp_path / "second.pt", {})
    os.replace(tmp_path / "second.json", saved.with_suffix(".json"))
    refused(saved, "SHA-256")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000])
def test_broken_card(saved, text):
    saved.with_suffix(".json").write_text(text)
    with pytest.raises(
        FileError, match=r"mine\.json: the model card is not .*; give a weights file that training wrote"
    ):
        load_weights(saved)


def test_card_that_is_not_text(saved):
    saved.with_suffix(".json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"mine\.json: the model card cannot be read"):
        load_weights(saved)


def test_missing_file_folder_and_impossible_name(tmp_path):
    refused(tmp_path / "no.pt", "no such weights file", "a name that ships")
    refused(tmp_path, "not a file")
    with pytest.raises(FileError, match="weights"):
        load_weights("a\0b")
    with pytest.raises(FileError):
        load_weights("x" * 5000)


def test_unreadable_file(saved, monkeypatch):
    def deny(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", deny)
    refused(saved, "Permission denied", "permissions")


def test_text_and_zip_files(tmp_path):
    path = tmp_path / "x.pt"
    path.write_text("These are not weights.\n")
    refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path)


class Evil:
    """Unpickled, it would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_is_never_run(saved, tmp_path):
    target = tmp_path / "proof"
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(Evil(os.fspath(target))))
    refused(path, "refused")
    torch.save({"state": Evil(os.fspath(target))}, path)
    refused(path, "refused")
    torch.save(torch.nn.Linear(2, 2), path)  # a whole module is code too
    refused(path, "refused")
    refused(rewrite(saved, card=Evil(os.fspath(target))), "refused")
    assert not target.exists()
    pickle.loads(pickle.dumps(Evil(os.fspath(target))))  # the bait does bite where it is unpickled
    assert target.exists()


def test_foreign_files(saved, tmp_path):
    path = tmp_path / "foreign.pt"
    for content in (torch.nn.Linear(2, 2).state_dict(), torch.zeros(3), [1, 2], {"state_dict": {}, "epoch": 3}):
        torch.save(content, path)
        refused(path, "not a weights file of this project")
    refused(rewrite(saved, format="DNetRegistration weights 99"), "version")
    refused(rewrite(saved, extra=1), "not a weights file")
    refused(rewrite(saved, state=None), "not a weights file")


def test_wrong_network_or_state(saved):
    state = torch.load(saved, weights_only=True)["state"]
    key = next(iter(state))
    refused(rewrite(saved, network="resnet", card="{}"), "no network 'resnet'")
    refused(rewrite(saved, network=["me"], card="{}"))
    refused(rewrite(saved, network="dnet", card="{}"), "do not fit the network 'dnet'")
    refused(rewrite(saved, state={k: v for k, v in state.items() if k != key}), "do not fit")
    refused(rewrite(saved, state={**state, key: state[key][:1]}), "do not fit")
    refused(rewrite(saved, state={**state, key: "tensor"}), "do not fit")
    refused(rewrite(saved, state=[1]), "do not fit")
    refused(rewrite(saved, state={**state, key: state[key].to(torch.complex64)}), "finite")
    refused(rewrite(saved, state={**state, key: torch.full_like(state[key], float("nan"))}), key, "finite")
    # Finite as it is stored, and infinite as it would be used.
    refused(rewrite(saved, state={**state, key: torch.full_like(state[key], 1e300, dtype=torch.float64)}), "finite")
    refused(rewrite(saved, state={**state, key: torch.empty_like(state[key], device="meta")}), "do not fit")
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)
    refused(rewrite(saved, state={**state, key: nested}))
    refused(rewrite(saved, card="not json"), "not JSON")
    refused(rewrite(saved, card='{"network": "dnet"}'), "'me'", "'dnet'")


def test_too_large(saved, monkeypatch):
    monkeypatch.setattr(weights, "_LARGEST", 1000)
    refused(saved, "too large")


def test_saving_refuses_what_could_not_be_loaded(tmp_path):
    network = fresh()
    with pytest.raises(FileError, match=r"ends in \.pt; name it w\.pt"):
        save_weights(network, tmp_path / "w.bin", {})
    with torch.no_grad():
        network.head.bias[0] = 1e6
    save_weights(network, tmp_path / "whole.pt", {})
    with pytest.raises(FileError, match=r"head\.bias is not finite in half precision"):
        save_weights(network, tmp_path / "half.pt", {}, half=True)
    with torch.no_grad():
        network.head.bias[0] = float("nan")
    with pytest.raises(FileError, match=r"head\.bias is not finite"):
        save_weights(network, tmp_path / "nan.pt", {})
    with pytest.raises(FileError, match=r"w\.pt: cannot be written, its folder does not exist"):
        save_weights(fresh(), tmp_path / "missing" / "w.pt", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["whole.json", "whole.pt"]


def test_a_failed_save_leaves_the_old_pair(saved, monkeypatch):
    before = saved.read_bytes(), saved.with_suffix(".json").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)  # the card, written last
    with pytest.raises(FileError, match=r"mine\.pt: cannot be written \(No space left on device\)"):
        save_weights(fresh(seed=1), saved, {})
    assert (saved.read_bytes(), saved.with_suffix(".json").read_bytes()) == before
    assert sorted(p.name for p in saved.parent.iterdir()) == ["mine.json", "mine.pt"]


@pytest.mark.parametrize(
    ("recipe", "placement"),
    [
        ({"placement": "center"}, "center"),
        ({"placement": "bone"}, "bone"),
        ({}, "bone"),
        ("fast", "bone"),
        (None, "bone"),
    ],
)
def test_weights_know_where_cubes_lay_in_their_training(tmp_path, recipe, placement):
    save_weights(fresh(), tmp_path / "w.pt", {} if recipe is None else {"recipe": recipe})
    assert load_weights(tmp_path / "w.pt").placement == placement


@pytest.mark.parametrize("placement", ["corner", ["bone"], None])
def test_an_unknown_placement_is_refused(tmp_path, placement):
    save_weights(fresh(), tmp_path / "w.pt", {"recipe": {"placement": placement}})
    refused(tmp_path / "w.pt", "learned on cubes that are placed in another way", "update this package")


def test_what_ships():
    """The default network is there, small, and its card says where it comes from and how well it does."""
    assert weights.DEFAULT_WEIGHTS in available_weights()
    for name in available_weights():
        loaded = load_weights(name)
        assert loaded.network.name == loaded.card["network"] == name and not loaded.network.training
        for key in ("recipe", "bank", "seed", "iterations", "device", "command", "go_on", "validation"):
            assert loaded.card[key] or key == "seed", key
        assert all(parameter.isfinite().all() for parameter in loaded.network.parameters())
        assert loaded.card["recipe"]["placement"] == loaded.placement == "bone"
    assert set(available_weights()) == {"equivariant", "dnet"}
    assert (weights.FOLDER / "equivariant.pt").stat().st_size <= 3e6
    assert (weights.FOLDER / "dnet.pt").stat().st_size <= 11e6
    assert sum(path.stat().st_size for path in weights.FOLDER.iterdir()) <= 15e6
