"""Training by options, from nothing to the files it leaves."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from DNetRegistrationLib.core.errors import DNetError, FileError, OptionError, PackageError, RunError
from DNetRegistrationLib.networks.weights import load_weights, save_weights
from DNetRegistrationLib.training import recipes, session
from DNetRegistrationLib.training.dataset import BoneDataset, save_dataset
from DNetRegistrationLib.training.recipes import KINDS, recipe_for
from DNetRegistrationLib.training.session import TrainingOptions, train
from training_stand_ins import BLOBS, Small, SmallWithLoss

QUICK = {"bones": BLOBS, "iterations": 6, "batch": 4, "micro_batch": 2}
PLAIN = {"pose_pretraining": 0.0, "resolution_schedule": (0.0, 0.0, 0.0)}


@pytest.fixture
def small_dnet(small, monkeypatch):
    """Its weights can be loaded, too."""
    monkeypatch.setattr(Small, "name", "dnet")
    monkeypatch.setattr("DNetRegistrationLib.networks.registry.build", lambda name: Small())


def quick_options(blobs, folder, network="dnet", changes=None, **more):
    short = {
        "device": "cpu",
        "dataset": blobs,
        "jobs": 1,
        "log_every": 2,
        "validate_every": 3,
        "validation_pairs": 2,
    }
    return TrainingOptions(network, folder, changes={**QUICK, **(changes or {})}, **{**short, **more})


@pytest.fixture
def options(blobs):
    """Makes options for a quick run in a folder."""
    return partial(quick_options, blobs)


def test_iterations_that_fit_a_time(small, options, tmp_path, monkeypatch):
    """By hand: a tenth of the iterations of 4 s, four tenths of 1 s, half of 2 s, 1.8 s each; 180 s are 100 of them."""
    costs, asked = {8: 4.0, 4: 1.0, 1: 2.0}, []

    def cost(self, iteration, clock):
        asked.append((iteration, self.recipe.reduction_at(iteration)))
        warming = len(asked) % 3 == 1
        return 1000.0 if warming else costs[asked[-1][1]]

    monkeypatch.setattr(session.Trainer, "cost", cost)
    given = options(tmp_path / "none", changes={"resolution_schedule": (0.1, 0.5, 0.5), "iterations": 7})
    assert session.iterations_within(given, 180.0) == 100
    assert asked == 3 * [(0, 8)] + 3 * [(100, 4)] + 3 * [(500, 1)]
    asked.clear()
    assert session.iterations_within(given, 0.001) == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_slow_precision_is_told_before_training(small, options, tmp_path, monkeypatch, precision):
    monkeypatch.setattr(session, "slow_precision", lambda device, dtype: f"slow: {dtype} on {device}")
    said = []
    train(options(tmp_path, changes={"precision": precision}, minutes=0), report=said.append)
    assert said[0] == f"slow: torch.{precision} on cpu" and "micro-batches" in said[1]


@pytest.fixture(scope="module")
def begun(blobs, tmp_path_factory):
    """The folder of a run that has begun."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "build", lambda name: Small())
        patch.setattr("DNetRegistrationLib.training.pose_stage._STEPS", 30)
        train(
            TrainingOptions("dnet", folder, changes=QUICK, dataset=blobs, device="cpu", minutes=0, validation_pairs=2)
        )
    return folder


