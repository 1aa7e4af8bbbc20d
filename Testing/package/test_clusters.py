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


def run_script(text: str, folder, pair) -> None:
    for animal in ("mouse01", "mouse02"):
        (folder / animal).mkdir()
        write_volume(pair.fixed, folder / animal / "before.nrrd")
        write_volume(pair.moving, folder / animal / "after.nrrd")
    (folder / "script.py").write_text(text, encoding="utf-8")
    start = [sys.executable, "script.py"]
    done = subprocess.run(start, cwd=folder, env=places.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["mouse01 accepted", "mouse02 accepted"]


@pytest.mark.slow
@pytest.mark.parametrize("package", [None, "joblib", "dask.distributed"])
def test_scripts_on_clusters_run(package, tmp_path, small_pair):
    """Those of packages that are not installed are left out."""
    if package is not None and importlib.util.find_spec(package.split(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    (text,) = [text for text in SCRIPTS if (f"from {package} " in text if package else "ProcessPool" in text)]
    run_script(text, tmp_path, small_pair)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_all_ways_of_starting_processes_do(method, tmp_path, small_pair):
    if sys.platform == "win32":
        pytest.skip("Windows has spawn alone")
    (text,) = [text for text in SCRIPTS if "ProcessPool" in text]
    run_script(text.replace('"spawn"', f'"{method}"'), tmp_path, small_pair)


def test_each_script_is_run_by_a_test_and_can_be_compiled():
    assert len(SCRIPTS) == 3
    for text in SCRIPTS:
        compile(text, "script", "exec")
