"""``dnet-registration train``, from its arguments to the files it leaves."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import fields, replace

import places
import pytest
import torch
from command import run
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.cli.train import command_line, training_options
from DNetRegistrationLib.networks.weights import available_weights, load_weights, save_weights
from DNetRegistrationLib.training import recipes, session
from DNetRegistrationLib.training.recipes import current_names, recipe_for
from DNetRegistrationLib.training.session import TrainingOptions
from training_stand_ins import BLOBS

#: Old and new spelling of the same options.
SPELLINGS = {
    "part": "micro-batch",
    "clip": "grad-clip",
    "average": "ema-decay",
    "first-angle": "initial-angle",
    "widening": "angle-curriculum",
    "posing": "pose-pretraining",
}


def command(blobs, folder, *more, network="dnet"):
    words = f"train --network {network} --bank {blobs} --bones {BLOBS} --output {folder} --device cpu --jobs 1 "
    words += "--iterations 6 --batch 4 --part 2 --log-every 2 --validate-every 3 --validation-pairs 4"
    return [*shlex.split(words), *more]


def parsed(line):
    return training_options(build_parser().parse_args(shlex.split(line)))


def test_options_are_those_of_the_function():
    assert parsed("train --network me --output x --jobs 3") == TrainingOptions("me", "x", jobs=3)
    values = {
        "network": "dnet", "output": "out", "recipe": "paper", "start": "w.pt", "seed": 3, "scans": "mice",
        "scan_spacing": (0.01, 0.01, 0.02), "dataset": "bones.pt", "device": "cpu", "jobs": 2, "threads": 3,
        "minutes": 1.5, "log_every": 7, "validate_every": 8, "validation_pairs": 9, "checkpoint_minutes": 2.5,
    }  # fmt: skip
    assert {*values, "changes", "half", "plot"} == {one.name for one in fields(TrainingOptions)}
    text = {**values, "scan_spacing": "0.01,0.01,0.02"}
    line = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in text.items())
    assert parsed(f"train {line} --half --plot") == TrainingOptions(**values, half=True, plot=True)


@pytest.mark.parametrize("network", recipes.NETWORKS)
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_command_tells_all_of_its_recipe(name, network):
    if (name, network) == ("paper", "equivariant"):
        return
    recipe = replace(recipe_for(name, network), micro_batch=4, contrast=0.25)
    changes = {field: getattr(recipe, field) for field in recipes.recipe_options()}
    options = TrainingOptions(network, "x", name, changes, seed=2, scan_spacing=(0.01, 0.01, 0.02), dataset="b.pt")
    again = parsed(command_line(options).removeprefix("dnet-registration "))
    assert replace(again, jobs=None) == options


def test_options_keep_their_old_spelling():
    old = " ".join(f"--{name} {2 if name == 'part' else 1}" for name in SPELLINGS)
    new = " ".join(f"--{name} {2 if name == 'micro-batch' else 1}" for name in SPELLINGS.values())
    old, new = old.replace("--average 1", "--average 0.5"), new.replace("--ema-decay 1", "--ema-decay 0.5")
    start = "train --network dnet --output x --jobs 1"
    assert parsed(f"{start} --bank b.pt {old}") == parsed(f"{start} --dataset b.pt {new}")
    assert len(parsed(f"{start} {new}").changes) == len(SPELLINGS)
    shares = parsed(f"{start} --coarsest 0.1 --coarse 0.7").changes["resolution_schedule"]
    assert shares == (0.1, None, 0.7)
    assert parsed(f"{start} --resolution-schedule 0.1,0.2,0.7").changes["resolution_schedule"] == (0.1, 0.2, 0.7)


@pytest.mark.parametrize("name", available_weights())
def test_cards_that_shipped_earlier_are_understood(name):
    """Their commands and recipes have names of an earlier version."""
    card = load_weights(name).card
    command, go_on = (parsed(card[key].removeprefix("dnet-registration ")) for key in ("command", "go_on"))
    stored, recipe = current_names(card["recipe"]), vars(command.decided_recipe())
    if stored["decay"] is True:  # of a version that knew one way for the learning rate to fall
        stored["decay"] = "cosine"
    assert {field: recipe[field] for field in stored} == stored
    assert go_on.start == "weights.pt" and go_on.dataset == command.dataset is not None


def test_a_run_and_what_it_says(small, blobs, tmp_path, capsys):
    folder = tmp_path / "one"
    assert main(command(blobs, folder, "--plot", "--seed", "3", "--minutes", "0")) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("small (4,524 parameters), recipe fast: 6 iterations of 4 pairs")
    assert said[-2] == "the time is up before all iterations were made; the same options go on from there"
    assert said[-1].startswith("weights and model card are in ") and said[-1].endswith("align --weights")
    card = json.loads((folder / "weights.json").read_text())
    assert parsed(card["command"].removeprefix("dnet-registration ")).output == "one"
    assert parsed(card["go_on"].removeprefix("dnet-registration ")).start == "weights.pt"
    assert (folder / "curves.png").is_file()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--batch", "3"], "micro-batches of 2; give another size (--micro-batch)"),
        (["--recipe", "slow"], "slow"),
        (["--iterations", "0"], "--iterations"),
        (["--keep", "1.5"], "--keep"),
        (["--kinds", "tibia,antler"], "'antler' is unknown; choose from tibia, long, flat, irregular"),
        (
            ["--coarse", "0.5"],
            "resolution_schedule 0.19, 0.64, 0.5 falls; give shares of which none is less than the last "
            "(--resolution-schedule)",
        ),
        (["--first-angle", "60"], "and for how long (--angle-curriculum)"),
        (["--widening", "0.5"], "and for how long (--initial-angle)"),
        (["--scans", "mice"], "dataset: is of synthetic bones, not of scans; leave one of the two out (--dataset)"),
        (["--resolution-schedule", "0.5"], "'0.5' is not three shares as in 0.2,0.6,0.7"),
        (["--bones", "9"], "holds 8 bones, not 9; use 8, or another file (--bones 8)"),
        (["--device", "abacus"], 'device \'abacus\' is not available here; use "cpu" or "auto" (--device)'),
    ],
)
def test_bad_usage(more, words, small, blobs, tmp_path, capsys):
    assert main(command(blobs, tmp_path / "run", *more)) == 2
    said = capsys.readouterr().err
    assert said.startswith("dnet-registration: error: ") and said.count("\n") == 1
    assert words in said


def test_training_is_imported_without_other_packages():
    code = """
        import sys
        for name in ("scipy", "SimpleITK", "tqdm", "matplotlib"):
            sys.modules[name] = None
        import DNetRegistrationLib.cli.main, DNetRegistrationLib.training.session
    """
    assert run(code=code).returncode == 0


# From a copy of the source tree, a real bone or two (coarse), and a real network.
BARE = """
    import sys
    for name in ("scipy", "SimpleITK", "tqdm", "matplotlib"):
        sys.modules[name] = None
    from functools import partial
    from DNetRegistrationLib.cli import main
    from DNetRegistrationLib.training import dataset, session
    session.synthetic_dataset = partial(dataset.synthetic_dataset, spacing=0.3)
    sys.exit(main.main())
