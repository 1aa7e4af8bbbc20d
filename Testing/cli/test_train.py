"""``dnet-registration train``, from its arguments to the files it leaves."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import places
import pytest
import torch
from DNetRegistrationLib.cli.main import build_parser, main
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.networks.weights import load_weights, save_weights
from DNetRegistrationLib.training import command as training_command
from DNetRegistrationLib.training import recipes, throughput
from DNetRegistrationLib.training.bank import Bank, save_bank, stored
from DNetRegistrationLib.training.bank_synthetic import KINDS
from DNetRegistrationLib.training.recipes import recipe_for
from training_stand_ins import Small, SmallWithLoss

BONES = 8


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """A file with blobs for bones."""
    generator = torch.Generator().manual_seed(0)
    axis = (torch.arange(40) - 19.5) / 20
    near = torch.exp(-8 * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2))
    grains = torch.nn.functional.interpolate(torch.rand(2 * BONES, 1, 8, 8, 8, generator=generator), 40)[:, 0]
    plain, contrast = stored(near * grains).split(BONES)
    path = tmp_path_factory.mktemp("bank") / "bank.pt"
    names = [f"blob {number}" for number in range(BONES)]
    save_bank(Bank(plain, contrast, 0.222, names, made={"kinds": KINDS}), path)
    return str(path)


@pytest.fixture
def small(monkeypatch):
    """A network in the place of D-net that takes no time."""
    monkeypatch.setattr(throughput, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(training_command, "build", lambda name: Small(int(torch.rand(1) * 1000)))


@pytest.fixture(scope="module")
def begun(bank, tmp_path_factory):
    """The folder of a run that has begun."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "PROBE_SECONDS", 0.0)
        patch.setattr(training_command, "build", lambda name: Small())
        assert main(command(bank, folder, "--minutes", "0")) == 0
    return folder


def command(bank, folder, *more, network="dnet"):
    words = f"train --network {network} --bank {bank} --bones {BONES} --output {folder} --device cpu --jobs 1 "
    words += "--iterations 6 --batch 4 --part 2 --log-every 2 --validate-every 3 --validation-pairs 4"
    return [*shlex.split(words), *more]


def weights(folder):
    return torch.load(Path(folder) / "weights.pt", weights_only=True)["state"]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def error(capsys):
    said = capsys.readouterr().err
    assert said.startswith("dnet-registration: error: ") and said.count("\n") == 1
    return said


def environment():
    return places.environment(OMP_NUM_THREADS="1")


