"""The memory that there is to use: of the machine, and of the cgroups above the process."""

import math

from DNetRegistrationLib.core.memory import available_memory

GB = 10**9


def system(tmp_path, line: str, files: dict[str, str]):
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   20000000 kB\n")
    (proc / "self" / "cgroup").write_text(line)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return available_memory(proc, groups)


def test_of_the_machine(tmp_path):
    assert system(tmp_path, "0::/a/b\n", {"a/memory.max": "max\n"}) == 20_000_000 * 1024


def test_the_least_of_all_groups_above_counts_and_what_files_take_is_free(tmp_path):
    files = {
        "a/b/memory.max": f"{8 * GB}", "a/b/memory.current": f"{1 * GB}", "a/b/memory.stat": "anon 1\nfile 1000\n",
        "a/memory.max": f"{6 * GB}", "a/memory.current": f"{5 * GB}", "a/memory.stat": f"file {2 * GB}\nfile_m 9\n",
    }  # fmt: skip
    assert system(tmp_path, "0::/a/b\n", files) == 3 * GB


def test_of_groups_of_the_first_version(tmp_path):
    files = {
        "memory/x/memory.limit_in_bytes": f"{4 * GB}", "memory/x/memory.usage_in_bytes": f"{1 * GB}",
        "memory/x/memory.stat": f"cache 5\ntotal_cache {GB // 2}\n",
    }  # fmt: skip
    assert system(tmp_path, "4:cpu:/y\n5:memory:/x\n", files) == 3.5 * GB


def test_here():
    assert 0 < available_memory() <= math.inf
