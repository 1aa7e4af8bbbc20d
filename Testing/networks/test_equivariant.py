"""The equivariant network: what it must not see, what it must, and that its answer turns with its input."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
import torch
from cube_rotations import cube_rotations
from DNetRegistrationLib.bone.images import native_scan
from DNetRegistrationLib.bone.prepare import prepare
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.networks import equivariant
from DNetRegistrationLib.networks.equivariant import Equivariant, MutualLink, PairFeatures, SelfAttention
from DNetRegistrationLib.networks.keypoints import DESCRIPTOR, Keypoints
from DNetRegistrationLib.registration.proposal import propose
from DNetRegistrationLib.synthesis.pairs import make_pair
from DNetRegistrationLib.training.losses import matching_loss


@pytest.fixture(scope="module")
def scans():
    """A pair as `align` shows it to a network, the truth about the cubes, and the cubes themselves."""
    pair = make_pair(77, size=64, spacing=0.08, contrast=True)
    natives = [native_scan(s, find_bone_scale(s), None, torch.device("cpu")) for s in (pair.fixed, pair.moving)]
    fixed, moving = (scan.cube for scan in prepare(*natives))
    rotation = pair.matrix[:3, :3]
    shift = torch.from_numpy(pair.matrix[:3, 3] + rotation @ fixed.center - moving.center)
    batch = SimpleNamespace(
        fixed=fixed.image[None, None], moving=moving.image[None, None],
        fixed_inside=fixed.inside[None, None], moving_inside=moving.inside[None, None],
        rotation=torch.from_numpy(rotation)[None], translation=shift[None],
    )  # fmt: skip
    return SimpleNamespace(batch=batch, pair=pair, fixed=fixed, moving=moving)


@pytest.fixture(scope="module")
def network(scans):
    """A few steps from random weights: enough to match something."""
    torch.manual_seed(0)
    network = Equivariant()
    network.fit(scans.batch)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        loss, parts = network.loss(scans.batch, matching_loss)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
        assert float(sum(parts.values())) == pytest.approx(losses[-1], rel=1e-4)
    network.losses = losses
    return network.eval()


def inputs(batch):
    return batch.fixed, batch.moving, batch.fixed_inside, batch.moving_inside


def random_keypoints(count=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(1, count, 2, 3, generator=generator), dim=-1)
    valid = torch.ones(1, count, dtype=torch.bool)
    positions = 8 * torch.randn(1, count, 3, generator=generator)
    return Keypoints(positions, directions, torch.randn(1, count, DESCRIPTOR, generator=generator), valid)


def moved(keypoints, matrix, shift=0.0):
    return Keypoints(
        keypoints.positions @ matrix.T + shift, keypoints.directions @ matrix.T, keypoints.descriptors, keypoints.valid
    )


@pytest.mark.slow
def test_learns(network):
    assert network.losses[-1] < 0.8 * network.losses[0]


@pytest.mark.slow
def test_the_answer_turns_with_the_input(scans, network):
    plain = network.transforms(*inputs(scans.batch))[0]
    assert len(plain) >= 1
    for matrix, turn in cube_rotations():
        fixed, inside = turn(scans.batch.fixed[0])[None], turn(scans.batch.fixed_inside[0])[None]
        found = network.transforms(fixed, scans.batch.moving, inside, scans.batch.moving_inside)[0]
        turned = torch.eye(4, dtype=torch.float64)
        turned[:3, :3] = matrix
        # To rounding: in voxels.
        torch.testing.assert_close(found[0] @ turned, plain[0], atol=2e-3, rtol=0)


def test_the_other_way_round_is_the_inverse(scans, network):
    fixed, moving, fixed_inside, moving_inside = inputs(scans.batch)
    there = network.transforms(fixed, moving, fixed_inside, moving_inside)[0][0]
    back = network.transforms(moving, fixed, moving_inside, fixed_inside)[0][0]
    torch.testing.assert_close(rigid.inverse(back), there, atol=2e-3, rtol=0)


def test_the_same_twice_and_proper(scans, network):
    first, second = (network.transforms(*inputs(scans.batch))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.linalg.det(first[:, :3, :3]).sub(1).abs().max() < 1e-9


def test_size():
    network = Equivariant()
    assert sum(p.numel() for p in network.parameters()) < 0.8e6
    stream = io.BytesIO()
    torch.save({name: value.half() for name, value in network.state_dict().items()}, stream)
    assert len(stream.getvalue()) <= 3e6


def test_pairs_of_keypoints_do_not_see_a_turn_but_a_mirror():
    torch.manual_seed(1)
    features, keypoints = PairFeatures(), random_keypoints()
    plain = features(keypoints)
    rotation = rigid.random_rotations(1, torch.Generator().manual_seed(2))[0].float()
    for turned, expected in zip(features(moved(keypoints, rotation, shift=3.0)), plain, strict=True):
        torch.testing.assert_close(turned, expected, atol=2e-4, rtol=0)
    mirrored = features(moved(keypoints, torch.diag(torch.tensor([-1.0, 1, 1]))))
    assert (mirrored[0] - plain[0]).abs().max() > 1e-2


def test_mutual_link_is_eq_2():
    """Against an explicit double loop, one head at a time."""
    torch.manual_seed(3)
    link, width, heads = MutualLink(), equivariant._WIDTH, equivariant._HEADS
    fixed, moving = torch.randn(1, 5, width), torch.randn(1, 7, width)
    absent = torch.zeros(1, 5), torch.tensor([[0.0] * 6 + [equivariant._NEVER]])  # the last one is not there
    found = link(fixed, moving, *absent)
    part = width // heads
    embedded = [(link.embed(s)[0], link.value(s)[0]) for s in (fixed, moving)]
    (first, first_value), (second, second_value) = embedded
    to_fixed, to_moving = torch.zeros(5, width), torch.zeros(7, width)
    for head in range(heads):
        at = slice(head * part, (head + 1) * part)
        phi = torch.zeros(5, 7)
        for k in range(5):
            for j in range(6):
                phi[k, j] = torch.exp(first[k, at] @ second[j, at] / part**0.5)
        for k in range(5):
            to_fixed[k, at] = sum(phi[k, j] * second_value[j, at] for j in range(7)) / phi[k].sum()
        for j in range(6):
            to_moving[j, at] = sum(phi[k, j] * first_value[k, at] for k in range(5)) / phi[:, j].sum()
    torch.testing.assert_close(found[0][0], link.update(fixed, link.leave(to_fixed[None]))[0], atol=1e-4, rtol=0)
    expected = link.update(moving, link.leave(to_moving[None]))[0]
    torch.testing.assert_close(found[1][0, :6], expected[:6], atol=1e-4, rtol=0)


def test_keypoints_that_are_not_there_change_nothing():
    torch.manual_seed(4)
    network, keypoints, others = Equivariant().eval(), random_keypoints(12, 5), random_keypoints(9, 6)
    padded = Keypoints(*(torch.cat((part, torch.zeros_like(part[:, :4])), 1) for part in vars(keypoints).values()))
    plain, with_padding = network(keypoints, others), network(padded, others)
    torch.testing.assert_close(with_padding.log_matches[:, :12], plain.log_matches, atol=1e-3, rtol=0)
    assert (with_padding.log_matches[:, 12:] < -100).all()
    attention = SelfAttention()
    assert attention(torch.randn(1, 3, equivariant._WIDTH), torch.zeros(1, 1, 3, 3)).shape == (1, 3, 96)


def test_nothing_to_see(scans, network):
    empty, everywhere = torch.zeros_like(scans.batch.fixed), torch.ones_like(scans.batch.fixed)
    (found,) = network.transforms(empty, scans.batch.moving, everywhere, everywhere)
    assert found.shape == (0, 4, 4)
    rotation, translation = network.estimate(empty, scans.batch.moving, everywhere, everywhere)
    assert torch.equal(rotation[0], torch.eye(3).double())
    assert not translation.any()


def test_proposals_lie_in_the_world(scans, network):
    """The candidates in voxels of the cubes, carried into the world by hand."""
    fixed, moving = scans.fixed, scans.moving
    found = propose(network, fixed, moving).poses
    candidates = network.transforms(*inputs(scans.batch))[0]
    assert len(found) == len(candidates)
    for world, voxels in zip(found, candidates, strict=True):
        point = torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
        index = (point - torch.from_numpy(fixed.center)) / fixed.spacing
        expected = rigid.apply(voxels, index[None])[0] * moving.spacing + torch.from_numpy(moving.center)
        torch.testing.assert_close(rigid.apply(world, point[None])[0], expected, atol=1e-9, rtol=0)
    rotation, translation = network.estimate(*inputs(scans.batch))
    torch.testing.assert_close(rotation[0], candidates[0, :3, :3])
    torch.testing.assert_close(translation[0], 0.08 * candidates[0, :3, 3])
