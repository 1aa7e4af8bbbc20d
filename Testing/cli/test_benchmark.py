"""The command benchmark: what its help says."""

from __future__ import annotations

import re

from DNetRegistrationLib.cli.main import main
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
