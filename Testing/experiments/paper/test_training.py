"""What networks are trained on in an evaluation, and for how long."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from DNetRegistrationLib.core.errors import FileError, ScanError
from DNetRegistrationLib.experiments.paper import training as paper_training
from DNetRegistrationLib.experiments.paper.cohort import find_bones, write_bones
from DNetRegistrationLib.experiments.paper.plan import PlannedNetwork
from DNetRegistrationLib.experiments.paper.settings import EvaluationOptions
from DNetRegistrationLib.experiments.paper.training import make_dataset, train_all
from DNetRegistrationLib.networks.weights import FOLDER
from DNetRegistrationLib.training import scanned_bones as scanned_bones


@pytest.fixture(scope="module")
def bones(tmp_path_factory):
    folders = write_bones(tmp_path_factory.mktemp("bones"), 4, 0, 24, 0.2)
    return {bone.name: bone for bone in find_bones(folders).bones}


def test_both_scans_of_a_bone_lie_on_each_other(bones, tmp_path, monkeypatch):
    """By their transform, wherever it is."""
    monkeypatch.setattr(scanned_bones, "align", None)
    bone = bones["mouse001"]
    truth = tmp_path / "truth.tfm"
    bone.transform.rename(truth)
    dataset = make_dataset([replace(bone, transform=truth)], True)
    truth.rename(bone.transform)
    assert dataset.names == ["mouse001"]
    plain, contrast = dataset.values(0), dataset.values(0, contrast=True)
    correlation = np.corrcoef(plain.flatten()[::7], contrast.flatten()[::7])[0, 1]
    assert correlation > 0.6
    # In no other way, such as turned by half a turn.
    assert np.corrcoef(plain.flatten()[::7], contrast.flip(0, 1).flatten()[::7])[0, 1] < correlation - 0.2


def test_without_contrast_agent_there_is_one_scan(bones):
    dataset = make_dataset([bones["mouse001"]], False)
    assert torch.equal(dataset.plain, dataset.contrast) and dataset.names == ["mouse001"]


def test_scans_that_do_not_lie_on_each_other_are_bones_of_their_own(bones, monkeypatch):
    def unknown(*given):
        raise ScanError("could not be aligned for sure")

    monkeypatch.setattr(scanned_bones, "_between", unknown)
    dataset = make_dataset([bones["mouse001"], bones["mouse003"]], True)
    assert dataset.names == ["mouse001_pre.nrrd", "mouse001_post.nrrd", "mouse003_pre.nrrd", "mouse003_post.nrrd"]
    assert torch.equal(dataset.plain, dataset.contrast)


def test_a_budget_of_processor_time_is_measured_once(bones, tmp_path, monkeypatch):
    measured, runs = [], []

    def within(options, seconds):
        measured.append((options.network, options.changes["batch"], seconds))
        return 17

    def interrupted(options, *, report):
        runs.append((options.changes["iterations"], options.changes["batch"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(paper_training, "iterations_within", within)
    monkeypatch.setattr(paper_training, "train", interrupted)
    options = EvaluationOptions(
        output=tmp_path, device="cpu", processor_minutes=1.5, iterations=50, batch=8, own_iterations=5, own_batch=4
    )
    network = PlannedNetwork("S1", "equivariant")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_all({network: None}, bones, options, tmp_path)
    # What goes on has the iterations that were measured before it began.
    assert measured == [("equivariant", 8, 90.0)] and runs == [(17, 8), (17, 8)]
    with pytest.raises(KeyboardInterrupt):
        train_all({PlannedNetwork("S1", "equivariant-own"): None}, bones, options, tmp_path)
    assert len(measured) == 1 and runs[2] == (5, 4)
    for suffix in (".pt", ".json"):
        shutil.copy(FOLDER / f"equivariant{suffix}", tmp_path / "S1" / "equivariant" / f"weights{suffix}")
    card = tmp_path / "S1" / "equivariant" / "weights.json"
    card.write_text(card.read_text().replace('"iterations": 300', '"iterations": 17'))
    train_all({network: None}, bones, options, tmp_path)
    assert len(runs) == 3
    (tmp_path / "S1" / "equivariant" / paper_training.MEASURED).write_text("{}")
    with pytest.raises(FileError, match=r"measured\.json: cannot be read, or is damaged"):
        train_all({network: None}, bones, options, tmp_path)


def test_a_quick_evaluation_waits_for_no_head(bones, tmp_path, monkeypatch):
    """It learns for a minute and a half of a core, for each of four networks and each strategy."""
    runs = []

    def trained(options, *, report):
        runs.append(options.decided_recipe())
        raise KeyboardInterrupt

    monkeypatch.setattr(paper_training, "train", trained)
    for quick in (True, False):
        options = EvaluationOptions(output=tmp_path, device="cpu", quick=quick).resolved()
        with pytest.raises(KeyboardInterrupt):
            train_all({PlannedNetwork("S1", "dnet"): None}, bones, options, tmp_path)
    assert [recipe.pose_iterations for recipe in runs] == [0, 460]


def test_every_network_gets_its_budget_and_its_half(bones, tmp_path, monkeypatch):
    runs = []

    def trained(options, *, report):
        runs.append(options)
        run = Path(options.output)
        run.mkdir(parents=True)
        # Any weights of the right kind will do.
        for suffix in (".pt", ".json"):
            shutil.copy(FOLDER / f"equivariant{suffix}", run / f"weights{suffix}")

    monkeypatch.setattr(paper_training, "train", trained)
    budgets = {"iterations": 50, "batch": 8, "own_iterations": 5, "own_batch": 4}
    options = EvaluationOptions(output=tmp_path, recipe="paper", seed=3, device="cpu", **budgets)
    wanted = [PlannedNetwork("S1", "equivariant"), PlannedNetwork("S4", "equivariant-own")]
    ready = train_all(dict.fromkeys(wanted), bones, options, tmp_path)
    assert [Path(run.output).relative_to(tmp_path).as_posix() for run in runs] == [
        "S1/equivariant", "S4/equivariant-own",
    ]  # fmt: skip
    first, second = runs
    assert [(run.changes["iterations"], run.changes["batch"]) for run in runs] == [(50, 8), (5, 4)]
    for run, contrast, names in ((first, 0.5, ("mouse001", "mouse003")), (second, 0.0, ("mouse002", "mouse004"))):
        assert run.seed == 3
        common = {"placement": "center", "cut_share": 0, "contrast": contrast, "bones": 2}
        assert common.items() <= run.changes.items()
        # The equivariant network has no recipe of the paper's.
        assert run.recipe == "fast"
        stored = torch.load(run.dataset, weights_only=True)
        # S1 trains on A; S4 on what is without contrast agent of B.
        assert tuple(stored["names"]) == names
        assert torch.equal(stored["plain"], stored["contrast"]) == (contrast == 0)
    assert not any(one.given for one in ready.values())
    # Weights that are given are used.
    given = dict.fromkeys(wanted, FOLDER / "equivariant.pt")
    again = train_all(given, bones, options, tmp_path / "other")
    assert len(runs) == 2 and all(one.given for one in again.values())
    # The paper's networks get the recipe and the precision that were asked for.
    with pytest.raises(FileError, match="weights of 'equivariant', not of 'dnet'"):
        train_all({PlannedNetwork("S1", "dnet"): None}, bones, replace(options, precision="bfloat16"), tmp_path)
    assert [(run.network, run.recipe, run.changes.get("precision")) for run in (runs[2], first)] == [
        ("dnet", "paper", "bfloat16"), ("equivariant", "fast", None),
    ]  # fmt: skip
