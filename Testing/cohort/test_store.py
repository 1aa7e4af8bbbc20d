"""What the folder of results tells of a pair afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cohort_results import made_pair
from DNetRegistrationLib.cohort.fingerprint import content_hash
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import Pair
from DNetRegistrationLib.cohort.scan_file import ScanFile
from DNetRegistrationLib.cohort.store import is_recorded, opened_results, recorded_pair
from DNetRegistrationLib.cohort.task import Done
from DNetRegistrationLib.core.errors import FileError


@pytest.fixture
def keep(tmp_path):
    """Keeps a result of a pair of two files, with what is said of them."""

    def keep(initial=None, **about):
        for name in ("a", "b", "mask"):
            (tmp_path / name).write_bytes(name.encode())
        fixed = ScanFile(str(tmp_path / "a"), **about)
        pair = Pair(name="m1", fixed=fixed, moving=ScanFile(str(tmp_path / "b")), initial=initial)
        options = CohortOptions(outputs={})
        with opened_results(tmp_path / "results") as results:
            task = results.task(pair, options)
            result = made_pair("m1", folder=task.folder, fixed=fixed.path, moving=pair.moving.path)
            results.keep(task, Done(result, True, content_hash(pair, options)), "")
        return pair, result

    return keep


def test_a_pair_is_read_again_as_it_was(keep, tmp_path):
    pair, result = keep(spacing=(0.01, 0.02, 0.03), series="2", flip="z")
    recorded, content = recorded_pair(tmp_path / "results", result)
    assert (recorded.fixed, recorded.moving) == (pair.fixed, pair.moving)
    assert is_recorded(recorded, content)
    (tmp_path / "b").write_bytes(b"c")
    assert not is_recorded(recorded, content)
    (tmp_path / "b").unlink()
    assert not is_recorded(recorded, content)


def test_files_beside_the_scans_are_not_on_record(keep, tmp_path):
    for about in ({"mask": str(tmp_path / "mask")}, {"initial": str(tmp_path / "mask")}):
        recorded, content = recorded_pair(tmp_path / "results", keep(**about)[1])
        assert content == "" and not is_recorded(recorded, content)


def test_a_result_without_a_record(keep, tmp_path):
    _, result = keep()
    with pytest.raises(FileError, match="is no record of a pair"):
        recorded_pair(tmp_path / "results", replace(result, folder="pairs/other"))
