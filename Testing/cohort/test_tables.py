"""The tables of a cohort: a row for each pair, text that stays text, and a dictionary that knows every column."""

import csv
import json
from dataclasses import fields

from cohort_results import failed_pair, made_cohort, made_pair, refused_pair
from DNetRegistrationLib.cartilage.result import Compartment
from DNetRegistrationLib.cohort.result import CohortResult, PairResult
from DNetRegistrationLib.cohort.tables import cell, write_results
from DNetRegistrationLib.version import __version__

COMPARTMENT = {
    "compartment": "medial", "mean_thickness_um": 41.25, "volume_mm3": float("nan"), "agent": True,
    "sides_known": False, "least_thickness_um": 12.0, "alignment_accepted": True,
}  # fmt: skip


def cohort() -> CohortResult:
    one = PairResult(
        name="=cmd()",
        fixed="a\nb.nrrd",
        moving="caf\udce9.nrrd",
        columns={"id": "=cmd()", "group": "@sham", "status": "ill", "score": "-5"},
        status="accepted",
        verdict="Accepted: fine.",
        doubts=("strain", "pieces"),
        warnings=("One.", "Two."),
        surroundings="The moving scan is darker.",
        confidence=0.987654321,
        expected_error_um=2.5,
        rotation_deg=-0.0,
        seconds=1.0,
        compartments=(COMPARTMENT,),
    )
    two = PairResult(
        name="b", fixed="c", moving="", columns={"id": "b", "age": "9"}, status="failed", verdict="Failed: x."
    )
    return CohortResult(scans="in", pairs=(one, two), versions={"DNetRegistration": __version__, "code": "c0de"})


def read(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_row_for_each_pair_with_what_was_carried_along(tmp_path):
    write_results(cohort(), tmp_path)
    first, second = read(tmp_path / "cohort.csv")
    assert first["pair"] == "'=cmd()" and first["group"] == "'@sham" and first["score"] == "'-5"
    assert first["status"] == "accepted" and first["given_status"] == "ill"
    assert first["confidence"] == "0.987654" and first["expected_error_um"] == "2.5"
    assert first["fixed"] == "a\nb.nrrd" and first["moving"] == "caf\\udce9.nrrd"
    assert first["doubts"] == "strain; pieces" and first["warnings"] == "One. Two."
    assert first["surroundings"] == "The moving scan is darker." and second["surroundings"] == ""
    assert (first["version"], first["code"]) == (__version__, "c0de")
    assert second["confidence"] == second["group"] == second["loop_error_um"] == "" and second["age"] == "9"


def test_what_to_do_is_told_of_pairs_that_failed_or_are_refused(tmp_path):
    write_results(made_cohort(made_pair("a"), refused_pair("b"), failed_pair("c")), tmp_path)
    assert [row["remedy"] for row in read(tmp_path / "cohort.csv")] == ["", "Check both scans.", "copy it again"]


def test_a_row_for_each_compartment(tmp_path):
    write_results(cohort(), tmp_path)
    (row,) = read(tmp_path / "cohort-cartilage.csv")
    assert row["pair"] == "'=cmd()" and row["compartment"] == "medial" and row["mean_thickness_um"] == "41.25"
    assert row["volume_mm3"] == "" and (row["agent"], row["sides_known"]) == ("true", "false")
    assert row["group"] == "'@sham"


def test_the_dictionary_tells_of_every_column_with_its_unit(tmp_path):
    write_results(cohort(), tmp_path)
    told = {(row["table"], row["column"]): row for row in read(tmp_path / "cohort-dictionary.csv")}
    for table in ("cohort.csv", "cohort-cartilage.csv"):
        columns = list(read(tmp_path / table)[0])
        assert columns == [column for name, column in told if name == table]
        for column in columns:
            row = told[table, column]
            assert row["meaning"]
            for ending in ("_um", "_mm2", "_mm3"):
                assert not column.endswith(ending) or row["unit"] == ending[1:]
    compartment = {one.name for one in fields(Compartment)} - {"name"}
    assert compartment <= {column for table, column in told if table == "cohort-cartilage.csv"}


def test_a_table_of_cartilage_that_nobody_measured_any_more_is_gone(tmp_path):
    write_results(cohort(), tmp_path)
    write_results(CohortResult(scans="in", pairs=(cohort().pairs[1],)), tmp_path)
    assert not (tmp_path / "cohort-cartilage.csv").exists()
    assert len(read(tmp_path / "cohort.csv")) == 1


def test_the_record_holds_everything(tmp_path):
    write_results(cohort(), tmp_path)
    again = CohortResult.from_dict(json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8")))
    assert again.pairs[0].columns == cohort().pairs[0].columns and again.pairs[0].name == "=cmd()"
    assert again.pairs[0].compartments[0]["mean_thickness_um"] == 41.25


def test_cells():
    values = ["=1", "+1", "-1", "@a", "\ta", "\ra", "a=1", -1.5, -2, True, None, float("inf"), 0.1 + 0.2]
    assert [cell(value) for value in values] == [
        "'=1", "'+1", "'-1", "'@a", "'\ta", "'\ra", "a=1", "-1.5", "'-2", "true", "", "", "0.3"
    ]  # fmt: skip