def test_a_run_and_what_its_card_says(small, bank, tmp_path, capsys):
    folder = tmp_path / "runs" / "one"
    assert main(command(bank, folder, "--plot", "--seed", "3", "--learning-rate", "0.01")) == 0
    said = capsys.readouterr().out
    assert "dnet (4,524 parameters), recipe fast: 6 iterations of 4 pairs in parts of 2, on CPU" in said
    assert "7 bones, 1 more for validation" in said
    names = ["checkpoint.pt", "curves.png", "log.csv", "validation.csv", "weights.json", "weights.pt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    card = json.loads((folder / "weights.json").read_text())
    assert card["recipe"] == {
        **vars(recipe_for("fast", "dnet")), "iterations": 6, "batch": 4, "part": 2, "bones": 8, "learning_rate": 0.01,
    }  # fmt: skip
    assert (card["seed"], card["iterations"], card["start"]) == (3, 6, None)
    assert card["bank"]["bones"] == BONES and card["bank"]["kinds"] == KINDS
    assert set(card["validation"]) == {"whole", "cut"}
    # The commands in it are commands, and tell nothing of this machine.
    assert str(tmp_path) not in json.dumps(card)
    options = build_parser().parse_args(shlex.split(card["command"])[1:])
    assert vars(training_command._recipe(options)) == card["recipe"]
    assert (options.network, options.seed, options.bank, options.start) == ("dnet", 3, "bank.pt", None)
    assert options.output == "one"
    # Weights are gone on with from where the recipe ended: all rotations, the full resolution, a lower rate.
    options = build_parser().parse_args(shlex.split(card["go_on"])[1:])
    easy = {"posing": 0, "coarsest": 0, "coarser": 0, "coarse": 0, "learning_rate": 0.002}
    assert vars(training_command._recipe(options)) == {**card["recipe"], **easy}
    assert (options.seed, options.bank, options.start, options.output) == (3, "bank.pt", "weights.pt", "one-on")


@pytest.mark.parametrize("network", recipes.NETWORKS)
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_command_tells_all_of_its_recipe(name, network, tmp_path, monkeypatch):
    """Also where defaults will have changed by then."""
    if (name, network) == ("paper", "equivariant"):
        return
    recipe = replace(recipe_for(name, network), part=4, contrast=0.25)
    parse = lambda line: build_parser().parse_args(shlex.split(line)[1:])  # noqa: E731
    options = parse(
        f"dnet-registration train --network {network} --recipe {name} --scan-spacing 0.01,0.01,0.02 --output x"
    )
    monkeypatch.chdir(tmp_path)
    line = training_command._command(options, recipe, None, Path("."))
    changed = replace(recipe, optimizer="sgd", learning_rate=0.5, average=0.5, decay="none", bones=3, part=None)
    monkeypatch.setattr(training_command, "recipe_for", lambda *names: changed)
    again = parse(line)
    assert training_command._recipe(again) == recipe
    assert again.scan_spacing == (0.01, 0.01, 0.02) and again.output == tmp_path.name


def test_weights_keep_their_history(small, bank, tmp_path, monkeypatch):
    monkeypatch.setattr(Small, "name", "dnet")
    monkeypatch.setattr("DNetRegistrationLib.networks.siamese.build", lambda name: Small())
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    assert main(command(bank, first)) == 0
    assert main(command(bank, second, "--start", str(first / "weights.pt"))) == 0
    assert main(command(bank, third, "--start", str(second / "weights.pt"))) == 0
    cards = [json.loads((folder / "weights.json").read_text()) for folder in (first, second, third)]
    rates = [shlex.split(card["go_on"])[shlex.split(card["go_on"]).index("--learning-rate") + 1] for card in cards]
    assert rates == ["0.0004", "0.002", "0.002"]  # a fifth of the recipe's, once
    assert cards[2]["start"] == cards[1] and cards[1]["start"] == cards[0] and cards[0]["start"] is None


def test_the_same_command_goes_on_to_the_same_result(small, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path / "whole")) == 0
    assert main(command(bank, tmp_path / "short", "--minutes", "0")) == 0
    assert "the time is up" in capsys.readouterr().out
    assert json.loads((tmp_path / "short" / "weights.json").read_text())["iterations"] == 0
    assert main(command(bank, tmp_path / "short")) == 0
    assert "going on from iteration 0" in capsys.readouterr().out
    assert equal(weights(tmp_path / "short"), weights(tmp_path / "whole"))
    # Another seed is another network, other pairs and another split.
    assert main(command(bank, tmp_path / "other", "--seed", "1")) == 0
    assert not equal(weights(tmp_path / "other"), weights(tmp_path / "whole"))


def test_more_iterations_train_on_where_they_shift_no_stages(small, bank, tmp_path, capsys):
    plain = ("--posing", "0", "--coarsest", "0", "--coarser", "0", "--coarse", "0")
    assert main(command(bank, tmp_path / "plain", *plain)) == 0
    assert main(command(bank, tmp_path / "plain", *plain, "--iterations", "8")) == 0
    assert json.loads((tmp_path / "plain" / "weights.json").read_text())["iterations"] == 8
    # Stages are shares of all iterations: poses would begin anew, and undo what has been learned of the motion.
    for folder in ("short", "whole"):
        assert main(command(bank, tmp_path / folder, *(["--minutes", "0"] if folder == "short" else []))) == 0
        before = weights(tmp_path / folder)
        for iterations in ("4", "8"):
            assert main(command(bank, tmp_path / folder, "--iterations", iterations)) == 2
            assert f"iterations 6, not {iterations}; give the options" in (said := error(capsys)) and "--start" in said
        assert equal(weights(tmp_path / folder), before)


def test_smaller_parts_where_memory_is_short(small, bank, tmp_path):
    assert main(command(bank, tmp_path, "--minutes", "0")) == 0
    assert main(command(bank, tmp_path, "--part", "1")) == 0
    card = json.loads((tmp_path / "weights.json").read_text())
    assert (card["iterations"], card["recipe"]["part"]) == (6, 1)


