"""Tasks in processes: one that dies, is killed or raises does not stop the others, and none is left behind."""

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import places
import pytest
from alignments import made_alignment
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cohort import workers
from DNetRegistrationLib.cohort.align_files import AlignedFiles
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import Pair
from DNetRegistrationLib.cohort.result import looked_at
from DNetRegistrationLib.cohort.task import PairTask, do_pair
from DNetRegistrationLib.cohort.workers import done_by_processes
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.outputs.paths import OutputPaths

OPTIONS = CohortOptions(outputs={"report": ".json"})


@pytest.fixture
def tasks(pair_files, tmp_path):
    """A pair that can be aligned, one whose scan is missing, and the first again."""

    def task(name, **paths):
        (tmp_path / name).mkdir()
        fixed, moving = (ScanFile(str(path)) for path in pair_files)
        return PairTask(Pair(name=name, fixed=fixed, moving=moving), OPTIONS, str(tmp_path / name), f"pairs/{name}")

    good, bad, again = (task(name) for name in ("good", "bad", "again"))
    return [good, replace(bad, pair=replace(bad.pair, fixed=ScanFile("missing.nrrd"))), again]


@pytest.mark.slow
def test_tasks_are_done_and_one_that_fails_is_a_result(tasks, alignment):
    told = []
    done = dict(done_by_processes(tasks, 2, lambda *what: told.append(what)))
    assert set(done) == {0, 1, 2}
    good, bad, again = (done[number] for number in range(3))
    assert good.result.status == "accepted" and good.lasting and len(good.content) == 64
    assert good.result.outputs == {"report": "pairs/good/report.json"}
    # The same bits as in this process.
    assert good.result.matrix == again.result.matrix == tuple(alignment.matrix.ravel())
    assert bad.result.status == "failed" and "missing.nrrd" in bad.result.verdict and not bad.content
    assert any(number == 0 and 0 <= fraction <= 1 for number, fraction, _ in told)


def test_where_cartilage_is_measured_is_that_of_the_pair(tasks, monkeypatch):
    given = {}

    def take(*args, **options):
        given.update(options)
        raise KeyError

    monkeypatch.setattr("DNetRegistrationLib.cohort.align_files.align_files", take)
    own = {"region": "r.nrrd", "region_segment": "2", "medial": (1.0, 2.0, 3.0), "initial": "t.tfm"}
    do_pair(replace(tasks[0], pair=replace(tasks[0].pair, **own)))
    assert own.items() <= given.items() and given["contrast"] == "moving"


def test_what_surrounds_the_bone_is_told_without_reservation(tasks, monkeypatch):
    found = made_alignment(accepted=True, doubts=[], warnings=[], surroundings="The moving scan is darker.")
    done = AlignedFiles([found], [OutputPaths()], None, np.zeros((0, 3)), ("", ""))
    monkeypatch.setattr("DNetRegistrationLib.cohort.align_files.align_files", lambda *args, **options: done)
    result = do_pair(tasks[0]).result
    assert result.surroundings == "The moving scan is darker." and not result.warnings and not result.reserved


def test_cartilage_that_cannot_be_measured_leaves_the_alignment_and_is_told(tasks, monkeypatch):
    """A pair whose scans were swapped had failed, and its transform was not written."""
    error = ScanError("a.nrrd: a bright layer lies on the bone", "say which scan has the agent", Setting("contrast"))

    def fail(*args):
        raise error

    monkeypatch.setattr("DNetRegistrationLib.cohort.measuring.Measuring.measure", fail)
    outputs = {"transform": ".tfm", "report": ".json", "cartilage": ".csv"}
    task = replace(tasks[0], options=CohortOptions(outputs=outputs, hypotheses="search", refine="none"))
    result = do_pair(task).result
    told = "Cartilage could not be measured: a.nrrd: a bright layer lies on the bone; say which scan has the agent, "
    assert result.status == "accepted" and looked_at(result)
    assert f"{told}in a list as contrast." in result.warnings and not result.compartments
    assert set(result.outputs) == {"transform", "report"} == {path.stem for path in Path(task.work).iterdir()}


@pytest.mark.slow
def test_a_process_that_is_killed_fails_its_pair_alone(tasks):
    killed = []

    def kill(number, fraction, message):
        if number == 0 and not killed:
            # The only child: it works on the first task.
            killed.extend(children(os.getpid()))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    done = dict(done_by_processes([tasks[0], tasks[2]], 1, kill))
    assert len(killed) == 1
    assert done[0].result.status == "failed" and "SIGKILL" in done[0].result.verdict and not done[0].lasting
    assert done[1].result.status == "accepted"


@pytest.mark.slow
def test_closing_ends_all_processes(tasks):
    started = time.monotonic()
    work = done_by_processes([tasks[1], tasks[0], tasks[2]], 2)
    next(work)
    assert children(os.getpid())
    work.close()
    assert not children(os.getpid()) and time.monotonic() - started < 60


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks into /proc")
@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tasks, tmp_path):
    """Also when it is killed, and cannot end them itself."""
    program = f"""
        import sys
        from pathlib import PosixPath
        from DNetRegistrationLib.cohort.options import CohortOptions
        from DNetRegistrationLib.cohort.pairs import Pair
        from DNetRegistrationLib.cohort.result import Problem
        from DNetRegistrationLib.bone.scan_file import ScanFile
        from DNetRegistrationLib.cohort.task import PairTask
        from DNetRegistrationLib.cohort.workers import done_by_processes
        if __name__ == "__main__":
            tell = lambda *told: print("working", flush=True)
            list(done_by_processes({tasks[:1]!r}, 1, tell))
    """
    script = tmp_path / "script.py"
    script.write_text("\n".join(line[8:] for line in program.splitlines()))
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=places.environment())
    assert process.stdout.readline() == b"working\n"
    below = children(process.pid)
    assert below
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in below)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_gives_back_what_a_pair_took():
    def resident() -> int:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    gc.disable()
    try:
        held = [np.ones(12_000) for _ in range(600)]
        above = np.ones(12_000)  # what is freed lies below it
        held.append(held)  # in a circle
        before = resident()
        del held
        workers._tidy()
        assert before - resident() > 30e6 and above.all()
    finally:
        gc.enable()
        gc.unfreeze()


def children(pid: int) -> list[int]:
    """The processes that a process started, but for the one that tracks its resources."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline") as line:
                parent, state = int(stat.read().rpartition(")")[2].split()[1]), line.read()
        except (OSError, ValueError):
            continue
        if parent == pid and "spawn_main" in state:
            found.append(int(entry))
    return found


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


POOL = """
import multiprocessing
from DNetRegistrationLib.cohort.workers import done_by_processes
from DNetRegistrationLib.core.errors import RunError
def told(number):
    try:
        return list(done_by_processes([None], 1))
    except RunError as error:
        return str(error)
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map_async(told, [0]).get(100))
"""


def test_a_worker_of_a_pool_is_told_that_it_may_start_no_processes(tmp_path):
    (tmp_path / "script.py").write_text(POOL)
    start = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(start, capture_output=True, text=True, env=places.environment())
    assert "this process may start no others" in done.stdout and "started the workers" in done.stdout


def test_a_program_from_the_standard_input_is_told_to_be_a_file():
    program = "from DNetRegistrationLib.cohort.workers import done_by_processes\nlist(done_by_processes([None], 1))"
    done = subprocess.run([sys.executable], input=program, capture_output=True, text=True, env=places.environment())
    assert done.stderr.splitlines()[-1].endswith("save the program to a file, which a process can import")
