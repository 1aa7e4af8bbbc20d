"""Pairs of a CSV file: its columns, and what is said of rows that cannot be used."""

import pytest
from DNetRegistrationLib.cohort.listing import pairs_of_list
from DNetRegistrationLib.core.errors import FileError


def write(tmp_path, text: str, encoding="utf-8"):
    path = tmp_path / "pairs.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_row_says_how_a_pair_is_aligned_and_what_travels(tmp_path, delimiter):
    row = {
        "ID": "m1", "fixed": "a.nrrd", "moving": "sub/b", "Group": "=sham", "time": "4 w", "contrast": "fixed",
        "fixed_spacing": "0.01 0.01 0.02", "moving_threshold": "1200.5", "fixed_mask": "m.seg.nrrd", "moving_flip": "z",
        "initial": "t.tfm", "moving_series": "2", "region": "j.seg.nrrd", "region_segment": "tibia",
        "medial": "1.2 -0.4 3e0",
    }  # fmt: skip
    text = "\ufeff" + delimiter.join(row) + "\r\n" + delimiter.join(row.values()) + "\r\n\r\n"
    found = pairs_of_list(write(tmp_path, text))
    (pair,) = found.pairs
    assert not found.problems and pair.blocked is None and pair.name == "m1_4 w"
    assert pair.columns == {"id": "m1", "Group": "=sham", "time": "4 w"}
    assert (pair.fixed.path, pair.fixed.spacing) == (str(tmp_path / "a.nrrd"), (0.01, 0.01, 0.02))
    assert pair.fixed.mask == str(tmp_path / "m.seg.nrrd") and pair.fixed.threshold is None
    assert (pair.moving.path, pair.moving.threshold) == (str(tmp_path / "sub/b"), 1200.5)
    assert (pair.moving.flip, pair.moving.series) == ("z", "2")
    assert (pair.contrast, pair.initial) == ("fixed", str(tmp_path / "t.tfm"))
    assert (pair.region, pair.region_segment) == (str(tmp_path / "j.seg.nrrd"), "tibia")
    assert pair.medial == (1.2, -0.4, 3.0)


def test_rows_that_cannot_be_used_are_problems_and_the_others_are_pairs(tmp_path):
    found = pairs_of_list(
        write(
            tmp_path,
            "id,fixed,moving,fixed_spacing,moving_flip,medial\n"
            "good,a.nrrd,b.nrrd,,,\n"
            "alone,a.nrrd,,,,\n"
            "wrong,a.nrrd,b.nrrd,0.01 0.02,q,\n"
            "words,a.nrrd,b.nrrd,ten,,\n"
            ",a.nrrd,b.nrrd,,,\n"
            "long,a.nrrd,b.nrrd,,,,more\n"
            "point,a.nrrd,b.nrrd,,,1 2\n"
            "twice,a.nrrd,b.nrrd,,,\n"
            "twice,c.nrrd,d.nrrd,,,\n",
        )
    )
    problems = {one.pair: (one.kind, one.problem) for one in found.problems}
    assert [pair.name for pair in found.pairs if pair.blocked is None] == ["good"]
    assert {name: kind for name, (kind, _) in problems.items()} == {
        "alone": "partner", "wrong": "list", "words": "list", "line 6": "list", "long": "list", "point": "list",
        "twice": "duplicate", "twice (2)": "duplicate",
    }  # fmt: skip
    assert "line 4" in problems["wrong"][1] and "'q'" in problems["wrong"][1] and "0.01 0.02" in problems["wrong"][1]
    assert len({pair.name for pair in found.pairs}) == len(found.pairs) == 9
    assert problems["point"][1].endswith("has '1 2' as medial, not three numbers in mm, as 1.2 -0.4 3.0")
    assert problems["words"][1].endswith(
        "'ten' as fixed_spacing, not one or three voxel sizes in mm, as 0.01 or 0.01 0.01 0.02"
    )


