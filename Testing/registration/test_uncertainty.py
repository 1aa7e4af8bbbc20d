"""Uncertainty: it is the spread of what refinement finds, and grows where less of the bone is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from DNetRegistrationLib.geometry.rigid import apply
from DNetRegistrationLib.registration.refinement import gauss_newton
from DNetRegistrationLib.registration.template import edge_template
from DNetRegistrationLib.registration.uncertainty import sums_over_cells, uncertainty
from noisy_box import image_of, turn


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_it_is_the_spread_of_what_refinement_finds(noise):
    pose, found, told = turn(), [], []
    for seed in range(12):
        fixed, moving = image_of(torch.eye(4).double(), noise, seed), image_of(pose, noise, 100 + seed)
        template = edge_template(fixed, 4000)
        found.append(gauss_newton(template, moving, pose[None], 20).transforms[0])
        told.append(uncertainty(fixed, moving, found[-1]).random)
    points = template.local().double() + torch.tensor(template.center)
    places = torch.stack([apply(one, points) for one in found])
    spread = (places - places.mean(0)).square().sum(-1).mean().mul(12 / 11).sqrt()
    assert np.median(told) == pytest.approx(float(spread), rel=0.5)


def test_it_grows_with_noise_and_with_what_is_cut_off():
    pose = turn()
    fixed, quiet, noisy = image_of(torch.eye(4).double(), 0.03, 1), image_of(pose, 0.03, 2), image_of(pose, 0.15, 2)
    whole = uncertainty(fixed, quiet, pose).random
    assert uncertainty(fixed, noisy, pose).random > 1.5 * whole
    # A slab of the middle shows no end of the box.
    slab = torch.zeros(fixed.shape)
    slab[14:26] = 1
    cut = uncertainty(replace(fixed, inside=slab), quiet, pose)
    assert cut.random > 1.5 * whole
    # So little holds it along the axis that edges off by little take it far, whatever the noise.
    dilution = [uncertainty(fixed, moving, pose).dilution for moving in (quiet, noisy)]
    assert dilution[1] == pytest.approx(dilution[0], rel=0.2) and cut.dilution > 1.5 * dilution[0]


def test_it_scales_with_the_length():
    def enlarged(image):
        return replace(image, affine=np.diag((10.0, 10.0, 10.0, 1.0)) @ image.affine)

    pose = turn()
    large = pose.clone()
    large[:3, 3] *= 10
    images = image_of(torch.eye(4).double(), 0.05, 3), image_of(pose, 0.05, 4)
    small, found = uncertainty(*images, pose), uncertainty(*map(enlarged, images), large)
    assert found.random == pytest.approx(10 * small.random, rel=1e-3)
    assert found.dilution == pytest.approx(small.dilution, rel=1e-3)


def test_sums_over_cells_are_those_of_each_cell_that_holds_any_however_far_apart():
    """A box of 1e15 cells was counted as a whole."""
    generator = torch.Generator().manual_seed(1)
    near, values = torch.randint(0, 3, (50, 3), generator=generator), torch.rand(50, 2, generator=generator).double()
    far = torch.cat((near[:25], near[25:] + 100_000))
    for cells in (near, far):
        found, place = np.unique(cells.numpy()[:, ::-1], axis=0, return_inverse=True)
        wanted = torch.zeros(len(found), 2).double().index_add_(0, torch.from_numpy(place.ravel()), values)
        torch.testing.assert_close(sums_over_cells(cells, values), wanted)