def test_weights_that_are_gone_on_with_see_other_pairs(small, bank, tmp_path, monkeypatch):
    monkeypatch.setattr(Small, "name", "dnet")
    monkeypatch.setattr("DNetRegistrationLib.networks.siamese.build", lambda name: Small())
    seeds = []
    pairs = training_command._pairs
    monkeypatch.setattr(
        training_command, "_pairs", lambda bank, recipe, seed: seeds.append(seed) or pairs(bank, recipe, seed)
    )
    start = [(), ("--start", str(tmp_path / "0" / "weights.pt")), ("--start", str(tmp_path / "1" / "weights.pt"))]
    for number, more in enumerate(start):
        assert main(command(bank, tmp_path / f"{number}", *more, "--seed", "5")) == 0
    assert seeds[0] == 5 and len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--batch", "8"], "batch 4, not 8"),
        (["--seed", "1"], "seed 0, not 1"),
        (["--recipe", "paper"], "recipe fast, not paper"),
        (["--learning-rate", "0.5"], "learning-rate 0.002, not 0.5"),
        (["--scan-spacing", "0.01,0.01,0.02"], "scan-spacing None, not 0.01,0.01,0.02"),
        (["--network", "sed"], "network dnet, not sed"),
        (["--optimizer", "sgd"], "optimizer muon, not sgd"),
    ],
)
def test_other_settings_do_not_go_on(more, word, small, bank, begun, capsys):
    before = {path.name: path.read_bytes() for path in begun.iterdir()}
    assert main(command(bank, begun, *more)) == 2
    said = error(capsys)
    assert word in said and "another --output" in said
    assert {path.name: path.read_bytes() for path in begun.iterdir()} == before


def test_other_bones_do_not_go_on(small, bank, begun, tmp_path, capsys):
    content = torch.load(bank, weights_only=True)
    other = Bank(content["plain"].flip(1), content["contrast"], content["spacing"], content["names"][::-1])
    save_bank(other, tmp_path / "other.pt")
    assert main(command(tmp_path / "other.pt", begun)) == 2
    assert "its checkpoint is of a run with bank" in error(capsys)


def test_start_from_weights(small, bank, tmp_path, monkeypatch, capsys):
    network = Small(7)
    monkeypatch.setattr(Small, "name", "dnet")
    monkeypatch.setattr("DNetRegistrationLib.networks.siamese.build", lambda name: Small())
    save_weights(network, tmp_path / "start.pt", {})
    # The first iteration's learning rate is so small that nothing moves.
    more = ["--start", str(tmp_path / "start.pt"), "--learning-rate", "1e-9", "--weight-decay", "0"]
    assert main(command(bank, tmp_path / "run", *more)) == 0
    for key, value in weights(tmp_path / "run").items():
        torch.testing.assert_close(value, network.state_dict()[key], atol=1e-6, rtol=0)
    sha256 = load_weights(tmp_path / "start.pt").card["sha256"]
    card = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert card["start"]["sha256"] == sha256
    # What is learned already needs no easy start, unless it is asked for.
    easy = ("first_angle", "widening", "posing", "coarsest", "coarser", "coarse")
    assert [card["recipe"][name] for name in easy] == [180.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert main(command(bank, tmp_path / "easy", *more, "--first-angle", "60", "--widening", "0.5")) == 0
    recipe = json.loads((tmp_path / "easy" / "weights.json").read_text())["recipe"]
    assert [recipe[name] for name in easy] == [60.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    with open(tmp_path / "easy" / "log.csv", newline="") as stream:
        assert [float(line["largest_angle_deg"]) for line in csv.DictReader(stream)] == pytest.approx([100, 180, 180])
    assert main(command(bank, tmp_path / "run")) == 2
    assert "start" in error(capsys)
    assert main(command(bank, tmp_path / "me", *more, network="me")) == 2
    assert "--start" in (said := error(capsys)) and "not of 'me'" in said
    assert main(command(bank, tmp_path / "no", "--start", str(tmp_path / "no.pt"))) == 2
    assert "no such weights file" in error(capsys)


def test_a_bank_is_made_once(small, tmp_path, monkeypatch):
    made = []

    def build_bank(count, seed, **options):
        made.append((count, seed, options["processes"], str(options["device"])))
        return Bank(*torch.full((2, count, 40, 40, 40), 100, dtype=torch.uint8), 0.222, [str(n) for n in range(count)])

    monkeypatch.setattr(training_command, "build_bank", build_bank)
    for folder in ("a", "b"):
        assert main(command(tmp_path / "bank.pt", tmp_path / folder, "--seed", "4")) == 0
    assert made == [(BONES, 4, 1, "cpu")]
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_a_bank_of_another_size(small, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path, "--bones", "9")) == 2
    assert "holds 8 bones, not 9; give --bones 8" in error(capsys)


def test_a_bank_of_other_kinds(small, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path / "run", "--kinds", "long,tibia")) == 2
    assert "not tibia,long; give --kinds tibia,long,flat,irregular" in error(capsys)


