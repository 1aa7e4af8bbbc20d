"""``dnet-registration evaluate``: from arguments to options, and from results and errors to words."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from DNetRegistrationLib.cli.evaluate import command_line, evaluation_options
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.core.errors import ScanError, Setting
from DNetRegistrationLib.experiments.paper import run as experiments
from DNetRegistrationLib.experiments.paper.cohort import CohortError
from DNetRegistrationLib.experiments.paper.settings import EvaluationOptions
from DNetRegistrationLib.networks.weights import FOLDER

WEIGHTS = FOLDER / "dnet.pt"


def parsed(words):
    return evaluation_options(build_parser().parse_args(["evaluate", *shlex.split(words)]))


def test_options_that_are_not_given_have_their_usual_value():
    assert parsed("--output out") == EvaluationOptions(output="out")


def test_options_that_are_given():
    words = "A B --output out --quick --train-only --seed 3 --scan-spacing 0.01,0.01,0.02 --animals 6 --size 32 "
    words += "--spacing 0.1 --strategies S3,S1 --methods dnet,sitk --tests real --steps 3 --subjects 'one, two' "
    words += "--recipe paper --iterations 5 --batch 3 --own-iterations 4 --own-batch 2 --precision float32 "
    words += f"--weights dnet={WEIGHTS} --weights S1/se={WEIGHTS} --weights equivariant=equivariant "
    words += "--device cpu --jobs 2 --processor-minutes 60"
    assert parsed(words) == EvaluationOptions(
        output="out", scans=["A", "B"], quick=True, train_only=True, seed=3, scan_spacing=(0.01, 0.01, 0.02),
        animals=6, size=32, spacing=0.1, strategies=("S1", "S3"), methods=("sitk", "dnet"), tests=("real",), steps=3,
        subjects=("one", "two"), recipe="paper", iterations=5, batch=3, own_iterations=4, own_batch=2,
        precision="float32", device="cpu", jobs=2, processor_minutes=60,
        weights={"dnet": WEIGHTS, "S1/se": WEIGHTS, "equivariant": "equivariant"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", ["", "A B --scan-spacing 0.01", "--quick --seed 5 --strategies S1 --processor-minutes 2.5"]
)
def test_the_command_of_a_report_gives_the_same_again(words):
    options = parsed(f"{words} --output /somewhere/out --methods dnet --weights dnet={WEIGHTS}").resolved()
    command = command_line(options)
    assert "/" not in command.replace("S1/", "")
    again = command.replace("dnet=dnet.pt", f"dnet={WEIGHTS}").partition(" evaluate ")[2]
    same = {"quick", "output"}  # what is quick is in the numbers, and the folder is its last part
    found, wanted = vars(parsed(again).resolved()), vars(options)
    assert {k: v for k, v in found.items() if k not in same} == {k: v for k, v in wanted.items() if k not in same}


def test_what_is_done_is_told(monkeypatch, tmp_path, capsys):
    def evaluate(options, *, progress, tell, spell):
        progress(0.5, "reading")
        tell("training 1 of 1")
        return None if options.train_only else Path(options.output) / "report.html"

    monkeypatch.setattr(experiments, "evaluate", evaluate)
    monkeypatch.setattr(experiments, "write_report", lambda folder, *given: Path(folder) / "report.html")
    report = f"tables, figures and report are in {tmp_path}; open {tmp_path / 'report.html'}\n"
    assert main(["evaluate", "--output", str(tmp_path), "--verbose"]) == 0
    said = capsys.readouterr()
    assert said.out == f"training 1 of 1\n{report}" and said.err == " 50% reading\n"
    assert main(["evaluate", "--output", str(tmp_path), "--train-only"]) == 0
    assert capsys.readouterr().out == "training 1 of 1\n"
    assert main(["evaluate", "--output", str(tmp_path), "--report-only"]) == 0
    assert capsys.readouterr().out == report


def test_problems_with_scans_are_listed(monkeypatch, tmp_path, capsys):
    def evaluate(*given, **options):
        odd = ScanError("b.tif: has no voxel size", "give it in mm", Setting("spacing"))
        raise CohortError([ScanError("a.nrrd: is odd"), odd])

    monkeypatch.setattr(experiments, "evaluate", evaluate)
    assert main(["evaluate", "--output", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == ["- a.nrrd: is odd", "- b.tif: has no voxel size; give it in mm (--scan-spacing)"]
    assert said.err == "dnet-registration: error: 2 problems with the scans; correct them first\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--methods dnet,ants", "'ants' is unknown; choose from unmoved, sitk, me"),
        ("--weights sitk=x.pt", "'sitk=x.pt' is not like dnet=FILE"),
        ("--weights dnet-turned=dnet", "'dnet-turned=dnet' is not like dnet=FILE"),
        ("--weights dnet=nowhere.pt", "nowhere.pt: there is no such file of weights; check the path (--weights)"),
        ("--steps 1", "'1' is not a whole number from 2"),
        ("A B C", "C: is one too many; give two folders, one folder or one CSV file"),
        ("--report-only", "nothing was evaluated in this folder yet"),
    ],
)
def test_wrong_usage(words, said, tmp_path, capsys):
    assert main(["evaluate", "--output", str(tmp_path / "out"), *shlex.split(words)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
