"""A whole run: what it writes, that it can be stopped and gone on with, and what it says of its speed."""

from __future__ import annotations

import csv
import itertools
import json
import platform
import signal
import time
from dataclasses import replace

import pytest
import torch
from command import run
from DNetRegistrationLib.core.errors import FileError
from DNetRegistrationLib.training import checkpoints, hardware
from DNetRegistrationLib.training import run as training_run
from DNetRegistrationLib.training.checkpoints import Checkpoint
from DNetRegistrationLib.training.curves import draw_curves
from DNetRegistrationLib.training.run import Pace, Run
from DNetRegistrationLib.training.trainer import Trainer
from torch import nn
from training_stand_ins import QUICK, Pairs, Small, SmallWithLoss

CPU = torch.device("cpu")
SETTINGS = {"network": "small", "seed": 0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(training_run, "LINE_SECONDS", 0.0)


def run_in(folder, *, pairs=None, recipe=QUICK, pace=None, network=None, goes_on=False, **options):
    checkpoint = checkpoints.parse(checkpoints.content(folder), folder) if goes_on else None
    return Run(
        Trainer(network or Small(), recipe, pairs or Pairs(), CPU),
        {"whole": Pairs(1), "cut": Pairs(2)},
        folder,
        SETTINGS,
        pace or Pace(log_every=3, validate_every=6, validation_pairs=4),
        checkpoint=checkpoint,
        **options,
    )


def lines(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def results(folder):
    """What a run leaves, without what clocks have a part in."""
    log = [
        {k: v for k, v in line.items() if "second" not in k and "share" not in k} for line in lines(folder / "log.csv")
    ]
    state = torch.load(folder / "weights.pt", weights_only=True)["state"]
    return log, lines(folder / "validation.csv"), {key: value.tolist() for key, value in state.items()}


class Acting(Pairs):
    """Does something when the batch of this number is drawn."""

    def __init__(self, number, act):
        super().__init__()
        self.number, self.act = number, act

    def draw(self, number, count, **options):
        if number == self.number:
            self.act()
        return super().draw(number, count, **options)


def interrupting(number, times=1, wait=0.0):
    """Ctrl-C while this batch is drawn."""

    def act():
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
            time.sleep(wait)

    return Acting(number, act)


def fail():
    raise RuntimeError("as by a power cut")


def test_what_a_run_writes_and_says(tmp_path):
    said = []
    run = run_in(tmp_path, card={"seed": 5, "dataset": {"bones": 8}}, report=said.append)
    assert run.go() is True
    names = ["checkpoint.pt", "log.csv", "validation.csv", "weights.json", "weights.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    log = lines(tmp_path / "log.csv")
    assert [line["iteration"] for line in log] == ["3", "6", "9", "12"]
    assert [line["pairs"] for line in log] == ["12", "24", "36", "48"]
    for line in log:
        assert 0 < float(line["loss"]) < 10
        assert 0 <= float(line["re_deg"]) <= 180
        assert 0 < float(line["share_making_pairs"]) < 1
        assert float(line["pairs_per_second"]) > 0
    assert [float(line["largest_angle_deg"]) for line in log] == pytest.approx([120, 165, 180, 180])
    assert float(log[-1]["learning_rate"]) == pytest.approx(QUICK.learning_rate_at(11), rel=1e-4)
    validation = lines(tmp_path / "validation.csv")
    assert [(line["iteration"], line["views"]) for line in validation] == [
        ("6", "whole"), ("6", "cut"), ("12", "whole"), ("12", "cut"),
    ]  # fmt: skip
    card = json.loads((tmp_path / "weights.json").read_text())
    assert (card["network"], card["seed"], card["iterations"], card["pairs"]) == ("small", 5, 12, 48)
    assert card["recipe"]["loss"] == "points" and card["torch"] == torch.__version__
    assert card["validation"]["cut"]["re_median_deg"] == pytest.approx(float(validation[3]["re_median_deg"]), rel=1e-5)
    assert card["dataset"] == {"bones": 8} and "CPU" in card["device"]
    stored = torch.load(tmp_path / "weights.pt", weights_only=True)["state"]
    averaged = run.trainer.trained.state_dict()
    assert all(torch.equal(stored[key], averaged[key]) for key in averaged)
    assert any(line.startswith("12/12: loss ") and "pairs/s" in line and "left" in line for line in said)
    assert sum("validation, whole views: RE " in line for line in said) == 2


@pytest.mark.parametrize(("number", "made"), [(1, 1), (9, 5), (12, 6), (14, 7)])
def test_ctrl_c_leaves_what_gives_the_same_result(number, made, tmp_path):
    said = []
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    run_in(tmp_path / "whole").go()
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "broken", pairs=interrupting(number, times=2), report=said.append).go()
    assert any("the same options go on from there" in line for line in said)
    assert json.loads((tmp_path / "broken" / "weights.json").read_text())["iterations"] == made
    assert run_in(tmp_path / "broken", goes_on=True).go() is True
    assert results(tmp_path / "broken") == results(tmp_path / "whole")


def test_a_second_ctrl_c_after_a_while_ends_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("DNetRegistrationLib.core.interrupts.BURST", 0.01)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, pairs=interrupting(8, times=2, wait=0.05)).go()
    # What it began with is there.
    assert checkpoints.parse(checkpoints.content(tmp_path), tmp_path).state["iteration"] == 0


@pytest.mark.parametrize(
    ("every", "end", "done", "ahead"), [(6, 12, 3, 2), (6, 12, 6, 2), (6, 12, 12, 1), (5, 12, 7, 2)]
)
def test_time_left_includes_validations(every, end, done, ahead, tmp_path):
    """By a loop over what is to come: an iteration takes a second, a validation twenty."""
    recipe = replace(QUICK, iterations=end)
    run = run_in(tmp_path, recipe=recipe, pace=Pace(validate_every=every, validation_pairs=4))
    run._count()
    run.trainer.iteration = done
    assert ahead == sum(n % every == 0 or n == end for n in range(done, end + 1))
    # Before the first one: the passes of 2 x 4 pairs are a third of training with 4 pairs an iteration.
    assert run._seconds_left(1.0, time.monotonic()) == pytest.approx(end - done + ahead * 8 / 4 / 3)
    run._validated = 20.0
    assert run._seconds_left(1.0, time.monotonic()) == pytest.approx(end - done + ahead * 20)


@pytest.mark.parametrize(("iterations", "batch", "every"), [(300, 16, 128), (40_000, 64, 1000), (7656, 16, 191)])
def test_a_short_run_does_not_validate_more_than_it_trains(iterations, batch, every, tmp_path):
    """300 iterations of 16 pairs were followed by 43 validations of 256 pairs."""
    recipe = replace(QUICK, iterations=iterations, batch=batch, micro_batch=2)
    assert run_in(tmp_path, recipe=recipe, pace=Pace())._validate_every == every


def test_ctrl_c_in_a_validation(tmp_path):
    run = run_in(tmp_path)
    run.validation["whole"] = interrupting(1)
    with pytest.raises(KeyboardInterrupt):
        run.go()
    assert json.loads((tmp_path / "weights.json").read_text())["iterations"] == 6
    assert lines(tmp_path / "validation.csv") == []
    run_in(tmp_path, goes_on=True).go()
    assert {line["iteration"] for line in lines(tmp_path / "validation.csv")} == {"6", "12"}


def test_log_lines_after_the_last_checkpoint_do_not_stay(tmp_path):
    """As after a power cut: the run is done again from the checkpoint, and the log tells it once."""
    (tmp_path / "whole").mkdir()
    run_in(tmp_path / "whole").go()
    (tmp_path / "cut").mkdir()
    first = run_in(tmp_path / "cut", recipe=QUICK)
    with pytest.raises(RuntimeError):
        first.trainer.pairs = Acting(10, fail)
        first.go()
    assert [line["iteration"] for line in lines(tmp_path / "cut" / "log.csv")] == ["3"]
    assert checkpoints.parse(checkpoints.content(tmp_path / "cut"), tmp_path).state["iteration"] == 0
    run_in(tmp_path / "cut", goes_on=True).go()
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


def test_when_the_time_is_up_the_weights_are_judged_and_the_run_can_go_on(tmp_path):
    pace = Pace(log_every=3, validate_every=6, validation_pairs=4, minutes=0.025)
    assert run_in(tmp_path, pace=pace, pairs=Acting(8, lambda: time.sleep(1.6))).go() is False
    card = json.loads((tmp_path / "weights.json").read_text())
    assert card["iterations"] == 4
    assert card["validation"]["whole"]["iteration"] == 4
    assert run_in(tmp_path, goes_on=True).go() is True
    assert [line["iteration"] for line in lines(tmp_path / "validation.csv")[::2]] == ["4", "6", "12"]
    # Finished, there is nothing left to do.
    before = results(tmp_path)
    assert run_in(tmp_path, goes_on=True).go() is True
    assert results(tmp_path) == before


def test_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    written = []
    real = checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda c, f: written.append(c.state["iteration"]) or real(c, f))
    run_in(tmp_path, pace=Pace(log_every=3, validate_every=100, validation_pairs=2, checkpoint_minutes=0.0)).go()
    assert written == [0, *range(1, 13), 12]