@pytest.fixture(scope="module")
def whole(blobs, tmp_path_factory):
    """The folder of a run that went through, of `options` as they are."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "build", lambda name: Small(int(torch.rand(1) * 1000)))
        patch.setattr("DNetRegistrationLib.training.pose_stage._STEPS", 30)
        train(quick_options(blobs, folder))
    return folder


def weights(folder):
    return torch.load(Path(folder) / "weights.pt", weights_only=True)["state"]


def card_of(folder):
    return json.loads((folder / "weights.json").read_text())


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_and_what_its_card_says(small, options, tmp_path):
    said, folder = [], tmp_path / "runs" / "one"
    chosen = options(folder, changes={"learning_rate": 0.01}, seed=3, plot=True)
    result = train(chosen, report=said.append)
    assert (result.weights, result.finished, result.iterations, result.rank) == (folder / "weights.pt", True, 6, 0)
    assert said[0].startswith(
        "small (4,524 parameters), recipe fast: 6 iterations of 4 pairs in micro-batches of 2, on"
    )
    assert "7 bones, 1 more for validation" in said[0]
    names = ["checkpoint.pt", "curves.png", "log.csv", "validation.csv", "weights.json", "weights.pt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    card = card_of(folder)
    recipe = replace(recipe_for("fast", "dnet"), **QUICK, learning_rate=0.01)
    assert card["recipe"] == json.loads(json.dumps(vars(recipe)))
    assert (card["seed"], card["iterations"], card["start"]) == (3, 6, None)
    assert card["dataset"]["bones"] == BLOBS and card["dataset"]["kinds"] == KINDS
    assert set(card["validation"]) == set(result.validation) == {"whole", "cut"}
    # What to do to train so again can be done, and tells nothing of this machine.
    assert str(tmp_path) not in json.dumps(card)
    again = eval(card["command"], {"TrainingOptions": TrainingOptions})
    assert again.decided_recipe() == recipe
    assert (again.network, again.seed, again.dataset, again.start, again.output) == ("dnet", 3, "blobs.pt", None, "one")
    # Weights are trained on from where the recipe ended: all rotations, the full resolution, a lower rate.
    on = eval(card["go_on"], {"TrainingOptions": TrainingOptions})
    assert on.decided_recipe() == replace(recipe, **PLAIN, learning_rate=0.0005)
    assert (on.seed, on.dataset, on.start, on.output) == (3, "blobs.pt", "weights.pt", "one-on")


@pytest.mark.slow
def test_weights_that_are_trained_on_keep_their_history_and_see_other_pairs(small_dnet, options, tmp_path, monkeypatch):
    seeds, pairs = [], session._pairs
    monkeypatch.setattr(session, "_pairs", lambda bones, recipe, seed: seeds.append(seed) or pairs(bones, recipe, seed))
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for folder, start in ((first, None), (second, first / "weights.pt"), (third, second / "weights.pt")):
        train(options(folder, start=start, seed=5))
    assert seeds[0] == 5 and len(set(seeds)) == 3
    cards = [card_of(folder) for folder in (first, second, third)]
    rates = [eval(card["go_on"], {"TrainingOptions": TrainingOptions}).changes["learning_rate"] for card in cards]
    assert rates == [0.0001, 0.0001, 0.0001]  # a twentieth of the recipe's, once
    assert cards[2]["start"] == cards[1] and cards[1]["start"] == cards[0] and cards[0]["start"] is None


def test_the_same_options_go_on_to_the_same_result(small, options, whole, tmp_path):
    said = []
    result = train(options(tmp_path / "short", minutes=0), report=said.append)
    assert not result.finished and result.iterations == 0 and "the time is up" in said[-1]
    assert train(options(tmp_path / "short"), report=said.append).finished
    assert any("going on from iteration 0" in line for line in said)
    assert equal(weights(tmp_path / "short"), weights(whole))
    # Another seed is another network, other pairs and another split.
    train(options(tmp_path / "other", seed=1))
    assert not equal(weights(tmp_path / "other"), weights(whole))


@pytest.mark.slow
def test_more_iterations_train_on_where_they_shift_no_stages(small, options, whole, tmp_path):
    train(options(tmp_path / "plain", changes=PLAIN))
    assert train(options(tmp_path / "plain", changes={**PLAIN, "iterations": 8})).iterations == 8
    # Stages are shares of all iterations: poses would begin anew, and undo what has been learned of the motion.
    train(options(tmp_path / "short", minutes=0))
    shutil.copytree(whole, tmp_path / "whole")
    for folder in ("short", "whole"):
        before = weights(tmp_path / folder)
        for iterations in (4, 8):
            with pytest.raises(FileError, match=f"iterations 6, not {iterations}; give that run's"):
                train(options(tmp_path / folder, changes={"iterations": iterations}))
        assert equal(weights(tmp_path / folder), before)


def test_smaller_micro_batches_where_memory_is_short(small, options, tmp_path):
    train(options(tmp_path, minutes=0))
    train(options(tmp_path, changes={"micro_batch": 1}))
    card = card_of(tmp_path)
    assert (card["iterations"], card["recipe"]["micro_batch"]) == (6, 1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"changes": {"batch": 8}}, "batch 4, not 8"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"recipe": "paper"}, "recipe fast, not paper"),
        ({"changes": {"learning_rate": 0.5}}, "learning_rate 0.002, not 0.5"),
        ({"scan_spacing": (0.01, 0.01, 0.02)}, "scan_spacing None, not 0.01,0.01,0.02"),
        ({"network": "sed"}, "network dnet, not sed"),
        ({"changes": {"optimizer": "sgd"}}, "optimizer muon, not sgd"),
    ],
)
def test_other_settings_do_not_go_on(more, words, small, options, begun):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    with pytest.raises(FileError, match=f"{words}; .*another folder"):
        train(options(begun, **more))
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_other_bones_do_not_go_on(small, options, blobs, begun, tmp_path):
    content = torch.load(blobs, weights_only=True)
    other = BoneDataset(content["plain"].flip(1), content["contrast"], content["spacing"], content["names"][::-1])
    save_dataset(other, tmp_path / "other.pt")
    with pytest.raises(FileError, match="its checkpoint is of a run with dataset"):
        train(options(begun, dataset=tmp_path / "other.pt"))


@pytest.mark.slow
def test_start_from_weights(small_dnet, options, tmp_path, monkeypatch):
    network = Small(7)
    save_weights(network, tmp_path / "start.pt", {})
    # The first iteration's learning rate is so small that nothing moves.
    still, loaded = {"learning_rate": 1e-9, "weight_decay": 0.0}, []
    monkeypatch.setattr(session, "load_weights", lambda path: (loaded.append(path), load_weights(path))[1])
    train(options(tmp_path / "run", start=tmp_path / "start.pt", changes=still))
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, network.state_dict()[key], atol=1e-6, rtol=0)
    assert loaded == [tmp_path / "start.pt"]  # once
    card = card_of(tmp_path / "run")
    assert card["start"]["sha256"] == load_weights(tmp_path / "start.pt").card["sha256"]
    # What is learned already needs no easy start, unless it is asked for.
    assert {name: card["recipe"][name] for name in recipes.NO_CURRICULUM} == {
        "initial_angle": 180, "angle_curriculum": 0, "pose_pretraining": 0, "resolution_schedule": [0, 0, 0],
    }  # fmt: skip
    easy = {**still, "initial_angle": 60.0, "angle_curriculum": 0.5}
    train(options(tmp_path / "easy", start=tmp_path / "start.pt", changes=easy))
    assert card_of(tmp_path / "easy")["recipe"]["initial_angle"] == 60
    with open(tmp_path / "easy" / "log.csv", newline="") as stream:
        assert [float(line["largest_angle_deg"]) for line in csv.DictReader(stream)] == pytest.approx([100, 180, 180])
    with pytest.raises(FileError, match="start"):
        train(options(tmp_path / "run", changes=still))
    with pytest.raises(FileError, match=r"start\.pt: has weights of 'dnet', not of 'me'") as raised:
        train(options(tmp_path / "me", network="me", start=tmp_path / "start.pt"))
    assert raised.value.setting.quantity == "start"
    with pytest.raises(DNetError, match="no such weights file"):
        train(options(tmp_path / "no", start=tmp_path / "no.pt"))


@pytest.mark.slow
def test_synthetic_bones_are_made_once(small, options, tmp_path, monkeypatch):
    made = []

    def synthetic_dataset(count, seed, *, kinds, processes, device, **_):
        made.append((count, seed, kinds, processes, str(device)))
        bones = torch.full((2, count, 40, 40, 40), 100, dtype=torch.uint8)
        return BoneDataset(*bones, 0.222, [str(number) for number in range(count)])

    monkeypatch.setattr(session, "synthetic_dataset", synthetic_dataset)
    for folder in ("a", "b"):
        chosen = {"kinds": ("tibia", "irregular")}
        train(options(tmp_path / folder, changes=chosen, dataset=tmp_path / "bones.pt", seed=4))
    assert made == [(BLOBS, 4, {"tibia": KINDS["tibia"], "irregular": KINDS["irregular"]}, 1, "cpu")]
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "words", "quantity", "value"),
    [
        ({"bones": 9}, "holds 8 bones, not 9; use 8", "bones", "8"),
        ({"kinds": ("tibia", "long")}, "kinds tibia,long,flat,irregular, not tibia,long", "kinds",
         "tibia,long,flat,irregular"),
    ],
)  # fmt: skip
def test_a_file_of_other_bones(changes, words, quantity, value, small, options, tmp_path):
    with pytest.raises(FileError, match=words) as raised:
        train(options(tmp_path, changes=changes))
    assert (raised.value.setting.quantity, raised.value.setting.value) == (quantity, value)


def test_scans_of_the_user(small, tmp_path, monkeypatch):
    calls = []

    def dataset_of_scans(folder, *, scan_spacing, device, progress, tell):
        tell("passed over")
        calls.append((folder, scan_spacing))
        made = {"folder": str(folder)}
        return BoneDataset(*torch.full((2, 5, 40, 40, 40), 100, dtype=torch.uint8), 0.222, list("abcde"), made=made)

    monkeypatch.setattr(session, "dataset_of_scans", dataset_of_scans)
    changes = {"iterations": 2, "batch": 4, "micro_batch": 2}
    scans = tmp_path / "mice"
    said = []
    train(
        TrainingOptions(
            "dnet", tmp_path / "run", changes=changes, scans=scans, scan_spacing=(0.01,), device="cpu",
            validation_pairs=4,
        ),
        report=said.append,
    )  # fmt: skip
    assert said[0] == "passed over"
    assert calls == [(scans, (0.01,))]
    card = card_of(tmp_path / "run")
    assert card["dataset"]["folder"] == "mice" and card["dataset"]["bones"] == 5
    assert "kinds" not in eval(card["command"], {"TrainingOptions": TrainingOptions}).changes


@pytest.mark.slow
def test_a_network_sees_its_inputs_first(options, tmp_path, monkeypatch):
    fitted = []
    monkeypatch.setattr(session, "build", lambda name: SmallWithLoss())
    monkeypatch.setattr(SmallWithLoss, "pairs_to_fit", 5)
    monkeypatch.setattr(SmallWithLoss, "fit", lambda self, batch: fitted.append(len(batch.fixed)))
    for _ in range(2):  # not again when going on
        train(options(tmp_path, network="equivariant"))
    assert fitted == [5]
    assert "matches" in (tmp_path / "log.csv").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"device": "mps"}, "device 'mps' is not available"),
        ({"changes": {"batch": 3}}, "micro-batches of 2"),
        ({"recipe": "slow"}, "no recipe 'slow'; choose one of paper, fast"),
        ({"network": "resnet"}, "no network 'resnet'"),
        ({"changes": {"iterations": 0}}, "iterations is 0; give a whole number from 1"),
        ({"changes": {"iterations": 2.5}}, "iterations is 2.5; give a whole number from 1"),
        ({"changes": {"keep": 1.5}}, "keep is 1.5; give a number from 0.01 to 1"),
        ({"changes": {"keep": "much"}}, "keep is much; give a number from 0.01 to 1"),
        ({"changes": {"patience": 1}}, "a recipe has no 'patience'; change some of iterations, batch"),
        ({"scans": "mice"}, "dataset: is of synthetic bones, not of scans"),
        ({"scans": "mice", "dataset": None}, "bones: is of synthetic bones"),
        ({"changes": {"initial_angle": 60.0}}, "initial_angle and angle_curriculum belong together"),
        ({"changes": {"angle_curriculum": 0.5}}, "initial_angle and angle_curriculum belong together"),
        ({"changes": {"resolution_schedule": (None, None, 0.5)}}, "resolution_schedule 0.19, 0.64, 0.5 falls"),
        ({"changes": {"kinds": ("tibia", "antler")}}, "'antler' is unknown; choose from tibia, long, flat, irregular"),
        ({"changes": {"loss": "matching"}}, "loss: 'matching' is not for the network 'dnet'; leave it out"),
        (
            {"network": "equivariant", "changes": {"loss": "paper"}},
            "loss: 'paper' is not for the network 'equi",
        ),
        ({"network": "equivariant", "recipe": "paper"}, "take 'fast'"),
        ({"network": "me", "changes": {"resolution_schedule": (0.1, 0.2, 0.3)}}, "'me' sees whole cubes alone; leave"),
        ({"network": "equivariant", "changes": {"resolution_schedule": (0.1, 0.2, 0.3)}}, "sees whole cubes alone"),
        ({"network": "me", "changes": {"pose_pretraining": 0.5}}, "'me' has no pose of each scan; leave it out"),
    ],
)
def test_options_that_cannot_be(more, words, small, options, tmp_path):
    with pytest.raises(OptionError, match=words):
        train(options(tmp_path / "run", **more))


def test_an_item_of_the_resolution_schedule_alone_can_be_changed(options, tmp_path):
    chosen = options(tmp_path, changes={"resolution_schedule": (None, 0.65, None)})
    assert chosen.decided_recipe().resolution_schedule == (0.19, 0.65, 0.69)


def test_a_start_lowers_the_learning_rate_by_itself(options, tmp_path):
    """At the recipe's own six iterations spoil the D-net that ships."""
    assert options(tmp_path, start="dnet").decided_recipe().learning_rate == pytest.approx(0.05 * 2e-3)
    chosen = options(tmp_path, start="dnet", changes={"learning_rate": 3e-4})
    assert chosen.decided_recipe().learning_rate == 3e-4
    assert options(tmp_path).decided_recipe().learning_rate == 2e-3


