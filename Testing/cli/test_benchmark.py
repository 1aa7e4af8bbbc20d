"""The command benchmark: what its help says."""

from __future__ import annotations

import re

from DNetRegistrationLib.cli.main import main
from DNetRegistrationLib.experiments.benchmark import cartilage
from DNetRegistrationLib.experiments.refinement.kinds import KINDS
from DNetRegistrationLib.experiments.refinement.results import CONTESTANTS


def test_the_help_lists_kinds_and_methods_of_the_contest(capsys):
    assert main(["benchmark", "--help"]) == 0
    said = capsys.readouterr().out
    kinds = re.search(r"kinds of pairs for refinement:\n(.*?)\n\n", said, re.DOTALL)[1]
    # "80 um plain, contrast" are two.
    listed = [f"{line.strip()[:5]} {word}" for line in kinds.splitlines() for word in line.strip()[6:].split(", ")]
    assert listed == list(KINDS)
    methods = re.search(r"methods for refinement.*?:\n(.*?)\Z", said, re.DOTALL)[1]
    first, *others = methods.rstrip().splitlines()
    listed = first.split("(")[0].strip().split(", ")
    for line in others:
        # "neuroreg-all, -dilated" are two.
        name, *masks = line.strip().split(", ")
        listed += [name, *(name.rpartition("-")[0] + mask for mask in masks)]
    assert sorted(listed) == sorted(CONTESTANTS)


def test_kinds_of_pairs_for_cartilage_are_chosen(monkeypatch, capsys):
    measured = []

    def measure_cases(measure, wanted, kind, table, **options):
        measured.extend(wanted)
        return table([])

    monkeypatch.setattr(cartilage, "measure_cases", measure_cases)
    assert main(["benchmark", "--only", "cartilage", "--kinds", "10 um,edges", "--pairs", "9"]) == 0
    assert measured == [*(("10 um", 320_000 + n) for n in range(9)), *((cartilage.EDGES, n) for n in range(8))]
    # Before anything is measured.
    for parts in ("cartilage", "refinement,cartilage"):
        assert main(["benchmark", "--only", parts, "--kinds", "80 um plain"]) == 2
        assert "none of the kinds is one of cartilage; choose from 20 um, 20 um again" in capsys.readouterr().err


def test_the_help_lists_kinds_of_pairs_for_cartilage(capsys):
    assert main(["benchmark", "--help"]) == 0
    listed = re.search(r"kinds of pairs for cartilage:\n(.*?)\n\n", capsys.readouterr().out, re.DOTALL)[1]
    kinds = re.split(r", |\n", re.sub(r" \(.*?\)", "", listed))
    assert [kind.strip() for kind in kinds] == [*cartilage.KINDS, cartilage.EDGES]
