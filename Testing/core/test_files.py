from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import places
import pytest
from command import run
from DNetRegistrationLib.core import files
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.core.files import atomic_write, temporary_folder, writing


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


def test_writers_get_endings_in_small_letters(tmp_path):
    """ITK knows no others, and failed after the work."""
    names = ("Bone.NII.GZ", "Bone.nii.gz") if sys.platform == "linux" else ("Bone.NII.GZ",)  # elsewhere they are one
    targets = [tmp_path / name for name in names]
    with atomic_write() as staging:
        for target in targets:
            temporary = staging.path(target)
            assert temporary.name.endswith("Bone.nii.gz")
            temporary.write_text(target.name)
    assert [target.read_text() for target in targets] == [target.name for target in targets]


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

    monkeypatch.setattr(files.tempfile, "mkdtemp", refused)
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


@contextmanager
def renames(monkeypatch, before: Callable[[Path], None]) -> Iterator[None]:
    """`before` is called with each target that is about to be replaced."""
    real = os.replace

    def replace(source, target):
        before(Path(target))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", replace)
        yield


@pytest.mark.parametrize("links", [True, False])
def test_what_was_moved_comes_back_when_a_rename_fails(tmp_path, monkeypatch, links):
    (tmp_path / "a.txt").write_text("old a")
    (tmp_path / "b.txt").write_text("old b")
    fails = iter([tmp_path / "b.txt"])

    def refuse(target):
        if target == tmp_path / "b.txt" and next(fails, None):
            raise PermissionError(errno.EPERM, "another's file")

    if not links:

        def link(*paths):
            raise OSError(errno.EOPNOTSUPP, "no links here")

        monkeypatch.setattr(files.os, "link", link)
    with (
        pytest.raises(FileError, match=r"b\.txt: cannot be written"),
        renames(monkeypatch, refuse),
        atomic_write() as staging,
    ):
        for name in ("a.txt", "new.txt", "b.txt"):
            staging.path(tmp_path / name).write_text("new")
    assert contents(tmp_path) == {"a.txt": "old a", "b.txt": "old b"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_renames_waits_until_all_are_moved(tmp_path, monkeypatch, number):
    before = signal.signal(number, signal.default_int_handler)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            renames(monkeypatch, lambda target: signal.raise_signal(number)),
            atomic_write() as staging,
        ):
            for name in ("a.txt", "b.txt", "c.txt"):
                staging.path(tmp_path / name).write_text("new")
    finally:
        signal.signal(number, before)
    assert contents(tmp_path) == dict.fromkeys(("a.txt", "b.txt", "c.txt"), "new")


HOLDING = """
import sys, time
from DNetRegistrationLib.core.files import atomic_write
with atomic_write() as staging:
    for name in sys.argv[1:]:
        staging.path(name).write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_the_next_run_clears_what_a_killed_one_left_and_no_more(tmp_path):
    """Temporary folders of those that live stay, and what else is called like one."""
    place = tmp_path / "a.txt"
    (tmp_path / ".dnet-mine").mkdir()
    (tmp_path / ".dnet-mine" / "thesis.txt").write_text("years of work")
    (tmp_path / ".dnet-file").write_text("")
    kept = set(tmp_path.iterdir())
    start = [sys.executable, "-c", HOLDING, str(place)]
    with subprocess.Popen(start, stdout=subprocess.PIPE, env=places.environment()) as process:
        try:
            assert process.stdout.readline().strip() == b"ready"
            with atomic_write() as staging:
                staging.path(place).write_text("new")
            (living,) = set(tmp_path.iterdir()) - kept - {place}
            assert living.is_dir()
        finally:
            process.kill()
    assert living.is_dir()
    with atomic_write() as staging:
        staging.path(place).write_text("newer")
    assert set(tmp_path.iterdir()) == kept | {place} and place.read_text() == "newer"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_a_run_that_is_killed_while_it_clears_up_leaves_what_the_next_one_clears(tmp_path):
    """The lock goes last; and an interrupt waits until all is cleared."""
    code = """
        import os, signal, sys
        from DNetRegistrationLib.core import files
        real = os.unlink
        def unlink(path, *given, **more):
            real(path, *given, **more)
            signal.raise_signal(getattr(signal, sys.argv[2]))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with files.temporary_folder(sys.argv[1]) as folder:
            (folder / "scan").write_text("")
            (folder / "more").mkdir()
            os.unlink = unlink
    """
    assert run(str(tmp_path), "SIGINT", code=code).returncode != 0
    assert not list(tmp_path.iterdir())
    assert run(str(tmp_path), "SIGKILL", code=code).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with temporary_folder(tmp_path) as made:
        assert list(tmp_path.iterdir()) == [made]


def test_a_folder_that_was_not_locked_yet_is_left_until_it_is_old(tmp_path):
    empty = tmp_path / ".dnet-abc"
    empty.mkdir()
    with temporary_folder(tmp_path):
        assert empty.exists()
    os.utime(empty, (0, 0))
    with temporary_folder(tmp_path) as made:
        assert made.is_dir() and not empty.exists()
    assert not made.exists()


def test_links_are_written_through(tmp_path):
    real = tmp_path / "data"
    real.mkdir()
    (real / "a.txt").write_text("old")
    for name, leads in (("link.txt", real / "a.txt"), ("new.txt", real / "b.txt"), ("lost.txt", tmp_path / "no" / "c")):
        (tmp_path / name).symlink_to(leads)
    with atomic_write() as staging:
        staging.path(tmp_path / "link.txt").write_text("new")
        staging.path(tmp_path / "new.txt").write_text("more")
    assert (tmp_path / "link.txt").is_symlink() and contents(real) == {"a.txt": "new", "b.txt": "more"}
    with pytest.raises(FileError, match=r"lost\.txt: .* does not exist; create .*no first"), atomic_write() as staging:
        staging.path(tmp_path / "lost.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_that_is_replaced_hands_on_its_mode(tmp_path, mode):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a.txt").chmod(mode)
    with atomic_write() as staging:
        staging.path(tmp_path / "a.txt").write_text("new")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="it is a device or a pipe"), atomic_write() as staging:
        staging.path(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


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
