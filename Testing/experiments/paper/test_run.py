"""``dnet-registration evaluate`` from its arguments to the report: all of it, gone on with, damaged, shown again."""

from __future__ import annotations

import csv
import json
import re
import shlex

import pytest
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.experiments.paper import measure as evaluation_measuring
from DNetRegistrationLib.experiments.paper import report as evaluation_report
from DNetRegistrationLib.experiments.paper.figures import STYLES
from DNetRegistrationLib.experiments.paper.plan import METHODS
from DNetRegistrationLib.experiments.paper.surfaces import CannotDrawError
from DNetRegistrationLib.experiments.paper.tables import PAPER
from DNetRegistrationLib.imaging.volume import write_volume
from DNetRegistrationLib.networks.weights import FOLDER
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.training.recipes import NETWORKS

SHIPPED = FOLDER / "equivariant.pt"


def no_surface(*given):
    raise CannotDrawError("none was wanted")


def command(folder, *more):
    """Two bones in each half, one network trained for a step, another given, two tests of one half."""
    words = "evaluate --quick --animals 4 --size 32 --spacing 0.16 --steps 2 --strategies S1 --jobs 1 --device cpu "
    words += "--methods sitk,equivariant,equivariant-own --tests rotation,real --own-iterations 1 --own-batch 1 "
    return [*shlex.split(words), "--weights", f"equivariant={SHIPPED}", "--output", str(folder), *more]


