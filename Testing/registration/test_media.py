"""What surrounds the bone: whether it is as bright in both scans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib import Volume, align, find_bone_scale
from DNetRegistrationLib.bone.cortex import CorticalBone, cortical_bone
from DNetRegistrationLib.imaging.morphology import dilate
from DNetRegistrationLib.outputs.summary import summary
from DNetRegistrationLib.registration.media import find_medium_change

HEIGHT = 4000.0  # of the cortex above air
# Oblique, off the origin; the second grid is anisotropic and left-handed.
TURN = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
MATRIX = np.eye(4)
MATRIX[:3, :3], MATRIX[:3, 3] = TURN * np.sign(np.linalg.det(TURN)), (3, -40, 7)
FIXED = np.diag((0.08, 0.08, 0.08, 1.0))
FIXED[:3, 3] = (-1.8, 20 - 1.8, -1.8)
CENTER = np.array((0.0, 20.0, 0.0))


def ball(affine: np.ndarray, center: np.ndarray, medium, gain: float = 1.0, size=(46, 46, 46)) -> CorticalBone:
    """A hollow ball of bone in a medium: its grey value, or a function of points ``(..., 3)`` that gives it."""
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    points = index[..., ::-1] @ affine[:3, :3].T + affine[:3, 3]
    radius = np.linalg.norm(points - center, axis=-1)
    whole, marrow = radius < 1, radius < 0.6
    around = medium(points) if callable(medium) else medium
    grey = np.where(marrow, 0.0, np.where(whole, 3000.0, around))
    grey += np.random.default_rng(size[0]).normal(0, 60, grey.shape)
    return CorticalBone(whole & ~marrow, whole, (gain * grey + 50).astype(np.float32), affine)


def both(first, second, gain=1.0):
    grid = np.eye(4)
    grid[:3, :3] = np.diag((-0.09, 0.08, 0.12))
    moved = MATRIX[:3, :3] @ CENTER + MATRIX[:3, 3]
    grid[:3, 3] = moved - grid[:3, :3] @ (np.array((44, 50, 34)) / 2)
    return ball(FIXED, CENTER, first), ball(grid, moved, second, gain, (34, 50, 44))


@pytest.mark.parametrize(("first", "second", "amount"), ((-1000, 0, 0.25), (0, -1000, -0.25), (0, 700, 0.175)))
@pytest.mark.parametrize("gain", (1.0, 0.03))
def test_another_medium_is_told_in_any_grey_values(first, second, amount, gain):
    found = find_medium_change(*both(first, second, gain), MATRIX, HEIGHT, 0.08)
    assert found.share > 0.95
    assert found.amount == pytest.approx(amount, abs=0.02)
    assert ("brighter" if amount > 0 else "darker") in found.sentence


def test_half_of_the_surroundings_are_enough():
    """Liquid up to a level, air above it: through the middle of the bone, and so that most of it lies in air."""
    moved = MATRIX[:3, :3] @ CENTER + MATRIX[:3, 3]
    for level, told in ((0.2, True), (-0.6, False)):
        scans = both(-1000, lambda points, x=moved[0] + level: np.where(points[..., 0] < x, 0, -1000))
        found = find_medium_change(*scans, MATRIX, HEIGHT, 0.08)
        assert (found is not None) == told
        assert not told or (
            found.share == pytest.approx(0.6, abs=0.05) and found.amount == pytest.approx(0.25, abs=0.02)
        )


def test_soft_tissue_of_many_shades_is_no_medium():
    """It took up as much agent as liquid would add, but not everywhere alike."""
    moved = MATRIX[:3, :3] @ CENTER + MATRIX[:3, 3]
    scans = both(0, lambda points: 1600 * (((points - moved) @ (0.6, 1.0, 1.4)) % 1))
    assert find_medium_change(*scans, MATRIX, HEIGHT, 0.08) is None


@pytest.mark.parametrize("medium", (-1000, 0, 400))
def test_one_medium_is_none_of_another(medium):
    assert find_medium_change(*both(medium, medium, 0.2), MATRIX, HEIGHT, 0.08) is None


def test_what_is_not_seen_tells_nothing():
    first, second = both(-1000, 0)
    hidden = replace(second, grey=np.where(second.whole, second.grey, np.nan))
    assert find_medium_change(first, hidden, MATRIX, HEIGHT, 0.08) is None


def test_an_alignment_tells_another_medium_and_is_accepted_without_reservation(small_pair):
    """One scan twice, in one of them with all but the bone darker by 0.3 of what bone stands out by."""
    scan, bone = small_pair.fixed, small_pair.fixed_bone
    away = ~dilate(cortical_bone(scan, find_bone_scale(scan).threshold, 0.08).whole, 1)
    darker = scan.voxels.astype(np.float32)
    darker[away] -= 0.3 * (np.median(darker[bone]) - np.median(darker[away]))
    found = align(Volume(darker, scan.affine), scan, initial=np.eye(4), hypotheses="search", refine="working")
    assert found.accepted and found.verdict.startswith("Accepted:")
    assert "the moving scan is brighter by about" in found.surroundings
    assert found.surroundings not in found.warnings
    assert f"warning           {found.surroundings}" in summary(found)