"""


@pytest.mark.slow
def test_torch_and_numpy_are_enough(tmp_path):
    shutil.copytree(places.LIBRARY, tmp_path / "DNetRegistrationLib")
    words = "train --network me --bones 2 --iterations 1 --batch 1 --validation-pairs 1 --output runs/me --jobs 1"
    words += " --log-every 1 --cut-share 0"
    bare = {key: value for key, value in places.environment().items() if key != "PYTHONPATH"}
    result = run(*words.split(), code=BARE, cwd=tmp_path, env=bare)
    assert (result.returncode, result.stderr) == (0, "")
    assert load_weights(tmp_path / "runs" / "me" / "weights.pt").network.name == "me"


# A run that would take hours.
LONG = """
    import sys
    from DNetRegistrationLib.cli import main
    from DNetRegistrationLib.training import pose_stage, run, session
    from training_stand_ins import Small
    session.build = lambda name: Small()
    run.LINE_SECONDS = 0
    pose_stage._STEPS = 30
    sys.exit(main.main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_leaves_a_checkpoint_and_weights(number, blobs, tmp_path):
    words = command(blobs, tmp_path / "run", "--iterations", "1000000", "--log-every", "1")
    start = [sys.executable, "-c", textwrap.dedent(LONG), *words]
    with subprocess.Popen(
        start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=places.environment()
    ) as process:
        try:
            while not (line := process.stdout.readline()).startswith("2/1000000"):
                assert line, process.stderr.read()
            process.send_signal(number)
            process.send_signal(number)
            out, error = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, error) == (130, "dnet-registration: interrupted\n")
    assert "the same options go on from there" in out
    card = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert card["iterations"] >= 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_torchrun(blobs, tmp_path):
    """Two processes from the command line, a real network: the weights of one process, to rounding."""
    words = "--iterations 1 --batch 2 --part 1 --validation-pairs 2 --cut-share 0 --average 0 --optimizer sgd".split()
    torch.manual_seed(0)
    save_weights(network := session.build("me"), tmp_path / "first.pt", {})
    words += ["--learning-rate", "0.1", "--start", str(tmp_path / "first.pt")]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Without the dashes torchrun takes --start for its own --start-method.
    two = [*start, "-m", "DNetRegistrationLib", "--", *command(blobs, tmp_path / "two", *words, network="me")]
    result = subprocess.run(two, capture_output=True, text=True, env=places.environment(), timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("weights and model card are in") == 1
    assert "in each of 2 processes" in result.stdout
    assert main(command(blobs, tmp_path / "one", *words, network="me")) == 0
    alone, together = (
        torch.load(tmp_path / name / "weights.pt", weights_only=True)["state"] for name in ("one", "two")
    )
    moved = 0.0
    for (key, value), first in zip(alone.items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(together[key], value, rtol=1e-4, atol=1e-6)
        moved = max(moved, float((value - first).abs().max()))
    assert moved > 1e-3
    assert json.loads((tmp_path / "two" / "weights.json").read_text())["processes"] == 2
