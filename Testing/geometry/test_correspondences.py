"""Transforms from uncertain matches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from DNetRegistrationLib.geometry import rigid
from DNetRegistrationLib.geometry.correspondences import Correspondences, distances, fit, spatial_consensus
from scipy.spatial.transform import Rotation


def drawn(seed, count, spread=10.0):
    return spread * torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pose(seed):
    return rigid.rigid(rigid.random_rotations(1, torch.Generator().manual_seed(seed))[0], drawn(seed + 100, 1)[0])


def error(found, truth, points):
    return float((rigid.apply(found, points) - rigid.apply(truth, points)).norm(dim=-1).max())


def test_fit_is_weighted_least_squares():
    fixed, truth = drawn(0, 12), pose(0)
    moving = rigid.apply(truth, fixed) + 0.3 * drawn(1, 12, 1.0)
    weight = torch.rand(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    middle, arrival = (np.average(p.numpy(), axis=0, weights=weight) for p in (fixed, moving))
    expected, _ = Rotation.align_vectors(moving.numpy() - arrival, fixed.numpy() - middle, weights=weight.numpy())
    found = fit(fixed, moving, weight).numpy()
    np.testing.assert_allclose(found[:3, :3], expected.as_matrix(), atol=1e-9)
    np.testing.assert_allclose(found[:3, :3] @ middle + found[:3, 3], arrival, atol=1e-9)


def test_fit_of_many_at_once():
    fixed, moving = drawn(3, 9), drawn(4, 9)
    weights = torch.rand(5, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for one, weight in zip(fit(fixed, moving, weights), weights, strict=True):
        torch.testing.assert_close(one, fit(fixed, moving, weight))


@pytest.mark.parametrize("seed", range(5))
def test_most_matches_may_be_wrong(seed):
    fixed, truth = drawn(seed, 120), pose(seed)
    moving = rigid.apply(truth, fixed)
    moving[36:] = drawn(seed + 50, 84)
    found = spatial_consensus(Correspondences(fixed, moving, torch.ones(120, dtype=torch.float64)))
    assert error(found[0], truth, fixed) < 0.05
    assert torch.linalg.det(found[:, :3, :3]).sub(1).abs().max() < 1e-9


def test_two_motions_are_two_hypotheses():
    fixed, first, second = drawn(7, 100), pose(7), pose(8)
    moving = torch.cat((rigid.apply(first, fixed[:60]), rigid.apply(second, fixed[60:])))
    found = spatial_consensus(Correspondences(fixed, moving, torch.ones(100, dtype=torch.float64)))
    assert len(found) >= 2
    assert error(found[0], first, fixed) < 0.1
    assert error(found[1], second, fixed) < 0.1


def test_a_mirror_image_is_not_turned_inside_out():
    fixed = drawn(9, 80)
    moving = fixed * torch.tensor([-1.0, 1, 1])
    found = spatial_consensus(Correspondences(fixed, moving, torch.ones(80, dtype=torch.float64)))
    assert torch.linalg.det(found[0, :3, :3]) == pytest.approx(1)
    off = (rigid.apply(found[0], fixed) - moving).norm(dim=-1)
    assert (off < 3).double().mean() < 0.5


def test_the_other_way_round_gives_the_inverse():
    fixed, truth = drawn(10, 60), pose(10)
    moving = rigid.apply(truth, fixed) + 0.2 * drawn(11, 60, 1.0)
    weight = torch.rand(60, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    there, back = (
        spatial_consensus(Correspondences(fixed, moving, weight))[0],
        spatial_consensus(Correspondences(moving, fixed, weight))[0],
    )
    torch.testing.assert_close(rigid.inverse(back), there, atol=1e-6, rtol=0)


def test_nothing_to_agree_on():
    two = drawn(13, 2)
    assert spatial_consensus(Correspondences(two, two, torch.ones(2, dtype=torch.float64))).shape == (0, 4, 4)
    many = drawn(14, 9)
    assert spatial_consensus(Correspondences(many, many, torch.zeros(9, dtype=torch.float64))).shape == (0, 4, 4)


def test_matches_are_the_middle_of_likely_partners():
    fixed = torch.tensor([[0.0, 0, 0], [20, 0, 0]], dtype=torch.float64)
    moving = torch.tensor([[5.0, 0, 0], [6, 0, 0], [40, 0, 0]], dtype=torch.float64)
    confidence = torch.tensor([[0.6, 0.2, 0.1], [0.0, 0.0, 0.9]], dtype=torch.float64)
    match = Correspondences.between(fixed, moving, confidence)
    rows = zip(match.fixed[:3].tolist(), match.moving[:3].tolist(), match.weight[:3].tolist(), strict=True)
    found = {tuple(start): (end, weight) for start, end, weight in rows}
    # (0.6 x 5 + 0.2 x 6) / 0.8; what lies at 40 is too far off to be the same place.
    assert found[(0.0, 0.0, 0.0)][0] == pytest.approx((5.25, 0, 0))
    assert found[(0.0, 0.0, 0.0)][1] == pytest.approx(0.8)
    assert match.weight[0] == pytest.approx(0.9)


def test_distances_do_not_cancel():
    far = torch.full((1, 3), 1e4)
    assert float(distances(far, far + torch.tensor([0.25, 0, 0]))) == pytest.approx(0.25, abs=1e-3)