def test_kinds_are_those_of_the_bank():
    assert tuple(KINDS) == recipes.KINDS


def test_kinds_of_bones(small, tmp_path, monkeypatch):
    asked = []

    def build(count, seed, *, kinds, **_):
        asked.append((count, kinds))
        raise ScanError("enough")

    monkeypatch.setattr(training_command, "build_bank", build)
    words = "train --network dnet --kinds irregular,tibia --bones 9 --device cpu --output"
    assert main([*words.split(), str(tmp_path / "run")]) == 2
    assert asked == [(9, {"tibia": KINDS["tibia"], "irregular": KINDS["irregular"]})]


def test_scans_of_the_user(small, bank, tmp_path, monkeypatch):
    calls = []

    def bank_of_scans(folder, *, scan_spacing, device, progress):
        calls.append((folder, scan_spacing))
        made = {"folder": str(folder)}
        return Bank(*torch.full((2, 5, 40, 40, 40), 100, dtype=torch.uint8), 0.222, list("abcde"), made=made)

    monkeypatch.setattr(training_command, "bank_of_scans", bank_of_scans)
    scans = str(tmp_path / "mice")
    words = f"train --network dnet --scans {scans} --output {tmp_path / 'run'} --device cpu --scan-spacing 0.01 "
    words += "--iterations 2 --batch 4 --part 2 --validation-pairs 4"
    assert main(shlex.split(words)) == 0
    assert calls == [(scans, (0.01,))]
    card = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert card["bank"]["folder"] == "mice" and card["bank"]["bones"] == 5


def test_the_other_kind_of_network_sees_its_inputs_first(bank, tmp_path, monkeypatch, capsys):
    fitted = []
    monkeypatch.setattr(throughput, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(training_command, "build", lambda name: SmallWithLoss())
    fit = lambda self, batch: fitted.append(len(batch.fixed))  # noqa: E731
    monkeypatch.setattr(SmallWithLoss, "fit_descriptors", fit, raising=False)
    for _ in range(2):  # not again when going on
        assert main(command(bank, tmp_path, network="equivariant")) == 0
    assert fitted == [16]
    assert "matches" in (tmp_path / "log.csv").read_text()
    assert main(command(bank, tmp_path / "b", "--loss", "paper", network="equivariant")) == 2
    assert "--loss: the network 'equivariant' has its own" in error(capsys)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "abacus"], "--device abacus"),
        (["--batch", "3", "--part", "2"], "--part"),
        (["--recipe", "slow"], "slow"),
        (["--iterations", "0"], "--iterations"),
        (["--keep", "1.5"], "--keep"),
        (["--scans", "mice"], "--bank is of synthetic bones; leave it out, or --scans"),
        (["--first-angle", "60"], "--first-angle and --widening: give both"),
        (["--widening", "0.5"], "--first-angle and --widening: give both"),
        (["--coarse", "0.5"], "--coarse 0.5 is less than --coarser 0.64; give both"),
        (["--coarsest", "0.95"], "--coarser 0.64 is less than --coarsest 0.95; give both"),
        (["--kinds", "tibia,antler"], "'antler' is unknown; choose from tibia, long, flat, irregular"),
    ],
)
def test_bad_usage(more, word, small, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path / "run", *more)) == 2
    assert word in error(capsys)


def test_paper_recipe_is_not_for_equivariant(capsys, tmp_path):
    assert main(["train", "--network", "equivariant", "--recipe", "paper", "--output", str(tmp_path / "x")]) == 2
    assert "take 'fast'" in error(capsys)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("network", "option", "why"),
    [
        ("me", "--coarse", "sees whole cubes alone"),
        ("equivariant", "--coarsest", "sees whole cubes alone"),
        ("me", "--posing", "has no pose of each scan"),
    ],
)
def test_an_easy_start_is_for_siamese_networks(network, option, why, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path / "run", option, "0.5", network=network)) == 2
    assert f"{option}: the network '{network}' {why}; leave it out" in error(capsys)


