"""How many threads are used, that they sleep while they wait, and that a forked process does not hang."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path

import places
import pytest
import torch
from command import run
from DNetRegistrationLib.core.errors import OptionError, Setting
from DNetRegistrationLib.core.threads import (
    at_once,
    available_processors,
    in_threads,
    let_threads_sleep,
    of_both,
    small_work,
    thread_limit,
    torch_threads,
    usable_threads,
)

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="about Linux")


def without_threads(**more: str) -> dict[str, str]:
    """An environment that says nothing of threads."""
    silent = (name for name in os.environ if "OMP_" in name or "KMP_" in name)
    kept = places.environment().items() - {(name, os.environ[name]) for name in silent}
    return dict(kept) | more


@LINUX
@pytest.mark.parametrize(
    ("line", "files", "wanted"),
    [
        ("0::/job/step", {"job/step/cpu.max": "max 100000", "job/cpu.max": "150000 100000"}, 2),
        ("0::/job", {"job/cpu.max": "20000 100000"}, 1),
        ("0::/", {"cpu.max": "300000 100000"}, 3),
        ("0::/host/path", {"cpu.max": "300000 100000"}, 3),
        ("3:cpu,cpuacct:/job", {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
                                "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("5:memory:/job", {"memory/job/cpu.max": "100000 100000"}, 8),
        ("0::/job", {"job/cpu.max": "400 words"}, 8),
    ],
)  # fmt: skip
def test_processors_are_those_of_the_affinity_and_the_cgroup(line, files, wanted, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cgroup").write_text(f"12:devices:/\n{line}\n")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_processors(tmp_path, tmp_path) == wanted


def test_processors_where_nothing_is_told(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_processors(Path("/none"), Path("/none")) == 1


def test_torch_has_the_threads_of_the_block_and_then_those_of_before():
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
        with torch_threads():
            assert torch.get_num_threads() == min(3, available_processors())
    with pytest.raises(KeyError), torch_threads(before + 1):
        raise KeyError
    assert torch.get_num_threads() == before


def test_threads_of_the_program_that_overlap_leave_torch_as_it_was():
    """A thread that began beside another took its number for that of before, and left it to all later ones."""
    before, found = torch.get_num_threads(), {}
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with torch_threads(1):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with torch_threads(2):
            found["second"] = torch.get_num_threads()
            second_in.set()
            first_out.wait(10)

    def third() -> None:
        found["third"] = torch.get_num_threads()

    torch.set_num_threads(3)
    try:
        both = [threading.Thread(target=one) for one in (first, second)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        last = threading.Thread(target=third)
        last.start()
        last.join()
        assert found == {"second": 2, "third": 3} and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("beside", "known"), [(2, False), (2, True), (1, True)])
def test_what_a_thread_of_the_program_set_counts_beside_others(beside, known):
    """It got the number that torch had before a block in another thread."""
    before, found = torch.get_num_threads(), []
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with torch_threads(beside):
            begun.set()
            ended.wait(10)

    def own() -> None:
        if known:
            with torch_threads():
                pass
        thread = threading.Thread(target=other)
        thread.start()
        begun.wait(10)
        torch.set_num_threads(1)
        with torch_threads():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())
        ended.set()
        thread.join()
        found.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        thread = threading.Thread(target=own)
        thread.start()
        thread.join()
        assert found == [1, 1, 1]
    finally:
        torch.set_num_threads(before)


def test_a_limit_holds_within_its_block_and_within_it_alone(monkeypatch):
    monkeypatch.setattr("DNetRegistrationLib.core.threads.available_processors", lambda: 5)
    assert usable_threads() == 5
    with thread_limit(2):
        assert usable_threads() == 2
        with thread_limit(), torch_threads(3):
            assert usable_threads() == 3
        assert usable_threads() == 2
    assert usable_threads() == 5


@pytest.mark.parametrize("threads", [0, -1, 2.0, "2", True])
def test_no_number_of_threads(threads):
    with pytest.raises(OptionError, match="no number of threads") as caught, torch_threads(threads):
        pass
    assert caught.value.setting == Setting("threads")


# Two threads on one processor: where the one that waits spins, the one that works must wait for it.
SPINNING = """
import os, sys, time
import torch
torch.set_num_threads(2)
values = torch.ones(1 << 17)
def cost(times):
    began = time.process_time()
    for _ in range(times):
        values.mul_(1.0)
    return (time.process_time() - began) / times
cost(1)
one = {min(os.sched_getaffinity(0))}
for task in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(task), one)
spinning = cost(30)
from DNetRegistrationLib.core.threads import torch_threads
with torch_threads(2):
    print(spinning, cost(300))