def test_networks_with_their_own_loss_have_their_own_columns(tmp_path):
    run_in(tmp_path, network=SmallWithLoss(), recipe=replace(QUICK, loss="matching")).go()
    log = lines(tmp_path / "log.csv")
    assert {"loss", "matches", "loss_of_matches"} <= set(log[0])
    assert "re_deg" not in log[0]
    assert float(log[0]["matches"]) == 0.25


def test_half_precision(tmp_path):
    run_in(tmp_path, half=True).go()
    state = torch.load(tmp_path / "weights.pt", weights_only=True)["state"]
    assert {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.parametrize("content", [b"", b"text", None, "foreign", "cut"])
def test_damaged_and_foreign_checkpoints(content, tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoints.write(Checkpoint(SETTINGS, 2, {}, [], [], 0.0), tmp_path)
    whole = path.read_bytes()
    if content == "foreign":
        torch.save({"state": {}}, path)
    elif content == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif content is not None:
        path.write_bytes(content)
    else:
        torch.save(nn.Linear(1, 1), path)  # would run code
    with pytest.raises(FileError, match=r"checkpoint\.pt: .*remove it, or choose another folder"):
        checkpoints.parse(checkpoints.content(tmp_path), tmp_path)


@pytest.mark.parametrize("field", ("settings", "micro_batch", "state", "log", "validation", "seconds"))
def test_a_checkpoint_with_a_field_of_another_kind(field, tmp_path):
    checkpoints.write(replace(Checkpoint(SETTINGS, 2, {}, [], [], 0.0), **{field: "text"}), tmp_path)
    with pytest.raises(FileError, match=r"damaged, or no checkpoint; remove it"):
        checkpoints.parse(checkpoints.content(tmp_path), tmp_path)


def test_a_checkpoint_with_one_flipped_bit_is_not_trained_on(tmp_path):
    """torch does not look at the checksums of its files."""
    path = checkpoints.write(Checkpoint(SETTINGS, 2, {"network": {"w": torch.arange(5000.0)}}, [], [], 0.0), tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(2500.0, 2510).numpy().tobytes()) + 1] ^= 4
    with pytest.raises(FileError, match=r"damaged, or no checkpoint; remove it"):
        checkpoints.parse(bytes(content), tmp_path)


def test_a_folder_without_a_checkpoint(tmp_path):
    assert checkpoints.content(tmp_path) is None


def test_operations_of_a_layer_by_hand():
    linear, link = nn.Linear(32, 16, bias=False), nn.Conv3d(2, 4, 3, padding=1, bias=False)
    values, image = torch.rand(8, 32), torch.rand(1, 2, 6, 6, 6)
    # A product of (8, 32) and (32, 16), and in the backward pass another for the weights.
    assert hardware.operations(lambda: linear(values).sum()) == 2 * (2 * 8 * 32 * 16)
    assert hardware.operations(lambda: link(image).sum()) == 2 * (2 * 6**3 * 27 * 2 * 4)
    tokens = torch.rand(1, 1, 10, 4, requires_grad=True)
    attention = hardware.operations(lambda: nn.functional.scaled_dot_product_attention(*[tokens] * 3).sum())
    assert attention == 3 * 2 * (2 * 10 * 10 * 4)


def test_stopwatch():
    watch = hardware.Stopwatch(CPU)
    for _ in range(2):
        with watch.running():
            time.sleep(0.02)
    assert 0.04 <= watch.read() < 0.5
    assert watch.read() == 0


def test_precision_of_a_device():
    assert hardware.precision_on(CPU, "auto") == torch.float32
    assert hardware.precision_on(CPU, "bfloat16") == torch.bfloat16


def test_a_precision_that_is_slow_on_a_processor_is_told(monkeypatch):
    seconds = {torch.float32: 0.002, torch.bfloat16: 0.068}
    monkeypatch.setattr(hardware, "_seconds_of_convolution", lambda dtype: seconds[dtype])
    assert hardware.slow_precision(CPU, torch.bfloat16) == (
        "this processor takes about 34 times as long in bfloat16 as in float32: use the precision float32"
    )
    assert hardware.slow_precision(CPU, torch.float32) is None
    assert hardware.slow_precision(torch.device("cuda"), torch.bfloat16) is None
    seconds[torch.bfloat16] = 0.003
    assert hardware.slow_precision(CPU, torch.bfloat16) is None


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX2" or torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="this processor may have bfloat16",
)
def test_a_processor_without_bfloat16_is_slow_in_it():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert "times as long in bfloat16" in hardware.slow_precision(CPU, torch.bfloat16)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


