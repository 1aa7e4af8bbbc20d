"""The background job: what it runs, what it tells, and every way it can end. No Slicer is needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from DNetRegistrationLib import ScanError, Volume, make_pair, read_volume, target_registration_error
from DNetRegistrationLib.core.processes import end_tree
from DNetRegistrationLib.registration.devices import parse_devices
from DNetRegistrationLib.slicer_module import job as job_module
from DNetRegistrationLib.slicer_module.job import How, Job, Options


class Launcher:
    """Starts the process for real, optionally another program in its place, and delivers its output when asked to."""

    def __init__(self, program: str | None = None) -> None:
        self.program, self.commands = program, []

    def __call__(self, command, environment, output, end):
        self.commands.append(command)
        self.output, self.end = output, end
        if self.program is not None:
            # Arguments stay, so that the program finds the folder.
            command = [sys.executable, "-u", "-c", textwrap.dedent(self.program), *command[1:]]
        self.popen = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.pid = self.popen.pid
        return self

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(timeout=10)

    def wait_for(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            piece = self.popen.stdout.read1(64)
            assert piece, seen
            seen += piece
            self.output(piece)

    def to_the_end(self) -> None:
        while piece := self.popen.stdout.read1(7):  # pieces that do not end where lines end
            self.output(piece)
        self.end(self.popen.wait(timeout=60))


class Listener:
    """Notes what a job tells."""

    def __init__(self) -> None:
        self.progress, self.ended, self.files = [], [], {}

    def on_progress(self, fraction: float, message: str) -> None:
        self.progress.append((fraction, message))

    def on_finished(self, ended) -> None:
        self.ended.append(ended)
        if ended.folder is not None and ended.folder.is_dir():
            self.files = {path.name: path.stat().st_size for path in ended.folder.iterdir()}


@pytest.fixture
def scans():
    values = np.arange(12**3, dtype=np.int16).reshape(12, 12, 12)
    return Volume.from_geometry(values, 0.1, name="before & after"), Volume.from_geometry(
        values, 0.1, name="µCT, day 7"
    )


def start(scans, tmp_path, program=None, **options):
    launcher, listener = Launcher(program), Listener()
    job = Job(
        *scans,
        Options(**options),
        python=sys.executable,
        launch=launcher,
        progress=listener.on_progress,
        finished=listener.on_finished,
        temporary=tmp_path,
    )
    job.start()
    return job, launcher, listener


def test_a_real_alignment(tmp_path):
    pair = make_pair(3, size=32, spacing=0.16)
    fixed = Volume(pair.fixed.voxels, pair.fixed.affine, "pre")
    moving = Volume(pair.moving.voxels, pair.moving.affine, "post")
    job, launcher, listener = start((fixed, moving), tmp_path, resampled=True, subtraction=True)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.how is How.ACCEPTED, ended.message + ended.log
    assert ended.alignment.accepted and ended.message == ended.alignment.verdict
    assert target_registration_error(pair, ended.alignment.matrix) < 0.08
    assert {Job.SEGMENTATION, Job.RESAMPLED, Job.SUBTRACTION, "report.json", "transform.tfm"} < set(listener.files)
    fractions = [fraction for fraction, _ in listener.progress]
    assert len(fractions) > 5 and fractions == sorted(fractions) and fractions[-1] == 1.0
    assert not job.folder.exists() and not list(tmp_path.iterdir())


def test_scans_are_written_with_their_geometry(tmp_path):
    direction = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]) @ np.diag((1, -1, 1))
    rng = np.random.default_rng(0)
    scans = [
        Volume.from_geometry(rng.normal(size=(9, 10, 11)).astype(dtype), (0.01, 0.02, 0.037), direction, origin, "scan")
        for dtype, origin in ((np.float32, (1e3, -2e3, 3.3)), (np.uint8, (0.1, 0, 0)))
    ]
    job, launcher, _ = start(scans, tmp_path, "import time; time.sleep(60)")
    command = launcher.commands[0]
    try:
        for scan, path, option in zip(scans, command[4:6], ("--fixed-spacing=", "--moving-spacing="), strict=True):
            text = next(word for word in command if word.startswith(option))
            read = read_volume(path, [float(number) for number in text[len(option) :].split(",")])
            assert np.array_equal(read.voxels, scan.voxels) and read.voxels.dtype == scan.voxels.dtype
            np.testing.assert_allclose(read.affine, scan.affine, rtol=1e-14, atol=1e-12)
            assert sitk.ReadImage(path).GetSize() == (11, 10, 9)
        assert oct(Path(job.folder).stat().st_mode)[-3:] == "700"
    finally:
        job.cancel()


def test_command(scans, tmp_path):
    job, launcher, _ = start(scans, tmp_path, "pass")
    words = launcher.commands[0]
    assert words[1:4] == ["-m", "DNetRegistrationLib", "align"]
    for absent in ("threshold", "working-spacing", "weights", "--resampled", "--subtraction"):
        assert not any(absent in word for word in words)
    job.cancel()
    options = dict(
        fixed_threshold=-12.5, moving_threshold=1e3, working_spacing=0.1, device="cuda:1", weights="w.pt",
        hypotheses="search", refine="none", contrast="fixed", resampled=True,
    )  # fmt: skip
    job, launcher, _ = start(scans, tmp_path, "pass", **options)
    from DNetRegistrationLib.cli.main import build_parser

    parsed = build_parser().parse_args(launcher.commands[0][3:])
    given = {name: value for name, value in options.items() if name != "resampled"}
    assert {name: getattr(parsed, name) for name in given} == given
    assert parsed.resampled == str(job.folder / Job.RESAMPLED) and parsed.subtraction is None
    job.cancel()


@pytest.mark.parametrize(
    ("program", "how", "message"),
    [
        ("import sys; print('dnet-registration: error: the end'); sys.exit(2)", How.BAD_INPUT, "the end"),
        (
            "import sys; print(f'dnet-registration: error: {sys.argv[5]}: found no bone in it'); sys.exit(2)",
            How.BAD_INPUT,
            "µCT, day 7: found no bone in it",
        ),
        (
            "import sys; print('dnet-registration: error: A; give the true one with --fixed-spacing'); sys.exit(2)",
            How.BAD_INPUT,
            "A; correct it in the module Volumes, under Volume Information, Image Spacing (mm)",
        ),
        (
            "import sys; print('dnet-registration: error: unexpected KeyError: 3; add --debug to see'); sys.exit(2)",
            How.CRASHED,
            "The alignment ended unexpectedly (unexpected KeyError: 3); try again",
        ),
        (
            "import sys; print('dnet-registration: error: torch is not installed; install it: pip'); sys.exit(2)",
            How.CRASHED,
            "PyTorch does not load (torch is not installed); in the module PyTorch Utils",
        ),
        ("import os; os.abort()", How.CRASHED, "exit status -6"),
        ("import os; os.kill(os.getpid(), 9)", How.CRASHED, "perhaps for want of memory"),
        ("raise SystemExit(0)", How.CRASHED, "exit status 0"),  # no report
        ("import sys; open(sys.argv[9], 'w').write('{}')", How.CRASHED, "exit status 0"),  # not a report
        ("raise SystemExit(130)", How.CRASHED, "exit status 130"),
    ],
)
def test_ends(scans, tmp_path, program, how, message):
    job, launcher, listener = start(scans, tmp_path, program)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.how is how and message in ended.message and "\n" not in ended.message
    assert ended.alignment is None and not list(tmp_path.iterdir())
    job.cancel()  # too late: nothing happens
    assert len(listener.ended) == 1


def test_a_torch_that_is_half_installed(scans, tmp_path):
    """A package that fails when it is imported, in front of the real one."""
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')\n")
    (tmp_path / "work").mkdir()
    launcher, listener = Launcher(), Listener()

    def launch(command, environment, *callbacks):
        path = os.pathsep.join((str(broken.parent), environment["PYTHONPATH"]))
        return launcher(command, {**environment, "PYTHONPATH": path}, *callbacks)

    rng = np.random.default_rng(1)
    noise = [Volume.from_geometry(rng.normal(size=(12, 12, 12)).astype(np.float32), 0.1, name=n) for n in "ab"]
    job = Job(
        *noise, Options(), python=sys.executable, launch=launch, progress=listener.on_progress,
        finished=listener.on_finished, temporary=tmp_path / "work",
    )  # fmt: skip
    job.start()
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.how is How.CRASHED
    assert ended.message.startswith("PyTorch does not load (unexpected OSError: libtorch_cpu.so")
    assert "click Uninstall" in ended.message and "--debug" not in ended.message


def test_the_log_is_kept(scans, tmp_path):
    _, launcher, listener = start(scans, tmp_path, "import sys\nfor n in range(1000): print('line', n)\nsys.exit(5)")
    launcher.to_the_end()
    lines = listener.ended[0].log.splitlines()
    assert lines[-1] == "line 999" and 5 <= len(lines) <= 30


def test_output_that_is_not_utf_8(scans, tmp_path):
    _, launcher, listener = start(
        scans, tmp_path, "import sys; sys.stdout.buffer.write(b' 10% \\xff\\xfe\\n'); sys.exit(5)"
    )
    launcher.to_the_end()
    assert listener.progress[0][0] == 0.1


def test_cancel_ends_the_whole_tree(scans, tmp_path):
    """As under a launcher: the process that was started only waits for the one that works."""
    program = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; print('child', flush=True); time.sleep(60)"])
        print("pid", child.pid, flush=True)
        child.wait()
    """
    job, launcher, listener = start(scans, tmp_path, program)
    launcher.wait_for(b"child")
    text = b" ".join(line.encode() for line in job._log).decode()
    child = int(text.split()[text.split().index("pid") + 1])
    began = time.monotonic()
    job.cancel()
    took = time.monotonic() - began
    (ended,) = listener.ended
    assert ended.how is How.CANCELLED and took < 5
    assert not list(tmp_path.iterdir())
    for pid in (launcher.pid, child):
        assert ended_or_zombie(pid), pid
    launcher.to_the_end()
    assert len(listener.ended) == 1


