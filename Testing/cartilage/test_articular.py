"""Where cartilage can be: on solids that have no joint, and on ends of bone that the view cuts on several sides."""

import numpy as np
import pytest
from alignments import made_alignment
from DNetRegistrationLib import Volume, measure_cartilage
from DNetRegistrationLib.bone.cortex import cortical_bone
from DNetRegistrationLib.bone.threshold import find_bone_scale
from DNetRegistrationLib.cartilage.articular import joint_end
from DNetRegistrationLib.core.errors import ScanError
from DNetRegistrationLib.synthesis.pairs import make_pair

_Z, _Y, _X = np.indices((40, 40, 40))


def _scan(solid, shift=0.0):
    voxels = np.where(np.broadcast_to(solid, _Z.shape), 1000.0, 0.0).astype(np.float32)
    return Volume(voxels, np.diag((0.03, 0.03, 0.03, 1.0)) + shift * np.eye(4, k=3), "before.nrrd")


@pytest.mark.parametrize(
    "solid", [np.array(True), np.abs(_Z - 19.5) < 6, (np.abs(_X - 19.5) < 6) & (np.abs(_Y - 19.5) < 6)]
)
def test_what_the_view_cuts_alike_on_all_sides_has_no_end(solid):
    assert joint_end(cortical_bone(_scan(solid), 500.0, 0.08), 500.0) is None


def test_a_shaft_has_its_end_away_from_the_cut():
    end = joint_end(cortical_bone(_scan((np.hypot(_X - 19.5, _Y - 19.5) < 8) & (_Z < 30)), 500.0, 0.08), 500.0)
    assert end.axis == pytest.approx((0, 0, 1), abs=0.05) and end.top[2] == pytest.approx(0.87, abs=0.05)


def test_a_fragment_that_floats_beyond_the_joint_is_no_end_of_the_bone():
    """It was taken for the end, so that a fifth of a joint's surface was measured as all of it."""
    solid = (np.hypot(_X - 19.5, _Y - 19.5) < 12) & (_Z < 20)
    solid |= (_X - 26) ** 2 + (_Y - 19.5) ** 2 + (_Z - 34) ** 2 < 4**2
    end = joint_end(cortical_bone(_scan(solid), 500.0, 0.08), 500.0)
    assert end.axis == pytest.approx((0, 0, 1), abs=0.05) and end.top[2] == pytest.approx(0.57, abs=0.05)


@pytest.mark.parametrize("noise", [0.0, 150.0])
def test_a_piece_of_shaft_that_is_cut_at_both_ends_has_none(noise):
    """Noise made one up, across the shaft."""
    scan = _scan((np.hypot(_X - 19.5, _Y - 19.5) < 12) & (np.hypot(_X - 19.5, _Y - 19.5) > 7))
    scan.voxels[:] += np.random.default_rng(0).normal(0, noise, scan.voxels.shape).astype(np.float32)
    assert joint_end(cortical_bone(scan, 500.0, 0.08), 500.0) is None


def test_a_pore_in_solid_bone_is_no_marrow():
    """It counted as much as the hollow of a shaft, and the axis was up to 89 degrees off."""
    solid = (np.hypot(_X - 19.5, _Y - 19.5) < 14) & (_Z < 20)
    solid &= (_X - 28) ** 2 + (_Y - 19.5) ** 2 + (_Z - 14) ** 2 > 3**2
    end = joint_end(cortical_bone(_scan(solid), 500.0, 0.08), 500.0)
    assert end.axis == pytest.approx((0, 0, 1), abs=0.05)


def test_normals_do_not_lead_to_a_flank_that_the_view_cuts():
    """Of this end they led to 78 degrees off; the cuts and the marrow had told it to 13."""
    pair = make_pair(233, size=80, spacing=0.03, contrast=False)
    threshold = find_bone_scale(pair.fixed).threshold
    end = joint_end(cortical_bone(pair.fixed, threshold, 0.04), threshold)
    assert end.axis @ pair.fixed_pose[:3, 2] > 0.95


@pytest.mark.parametrize("seed", [40, 41, 54])
def test_the_marrow_tells_the_end_where_the_view_cuts_it_on_several_sides(seed):
    """By the cuts alone a flank was taken for the joint."""
    pair = make_pair(seed, size=64, spacing=0.045, contrast=False)
    threshold = find_bone_scale(pair.fixed).threshold
    end = joint_end(cortical_bone(pair.fixed, threshold, 0.08), threshold)
    assert end.axis @ pair.fixed_pose[:3, 2] > 0.95


def test_a_scan_that_is_all_bone_has_no_surface_and_is_refused():
    """As where the threshold is that of other grey values."""
    scan = _scan(np.array(True))
    scan.voxels[20, 20, 20] = 1100
    with pytest.raises(ScanError, match=r"^before\.nrrd: found no bone surface in it") as caught:
        measure_cartilage(made_alignment(fixed_threshold=500.0), scan, scan)
    assert caught.value.setting.quantity == "threshold"


@pytest.mark.filterwarnings("error")
def test_scans_that_see_no_place_in_common_measure_nothing():
    stump = (np.hypot(_X - 19.5, _Y - 19.5) < 8) & (_Z < 30)
    found = measure_cartilage(made_alignment(fixed_threshold=500.0), _scan(stump), _scan(stump, shift=50.0))
    assert found.agent is None and found.to_dict()["shares"]["edge_of_view"] == 1
    assert any("whether there is agent elsewhere cannot be told" in one for one in found.warnings)