def test_a_row_may_have_several_problems_and_each_is_told(tmp_path):
    found = pairs_of_list(write(tmp_path, "id,fixed,moving\nm,a.nrrd,\nm,a.nrrd,b.nrrd\n"))
    assert [(one.kind, one.pair) for one in found.problems] == [
        ("partner", "m"), ("duplicate", "m"), ("duplicate", "m (2)")
    ]  # fmt: skip
    assert all(pair.blocked is not None for pair in found.pairs)


def test_one_bone_at_several_times(tmp_path):
    found = pairs_of_list(write(tmp_path, "id,time,fixed,moving\nm,1,a,b\nm,2,a,c\n"))
    assert [pair.name for pair in found.pairs] == ["m_1", "m_2"] and not found.problems


def test_a_column_that_looks_misspelled_is_told(tmp_path):
    found = pairs_of_list(write(tmp_path, "id,fixed,moving,Fixed spacings,sex\nm,a,b,0.01,f\n"))
    (problem,) = found.problems
    assert "'Fixed spacings'" in problem.problem and "fixed_spacing" in problem.remedy and problem.pair == ""
    assert found.pairs[0].columns == {"id": "m", "Fixed spacings": "0.01", "sex": "f"}


def test_a_list_from_an_old_spreadsheet_is_read(tmp_path):
    found = pairs_of_list(write(tmp_path, "id;fixed;moving\nM\xe4use;a;b\n", "latin-1"))
    assert found.pairs[0].name == "M\xe4use"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("first", "delimiter"), [("", ";"), ("sep=;\r\n", ";"), ("SEP=\t\r\n", "\t"), ("sep=,\r\n", ",")]
)
def test_ways_of_spreadsheets(tmp_path, encoding, first, delimiter):
    comma = "0.012" if delimiter == "," else "0,012"
    rows = [
        ("id", "fixed", "moving", "fixed_spacing", "moving_threshold", "note"),
        ("m\xe4", "a", "b", comma, "7", "1,5"),
    ]
    lines = [first + delimiter.join(rows[0]), delimiter.join(f'"{cell}"' for cell in rows[1]), delimiter * 5, ""]
    found = pairs_of_list(write(tmp_path, "\r\n".join(lines), encoding))
    (pair,) = found.pairs
    assert (pair.name, pair.fixed.spacing, pair.moving.threshold) == ("m\xe4", (0.012,), 7.0)
    assert pair.columns["note"] == "1,5" and not found.problems


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "lists no pairs"),
        ("id,fixed,moving\n", "lists no pairs"),
        ("id,fixed\nm,a\n", "no column 'moving'"),
        ("id,fixed,moving,fixed\nm,a,b,c\n", "two columns of one name"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, told):
    with pytest.raises(FileError, match=told):
        pairs_of_list(write(tmp_path, text))


@pytest.mark.parametrize("start", (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))
def test_a_workbook_is_told_from_csv(tmp_path, start):
    (tmp_path / "list.xlsx").write_bytes(start + bytes(100))
    with pytest.raises(FileError, match="is a workbook of a spreadsheet program; save its table as CSV"):
        pairs_of_list(tmp_path / "list.xlsx")


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("1.5 -2 3", (1.5, -2, 3)),
        ("1,5 -2 3e0", (1.5, -2, 3)),
        ("1,-2,3", (1, -2, 3)),
        ("1.5, -2, 3", (1.5, -2, 3)),
        ("1,5 2", None),
        ("1 2 nan", None),
    ],
)
def test_a_point_is_three_numbers_however_they_are_parted(tmp_path, delimiter, text, point):
    path = tmp_path / "list.csv"
    cells = ["m1", "a.nrrd", "b.nrrd", f'"{text}"']
    path.write_text(delimiter.join(("id", "fixed", "moving", "medial")) + "\n" + delimiter.join(cells) + "\n")
    (pair,) = pairs_of_list(path).pairs
    assert pair.medial == point
    assert (pair.blocked is None) == (point is not None)
