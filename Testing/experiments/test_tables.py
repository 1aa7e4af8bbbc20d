"""Tables: results as frames, text as Markdown and HTML, figures as CSV."""

from __future__ import annotations

import builtins
import importlib.util
import math
from dataclasses import dataclass

import pytest
from DNetRegistrationLib.core.errors import PackageError
from DNetRegistrationLib.experiments import tables
from DNetRegistrationLib.experiments.tables import Finding, findings_table, frame, html, markdown, number, text_table


@dataclass(frozen=True)
class Throw:
    meters: float
    valid: bool = True

    @property
    def feet(self):
        return self.meters / 0.3048


def test_results_become_a_frame():
    found = frame(Throw, [Throw(3.048), Throw(1.0, False)], "feet")
    assert list(found.columns) == ["meters", "valid", "feet"]
    assert found[found.valid].feet.tolist() == pytest.approx([10.0])
    assert list(frame(Throw, []).columns) == ["meters", "valid"]


def test_markdown_is_aligned_and_keeps_bars_in_cells():
    assert markdown(text_table(("a", "name"), [("x", "1|2"), ("long", "")])).splitlines() == [
        "| a    | name |",
        "| ---- | ---- |",
        "| x    | 1\\|2 |",
        "| long |      |",
    ]
    assert markdown(text_table(("a",), [])).splitlines() == ["| a |", "| - |"]


def test_html_escapes_what_is_in_cells():
    text = html(text_table(("a", "a"), [("<b>", "x & y")]))
    assert "<thead><tr><th>a</th><th>a</th></tr></thead>" in text
    assert "<tr><td>&lt;b&gt;</td><td>x &amp; y</td></tr>" in text


def test_names_in_csv_are_no_formulas(tmp_path):
    tables.write_csv(text_table(("name", "um"), [("=1+1.nrrd", -2.0), ("-", "-1.5")]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "name,um\n'=1+1.nrrd,-2.0\n-,-1.5\n"


def test_findings_say_what_holds():
    table = findings_table([Finding("speed", "2 s", "at most 1 s", False), Finding("size", "3")])
    assert table.values.tolist() == [["speed", "2 s", "at most 1 s", "NO"], ["size", "3", "", ""]]


def test_csv_has_six_digits_and_leaves_out_what_is_missing(tmp_path):
    tables.write_csv(frame(Throw, [Throw(1 / 3), Throw(math.nan, False)]), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "meters,valid\n0.333333,True\n,False\n"


def test_numbers_to_read():
    values = (math.nan, math.inf, 0.01234, 12.345, 12345.6)
    assert [number(value) for value in values] == ["-", "no result", "0.0123", "12.3", "12,346"]
    assert number(2.0, ".2f") == "2.00"


def test_without_pandas_one_is_told_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    # Of a copy: the module that other tests have imported stays as it is.
    spec = importlib.util.find_spec(tables.__name__)
    with pytest.raises(PackageError, match=r"pip install \"dnet-registration\[benchmark\]\""):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
