"""The background job: what it runs, what it tells, and every way it can end. No Slicer is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import types
from pathlib import Path

import numpy as np
import pytest
from DNetRegistrationLib import Volume, target_registration_error
from DNetRegistrationLib.core.errors import DNetError, FileError, PackageError, RunError, ScanError, Setting
from DNetRegistrationLib.core.processes import end_tree
from DNetRegistrationLib.registration import align as align_module
from DNetRegistrationLib.slicer_module import events, job, raw_files, request, worker, worker_process
from DNetRegistrationLib.slicer_module.contents import Contents, place_of
from DNetRegistrationLib.slicer_module.job import Job, JobOutcome
from DNetRegistrationLib.slicer_module.request import JobOptions, Request, read_request


class Launcher:
    """Starts the process for real, optionally another program in its place, and delivers its output when asked to."""

    def __init__(self, program: str | None = None) -> None:
        self.program, self.commands = program, []

    def __call__(self, command, environment, output, errors, end):
        self.commands.append(command)
        self.output, self.errors, self.end = output, errors, end
        if self.program is not None:
            # Arguments stay, so that the program finds the folder.
            command = [sys.executable, "-u", "-c", textwrap.dedent(self.program), *command[1:]]
        self.said = tempfile.TemporaryFile()
        environment = {**os.environ, **environment}
        self.popen = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=self.said)
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
        status = self.popen.wait(timeout=60)
        self.said.seek(0)
        self.errors(self.said.read())
        self.end(status)


class Listener:
    """Notes what a job tells."""

    def __init__(self) -> None:
        self.progress, self.poses, self.ended = [], [], []

    def on_progress(self, fraction: float, message: str) -> None:
        self.progress.append((fraction, message))

    def on_finished(self, ended) -> None:
        self.ended.append(ended)


@pytest.fixture
def scans():
    values = np.arange(12**3, dtype=np.int16).reshape(12, 12, 12)
    return Volume.from_geometry(values, 0.1, name="before & after"), Volume.from_geometry(
        values, 0.1, name="µCT, day 7"
    )


def start(scans, tmp_path, program=None, options=None, launch=None, python=sys.executable):
    launcher, listener = Launcher(program), Listener()
    running = Job(python=python, launch=launch or launcher, temporary=tmp_path)
    running.start()
    hand_over(running, scans, listener, options)
    return running, launcher, listener


def hand_over(running, scans, listener, options=None):
    for _ in running.align(
        Request(*scans, options or JobOptions()),
        progress=listener.on_progress,
        posed=listener.poses.append,
        finished=listener.on_finished,
    ):
        pass


def written(folder, *scans, **given):
    for _ in request.write_request(folder, Request(*scans, **given)):
        pass


@pytest.mark.slow
def test_a_real_alignment(small_pair, tmp_path):
    fixed = Volume(small_pair.fixed.voxels, small_pair.fixed.affine, "pre")
    moving = Volume(small_pair.moving.voxels, small_pair.moving.affine, "post")
    options = JobOptions(resampled=True, subtraction=True)
    running, launcher, listener = start((fixed, moving), tmp_path, options=options)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.outcome is JobOutcome.ACCEPTED, f"{ended.error} {ended.log}"
    assert ended.alignments[0].accepted and ended.error is None
    assert target_registration_error(small_pair, ended.alignments[0].matrix) < 0.08
    np.testing.assert_allclose(listener.poses[-1], ended.alignments[0].matrix, atol=1e-9)
    contents = Contents.read(ended.folder)
    assert contents.cortices.fixed.any() and contents.cortices.moving.any() and contents.reach > 0
    assert contents.resampled.shape == contents.subtraction.shape == fixed.voxels.shape
    fractions = [fraction for fraction, _ in listener.progress]
    assert len(fractions) > 5 and fractions == sorted(fractions) and fractions[-1] == 1.0
    running.close()
    assert running.folder is None and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_that_waited(small_pair, tmp_path):
    """It tells when it is ready, aligns then, and its memory is given back with it."""
    launcher, listener = Launcher(), Listener()
    running = Job(python=sys.executable, launch=launcher, temporary=tmp_path)
    running.start()
    launcher.wait_for(b'"ready"')
    assert running.alive and not running.over
    hand_over(running, (small_pair.fixed, small_pair.moving), listener)
    launcher.to_the_end()
    assert listener.ended[0].outcome is JobOutcome.ACCEPTED, listener.ended[0]
    assert not running.alive and "loading PyTorch" not in dict(listener.progress).values()
    running.close()


def test_a_process_that_ended_before_it_was_asked(scans, tmp_path):
    """What it told of its end is told then."""
    program = f"print({error_line(PackageError('a', 'do b'))!r}); raise SystemExit(2)"
    launcher, listener = Launcher(program), Listener()
    running = Job(python=sys.executable, launch=launcher, temporary=tmp_path)
    running.start()
    launcher.to_the_end()
    assert not running.alive and not running.over and not list(tmp_path.iterdir())
    hand_over(running, scans, listener)
    (ended,) = listener.ended
    assert ended.outcome is JobOutcome.CRASHED and isinstance(ended.error, PackageError) and running.over


def test_cancel_of_what_waits(tmp_path):
    launcher = Launcher("import time; time.sleep(60)")
    running = Job(python=sys.executable, launch=launcher, temporary=tmp_path)
    running.start()
    assert running.alive
    running.cancel()
    assert running.over and not running.alive and ended_or_zombie(launcher.pid) and not list(tmp_path.iterdir())


def test_cancel_while_scans_are_handed_over(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_files, "PART", 1)
    launcher, listener = Launcher("import time; time.sleep(60)"), Listener()
    running = Job(python=sys.executable, launch=launcher, temporary=tmp_path)
    running.start()
    steps = running.align(Request(*scans), progress=listener.on_progress, posed=print, finished=listener.on_finished)
    next(steps)
    assert not request.is_requested(running.folder)
    running.cancel()
    assert list(steps) == [] and not list(tmp_path.iterdir())
    assert [ended.outcome for ended in listener.ended] == [JobOutcome.CANCELLED]


def test_it_ends_with_an_application_that_dies(small_pair, tmp_path):
    """Killed, it can tell nobody; the process notices, ends in the midst of its work, and clears the scans."""
    program = """
        import subprocess, sys
        from DNetRegistrationLib import make_pair
        from DNetRegistrationLib.slicer_module.job import Job
        from DNetRegistrationLib.slicer_module.request import Request
        class Process:
            def __init__(self, command, environment, *callbacks):
                code = (
                    "import sys, time; from DNetRegistrationLib.slicer_module import worker; "
                    "worker._load_torch = lambda: time.sleep(60); worker._NOW_AND_THEN = 0.1; worker.main(sys.argv[3])"
                )
                command = [command[0], "-c", code, *command[1:]]
                self.pid = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid
        job = Job(python=sys.executable, launch=Process, temporary=sys.argv[1])
        job.start()
        pair = make_pair(0, size=24, spacing=0.2)
        nothing = lambda *arguments: None
        list(job.align(Request(pair.fixed, pair.moving), progress=nothing, posed=nothing, finished=nothing))
        print(job._process.pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    application = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    pid = int(application.stdout.readline())
    (folder,) = tmp_path.iterdir()
    assert (folder / "fixed.raw").stat().st_size and not ended_or_zombie(pid, 5)
    application.kill()
    application.wait()
    assert ended_or_zombie(pid, 500)
    assert not folder.exists()


def test_scans_of_an_application_that_died_are_cleared(scans, tmp_path):
    """With the process, as when the machine is switched off: when the next job starts."""
    program = (
        "import os, sys; from DNetRegistrationLib.slicer_module import job; from DNetRegistrationLib.core import "
        "private_folder; print(private_folder.PrivateFolder(job._PREFIX, sys.argv[1]).path); "
        "sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    died = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    left = Path(died.stdout.strip())
    assert left.is_dir()
    os.utime(left, (time.time() - 100,) * 2)
    running = start(scans, tmp_path, "import time; time.sleep(60)")[0]
    try:
        assert list(tmp_path.iterdir()) == [running.folder]
        os.utime(running.folder, (time.time() - 100,) * 2)
        other = start(scans, tmp_path, "import time; time.sleep(60)")[0]
        assert running.folder.is_dir()  # whose application lives
        other.cancel()
    finally:
        running.cancel()


def test_a_request_is_read_as_it_was_written(tmp_path):
    direction = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]]) @ np.diag((1, -1, 1))
    rng = np.random.default_rng(0)
    spacing = 0.01, 0.02, 0.037
    scans = [
        Volume.from_geometry(rng.normal(size=(9, 10, 11)).astype(dtype), spacing, direction, origin, name)
        for dtype, origin, name in ((">f4", (1e3, -2e3, 3.3), "µCT"), (np.uint8, (0.1, 0, 0), "day 7 & \udcff"))
    ]
    scans[1] = Volume(scans[1].voxels[:, ::2, ::-1], scans[1].affine, scans[1].name)  # not contiguous
    options = JobOptions(
        fixed_threshold=-12.5, moving_threshold=1e3, working_spacing=0.1, device="cuda:1", weights="w.pt",
        hypotheses="search", refine="none", contrast="fixed", resampled=True,
    )  # fmt: skip
    running, launcher, _ = start(scans, tmp_path, "import time; time.sleep(60)", options)
    try:
        assert launcher.commands[0][1:] == ["-m", "DNetRegistrationLib.slicer_module.worker", str(running.folder)]
        read = read_request(running.folder)
        for scan, again in zip(scans, (read.fixed, read.moving), strict=True):
            assert np.array_equal(again.voxels, scan.voxels) and again.voxels.dtype == scan.voxels.dtype
            assert np.array_equal(again.affine, scan.affine) and again.name == scan.name and again.spacing_given
        assert read.options == options and options.wanted == {"segmentation", "resampled"}
        assert oct(Path(running.folder).stat().st_mode)[-3:] == "700"
    finally:
        running.cancel()


