"""The scripts of the page on clusters, each in a process of its own, as a reader runs them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import places
import pytest
from DNetRegistrationLib import write_volume

SCRIPTS = re.findall(r"```python\n(.*?)```", (places.ROOT / "docs" / "clusters.md").read_text(encoding="utf-8"), re.S)
BOTH = "mouse01 accepted\nmouse02 accepted\n"

# The threads of torch are lost in each of these processes. One that hangs is ended.
FORKED = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
import torch

def aligned(threads):
    from DNetRegistrationLib import align, read_volume
    signal.alarm(300)
    scans = (read_volume(f"mouse01/{name}.nrrd") for name in ("before", "after"))
    return align(*scans, threads=threads).accepted

def told(threads):
    os._exit(aligned(threads))

def outcome(threads):
    child = os.fork()
    if not child:
        told(threads)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.rand(2000, 2000).exp().sum()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=told, args=(None,))
    process.start()
    process.join()
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(process.exitcode, outcome(2), pool.submit(aligned, 1).result())
"""


def run_script(text: str, folder, pair) -> str:
    for animal in ("mouse01", "mouse02"):
        (folder / animal).mkdir()
        write_volume(pair.fixed, folder / animal / "before.nrrd")
        write_volume(pair.moving, folder / animal / "after.nrrd")
    (folder / "script.py").write_text(text, encoding="utf-8")
    start = [sys.executable, "script.py"]
    done = subprocess.run(start, cwd=folder, env=places.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("package", [None, "joblib", "dask.distributed"])
def test_scripts_on_clusters_run(package, tmp_path, small_pair):
    """Those of packages that are not installed are left out."""
    if package is not None and importlib.util.find_spec(package.split(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    (text,) = [text for text in SCRIPTS if (f"from {package} " in text if package else "ProcessPool" in text)]
    assert run_script(text, tmp_path, small_pair) == BOTH


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_all_ways_of_starting_processes_do(method, tmp_path, small_pair):
    if sys.platform == "win32":
        pytest.skip("Windows has spawn alone")
    (text,) = [text for text in SCRIPTS if "ProcessPool" in text]
    assert run_script(text.replace('"spawn"', f'"{method}"'), tmp_path, small_pair) == BOTH


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="about the OpenMP of Linux")
@pytest.mark.parametrize("first", ["", "import DNetRegistrationLib", "from DNetRegistrationLib import align"])
def test_a_process_aligns_that_was_forked_after_torch_was_used(first, tmp_path, small_pair):
    """Whether the library was not there before the fork, or its names were not loaded, or they were."""
    assert run_script(first + FORKED, tmp_path, small_pair) == "1 1 True\n"


def test_each_script_is_run_by_a_test_and_can_be_compiled():
    assert len(SCRIPTS) == 3
    for text in SCRIPTS:
        compile(text, "script", "exec")
