"""Two processes that train together do what one does alone."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import places
import pytest
import torch
from DNetRegistrationLib.training.distributed import Processes
from DNetRegistrationLib.training.trainer import Trainer
from DNetRegistrationLib.training.validation import validate
from training_stand_ins import QUICK, Pairs, SmallWithConvolutions

# Three iterations of four parts each, then a validation; what came of it, from every process.
TOGETHER = """
    import json, sys, torch, weakref
    from dataclasses import asdict, replace
    from DNetRegistrationLib.training.distributed import launched
    from DNetRegistrationLib.training.trainer import Trainer
    from DNetRegistrationLib.training.validation import validate
    from DNetRegistrationLib.training import pose_stage
    from training_stand_ins import QUICK, Pairs, SmallWithConvolutions
    pose_stage._STEPS = 30
    with launched("auto") as processes:
        group = weakref.ref(torch.distributed.group.WORLD)
        pairs = Pairs()
        recipe = replace(QUICK, batch=8, **json.loads(sys.argv[2]))
        trainer = Trainer(SmallWithConvolutions(), recipe, pairs, torch.device("cpu"), processes=processes)
        trainer.prepare()
        trainer.step()
        gradients = [p.grad.clone() for p in trainer.network.parameters() if p.grad is not None]
        trainer.step()
        trainer.step()
        drawn = processes.gathered([number for number, _, _ in pairs.drawn])
        # The wish of one is the wish of all, and that iteration is not made.
        assert trainer.step(lambda: processes.rank == 1)
        assert trainer.iteration == 3
        assert processes.from_first(processes.rank) == 0
        found = {
            "rank": processes.rank, "count": processes.count, "gradients": gradients, "drawn": drawn,
            "network": trainer.network.state_dict(), "averaged": trainer.trained.state_dict(),
            "figures": trainer.means().figures,
            "validation": asdict(validate(trainer.trained, Pairs(1), 10, 2, processes=processes)),
        }
        torch.save(found, f"{sys.argv[1]}/{processes.rank}.pt")
    # Its threads have ended with it; one that outlives the interpreter aborts the process.
    assert group() is None
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="PyTorch for Windows comes without a launcher that works there")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "optimizer": "muon",
            "pose_pretraining": 0.17,
            "resolution_schedule": [0.1, 0.1, 0.2],
            "both_directions": True,
        },
    ],
)
def test_two_processes_give_the_gradients_of_one(changes, tmp_path):
    script = tmp_path / "together.py"
    script.write_text(textwrap.dedent(TOGETHER))
    environment = places.environment(OMP_NUM_THREADS="1")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launcher, str(script), str(tmp_path), json.dumps(changes)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert [(one["rank"], one["count"]) for one in (first, second)] == [(0, 2), (1, 2)]

    pairs = Pairs()
    alone = Trainer(SmallWithConvolutions(), replace(QUICK, batch=8, **changes), pairs, torch.device("cpu"))
    alone.prepare()
    alone.step()
    with_gradients = [p for p in alone.network.parameters() if p.grad is not None]  # a head has none among poses
    for found, parameter in zip(first["gradients"], with_gradients, strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-7)
    alone.step()
    alone.step()
    # Muon works out its steps in bfloat16.
    near = 1e-3 if changes else 1e-6
    for key, value in alone.network.state_dict().items():
        torch.testing.assert_close(first["network"][key], value, rtol=1e-5, atol=near)
        # Between themselves to the bit, or they would drift apart.
        assert torch.equal(first["network"][key], second["network"][key])
    for key, value in alone.trained.state_dict().items():
        torch.testing.assert_close(first["averaged"][key], value, rtol=1e-5, atol=near)
    assert first["figures"] == second["figures"] == pytest.approx(alone.means().figures, rel=1e3 * near)
    # Each pair once, by one or the other; the last two were drawn ahead, of an iteration that was not made.
    assert first["drawn"] == second["drawn"]
    assert [sorted(number for number in drawn if number < 12) for drawn in first["drawn"]] == [
        [0, 1, 4, 5, 8, 9],
        [2, 3, 6, 7, 10, 11],
    ]
    assert first["validation"] == second["validation"]
    network = SmallWithConvolutions()
    network.load_state_dict(first["averaged"])
    expected = validate(network, Pairs(1), 10, 2)
    assert first["validation"] == pytest.approx(expected.__dict__)


def test_one_process_alone():
    alone = Processes()
    tensor = torch.tensor([1.0, 2.0])
    alone.sum(tensor)
    assert tensor.tolist() == [1, 2]
    assert alone.first and alone.gathered(3) == [3] and alone.from_first(3) == 3
    assert alone.any(True, torch.device("cpu")) and not alone.any(False, torch.device("cpu"))