@pytest.mark.parametrize("segmented", (True, False))
def test_each_option_reaches_its_place(scans, tmp_path, monkeypatch, segmented):
    options = JobOptions(
        1.5, 2.5, 0.1, "cuda:1", "w.pt", "search", "none", "fixed", resampled=True, subtraction=True, layer=True
    )
    region = Volume.from_geometry(np.array([[[1, 0]]], np.uint8), 0.1)
    written(tmp_path, *scans, options, region=region, medial=[1.5, -2.0, 3.0])
    asked, computed, told = {}, {}, []

    def align(fixed, moving, *, progress, posed, **given):
        asked.update(given, names=(fixed.name, moving.name))
        progress(0.5, "half of the alignment")
        if segmented:
            posed(np.eye(4), "the bones of an attempt")
            posed(np.eye(4), "the bones")
        return "the alignment"

    def compute(fixed, moving, alignment, bones, wanted, contrast, masks, progress, joint):
        computed.update(
            region=joint.region.voxels.tolist(),
            medial=joint.medial,
            masks=masks,
            names=(fixed.name, moving.name),
            bones=bones,
            wanted=wanted,
            contrast=contrast,
        )
        progress(0.5, "half of the outputs")
        return types.SimpleNamespace(write=lambda folder: computed.update(alignment=alignment, folder=folder))

    monkeypatch.setattr(align_module, "align", align)
    monkeypatch.setattr(worker.Contents, "computed", compute)
    worker.align_request(tmp_path, lambda event, **values: told.append((event, values)))
    names = tuple(scan.name for scan in scans)
    assert asked == {
        "names": names, "threshold": (1.5, 2.5), "spacing": 0.1, "device": "cuda:1", "weights": "w.pt",
        "hypotheses": "search", "refine": "none", "bone": None, "initial": None,
        "fixed_mask": None, "moving_mask": None,
    }  # fmt: skip
    assert computed == {
        "names": names, "alignment": "the alignment", "bones": "the bones" if segmented else None,
        "wanted": {"segmentation", "resampled", "subtraction", "layer"}, "contrast": "fixed",
        "folder": place_of(tmp_path, 0), "masks": (None, None),
        "region": [[[1, 0]]], "medial": [1.5, -2.0, 3.0],
    }  # fmt: skip
    fractions = [(round(values["fraction"], 9), values["message"]) for name, values in told if name == "progress"]
    assert fractions[1:3] == [(0.425, "half of the alignment"), (0.9, "half of the outputs")]
    assert sum(name == "pose" for name, _ in told) == 2 * segmented


