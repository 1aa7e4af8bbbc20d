"""A CSV file that grows by a row at a time."""

import math

from DNetRegistrationLib.core.csv_table import CsvTable


def test_rows_are_in_the_file_and_in_memory(tmp_path):
    table = CsvTable(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_text() == ""
    table.add({"iteration": 1, "loss": 0.123456789, "views": "cut"})
    table.add({"iteration": 2, "loss": math.nan, "views": "whole", "more": 3})
    text = "iteration,loss,views\n1,0.123457,cut\n2,nan,whole\n"
    assert (tmp_path / "t.csv").read_text() == text
    CsvTable(tmp_path / "t.csv", table.rows)
    assert (tmp_path / "t.csv").read_text() == text
    memory = CsvTable(None, [])
    memory.add({"a": 1})
    assert memory.rows == [{"a": 1}]
