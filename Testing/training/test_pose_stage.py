"""How a Siamese network begins: poses read from features, and a head that works out the motion from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from DNetRegistrationLib.geometry.rigid import geodesic_angle, random_rotations, rotation_from_6d
from DNetRegistrationLib.networks.registry import build
from DNetRegistrationLib.networks.regression import BONE_RADIUS, split_parameters
from DNetRegistrationLib.training import checkpoints
from DNetRegistrationLib.training import pose_stage as poses
from DNetRegistrationLib.training.checkpoints import Checkpoint
from DNetRegistrationLib.training.distributed import Processes
from DNetRegistrationLib.training.pairs import PairSource
from DNetRegistrationLib.training.pose_stage import PoseStage, motion, poses_loss
from DNetRegistrationLib.training.trainer import Trainer
from training_stand_ins import QUICK, Pairs, Small, prepared, same, steps

CPU = torch.device("cpu")
POSED = replace(QUICK, pose_pretraining=0.5)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(poses, "_STEPS", 30)
    poses._made.clear()
    yield
    poses._made.clear()


def test_a_pose_by_hand():
    # The bone's x lies along the cube's y, its y along -x; its middle is 0.1 mm along x, 0.2 mm along z in the cube.
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    here = torch.tensor([0.1, 0, 0.2])
    to_bone = torch.cat((turn.mT, -(turn.mT @ here)[:, None]), 1)
    expected = [0, 1, 0, -1, 0, 0, 0, 0, 1, 0.1, 0, 0.2, 0, -0.1, 0.2]
    torch.testing.assert_close(poses.poses(to_bone), torch.tensor(expected))


@pytest.mark.parametrize("placement", ["bone", "center"])
def test_poses_of_pairs_give_their_motion(tibiae, placement):
    """Of what pairs are made from, the motion is computed elsewhere; cut and uncut."""
    batch = PairSource(tibiae, 3, placement=placement, cut_share=0.5).draw(0, 12)
    rotation, translation = motion(poses.poses(batch.to_bone))
    assert batch.translation.norm(dim=1).min() > 0.01
    torch.testing.assert_close(rotation, batch.rotation, atol=1e-12, rtol=0)
    torch.testing.assert_close(translation, batch.translation, atol=1e-12, rtol=0)


def test_bone_lies_where_poses_say(tibiae):
    """A voxel of a whole cube shows the dataset's bone at the place that `to_bone` carries it to."""
    source = PairSource(tibiae, 4, cut_share=0.0, contrast=0.0, scale=0.0, noise=0.0)
    batch = source.draw(0, 6)
    bones = source._drawn(0, 6, torch.pi).bones
    for image, to_bone, bone in zip(batch.moving[:, 0], batch.to_bone[:, 1], bones, strict=True):
        index = (image > 0.5).nonzero()[::97]
        place = (index.flip(-1).double() - 31.5) * 0.08
        there = (place @ to_bone[:, :3].mT + to_bone[:, 3]) / tibiae.spacing + (tibiae.plain.shape[-1] - 1) / 2
        x, y, z = there.round().long().unbind(-1)
        assert (tibiae.plain[bone][z, y, x] > 0).double().mean() > 0.95


def test_loss_by_hand():
    to_bone = torch.cat((torch.eye(3), torch.zeros(3, 1)), 1).double()
    true = poses.poses(to_bone)
    assert poses_loss(true, to_bone) == 0
    turned = true.clone()
    turned[[0, 4]] = -1.0  # x and y the other way: two of three axes, each 2 off
    assert float(poses_loss(turned, to_bone)) == pytest.approx(BONE_RADIUS * 4 / 3)
    moved = true.clone()
    moved[9:12] += torch.tensor([0.3, 0.4, 0.0])
    assert float(poses_loss(moved, to_bone)) == pytest.approx(0.25)


def test_a_head_learns_to_compose(monkeypatch):
    monkeypatch.setattr(poses, "_STEPS", 400)
    compose = poses.composer(128, 0)
    turn = random_rotations(400).unflatten(0, (200, 2))
    there = torch.randn(200, 2, 3, 1, dtype=torch.float64) * 0.2
    given = poses.poses(torch.cat((turn, there), -1)).float()
    translation, rotation = split_parameters(compose(given.flatten(1)))
    expected, shift = motion(given)
    angles = geodesic_angle(expected, rotation_from_6d(rotation)).rad2deg()
    assert angles.median() < 12 and (translation - shift).norm(dim=1).median() < 0.2
    # The linear map that fits them best does no better than a guess.
    ones = torch.cat((given.flatten(1), torch.ones(200, 1)), 1)
    fitted = torch.linalg.lstsq(ones[:150], expected[:150].flatten(1)).solution
    guessed = rotation_from_6d((ones[150:] @ fitted).unflatten(1, (3, 3)).mT.flatten(1)[:, :6])
    assert geodesic_angle(expected[150:], guessed).rad2deg().median() > 60