def test_the_process_warms_up_on_a_pair_that_aligns(monkeypatch):
    """All stages run on the tiny pair; a request that comes meanwhile ends it."""
    asked, align = [], align_module.align

    def watched(*scans, **options):
        asked.append(align(*scans, **options))
        return asked[-1]

    monkeypatch.setattr(align_module, "align", watched)
    worker.warm_up(lambda: False)
    assert (
        asked[0].accepted and asked[0].hypothesis == "dnet" and all(asked[0].seconds[s] for s in ("refine", "verify"))
    )
    questions = iter([False, False, True])
    worker.warm_up(lambda: next(questions))
    assert len(asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        DNetError("a fault"),
        ScanError("a: has no voxel size", "give it", Setting("spacing", "moving", "0.01")),
        PackageError("it does not load", "install it anew", Setting("torch")),
    ],
)
def test_an_error_crosses_as_data(error):
    line = events.to_line(events.ERROR, **events.error_values(error)).encode()
    read = events.error_of(events.from_line(line))
    assert type(read) is type(error) and read.args == error.args


def test_what_is_no_event_is_told_apart():
    for line in (b"Fatal error", b"[1, 2]", b"3", b'{"fraction": 1}', b"\xff{", b"", b"[" * 100_000):
        assert events.from_line(line) is None
    for line in (
        '"progress"}',
        '"progress", "fraction": "1", "message": "a"}',
        '"warning"}',
        '"pose", "matrix": [1, 2]}',
        '"pose", "matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, "1"]]}',
        '"error"}',
        "[1]}",
        '"a"}',
    ):
        assert events.from_line(b'{"event": ' + line.encode()) is None
    unexpected = events.error_values(KeyError("3"))
    assert unexpected["kind"] == "KeyError" and events.error_of(unexpected) is None
    assert isinstance(events.error_of(events.error_values(MemoryError())), RunError)