@pytest.mark.parametrize("placement", ["center", "bone"])
def test_a_start_keeps_cubes_where_its_weights_saw_them(small_dnet, options, tmp_path, placement):
    save_weights(Small(7), tmp_path / "start.pt", {"recipe": {"placement": placement}})
    for recipe in recipes.RECIPES:
        on = options(tmp_path, recipe=recipe, start=tmp_path / "start.pt")
        assert on.decided_recipe().placement == placement
    chosen = options(tmp_path, start=tmp_path / "start.pt", changes={"placement": "center"})
    assert chosen.decided_recipe().placement == "center"


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(small, options, whole, tmp_path, monkeypatch):

    def killed(*arguments):
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("DNetRegistrationLib.training.run.checkpoints.write", killed)
        with pytest.raises(SystemExit):
            train(options(tmp_path / "short"))
    assert (tmp_path / "short" / "log.csv").exists() and not (tmp_path / "short" / "checkpoint.pt").exists()
    assert train(options(tmp_path / "short")).finished
    assert equal(weights(tmp_path / "short"), weights(whole))


def test_ctrl_c_before_the_first_iteration_is_heard_and_gone_on_from(small, options, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("DNetRegistrationLib.training.run.LINE_SECONDS", 0.0)
    monkeypatch.setattr("DNetRegistrationLib.training.pose_stage._made", {})
    said = []

    def report(line):
        said.append(line)
        if " of the head" in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(options(tmp_path / "short"), report=report)
    assert said[-1] == "before the first iteration: 0 % of the head"
    assert (tmp_path / "short" / "checkpoint.pt").exists() and not (tmp_path / "short" / "weights.pt").exists()
    assert train(options(tmp_path / "short"), report=said.append).finished
    assert any("going on from iteration 0" in line for line in said)
    assert equal(weights(tmp_path / "short"), weights(whole))


def test_a_folder_with_something_else_in_it(small, options, tmp_path):
    (tmp_path / "weights.pt").write_text("precious")
    with pytest.raises(FileError, match=r"holds a weights\.pt, but no checkpoint"):
        train(options(tmp_path))
    assert (tmp_path / "weights.pt").read_text() == "precious"


def test_a_checkpoint_that_does_not_fit(small, options, tmp_path):
    train(options(tmp_path, minutes=0))
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    stored["state"]["network"].popitem()
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(FileError, match=r"checkpoint\.pt: is of another network or version; choose another folder"):
        train(options(tmp_path))


def test_a_torch_without_muon_is_told_at_once(small, options, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    monkeypatch.setattr(session, "load_dataset", None)
    with pytest.raises(PackageError, match=r"has no Muon; update to 2\.9 or later"):
        train(options(tmp_path / "run"))


def test_curves_need_matplotlib(small, options, tmp_path, monkeypatch):
    monkeypatch.setattr("DNetRegistrationLib.core.pictures.find_spec", lambda name: None)
    with pytest.raises(PackageError, match="a plot of the curves needs matplotlib"):
        train(options(tmp_path / "run", plot=True))


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 9 GiB", "can't allocate memory: you tried"])
def test_too_little_memory_says_what_to_do(text, small, options, tmp_path, monkeypatch):
    def forward(self, fixed, moving):
        raise RuntimeError(text)

    monkeypatch.setattr(Small, "forward", forward)
    with pytest.raises(RunError, match="not enough memory for 2 pairs at once") as raised:
        train(options(tmp_path))
    assert raised.value.setting.quantity == "micro_batch"
