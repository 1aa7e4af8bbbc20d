"""Results of long measurements: kept line by line, gone on with, and never believed when they were changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from command import run
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.experiments.store import ResultStore, measuring_code

CODE = measuring_code()


@dataclass(frozen=True)
class Timing:
    name: str
    run: int
    seconds: float
    good: bool = True
    place: tuple[float, ...] = ()
    code: str = CODE

    @property
    def key(self):
        return self.name, self.run


TIMINGS = [
    Timing("plain", 0, 0.1 + 0.2),
    Timing('a "quoted", name', 1, math.inf, False, (1.0, -1e-300, 0.1)),
    Timing("no \udcff UTF-8", 2, math.pi),
]


@pytest.fixture
def path(tmp_path):
    store = ResultStore(tmp_path / "timings.csv", Timing)
    for timing in TIMINGS:
        store.add(timing)
    return tmp_path / "timings.csv"


def test_what_was_added_is_there_again_to_the_last_digit(path):
    assert list(ResultStore(path, Timing).results.values()) == TIMINGS


def test_a_result_that_a_full_disk_cut_is_no_part_of_the_next(path):
    """In a process of its own, whose files may not grow: what a full disk looks like from inside."""
    pytest.importorskip("resource", reason="limits on file size are not known here")
    code = """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        import test_store as here
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path(sys.argv[1])
        store = here.ResultStore(path, here.Timing)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, limits[1]))
        try:
            store.add(here.Timing("cut", 3, 1.0))
        except here.FileError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        store.add(here.Timing("next", 4, 1.0))
    """
    done = run(str(path), str(Path(__file__).parent), code=code)
    assert done.returncode == 0 and "File too large" in done.stdout, done.stderr
    assert list(ResultStore(path, Timing).results.values()) == [*TIMINGS, Timing("next", 4, 1.0)]


def test_names_of_files_are_no_formulas(tmp_path):
    timings = [Timing(name, 0, -1.5) for name in ("=1+1.nrrd", "'=quoted", "-1-1", "-2")]
    store = ResultStore(tmp_path / "t.csv", Timing)
    for timing in timings:
        store.add(timing)
    assert list(ResultStore(tmp_path / "t.csv", Timing).results.values()) == timings
    lines = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["'=1+1.nrrd", "''=quoted", "'-1-1", "-2"]
    assert all(",-1.5," in line for line in lines)


def test_not_a_number_too(tmp_path):
    ResultStore(tmp_path / "t.csv", Timing).add(Timing("x", 0, math.nan))
    assert math.isnan(ResultStore(tmp_path / "t.csv", Timing).results["x", 0].seconds)


def test_the_later_of_two_counts(path):
    ResultStore(path, Timing).add(replace(TIMINGS[0], seconds=7.0))
    assert ResultStore(path, Timing).results["plain", 0].seconds == 7.0


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_last_line_that_was_cut_short_is_dropped(path, cut):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    store = ResultStore(path, Timing)
    assert list(store.results.values()) == TIMINGS[:2]
    # What is added then is a line of its own.
    store.add(TIMINGS[2])
    assert path.read_bytes() == whole


def test_a_header_that_was_cut_short_is_no_result(path):
    path.write_bytes(path.read_bytes()[:5])
    assert not ResultStore(path, Timing).results


@pytest.mark.parametrize(("old", "new"), [(b"0.3000", b"0.2000"), (b"plain", b"plane"), (b"True", b"False")])
def test_a_changed_number_or_word_is_noticed(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(FileError, match=r"timings.csv: line 2 is damaged .* remove that line"):
        ResultStore(path, Timing)


def test_a_cut_in_the_middle_is_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:20] + lines[2])
    with pytest.raises(FileError, match="line 2 is damaged"):
        ResultStore(path, Timing)


def test_other_columns_are_noticed(path):
    path.write_bytes(path.read_bytes().replace(b"seconds", b"minutes", 1))
    with pytest.raises(FileError, match="other columns"):
        ResultStore(path, Timing)


def test_results_of_other_code_are_not_added_to(tmp_path):
    path = tmp_path / "t.csv"
    ResultStore(path, Timing).add(Timing("x", 0, 1.0, code="0.0.1+abc"))
    with pytest.raises(FileError, match=r"another version of this program \(0.0.1\+abc") as raised:
        ResultStore(path, Timing)
    assert raised.value.setting.quantity == "output"
    assert len(ResultStore(path, Timing, any_code=True).results) == 1


def test_in_memory_only():
    store = ResultStore(None, Timing)
    store.add(TIMINGS[0])
    assert store.results[TIMINGS[0].key] == TIMINGS[0]


def test_results_are_told_apart_by_the_code_that_measures():
    codes = measuring_code(), measuring_code("experiments/calibrate.py"), measuring_code("training")
    assert len(set(codes)) == 3
    assert measuring_code() == CODE
    assert codes[0].startswith("0.")
