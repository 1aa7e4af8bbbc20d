"""The report of a comparison, against figures worked out by hand."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from DNetRegistrationLib.experiments.peers.figures import draw_cost, draw_errors, draw_success
from DNetRegistrationLib.experiments.peers.report import against_full, numbers, report, requirements
from DNetRegistrationLib.experiments.peers.results import PeerResults
from DNetRegistrationLib.experiments.tables import write_csv
from peer_results import failed, four_methods, result


def test_requirements_by_hand():
    success, error, faster = requirements(four_methods())
    assert success.measured == "elastix 1 against 4 of 4; ANTs 1 against 2 of 2"
    # Medians: 900 um of elastix against 5 of all four; ANTs' second is infinite, against 3 um of the first two.
    assert error.measured == "elastix 900 against 5.00; ANTs no result against 3.00"
    assert faster.measured == "100 (2 pairs)"
    assert success.holds and error.holds and faster.holds
    slow = PeerResults([result("full", 0, seconds=10.0), result("ants", 0, seconds=100.0, error_um=1.0)])
    assert [one.holds for one in requirements(slow)] == [True, False, False]
    lost = PeerResults([failed("full"), result("simpleitk")])
    assert [one.holds for one in requirements(lost)] == [False, False, None]
    alone = PeerResults([result("full")])
    assert [one.holds for one in requirements(alone)] == [None, None, None]


def test_each_method_beside_this_project():
    elastix, ants = against_full(four_methods()).to_dict("records")
    assert elastix == {
        "method": "elastix",
        "pairs": "4",
        "aligned": "1 against 4",
        "error (um)": "900 against 5.00",
        "error where both aligned (um)": "**1.00** against 2.00",
        "time (s)": "**0.50** against 1.50",
        "peak memory (GB)": "1.10 against 0.50",
        "wrong without a warning": "3 against 0",
    }
    assert (ants["pairs"], ants["aligned"], ants["error (um)"]) == ("2", "1 against 2", "no result against 3.00")
    (more,) = against_full(PeerResults([failed("full"), result("axes")])).to_dict("records")
    assert (more["aligned"], more["error (um)"]) == ("**1** against 0", "**4.00** against no result")
    assert more["error where both aligned (um)"] == "- against -"
    # What looks the same as it is written is no better.
    (same,) = against_full(PeerResults([result("full"), result("axes", seconds=0.9999)])).to_dict("records")
    assert same["time (s)"] == "1.00 against 1.00"


def test_the_text_tells_it_all(tmp_path):
    text = report(four_methods(), ["measured by hand"])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    growth = lines[lines.index("## Cost as the volume grows") :]
    (elastix,) = ([cell.strip() for cell in line.split("|")[2:-1]] for line in growth if line.startswith("| elastix"))
    assert "- measured by hand" in lines
    assert any(
        line.startswith("| elastix") and "1 of 4" in line and "1/2 [9, 91] | 0/2 [0, 66]" in line for line in lines
    )
    assert elastix == ["0.5 s, 0.50 GB, not aligned", "1.0 s, 1.00 GB, 4.00 um"]
    assert any(line.startswith("| ANTs") and "over the limit of 600 s | not tried after 64^3" in line for line in lines)
    assert "| ANTs | 1 | RuntimeError: no overlap |" in lines
    assert "| its network dnet alone, 8 turns | no weights |" in lines
    # Tables are tables: as many cells in each of their lines.
    for start in (n for n, line in enumerate(lines) if line.startswith(("| method", "| what"))):
        table = lines[start : [*lines, ""].index("", start)]
        assert len({line.count("|") for line in table}) == 1
    write_csv(numbers(four_methods()), tmp_path / "numbers.csv")
    with open(tmp_path / "numbers.csv", newline="") as stream:
        rows = {(row["method"], row["group"], row["value"]): row for row in csv.DictReader(stream)}
    row = rows["elastix", "angle", "all"]
    assert (row["pairs"], row["aligned"], row["median_error_um"], row["wrong_unnoticed"]) == ("4", "1", "900", "3")
    assert rows["ants", "size", "64"]["over_limit"] == "1"
    assert rows["full", "angle", "0-30"]["median_error_um"] == "4"


def test_pictures_are_drawn_also_of_failures(tmp_path):
    pytest.importorskip("matplotlib")
    for found in (four_methods(), PeerResults([failed("ants")], [failed("ants", late=True)])):
        for draw in (draw_success, draw_errors, draw_cost):
            draw(found, tmp_path / "picture.png")
            assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
            assert (tmp_path / "picture.png").stat().st_size > 5000


def test_bins_without_a_pair_are_left_out_and_named():
    lines = report(PeerResults([result("full"), result("axes")]), []).splitlines()
    head = next(line for line in lines if line.startswith("| method") and "all angles" in line)
    assert head.count("°") == 1
    (told,) = (line for line in lines if "No pair was turned by" in line)
    assert told.count("°") == 5


@pytest.mark.parametrize(("pairs", "few"), ((11, True), (12, False)))
def test_too_few_pairs_are_told(pairs, few):
    """Two in each bin of angles are the least: of `--pairs 2` each bin held one pair or none."""
    one = result("full")
    found = PeerResults([replace(one, pair=f"64-{number}", angle_bin=number % 6) for number in range(pairs)])
    assert ("Fewer than 12 pairs, here 11," in report(found, [])) == few