def lines(folder):
    with open(folder / "pairs.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def without_times(folder):
    drop = ("seconds", "code", "check")
    return [{key: value for key, value in line.items() if key not in drop} for line in lines(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an evaluation that went through."""
    folder = tmp_path_factory.mktemp("evaluation") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        # One picture is rendered in the tests of surfaces.
        patch.setattr(evaluation_report, "draw_surfaces", no_surface)
        assert main(command(folder)) == 0
    return folder


@pytest.fixture(autouse=True)
def no_surfaces(monkeypatch):
    monkeypatch.setattr(evaluation_report, "draw_surfaces", no_surface)


@pytest.fixture
def begun(whole, tmp_path):
    """A copy of it without results, with its scans and networks."""
    import shutil

    folder = tmp_path / "begun"
    shutil.copytree(whole, folder)
    (folder / "pairs.csv").unlink()
    return folder


def test_everything_is_there(whole):
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "evaluation.json", "pairs.csv", "table1.md", "table1.csv", "summary.csv", "anova.csv", "report.html",
        "figure3.png", "figure4a.png", "figure4c.png", "figure4d.png", "scans", "training",
    }  # fmt: skip
    assert "figure4b.png" not in names  # the translation test was not asked for
    # Two bones of B, two scans of each at two angles and one real pair, three methods.
    assert len(lines(whole)) == 2 * (2 * 2 + 1) * 3
    assert all(line["failure"] == "" for line in lines(whole))


def test_what_the_tables_say_is_what_the_pairs_say(whole):
    found = [line for line in lines(whole) if (line["test"], line["method"]) == ("rotation", "equivariant")]
    assert {(line["strategy"], line["fold"]) for line in found} == {("S1", "B")}
    mean = sum(float(line["re_deg"]) for line in found) / len(found)
    with open(whole / "table1.csv", newline="") as stream:
        (row,) = [
            row
            for row in csv.DictReader(stream)
            if (row["test"], row["criterion"], row["method"]) == ("rotation", "RE", METHODS["equivariant"].label)
        ]
    assert float(row["mean"]) == pytest.approx(mean, rel=1e-5) and int(row["pairs"]) == 8
    assert "710.5" not in (whole / "table1.md").read_text()  # no translation test, no figure of the paper's
    assert f"({PAPER['rotation', 'TE', 'sitk', '']})" in (whole / "table1.md").read_text()


def test_the_report_needs_nothing_else(whole):
    page = (whole / "report.html").read_text()
    assert len(re.findall('src="data:image/png;base64,', page)) >= 4
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)|https?://|url\(|<script""", page)
    assert "mouse002" in page and str(whole) not in page
    assert "given, not trained here" in page
    # The command in it is one, without a path of this machine.
    settings = json.loads((whole / "evaluation.json").read_text())
    options = build_parser().parse_args(shlex.split(settings["command"])[1:])
    assert (options.animals, options.strategies, options.own_iterations) == (4, ("S1",), 1)
    assert str(SHIPPED.parent) not in settings["command"] and not settings["bones"]["mouse002"]["pre"].startswith("/")


def test_nothing_is_done_twice(whole, capsys, monkeypatch):
    before = (whole / "pairs.csv").read_bytes()
    monkeypatch.setattr(evaluation_measuring, "measure_pair", None)
    assert main(command(whole)) == 0
    said = capsys.readouterr().out
    assert "10 pairs of scans to align, 10 of them done" in said and "training 1" not in said
    assert (whole / "pairs.csv").read_bytes() == before


def test_interrupted_and_gone_on_with(whole, begun, capsys, monkeypatch):
    measure, count = evaluation_measuring.measure_pair, iter(range(100))

    def interrupted(*given):
        if next(count) == 4:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(evaluation_measuring, "measure_pair", interrupted)
    assert main(command(begun)) == 130
    assert len(lines(begun)) == 4 * 3
    # A process that is killed leaves half a line.
    with open(begun / "pairs.csv", "ab") as stream:
        stream.write(b"real,mouse0")
    monkeypatch.setattr(evaluation_measuring, "measure_pair", measure)
    capsys.readouterr()
    # Also with other processes, it ends as if nothing had been.
    assert main([*command(begun), "--jobs", "2"]) == 0
    assert "10 pairs of scans to align, 4 of them done" in capsys.readouterr().out

    def in_order(folder):
        return sorted(tuple(line.values()) for line in without_times(folder))

    assert in_order(begun) == in_order(whole)


def test_a_damaged_file_of_results_is_noticed(begun, whole, capsys):
    content = (whole / "pairs.csv").read_bytes().replace(b"rotation,mouse002", b"rotation,mouse004", 1)
    (begun / "pairs.csv").write_bytes(content)
    for more in ([], ["--report-only"]):
        assert main(command(begun, *more)) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "pairs.csv: line" in said and "is damaged" in said and "remove that" in said


def test_damaged_settings_are_noticed(begun, capsys):
    (begun / "evaluation.json").write_text('{"format": ')
    assert main(command(begun)) == 2
    assert "evaluation.json: cannot be read, or is damaged" in capsys.readouterr().err


def test_other_settings_are_another_evaluation(whole, capsys):
    assert main([*command(whole), "--steps", "3"]) == 2
    assert "holds an evaluation with steps 2, not 3; evaluate into another folder" in capsys.readouterr().err
    # And no scan is made up that does not belong there.
    assert main([*command(whole), "--animals", "6"]) == 2
    assert "with animals 4, not 6" in capsys.readouterr().err and not list(whole.rglob("mouse005*"))


def test_scans_that_were_begun_are_gone_on_with_alike(tmp_path, capsys, monkeypatch):
    from DNetRegistrationLib.experiments.paper import synthetic as evaluation_synthetic

    made, count = evaluation_synthetic.make_pair, iter(range(100))

    def interrupted(*given, **options):
        if next(count) == 1:
            raise KeyboardInterrupt
        return made(*given, **options)

    monkeypatch.setattr(evaluation_synthetic, "make_pair", interrupted)
    assert main(command(tmp_path)) == 130
    assert len(list(tmp_path.rglob("*.nrrd"))) == 2
    assert main([*command(tmp_path), "--size", "24"]) == 2
    assert "with size 32, not 24" in capsys.readouterr().err


def test_other_voxels_are_another_evaluation(begun, capsys):
    import shutil

    scans = begun / "scans" / "B"
    shutil.copy(scans / "mouse002_pre.nrrd", scans / "mouse004_pre.nrrd")
    assert main(command(begun)) == 2
    assert "holds the same voxels" in capsys.readouterr().out
    make = make_pair(77, size=32, spacing=0.16, scale="raw")
    write_volume(make.fixed, scans / "mouse004_pre.nrrd")
    assert main(command(begun)) == 2
    assert "holds an evaluation of scans with other voxels; evaluate into another folder" in capsys.readouterr().err


def test_figures_again_from_what_is_stored(begun, whole, capsys, monkeypatch):
    (begun / "pairs.csv").write_bytes((whole / "pairs.csv").read_bytes())
    for path in [*begun.glob("*.png"), begun / "report.html", begun / "table1.md"]:
        path.unlink()
    monkeypatch.setattr(evaluation_measuring, "measure_pair", None)
    assert main(["evaluate", "--report-only", "--output", str(begun), "--subjects", "mouse004"]) == 0
    for name in ("figure4a.png", "figure4d.png", "table1.md"):
        assert (begun / name).read_bytes() == (whole / name).read_bytes()
    assert "mouse004" in (begun / "report.html").read_text()
    assert main(["evaluate", "--report-only", "--output", str(begun), "--subjects", "nobody"]) == 2
    assert "there is no bone 'nobody'" in capsys.readouterr().err


def test_a_figure_that_cannot_be_drawn_says_why(begun, whole, monkeypatch):
    (begun / "pairs.csv").write_bytes((whole / "pairs.csv").read_bytes())
    monkeypatch.setattr(evaluation_report, "has_anova", lambda: False)
    for path in (begun / "scans" / "B").glob("mouse002*"):
        path.unlink()
    assert main(["evaluate", "--report-only", "--output", str(begun)]) == 0
    page = (begun / "report.html").read_text()
    assert "Not drawn: none was wanted." in page and "statsmodels is not installed" in page
    assert re.search(r"mouse002.*Not drawn: .*mouse002_pre.nrrd: there is no such", page)
    assert not (begun / "figure5_1.png").exists()


def test_nothing_to_report(tmp_path, capsys):
    assert main(["evaluate", "--report-only", "--output", str(tmp_path)]) == 2
    assert "nothing was evaluated in this folder yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--methods dnet,ants", "'ants' is unknown; choose from unmoved, sitk, me"),
        ("--weights sitk=x.pt", "'sitk=x.pt' is not like dnet=FILE"),
        ("--weights dnet=nowhere.pt", "nowhere.pt: there is no such file of weights"),
        ("--steps 1", "'1' is not a whole number from 2"),
    ],
)
def test_wrong_usage(words, said, tmp_path, capsys):
    assert main(["evaluate", "--output", str(tmp_path / "out"), *shlex.split(words)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network(tmp_path, capsys):
    words = "evaluate --quick --animals 2 --size 24 --spacing 0.2 --methods dnet --strategies S1"
    assert main([*shlex.split(words), "--weights", f"dnet={SHIPPED}", "--output", str(tmp_path)]) == 2
    assert "has weights of 'equivariant', not of 'dnet'" in capsys.readouterr().err


def test_all_methods_are_known_everywhere():
    assert set(STYLES) == set(METHODS)
    assert {method.network for method in METHODS.values()} - {None} == set(NETWORKS)
    assert {method for _, _, method, _ in PAPER} < set(METHODS)
