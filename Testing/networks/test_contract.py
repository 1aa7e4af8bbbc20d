"""All six networks keep one contract."""

from __future__ import annotations

import pytest
import torch
from DNetRegistrationLib.core.errors import OptionError
from DNetRegistrationLib.networks.contract import Network
from DNetRegistrationLib.networks.registry import NETWORKS, build
from DNetRegistrationLib.training.losses import criterion_for
from DNetRegistrationLib.training.recipes import SIAMESE, recipe_for
from training_stand_ins import Pairs


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_tells_loss_estimate_and_candidates(name):
    torch.manual_seed(0)
    network = build(name)
    assert isinstance(network, Network) and network.name == name
    network.sample_links(5)
    batch = Pairs().draw(0, 2, reduction=8 if name in SIAMESE else 1)
    if network.pairs_to_fit:
        network.fit(batch)
    else:
        with pytest.raises(NotImplementedError, match="nothing to fit"):
            network.fit(batch)
    recipe = recipe_for("fast", name)
    loss, figures = network.loss(batch, criterion_for(recipe.loss), recipe.both_directions)
    assert loss.shape == () and loss.isfinite() and loss.requires_grad
    assert all(float(value) >= 0 for value in figures.values())

    network.eval()
    scans = (batch.fixed, batch.moving, batch.fixed_inside, batch.moving_inside)
    with torch.no_grad():
        rotations, translations = network.estimate(*scans)
        found = network.candidates(*scans, 0.08)
    assert rotations.shape == (2, 3, 3) and translations.shape == (2, 3)
    assert rotations.dtype == translations.dtype == torch.float64
    assert len(found) == 2 and min(map(len, found)) >= 1
    for candidates, rotation, translation in zip(found, rotations, translations, strict=True):
        for candidate in candidates:
            assert candidate.rotation.shape == (3, 3) and candidate.translation.shape == (3,)
            assert candidate.rotation.dtype == candidate.translation.dtype == torch.float64
        # At the paper's spacing the first of them is the estimate, from another batch.
        torch.testing.assert_close(candidates[0].rotation, rotation, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(candidates[0].translation, translation, atol=1e-4, rtol=1e-4)


def test_an_unknown_network():
    with pytest.raises(
        OptionError, match="there is no network 'resnet'; choose one of se, sed, snl-sed, dnet, me, equivariant"
    ):
        build("resnet")
