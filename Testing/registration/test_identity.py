"""What vouches for one bone where two slender ones agree: trabeculae off the cortex, or inner surfaces of shafts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from DNetRegistrationLib import make_pair
from DNetRegistrationLib.bone.cortex import CorticalBone
from DNetRegistrationLib.bone.images import BoneImage
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.blur import as_bone
from DNetRegistrationLib.registration.endosteum import Misfit
from DNetRegistrationLib.registration.evidence import Evidence
from DNetRegistrationLib.registration.identity import unvouched
from DNetRegistrationLib.registration.similarity import Similarity
from DNetRegistrationLib.synthesis.adversarial import make_adversarial
from edge_phantom import TURNS
from scipy import ndimage

SPACING = 0.08
EVIDENCE = Evidence(Similarity(0.95, 0.9, 0.8, 0.9), 0.02, SPACING)
# What surely is of one bone, and what as surely is not.
ALIKE, UNLIKE = Misfit(0.0, 1e-4), Misfit(0.01, 1e-4)
STILL = torch.eye(4).double()


def scanned(radius: float, canal: float, half: float, marrow: int | None = None, bright=None, flatness: float = 1.0):
    """A scan of a hollow rod along z, its cortex, and marrow of a texture that a seed draws."""
    size = np.ceil(np.array((half, radius, radius / flatness)) / SPACING).astype(int) * 2 + 9
    affine = np.eye(4)
    affine[:3, :3] = SPACING * TURNS[1]
    affine[:3, 3] = -affine[:3, :3] @ (size[::-1] - 1) / 2
    z, y, x = np.moveaxis((np.indices(size).T - (size - 1) / 2).T * SPACING, 0, 0)
    away, end = np.hypot(flatness * x, y), half - np.abs(z)
    depth = np.minimum(radius - away, end)
    grey = np.tanh(np.minimum(depth, away - canal) / 0.06)
    if marrow is not None:
        texture = ndimage.gaussian_filter(np.random.default_rng(marrow).normal(0, 1, size), 1.0)
        grey += 0.15 * texture / texture.std() * (away < canal)
    grey += np.random.default_rng(round(1e4 * radius)).normal(0, 0.01, size)
    cortex = (depth > 0) & (away > canal)
    bone = CorticalBone(cortex, depth > 0, grey.astype(np.float32), affine)
    scale = SimpleNamespace(threshold=0.0, maximum=1.0, bright=bright)
    native = SimpleNamespace(scale=scale, raw=torch.zeros(1))
    level = as_bone(BoneImage(torch.from_numpy(bone.grey), affine))
    return SimpleNamespace(levels=[level], cube=SimpleNamespace(spacing=SPACING), native=native), bone


def asked(first, second, misfit: Misfit | None = None) -> bool:
    pair = SimpleNamespace(fixed=first[0], moving=second[0], bones=(first[1], second[1]))
    return unvouched(pair, replace(EVIDENCE, misfit=misfit), STILL)


def test_nothing_vouches_for_a_bone_as_slender_as_an_ulna():
    thin = scanned(0.36, 0.2, 2.0)
    assert asked(thin, thin) and asked(thin, thin, ALIKE)
    # A holder beside it in the other scan.
    assert asked(thin, scanned(1.4, 1.0, 2.0), ALIKE)


def test_inner_surfaces_vouch_for_a_shaft():
    shaft = scanned(0.6, 0.4, 3.2)
    # Asked here where verification did not ask.
    assert not asked(shaft, shaft) and not asked(shaft, shaft, ALIKE)
    assert asked(shaft, shaft, UNLIKE)
    # Rays of metal move them.
    metal = scanned(0.6, 0.4, 3.2, bright=5.0)
    assert asked(shaft, metal) and asked(metal, shaft)


def test_trabeculae_away_from_the_cortex_vouch_where_both_scans_share_them():
    first, same, other = (scanned(0.76, 0.6, 4.0, marrow) for marrow in (1, 1, 2))
    assert not asked(first, same, UNLIKE)
    assert asked(first, other, UNLIKE)


def test_bones_that_are_not_slender_are_not_asked():
    broad, plate = scanned(0.9, 0.5, 1.6), scanned(0.3, 0.12, 1.9, flatness=0.16)
    assert not asked(broad, broad, UNLIKE) and not asked(plate, plate, UNLIKE)


def aligned(kind: str, seed: int):
    pair = make_adversarial(seed, kind)
    return align(pair.fixed, pair.moving)


def test_slender_bones_of_two_animals_that_are_accepted_say_so():
    result = aligned("slender relative", 995_025)
    assert result.accepted and result.doubts == ["identity"]
    assert result.verdict.startswith("Accepted with reservations") and "of the same bone" in result.verdict


@pytest.mark.slow
@pytest.mark.parametrize("seed", [995_003, 995_008, 995_023, 995_030])
def test_so_do_others(seed):
    """Too thin for it to be seen how they bow, or of surroundings that differ."""
    result = aligned("slender relative", seed)
    assert result.accepted and "identity" in result.doubts


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("crop", 995_300), ("crop", 995_301), ("plain", 995_200)])
def test_pieces_of_a_tibia_do_not(kind, seed):
    result = aligned(kind, seed)
    assert result.accepted and result.doubts == []


@pytest.mark.slow
@pytest.mark.parametrize(("impostor", "told"), [(None, False), ("relative", True)])
def test_a_whole_tibia_is_vouched_for_by_its_trabeculae(impostor, told):
    """It is as slender as an ulna, in voxels of 0.15 mm."""
    pair = make_pair(14, size=128, spacing=0.15, impostor=impostor)
    result = align(pair.fixed, pair.moving)
    assert result.accepted and result.doubts == ["identity"] * told
