"""Damaged files: whatever is wrong with one, an error says so in words, and damage that a checksum sees is no data."""

from __future__ import annotations

from collections import Counter

import damaged_files
import numpy as np
import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("scans", 300), ("transforms", 60)])
def test_damaged_files(kind, number):
    outcomes = list(damaged_files.outcomes(kind, number, seed=0))
    assert [outcome.number for outcome in outcomes] == list(range(number))
    assert not [outcome for outcome in outcomes if outcome.is_fault]
    assert Counter(outcome.result for outcome in outcomes)["refused"] > number / 3


def test_faults_are_seen():
    outcomes = list(damaged_files.outcomes("stand-ins", 7, seed=32, patience=1))
    results = Counter(outcome.result for outcome in outcomes)
    assert set(results) >= {"died", "hung", "traceback", "refused"} and sum(results.values()) == 7
    assert sum(outcome.is_fault for outcome in outcomes) >= results["died"] + results["hung"] + results["traceback"]


@pytest.mark.parametrize(("must_notice", "is_fault"), [(True, True), (False, False)])
def test_other_voxels_are_a_fault_where_a_checksum_covers_them(must_notice, is_fault):
    assert damaged_files.Outcome(0, "other", "", must_notice).is_fault == is_fault


def test_damage_follows_from_its_seed_and_changes_a_file():
    content = bytes(range(256)) * 4
    made = [damaged_files.damaged(content, np.random.default_rng(seed)) for seed in range(300)]
    again = [damaged_files.damaged(content, np.random.default_rng(seed)) for seed in range(300)]
    assert made == again
    changed = [(new, start, end) for new, start, end, _ in made if new != content]
    assert len(changed) > 250
    for new, start, end in changed:  # nothing before the damage, nor after it
        assert new[:start] == content[:start] and new.endswith(content[end:])