@pytest.mark.slow
def test_freed_memory_can_be_kept():
    """In a process of its own: it is for good."""
    pages = (
        "import resource; from DNetRegistrationLib.training.hardware import keep_freed_memory\n"
        "KEEP\n"
        "bytearray(1 << 26)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(5): bytearray(1 << 26)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    taken = [int(run(code=pages.replace("KEEP", keep), check=True).stdout) for keep in ("keep_freed_memory()", "")]
    if platform.libc_ver()[0] == "glibc":
        assert taken[0] < 0.2 * taken[1]


def test_curves(tmp_path):
    steps = range(20, 220, 20)
    log = [{"iteration": i, "loss": 100 / i, "re_deg": 9000 / i, "te_um": 1e5 / i} for i in steps]
    figures = {"re_mean_deg": 90.0, "re_median_deg": 80.0, "te_mean_um": 500.0, "te_median_um": 400.0}
    validation = [{"iteration": i, "views": v, **figures} for i, v in itertools.product((100, 200), ("whole", "cut"))]
    draw_curves(log, validation, tmp_path / "a.png", "a title", stages=(60, 120))
    draw_curves(log, validation, tmp_path / "without.png", "a title")
    # Stages are marked by lines that are named in the legend.
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    draw_curves([{"iteration": 1, "loss": 1.0, "matching": 2.0}], [], tmp_path / "b.png", "nothing but a loss")
    draw_curves([], [], tmp_path / "c.png", "nothing yet")
    sizes = [(tmp_path / name).stat().st_size for name in ("a.png", "b.png", "c.png")]
    assert sizes[0] > sizes[1] > sizes[2] > 1000
