from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from command import run
from DNetRegistrationLib.core import files
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.core.files import atomic_write, writing


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_appear_together_when_the_block_ends(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "a.txt").write_text("old")
    with atomic_write() as staging:
        first, second = staging.path(tmp_path / "a.txt"), staging.path(other / "b.seg.nrrd")
        assert first.name == "a.txt" and second.name == "b.seg.nrrd"  # writers go by the suffix
        first.write_text("new")
        second.write_text("2")
        assert (tmp_path / "a.txt").read_text() == "old" and not (other / "b.seg.nrrd").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert contents(other) == {"b.seg.nrrd": "2"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "other"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_appears_when_the_block_fails(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_write() as staging:
        staging.path(tmp_path / "a.txt").write_text("half")
        staging.path(tmp_path / "b.txt").write_text("whole")
        raise error
    assert contents(tmp_path) == {"a.txt": "old"}


def test_an_output_that_was_never_written_keeps_all_from_appearing(tmp_path):
    with pytest.raises(FileError, match=r"b\.txt: was not written"), atomic_write() as staging:
        staging.path(tmp_path / "a.txt").write_text("whole")
        staging.path(tmp_path / "b.txt")
    assert contents(tmp_path) == {}


def test_missing_folder(tmp_path):
    with (
        pytest.raises(FileError, match=r"out\.json: .*folder does not exist; create .*none"),
        atomic_write() as staging,
    ):
        staging.path(tmp_path / "none" / "out.json")


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is not a folder"), atomic_write() as staging:
        staging.path(tmp_path / "file" / "out.json")


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "out.json").mkdir()
    with pytest.raises(FileError, match="it is a folder; give a file name"), atomic_write() as staging:
        staging.path(tmp_path / "out.json")
    assert not any((tmp_path / "out.json").iterdir())


def test_folder_without_the_right_to_write(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.tempfile, "TemporaryDirectory", refused)
    with (
        pytest.raises(FileError, match=r"out\.json: cannot be written \(Permission denied\)"),
        atomic_write() as staging,
    ):
        staging.path(tmp_path / "out.json")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_without_the_right_to_write_for_real(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(FileError, match=r"out\.json: cannot be written \(Permission denied\)"),
            atomic_write() as staging,
        ):
            staging.path(tmp_path / "out.json")
    finally:
        tmp_path.chmod(0o700)


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("kept")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(FileError, match="write-protected"), atomic_write() as staging:
        staging.path(target).write_text("new")
    assert contents(tmp_path) == {"a.txt": "kept"}


def test_full_disk_shows_before_an_output_is_begun(tmp_path):
    """In a process of its own, whose files may not grow beyond 1000 bytes: what a full disk looks like from inside."""
    pytest.importorskip("resource", reason="limits on file size are not known here")
    (tmp_path / "old.tfm").write_text("old")
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
from DNetRegistrationLib.core.files import atomic_write
with atomic_write() as staging:
    staging.path({str(tmp_path / "old.tfm")!r}).write_text("new")
"""
    done = run(code=program)
    assert done.returncode == 1
    assert "FileError" in done.stderr and "old.tfm: cannot be written (File too large)" in done.stderr
    assert contents(tmp_path) == {"old.tfm": "old"}


def test_errors_of_writers_become_one_line():
    with pytest.raises(FileError) as caught, writing("out.nrrd"):
        raise RuntimeError("Exception thrown in SimpleITK Writer_Execute: /src/itk.cxx:206:\nsitk::ERROR: no\n")
    assert str(caught.value).startswith("out.nrrd: cannot be written (no); ")
    with pytest.raises(KeyError), writing("out.nrrd"):
        raise KeyError("x")


def test_works_without_torch_and_simpleitk():
    program = """
import sys
sys.modules["torch"] = sys.modules["SimpleITK"] = None  # importing them fails
import DNetRegistrationLib.core.files, DNetRegistrationLib.imaging.volume
DNetRegistrationLib.imaging.volume.Volume(DNetRegistrationLib.imaging.volume.np.zeros((2, 2, 2)))
"""
    assert run(code=program).returncode == 0