def ending(*lines, status: int = 0) -> str:
    """The program of a process that prints lines, and ends."""
    return f"import sys; print({chr(10).join(lines)!r}); sys.exit({status})"


def error_line(error: BaseException) -> str:
    return events.to_line(events.ERROR, **events.error_values(error))


@pytest.mark.parametrize(
    ("program", "outcome", "kind", "message"),
    [
        (ending(error_line(ScanError("a", "do b")), status=2), JobOutcome.FAILED, ScanError, "a; do b"),
        (ending(error_line(PackageError("a", "do b")), status=2), JobOutcome.CRASHED, PackageError, "a; do b"),
        (
            ending(error_line(KeyError(3)), status=2), JobOutcome.CRASHED, RunError,
            "The alignment ended unexpectedly (KeyError: 3); try again",
        ),
        ("import os; os.abort()", JobOutcome.CRASHED, RunError, "exit status -6"),
        ("import os; os.kill(os.getpid(), 9)", JobOutcome.CRASHED, RunError, "perhaps for want of memory"),
        (ending("it is done"), JobOutcome.CRASHED, RunError, "exit status 0"),  # no result
        (ending(events.to_line(events.RESULT, alignments=[{}])), JobOutcome.CRASHED, RunError, "exit status 0"),
        ("raise SystemExit(130)", JobOutcome.CRASHED, RunError, "exit status 130"),
    ],
)  # fmt: skip
def test_ends(scans, tmp_path, program, outcome, kind, message):
    running, launcher, listener = start(scans, tmp_path, program)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.outcome is outcome and type(ended.error) is kind
    assert message in str(ended.error) and "\n" not in str(ended.error)
    assert not ended.alignments and not list(tmp_path.iterdir())
    running.cancel()  # too late: nothing happens
    assert len(listener.ended) == 1


def test_an_error_names_the_volume(tmp_path):
    """As the user calls it, not by the file it travelled in."""
    noise = np.random.default_rng(1).normal(size=(12, 12, 12)).astype(np.float32)
    _, launcher, listener = start([Volume.from_geometry(noise, 0.1, name=name) for name in ("µCT & co", "b")], tmp_path)
    launcher.to_the_end()
    assert listener.ended[0].outcome is JobOutcome.FAILED
    assert listener.ended[0].error.problem.startswith("µCT & co: found no bone in it")


def test_a_torch_that_is_half_installed(scans, tmp_path):
    """A package that fails when it is imported, in front of the real one."""
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libtorch_cpu.so: cannot open shared object file')\n")
    (tmp_path / "work").mkdir()
    launcher = Launcher()

    def launch(command, environment, *callbacks):
        path = os.pathsep.join((str(broken.parent), environment["PYTHONPATH"]))
        return launcher(command, {**environment, "PYTHONPATH": path}, *callbacks)

    _, _, listener = start(scans, tmp_path / "work", launch=launch)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert ended.outcome is JobOutcome.CRASHED and isinstance(ended.error, PackageError)
    assert ended.error.problem.startswith("PyTorch does not load (OSError: libtorch_cpu.so")
    assert ended.error.setting == Setting("torch") and "Traceback" in ended.log


def test_what_is_printed_on_the_way_is_no_event(scans, tmp_path):
    """Neither by Python nor by a library below it: both go with the log."""
    code = """
        import os, sys, warnings
        from DNetRegistrationLib.slicer_module import worker
        worker._load_torch = worker.warm_up = lambda *arguments: None
        def align(folder, tell):
            tell("progress", fraction=0.5, message="half")
            print("said by Python", flush=True)
            os.write(1, b"said by a library\\n")
            warnings.warn("mind this")
            raise KeyError(7)
        worker.align_request = align
        sys.exit(worker.main(sys.argv[3]))
    """
    _, launcher, listener = start(scans, tmp_path, code)
    launcher.to_the_end()
    (ended,) = listener.ended
    assert listener.progress[-1] == (0.5, "half") and "(KeyError: 7)" in str(ended.error)
    for words in ("said by Python", "said by a library", "mind this", "Traceback"):
        assert words in ended.log


