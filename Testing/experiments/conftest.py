"""A small pair and its files, for all tests of the comparison."""

from __future__ import annotations

import pytest
from DNetRegistrationLib.experiments.pair_files import PairFiles
from DNetRegistrationLib.experiments.peers.pairs import make_files, turned_pairs


@pytest.fixture(scope="session")
def compared_pair():
    return turned_pairs(1, 24, 1.0, True)[0]


@pytest.fixture(scope="session")
def files(compared_pair, tmp_path_factory):
    found = PairFiles(tmp_path_factory.mktemp("pair"))
    make_files(compared_pair, found)
    return found