def test_a_folder_with_something_else_in_it(small, bank, tmp_path, capsys):
    (tmp_path / "weights.pt").write_text("precious")
    assert main(command(bank, tmp_path)) == 2
    assert "holds a weights.pt, but no checkpoint" in error(capsys)
    assert (tmp_path / "weights.pt").read_text() == "precious"


def test_a_checkpoint_that_does_not_fit(small, bank, tmp_path, capsys):
    assert main(command(bank, tmp_path, "--minutes", "0")) == 0
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    stored["state"]["network"].popitem()
    torch.save(stored, tmp_path / "checkpoint.pt")
    assert main(command(bank, tmp_path)) == 2
    assert "checkpoint.pt: is of another network or version; give another --output" in error(capsys)


def test_a_torch_without_muon_is_told_at_once(small, bank, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr(torch.optim, "Muon")
    monkeypatch.setattr(training_command, "load_bank", None)
    assert main(command(bank, tmp_path / "run")) == 2
    assert "has no Muon; update to 2.9 or later" in error(capsys)


def test_curves_need_matplotlib(small, bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training_command, "find_spec", lambda name: None)
    assert main(command(bank, tmp_path / "run", "--plot")) == 2
    assert "--plot needs matplotlib; install it" in error(capsys)


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate 9 GiB", "can't allocate memory: you tried"])
def test_too_little_memory_says_what_to_do(text, small, bank, tmp_path, monkeypatch, capsys):
    def forward(self, fixed, moving):
        raise RuntimeError(text)

    monkeypatch.setattr(Small, "forward", forward)
    assert main(command(bank, tmp_path)) == 2
    assert "not enough memory for 2 pairs at once; give a smaller --part" in error(capsys)


# From a copy of the source tree, a real bone or two (coarse), and a real network.
BARE = """
    import sys
    for name in ("scipy", "SimpleITK", "tqdm", "matplotlib"):
        sys.modules[name] = None
    from functools import partial
    from DNetRegistrationLib import bank, cli, training_command
    training_command.build_bank = partial(bank.build_bank, spacing=0.3)
    sys.exit(cli.main())
"""


def test_torch_and_numpy_are_enough(tmp_path):
    shutil.copytree(places.LIBRARY, tmp_path / "DNetRegistrationLib")
    words = "train --network me --bones 2 --iterations 1 --batch 1 --validation-pairs 1 --output runs/me --jobs 1"
    words += " --log-every 1 --cut-share 0"
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BARE), *words.split()],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={key: value for key, value in environment().items() if key != "PYTHONPATH"},
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert load_weights(tmp_path / "runs" / "me" / "weights.pt").network.name == "me"


# A run that would take hours.
LONG = """
    import sys
    from DNetRegistrationLib import cli, poses, training_command, training_run
    from training_stand_ins import Small
    training_command.build = lambda name: Small()
    training_run.LINE_SECONDS = 0
    poses._STEPS = 30
    sys.exit(cli.main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_and_weights(number, bank, tmp_path):
    words = command(bank, tmp_path / "run", "--iterations", "1000000", "--log-every", "1")
    start = [sys.executable, "-c", textwrap.dedent(LONG), *words]
    with subprocess.Popen(
        start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
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
    assert "the same command goes on from there" in out
    card = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert card["iterations"] >= 2
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_torchrun(bank, tmp_path):
    """Two processes from the command line, a real network: the weights of one process, to rounding."""
    words = "--iterations 1 --batch 2 --part 1 --validation-pairs 2 --cut-share 0 --average 0 --optimizer sgd".split()
    torch.manual_seed(0)
    save_weights(network := training_command.build("me"), tmp_path / "first.pt", {})
    words += ["--learning-rate", "0.1", "--start", str(tmp_path / "first.pt")]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Without the dashes torchrun takes --start for its own --start-method.
    two = [*start, "-m", "DNetRegistrationLib", "--", *command(bank, tmp_path / "two", *words, network="me")]
    result = subprocess.run(two, capture_output=True, text=True, env=environment(), timeout=200)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("weights and model card are in") == 1
    assert "in each of 2 processes" in result.stdout
    assert main(command(bank, tmp_path / "one", *words, network="me")) == 0
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    moved = 0.0
    for (key, value), first in zip(alone.items(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(together[key], value, rtol=1e-4, atol=1e-6)
        moved = max(moved, float((value - first).abs().max()))
    assert moved > 1e-3
    assert json.loads((tmp_path / "two" / "weights.json").read_text())["processes"] == 2
