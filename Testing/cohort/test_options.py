"""Options of a cohort, and folders that any file system takes."""

import pytest
from DNetRegistrationLib.cohort.options import CohortOptions, folder_name
from DNetRegistrationLib.core.errors import OptionError


def test_plain_names_are_names_of_folders():
    assert [folder_name(name) for name in ("m01", "a_b-c.d", "7")] == ["m01", "a_b-c.d", "7"]


def test_other_names_have_folders_of_their_own():
    names = ["M01", "m 01", "m/01", "..", ".", "", "con", "NUL.txt", "two\nlines", "caf\udce9", "x" * 300, "a.", "\xe4"]
    folders = [folder_name(name) for name in [*names, "m01"]]
    assert len({folder.lower() for folder in folders}) == len(folders)
    for folder in folders:
        assert folder.isascii() and not set(folder) & set('<>:"/\\|?* \n') and len(folder) < 100
        assert not folder.startswith(".") and not folder.endswith(".")
        assert folder.split(".")[0].lower() not in ("con", "nul")


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