def test_the_log_is_kept(scans, tmp_path):
    code = "import sys\nfor n in range(1000): print('line', n, file=sys.stderr)\nsys.exit(5)"
    _, launcher, listener = start(scans, tmp_path, code)
    launcher.to_the_end()
    lines = listener.ended[0].log.splitlines()
    assert lines[-1] == "line 999" and 5 <= len(lines) <= 30


def test_output_that_is_not_utf_8(scans, tmp_path):
    code = "import sys; sys.stdout.buffer.write(b'10 \\xff\\xfe\\n'); sys.exit(5)"
    _, launcher, listener = start(scans, tmp_path, code)
    launcher.to_the_end()
    assert listener.ended[0].log == "10 \ufffd\ufffd"


def test_a_line_without_an_end(scans, tmp_path):
    """Neither its bytes nor the time to look at them grow with it, and the events after it are read."""
    written = events.to_line(events.PROGRESS, fraction=0.5, message="half")
    code = f"for n in range(300): print('x' * 65536, end='')\nprint('the end')\nprint({written!r})"
    running, launcher, listener = start(scans, tmp_path, code)
    while piece := launcher.popen.stdout.read1(65536):
        running._output.add(piece)
        assert len(running._output._rest) <= worker_process._LONGEST
    launcher.to_the_end()
    assert listener.progress == [(0.5, "half")]
    log = listener.ended[0].log
    assert log.endswith("xthe end") and len(log) < 2000


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python looks for modules in the working directory")
def test_a_file_of_the_user_that_is_called_like_a_module(scans, tmp_path, monkeypatch):
    for name in ("numpy.py", "json.py"):
        (tmp_path / name).write_text("raise RuntimeError('this is a script of the user')\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    launcher = Launcher()

    _, _, listener = start(scans, tmp_path / "work", launch=launcher)
    launcher.to_the_end()
    assert "too little of the surface of a bone" in str(listener.ended[0].error), listener.ended[0].log


def test_cancel_ends_the_whole_tree(scans, tmp_path):
    """As under a launcher: the process that was started only waits for the one that works."""
    program = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("pid", child.pid, "is the child", flush=True)
        child.wait()
    """
    running, launcher, listener = start(scans, tmp_path, program)
    launcher.wait_for(b"is the child\n")
    child = int(running.log[0].split()[1])
    began = time.monotonic()
    running.cancel()
    took = time.monotonic() - began
    (ended,) = listener.ended
    assert ended.outcome is JobOutcome.CANCELLED and took < 5
    assert not list(tmp_path.iterdir())
    for pid in (launcher.pid, child):
        assert ended_or_zombie(pid), pid
    launcher.to_the_end()
    assert len(listener.ended) == 1


def ended_or_zombie(pid: int, looks: int = 100) -> bool:
    for _ in range(looks):
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
        def __call__(self, command, environment, output, errors, end):
            self.pid = 0
            end(None)
            return self

        def kill(self):
            pass

    running, _, listener = start(scans, tmp_path, launch=Fails(), python="/no/such/PythonSlicer")
    (ended,) = listener.ended
    assert ended.outcome is JobOutcome.CRASHED
    assert "/no/such/PythonSlicer: cannot be started" in str(ended.error)
    running.cancel()
    assert len(listener.ended) == 1 and not list(tmp_path.iterdir())


def test_no_room(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(FileError, match=r"67 MB are needed.*make room") as caught:
        start(scans, tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_disk_that_fills_while_scans_are_written(scans, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(request.RawFile, "write", full)
    with pytest.raises(FileError, match=r"No space left on device.*make room"):
        start(scans, tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_temporary_folder(scans, tmp_path):
    with pytest.raises(FileError, match="missing: the scans cannot be written there"):
        start(scans, tmp_path / "missing")


@pytest.mark.slow
def test_devices_are_told_as_data():
    command = [sys.executable, "-m", "DNetRegistrationLib.registration.devices"]
    environment = {**os.environ, **worker_process.ENVIRONMENT}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert json.loads(result.stdout)[0] == ["cpu", "CPU"], result.stderr
