"""Folders of processes that live and that died."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from DNetRegistrationLib.core.private_folder import LOCK, PrivateFolder, is_abandoned, remove_abandoned

PROGRAM = """
import sys
from DNetRegistrationLib.core.private_folder import PrivateFolder
folder = PrivateFolder("mine-", sys.argv[1])
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has made a folder."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.folder = tmp_path / os.path.basename(process.stdout.readline().strip())
    yield process
    process.kill()
    process.wait()


def aged(folder, seconds=100.0):
    os.utime(folder, (time.time() - seconds,) * 2)


def test_a_folder_is_there_until_it_is_removed(tmp_path):
    folder = PrivateFolder("mine-", tmp_path)
    (folder.path / "scan.raw").write_bytes(b"1")
    aged(folder.path)
    remove_abandoned("mine-", tmp_path)
    assert (folder.path / "scan.raw").exists() and not is_abandoned(folder.path)
    assert oct(folder.path.stat().st_mode)[-3:] == "700"
    folder.remove()
    folder.remove()
    assert not list(tmp_path.iterdir()) and is_abandoned(folder.path)


def test_a_folder_is_abandoned_when_its_process_is_killed(tmp_path, other):
    aged(other.folder)
    remove_abandoned("mine-", tmp_path)
    assert other.folder.is_dir() and not is_abandoned(other.folder)
    other.kill()
    other.wait()
    assert is_abandoned(other.folder)
    remove_abandoned("theirs-", tmp_path)
    assert other.folder.is_dir()
    remove_abandoned("mine-", tmp_path)
    assert not other.folder.exists()


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path, other):
    other.kill()
    other.wait()
    remove_abandoned("mine-", tmp_path)
    assert other.folder.is_dir()
    aged(other.folder)
    (other.folder / LOCK).unlink()
    aged(other.folder)
    remove_abandoned("mine-", tmp_path)
    assert other.folder.is_dir()
    aged(other.folder, 90_000)
    remove_abandoned("mine-", tmp_path)
    assert not other.folder.exists()


def test_a_parent_that_is_missing(tmp_path):
    remove_abandoned("mine-", tmp_path / "missing")
    with pytest.raises(OSError):
        PrivateFolder("mine-", tmp_path / "missing")
