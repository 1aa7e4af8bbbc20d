"""What the folder of results tells of a pair afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cohort_results import made_pair
from DNetRegistrationLib.bone.scan_file import ScanFile
from DNetRegistrationLib.cohort.fingerprint import content_hash
from DNetRegistrationLib.cohort.options import CohortOptions
from DNetRegistrationLib.cohort.pairs import Pair
from DNetRegistrationLib.cohort.store import opened_results, recorded_pair
from DNetRegistrationLib.cohort.task import Done
from DNetRegistrationLib.core.errors import FileError


@pytest.fixture
def keep(tmp_path):
    """Keeps a result of a pair of two files, with what is said of them."""

    def keep(initial=None, weights=None, where=None, outputs=None, written=None, **about):
        for name in ("a", "b", "other"):
            (tmp_path / name).write_bytes(name.encode())
        fixed = ScanFile(str(tmp_path / "a"), **about)
        pair = Pair(name="m1", fixed=fixed, moving=ScanFile(str(tmp_path / "b")), initial=initial)
        pair = replace(pair, **(where or {}))
        options = CohortOptions(outputs=outputs or {}, weights=weights)
        with opened_results(tmp_path / "results") as results:
            task = results.task(pair, options)
            paths = {name: Path(task.work) / file for name, file in (written or {}).items()}
            for path in paths.values():
                path.touch()
            files = {name: f"{task.folder}/{path.name}" for name, path in paths.items()}
            result = made_pair("m1", folder=task.folder, fixed=fixed.path, moving=pair.moving.path, outputs=files)
            results.keep(task, Done(result, True, content_hash(pair, options)), "")
        return pair, result

    return keep


def test_a_pair_is_read_again_as_it_was(keep, tmp_path):
    pair, result = keep(spacing=(0.01, 0.02, 0.03), series="2", flip="z", segment="3", mask=str(tmp_path / "other"))
    recorded = recorded_pair(tmp_path / "results", result)
    assert (recorded.pair.fixed, recorded.pair.moving) == (pair.fixed, pair.moving)
    assert recorded.holds()
    (tmp_path / "b").write_bytes(b"c")
    assert not recorded.holds()
    (tmp_path / "b").unlink()
    assert not recorded.holds()


def test_where_its_cartilage_is_measured_is_on_record(keep, tmp_path):
    where = {"region": str(tmp_path / "other"), "region_segment": "2", "medial": (1.0, -2.5, 3.0)}
    pair, result = keep(where=where)
    recorded = recorded_pair(tmp_path / "results", result)
    assert recorded.pair == pair and recorded.holds()
    (tmp_path / "other").write_bytes(b"another")
    assert not recorded.holds()


@pytest.mark.parametrize("kind", ["mask", "initial", "weights"])
def test_files_beside_the_scans_are_on_record(keep, tmp_path, kind):
    other = tmp_path / "other"
    recorded = recorded_pair(tmp_path / "results", keep(**{kind: str(other)})[1])
    assert recorded.holds()
    other.write_bytes(b"another")
    assert not recorded.holds()
    other.unlink()
    assert not recorded.holds()


def test_the_record_knows_where_files_were_moved_to(keep, tmp_path):
    pair, result = keep(mask=str(tmp_path / "other"))
    (tmp_path / "other").rename(tmp_path / "elsewhere")
    assert not recorded_pair(tmp_path / "results", result).holds()
    moved = replace(pair, fixed=replace(pair.fixed, mask=str(tmp_path / "elsewhere")))
    with opened_results(tmp_path / "results") as results:
        assert results.done(moved, CohortOptions(outputs={})) is not None
    assert recorded_pair(tmp_path / "results", result).holds()


def test_outputs_that_nobody_asks_for_now_are_known_by_the_records_of_pairs(keep, tmp_path):
    """They were read off the record of the last run alone, which a run that was killed does not leave."""
    outputs = {"transform": ".tfm", "cartilage": ".csv", "thickness": ".vtp"}
    pair, _ = keep(outputs=outputs, written={name: f"{name}{ending}" for name, ending in outputs.items()})
    other = replace(pair, name="m2")
    with opened_results(tmp_path / "results") as results:
        for asked, told in (({}, ["cartilage", "thickness"]), ({"thickness": ".ply"}, ["cartilage"])):
            options = CohortOptions(outputs={"transform": ".h5", **asked})
            assert results.dropped([other, pair], options) == told and not results.dropped([other], options)


def test_an_output_that_was_asked_for_and_never_written_is_not_removed(keep, tmp_path):
    """Cartilage that could not be measured leaves no file; nor is there one that its owner has taken away."""
    asked = {"transform": ".tfm", "overlay": ".png", "cartilage": ".csv"}
    pair, result = keep(outputs=asked, written={"transform": "transform.tfm", "overlay": "overlay.png"})
    options = CohortOptions(outputs={"transform": ".tfm"})
    with opened_results(tmp_path / "results") as results:
        assert results.dropped([pair], options) == ["overlay"]
        (tmp_path / "results" / result.outputs["overlay"]).unlink()
        assert not results.dropped([pair], options)


def test_loops_are_forgotten_and_what_else_lies_there_is_not(keep, tmp_path):
    pair, _ = keep()
    own = tmp_path / "results/loops/mine"
    own.mkdir(parents=True)
    (own / "notes.txt").touch()
    with opened_results(tmp_path / "results") as results:
        closing = replace(pair, name="loop", closing=True)
        task = results.task(closing, CohortOptions(outputs={}))
        results.keep(task, Done(made_pair("loop", folder=task.folder), True, ""), "")
        assert len(list((tmp_path / "results/loops").iterdir())) == 2
        results.forget_loops()
    assert list((tmp_path / "results/loops").iterdir()) == [own] and list(own.iterdir())
    assert (tmp_path / "results/pairs/m1/pair.json").is_file()


def test_a_result_without_a_record(keep, tmp_path):
    _, result = keep()
    with pytest.raises(FileError, match="is no record of a pair"):
        recorded_pair(tmp_path / "results", replace(result, folder="pairs/other"))