"""


@LINUX
def test_threads_sleep_although_torch_is_loaded():
    done = run(code=SPINNING, env=without_threads(OMP_NUM_THREADS="2"))
    assert done.returncode == 0, done.stderr
    spinning, sleeping = (float(word) for word in done.stdout.split())
    assert sleeping < spinning / 5


def test_what_the_environment_says_is_kept(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delitem(sys.modules, "torch")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


# What both do first takes all threads of torch, in the first and in the forked process.
FORK = """
import multiprocessing
import torch
from DNetRegistrationLib.core.threads import torch_threads
def work(threads):
    with torch_threads(threads):
        values = torch.ones(1 << 18).mul_(2.0)
        return torch.get_num_threads(), float(values.sum() + (torch.ones(300, 300) @ torch.ones(300, 300)).sum())
print(work(2))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map_async(work, [None, 2]).get(60))
print(work(2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="about forks")
def test_torch_works_in_a_forked_process():
    done = run(code=FORK, env=without_threads(OMP_NUM_THREADS="2"))
    total = float(2 * (1 << 18) + 300**3)
    assert done.stdout.splitlines() == [str((2, total)), str([(1, total)] * 2), str((2, total))], done.stderr


def test_two_functions_run_at_once_with_half_of_the_threads_each_and_the_limit_of_their_caller():
    meeting = threading.Barrier(2)

    def met(check):
        meeting.wait(10)
        return torch.get_num_threads(), usable_threads(), threading.current_thread()

    with torch_threads(4):
        first, second = at_once(met, met)
        assert torch.get_num_threads() == 4
    assert first[:2] == second[:2] == (2, 4)
    assert first[2] is threading.current_thread() is not second[2]


def test_small_work_is_shared_by_functions_that_have_one_thread_of_torch_each():
    meeting = threading.Barrier(2)

    def met(check):
        meeting.wait(10)
        inner = at_once(*[lambda _: (torch.get_num_threads(), threading.current_thread())] * 2)
        return inner[0][0], inner[0][1] is inner[1][1] is threading.current_thread()

    with torch_threads(2):
        with small_work():
            assert at_once(met, met) == ((1, True), (1, True))
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    with torch_threads(1), small_work():
        assert at_once(lambda _: threading.current_thread(), lambda _: threading.current_thread())[1] is (
            threading.current_thread()
        )


def test_with_one_thread_two_functions_run_one_after_the_other():
    order = []
    with torch_threads(1):
        assert at_once(lambda _: order.append(1), lambda _: order.append(2)) == (None, None)
    assert order == [1, 2]


@pytest.mark.parametrize("waiting", [False, True], ids=["in the first one", "while it waits"])
def test_what_a_check_raises_ends_both_functions(waiting):
    begun, steps = threading.Event(), []

    def cancelled():
        steps.append(threading.current_thread())
        if begun.is_set():
            raise KeyError("cancelled")

    def first(check):
        begun.wait(10)
        if not waiting:
            check()

    def second(check):
        begun.set()
        for _ in range(1000):
            check()
            time.sleep(0.01)
        raise AssertionError("it was not ended")

    before = torch.get_num_threads()
    with pytest.raises(KeyError, match="cancelled"), torch_threads(2):
        at_once(first, second, cancelled)
    assert set(steps) == {threading.current_thread()}
    assert torch.get_num_threads() == before


def test_an_error_of_the_second_function_is_raised():
    def wrong(check):
        raise ValueError("wrong")

    with torch_threads(2), pytest.raises(ValueError, match="wrong"):
        at_once(lambda _: 1, wrong)


def test_a_function_of_two_pairs_of_arguments_gives_a_pair():
    with torch_threads(2):
        assert of_both(divmod, (17, 23), (5, 4)) == ((3, 2), (5, 3))


def test_items_are_worked_on_at_once_in_order_and_by_no_more_threads_than_may_be():
    begun = threading.Barrier(2, timeout=30)

    def work(item):
        begun.wait()  # a single thread would wait here for ever
        return item, usable_threads(), threading.current_thread()

    with thread_limit(2):
        found = in_threads(work, range(4))
        with pytest.raises(ZeroDivisionError):
            in_threads(lambda item: 1 // item, (1, 0))
        assert usable_threads() == 2
    assert [item for item, *_ in found] == [0, 1, 2, 3]
    assert {limit for _, limit, _ in found} == {1} and len({thread for *_, thread in found}) == 2
    with thread_limit(1):
        assert in_threads(lambda item: threading.current_thread(), "ab") == [threading.current_thread()] * 2
    assert in_threads(work, ()) == []


def test_work_in_threads_has_the_context_of_its_caller_and_as_many_threads_as_are_asked_for():
    asked: ContextVar[int] = ContextVar("asked", default=0)
    began = threading.Barrier(3, timeout=60)

    def work(item: int) -> tuple[int, threading.Thread]:
        if item < 3:
            began.wait()
        return asked.get(), threading.current_thread()

    asked.set(7)
    found = in_threads(work, range(5), threads=3)
    assert {value for value, _ in found} == {7} and len({thread for _, thread in found}) == 3