def test_readout_and_composer_are_a_head():
    torch.manual_seed(0)
    network = build("dnet")
    stage = PoseStage(network, 1)
    stage.prepare(Processes())
    first, second = torch.rand(2, 3, stage.readout.in_features)
    expected = stage.composer(stage.readout(torch.stack((first, second), 1)).flatten(1))
    before = network.head[0].weight.clone()
    copied = stage.with_head(network, stage.readout)
    torch.testing.assert_close(copied.head(torch.cat((first, second), 1)), expected, atol=1e-4, rtol=1e-4)
    assert copied.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(network.head[0].weight, before)
    stage.set_head(network, stage.readout)
    torch.testing.assert_close(network.head[0].weight, copied.head[0].weight)


def test_first_the_features_then_the_motion():
    one = Trainer(Small(), POSED, Pairs(), CPU)
    head = [p.clone() for p in one.network.head.parameters()]
    readout = one.pose_stage.readout.weight.clone()
    steps(one, 5)
    assert one.learns_poses
    assert all(map(torch.equal, one.network.head.parameters(), head))
    assert not torch.equal(one.pose_stage.readout.weight, readout)
    composer = one.pose_stage.composer
    steps(one, 1)
    assert not one.learns_poses and one.pose_stage.composer is None
    # The network and its average begin with the head that composes what the averaged readout reads.
    stage = PoseStage(Small(), 0)
    stage.composer = composer
    averaged, averaged_readout = one._averaged
    composed = stage.with_head(averaged, averaged_readout).state_dict()
    assert same(composed, averaged.state_dict()) and same(composed, one.network.state_dict())
    steps(one, 1)
    assert not torch.equal(one.network.head[0].weight, composed["head.0.weight"])


def test_nothing_goes_before_the_composer():
    one = Trainer(Small(), POSED, Pairs(), CPU)
    assert one.must_prepare
    for act in (one.step, lambda: one.trained):
        with pytest.raises(RuntimeError, match=r"call prepare\(\) first"):
            act()
    one.prepare()
    assert not one.must_prepare and one.trained is not one.network
    one.step()


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_is_saved_is_the_network_alone(average):
    one = prepared(Trainer(Small(), replace(POSED, ema_decay=average), Pairs(), CPU))
    for _ in range(3):
        assert set(one.trained.state_dict()) == set(Small().state_dict())
        steps(one, 4)


def test_errors_that_are_logged_are_of_the_motion():
    one = Trainer(Small(), POSED, Pairs(), CPU)
    with torch.no_grad():
        one.pose_stage.readout.weight.zero_()
        one.pose_stage.readout.bias.copy_(poses.poses(torch.cat((torch.eye(3), torch.zeros(3, 1)), 1)))
    batch = Pairs().draw(0, 2)
    _, figures = one.loss(batch)
    angles = geodesic_angle(batch.rotation, torch.eye(3).double()).rad2deg()
    assert float(figures["re_deg"]) == pytest.approx(float(angles.mean()))
    assert float(figures["te_um"]) == pytest.approx(1000 * float(batch.translation.norm(dim=1).mean()))


@pytest.mark.parametrize("version", [2, 1])
@pytest.mark.parametrize("stop", [4, 6, 9])
def test_going_on_gives_the_same_bits(stop, version, tmp_path):
    whole = steps(Trainer(Small(), POSED, Pairs(), CPU), 12).state()
    first = steps(Trainer(Small(), POSED, Pairs(), CPU), stop).state()
    checkpoint = Checkpoint({"seed": 0}, 2, first, [], [], 1.0)
    if version == 2:
        checkpoints.write(checkpoint, tmp_path)
    else:
        torch.save(of_version_1(checkpoint), tmp_path / checkpoints.NAME)
    second = Trainer(Small(seed=99), POSED, Pairs(), CPU)
    second.restore(checkpoints.parse(checkpoints.content(tmp_path), tmp_path).state)
    assert same(steps(second, 12 - stop).state(), whole)


def of_version_1(checkpoint):
    """As e029af9 wrote it: the readout of poses was a part of the network."""
    fields = {**vars(checkpoint), "format": "DNetRegistration checkpoint 1"}
    fields["part"] = fields.pop("micro_batch")
    fields["state"] = state = dict(fields["state"])
    stage = state.pop("pose_stage")
    state["composer"] = stage["composer"]
    for name, source in (("network", "readout"), ("averaged", "averaged")):
        readout = {f"readout.{key}": value for key, value in stage[source].items()}
        state[name] = {**state[name], **readout}
    return fields


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("small", {"learning_rate": 2e-2}),
        pytest.param("dnet", {"learning_rate": 2e-3, "resolution_schedule": (1.0, 1.0, 1.0)}, marks=pytest.mark.slow),
    ],
)
def test_poses_are_learned(name, changes):
    """The same few pairs, of D-net at an eighth of the resolution: their poses are soon known."""
    torch.manual_seed(0)
    recipe = replace(QUICK, iterations=60, pose_pretraining=1.0, **changes)

    class Same(Pairs):
        def draw(self, number, count, **options):
            return super().draw(0, count, **options)

    one = Trainer(Small() if name == "small" else build(name), recipe, Same(), CPU)
    steps(one, 3)
    before = one.means().figures
    steps(one, 50)
    one.means()
    steps(one, 3)
    assert one.means().figures["loss"] < before["loss"] / 4