def ended_or_zombie(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_end_tree_of_what_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    end_tree(process.pid)
    end_tree(0)
    assert signal.SIGKILL != process.returncode == 0


def test_a_program_that_cannot_be_started(scans, tmp_path):
    class Fails(Launcher):
        def __call__(self, command, environment, output, end):
            self.pid = 0
            end(None)
            return self

        def kill(self):
            pass

    listener = Listener()
    job = Job(
        *scans, Options(), python="/no/such/PythonSlicer", launch=Fails(), progress=listener.on_progress,
        finished=listener.on_finished, temporary=tmp_path,
    )  # fmt: skip
    job.start()
    assert (
        listener.ended[0].how is How.CRASHED and "/no/such/PythonSlicer: cannot be started" in listener.ended[0].message
    )
    job.cancel()
    assert len(listener.ended) == 1 and not list(tmp_path.iterdir())


def test_no_room(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(job_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(ScanError, match=r"67 MB are needed.*make room") as caught:
        start(scans, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_disk_that_fills_while_scans_are_written(scans, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job_module, "write_nrrd", full)
    with pytest.raises(ScanError, match=r"No space left on device.*make room"):
        start(scans, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_temporary_folder(scans, tmp_path):
    with pytest.raises(ScanError, match="missing: the scans cannot be written there"):
        start(scans, tmp_path / "missing")


def test_devices():
    assert parse_devices('a warning\n[["cpu", "CPU"], ["cuda:0", "Some GPU (cuda:0)"]]\n') == [
        ("cpu", "CPU"),
        ("cuda:0", "Some GPU (cuda:0)"),
    ]
    assert parse_devices("Traceback\nModuleNotFoundError: no torch") == [] == parse_devices("")
    result = subprocess.run(
        [sys.executable, "-m", "DNetRegistrationLib.registration.devices"],
        env={**os.environ, "PYTHONPATH": str(job_module.HOME)}, capture_output=True, text=True,
    )  # fmt: skip
    assert parse_devices(result.stdout)[0] == ("cpu", "CPU"), result.stderr
