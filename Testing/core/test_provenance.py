"""Where results come from."""

import shutil

import pytest
from DNetRegistrationLib.core import provenance
from DNetRegistrationLib.core.provenance import PACKAGE, code_hash


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two rooms of this one."""
    for room in ("core", "geometry"):
        shutil.copytree(PACKAGE / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    return tmp_path


def test_renaming_and_moving_leave_the_hash_as_it_was(package):
    before = code_hash()
    assert before == code_hash("core", "geometry") == code_hash("geometry", "core")
    (package / "core" / "errors.py").rename(package / "core" / "aaa.py")
    (package / "core" / "files.py").rename(package / "geometry" / "files.py")
    (package / "core" / "notes.txt").write_text("not code")
    assert code_hash() == before


def test_every_other_change_changes_the_hash(package):
    hashes = [code_hash(), code_hash("core"), code_hash("core/files.py")]
    (package / "core" / "files.py").write_bytes((package / "core" / "files.py").read_bytes() + b"\n")
    hashes += [code_hash(), code_hash("core/files.py")]
    (package / "geometry" / "numbers.json").write_text("[1]")
    hashes.append(code_hash())
    # Two files that are alike are not one.
    shutil.copy(package / "geometry" / "numbers.json", package / "geometry" / "more.json")
    hashes.append(code_hash())
    assert len({*hashes}) == len(hashes)


def test_a_room_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="bonee: the package has no such"):
        code_hash("bone", "bonee")
