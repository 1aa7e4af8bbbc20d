"""A CSV file that grows by a row at a time."""

import math

import pytest
from DNetRegistrationLib.core import files
from DNetRegistrationLib.core.csv_table import CsvTable, no_formula, with_formula
from DNetRegistrationLib.core.errors import FileError


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


@pytest.mark.parametrize("text", ["=1+1.nrrd", "@mouse", "+mouse", "-mouse.nrrd", "\t=1", "'quoted", "-1-1"])
def test_names_of_files_are_no_formulas(tmp_path, text):
    table = CsvTable(tmp_path / "t.csv", [{"name": text}])
    assert (tmp_path / "t.csv").read_text().splitlines()[-1] == f"'{text}"
    table.add({"name": text})
    assert (tmp_path / "t.csv").read_text().splitlines()[-1] == f"'{text}"
    assert with_formula(no_formula(text)) == text


@pytest.mark.parametrize("value", ["mouse", "", "-", "-1.5", "+.5e-3", -1.5, None, True, "a=b"])
def test_other_cells_are_as_they_are(value):
    assert no_formula(value) is value


@pytest.fixture
def full_disk(monkeypatch):
    """From the second call on a write takes five bytes, and the next one none."""
    real, writes = open, []

    class Stream:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.stream.close()

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def write(self, content):
            writes.append(content)
            if len(writes) == 2:
                return self.stream.write(content[:5])
            if len(writes) == 3:
                raise OSError(28, "No space left on device")
            return self.stream.write(content)

    monkeypatch.setattr(files, "open", lambda *given, **more: Stream(real(*given, **more)), raising=False)


def test_a_row_that_a_full_disk_cut_is_taken_back(tmp_path, full_disk):
    table = CsvTable(tmp_path / "t.csv", [])
    table.add({"a": 1, "b": "first"})
    with pytest.raises(FileError, match="No space left"):
        table.add({"a": 2, "b": "second"})
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,first\n" and len(table.rows) == 1
    table.add({"a": 3, "b": "third"})
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,first\n3,third\n"
