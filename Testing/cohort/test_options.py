"""Options of a cohort, and folders that any file system takes."""

import pytest
from DNetRegistrationLib.cohort.options import CohortOptions, folder_name
from DNetRegistrationLib.cohort.run import find_pairs
from DNetRegistrationLib.core.errors import OptionError


def test_plain_names_are_names_of_folders():
    assert [folder_name(name) for name in ("M01", "a_b-c.d", "7 a")] == ["M01", "a_b-c.d", "7 a"]
    assert folder_name("m01", taken=True) != folder_name("M01", taken=True)


def test_other_names_have_folders_of_their_own():
    names = [
        " m01", "m01 ", "m/01", "..", ".", "", "con", "NUL.txt", "aux .x", "two\nlines",
        "caf\udce9", "x" * 300, "a.", "\xe4",
    ]  # fmt: skip
    folders = [folder_name(name) for name in [*names, "m01"]]
    assert len({folder.lower() for folder in folders}) == len(folders)
    for folder in folders:
        assert folder.isascii() and not set(folder) & set('<>:"/\\|?* \n') and len(folder) < 100
        assert not folder.startswith(".") and not folder.endswith(".")
        assert folder.split(".")[0].lower() not in ("con", "nul", "aux ")


@pytest.mark.parametrize(
    "options",
    [{"outputs": {"report": ".txt"}}, {"outputs": {"nothing": ".json"}}, {"scans": {"spacing": 1}}, {"bone": "each"}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(OptionError):
        CohortOptions(**options)


def test_only_what_is_not_usual_is_told():
    assert CohortOptions(outputs={"report": ".json"}).told() == {"outputs": ["report"]}
    assert CohortOptions(outputs={"report": ".json"}, refine="none").told() == {"outputs": ["report"], "refine": "none"}


def test_paths_do_not_depend_on_where_a_process_was_started(tmp_path, monkeypatch):
    (tmp_path / "own.pt").touch()
    monkeypatch.chdir(tmp_path)
    given = {"fixed_mask": "masks/a.nrrd", "moving_threshold": 5.0}
    options = CohortOptions(weights="own.pt", scans=given).absolute()
    assert options.weights == str(tmp_path / "own.pt")
    assert options.scans == given | {"fixed_mask": str(tmp_path / "masks" / "a.nrrd")}
    assert CohortOptions(weights="dnet").absolute().weights == "dnet"
    # Those of pairs too, by a list or by names; whoever opens the results later is elsewhere.
    (tmp_path / "scans").mkdir()
    for name in ("m_pre.nrrd", "m_post.nrrd"):
        (tmp_path / "scans" / name).touch()
    (tmp_path / "scans" / "list.csv").write_text(
        "id,fixed,moving,fixed_mask,initial\nm,m_pre.nrrd,m_post.nrrd,a.nrrd,t.tfm\n"
    )
    (named,), (listed,) = (find_pairs(place).pairs for place in ("scans", "scans/list.csv"))
    for pair in (named, listed):
        assert (pair.fixed.path, pair.moving.path) == tuple(
            str(tmp_path / "scans" / name) for name in ("m_pre.nrrd", "m_post.nrrd")
        )
    assert (listed.fixed.mask, listed.initial) == tuple(str(tmp_path / "scans" / name) for name in ("a.nrrd", "t.tfm"))
