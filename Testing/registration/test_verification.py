"""What is believed of a pose: it rises and falls with the evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from DNetRegistrationLib.imaging.volume import Volume
from DNetRegistrationLib.registration import verification
from DNetRegistrationLib.registration.align import align
from DNetRegistrationLib.registration.endosteum import Misfit
from DNetRegistrationLib.registration.evidence import Evidence
from DNetRegistrationLib.registration.settling import Held
from DNetRegistrationLib.registration.similarity import Similarity
from DNetRegistrationLib.registration.uncertainty import Uncertainty
from DNetRegistrationLib.registration.verdict import ACCEPT, REASONS, Doubt, Verdict
from DNetRegistrationLib.registration.verification import DETERMINED, judge, judged
from DNetRegistrationLib.synthesis.adversarial import make_adversarial

GOOD = Evidence(Similarity(0.95, 0.9, 0.93, 0.9), 0.02, 0.08)


def with_similarity(**changes) -> Evidence:
    return replace(GOOD, similarity=replace(GOOD.similarity, **changes))


def test_better_evidence_never_counts_less():
    for name in ("correlation", "edge_correlation", "trabecular_correlation"):
        confidences = [judge(with_similarity(**{name: value}), 0.08)[0] for value in np.linspace(-1, 1, 21)]
        assert (np.diff(confidences) >= -1e-9).all(), name
    confidences = [judge(replace(GOOD, disagreement=value), 0.08)[0] for value in np.logspace(-4, 2, 21)]
    assert (np.diff(confidences) <= 1e-9).all()


def test_good_evidence_is_accepted_and_bad_refused():
    unseen = with_similarity(correlation=0.97, edge_correlation=0.93, trabecular_correlation=np.nan)
    assert judge(unseen, 0.08)[0] > 0.9
    bad = Evidence(Similarity(0.5, 0.2, 0.1, 0.5), 0.8, 0.08)
    assert judge(GOOD, 0.08)[0] > 0.9 and judge(bad, 0.08)[0] < 0.1
    assert judge(GOOD, 0.08)[1] < 0.02 < judge(bad, 0.08)[1]


def test_extreme_evidence_gives_finite_numbers():
    for evidence in (
        Evidence(Similarity(1.0, 1.0, 1.0, 1.0), 0.0, 1e-3),
        Evidence(Similarity(-1.0, -1.0, -1.0, 0.0), 1e9, 1e3),
        Evidence(Similarity(0.0, 0.0, 0.0, 0.0), 0.0, 0.08),
        Evidence(Similarity(1.0, 1.0, np.nan, 1.0), 0.0, 0.08, uncertainty=Uncertainty(0.0, 1e9)),
    ):
        confidence, error = judge(evidence, 0.08)
        assert 0 <= confidence <= 1 and np.isfinite(error) and error > 0


def test_judged_by_hand(monkeypatch):
    model = {
        "confidence": np.array((-1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5, 0.0)),
        "log_error": np.array((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.5, 1.0)),
        "wrong_error_voxels": 10.0,
    }
    monkeypatch.setattr(verification, "calibration", lambda: model)
    blurs = np.zeros((3, 3)), (0.16 * np.log(2)) ** 2 * np.diag((3.0, 0, 0))
    evidence = Evidence(Similarity(np.tanh(1.5), 0.3, 0.4, 0.7), 0.1, 0.02, 0.77, blurs=blurs)
    # -1 + 2 * 1.5 - 0.5 log 0.1; a right pose is off by 0.1 * (0.02 / 0.08) working voxels, and twice as much where one
    # scan is so much more blurred, a quarter as much where so little is not taken back, a wrong one by 10.
    expected = 1 / (1 + np.exp(-(2 - 0.5 * np.log(0.1))))
    confidence, error = judge(evidence, 0.08)
    assert confidence == pytest.approx(expected)
    # Accepted: the error of a right pose.
    assert error == pytest.approx(0.2 * 0.25 * 0.25 * 0.08)
    # What is held loosely may be off by more: by 0.005 voxels of 20 um times 40.
    loose = judge(replace(evidence, held=Held(40.0, 0.0)), 0.08)
    assert loose == pytest.approx((confidence, np.hypot(error, 0.004)))
    # Where edges in voxels of 80 um let it slide by 10 um, by 1.4 times as much, a quarter in those of 20 um; what
    # counts is by how much all lets it slide, where it is known.
    noisy = replace(evidence, held=Held(0.0, 0.01))
    assert judge(noisy, 0.08) == pytest.approx((confidence, np.hypot(error, 0.014 / 4)))
    assert judge(replace(noisy, scatter=0.01), 0.08) == pytest.approx((confidence, np.hypot(error, 0.02)))
    # With 4 less it is not, and the error is that of a mixture.
    model["confidence"][0] -= 4
    low = 1 / (1 + np.exp(-(-2 - 0.5 * np.log(0.1))))
    assert judge(evidence, 0.08) == pytest.approx((low, low * 0.2 * 0.25 * 0.25 * 0.08 + (1 - low) * 0.8))


def test_lengths_scale_with_the_working_spacing():
    confidence, error = judge(GOOD, 0.08)
    uncertain = replace(GOOD.uncertainty, random=10 * GOOD.uncertainty.random)
    large = judge(replace(GOOD, spacing=0.8, uncertainty=uncertain), 0.8)
    assert large == pytest.approx((confidence, 10 * error))


def test_an_undetermined_pose_is_not_believed():
    assert judge(replace(GOOD, determination=DETERMINED), 0.08)[0] == judge(GOOD, 0.08)[0]
    half = judge(replace(GOOD, determination=DETERMINED / 2), 0.08)[0]
    assert half == pytest.approx(0.25 * judge(GOOD, 0.08)[0])
    assert judge(replace(GOOD, determination=0.0), 0.08)[0] == 0


def round_scan(kind: str, seed: int) -> Volume:
    """A ball, a hollow ball, or a straight tube through the field of view, with noise."""
    generator = np.random.default_rng(seed)
    z, y, x = ((np.indices((48, 48, 48)) - 23.5) * 0.08) - generator.uniform(-0.2, 0.2, 3)[:, None, None, None]
    axis = generator.normal(size=3)
    along = (x * axis[0] + y * axis[1] + z * axis[2]) / np.linalg.norm(axis)
    radius = np.sqrt(x * x + y * y + z * z)
    around = np.sqrt(np.maximum(radius**2 - along**2, 0))
    depth = {
        "ball": 1.2 - radius,
        "hollow ball": np.minimum(1.2 - radius, radius - 0.9),
        "tube": np.minimum(0.6 - around, around - 0.35),
    }[kind]
    grey = np.clip(depth / 0.08 + 0.5, 0, 1) * 2500 + generator.normal(0, 80, depth.shape)
    return Volume.from_geometry(grey.astype(np.int16), 0.08, name=kind)


def test_a_misfit_that_is_no_number_accepts_nothing():
    assert not judge(replace(GOOD, misfit=Misfit(float("nan"), 0.001)), 0.08)[0] >= ACCEPT


@pytest.mark.parametrize(
    "kind", ["ball", pytest.param("hollow ball", marks=pytest.mark.slow), pytest.param("tube", marks=pytest.mark.slow)]
)
def test_what_can_be_turned_or_shifted_unseen_is_refused(kind):
    assert not align(round_scan(kind, 1), round_scan(kind, 2), hypotheses="search").accepted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"), [("littermate", 900_068), ("littermate crop", 3_600_000), ("littermate crop", 3_600_002)]
)
def test_a_bone_of_the_same_shape_with_other_trabeculae_is_refused(kind, seed):
    """A sliver with little marrow, and pieces of shaft; all have been accepted."""
    case = make_adversarial(seed, kind)
    assert not align(case.fixed, case.moving).accepted


def test_the_same_outline_with_other_trabeculae_is_not_believed():
    """Evidence of littermates' shafts and of one bone, as measured: fine structure is what tells them."""
    shape = {"correlation": 0.95, "edge_correlation": 0.89, "share": 0.93}
    assert judge(with_similarity(**shape, trabecular_correlation=0.53), 0.08)[0] < ACCEPT / 2
    assert judge(with_similarity(**shape, trabecular_correlation=0.93), 0.08)[0] > 0.9


def test_the_expected_error_grows_as_less_of_a_motion_is_taken_back():
    errors = [judge(replace(GOOD, determination=value), 0.08)[1] for value in (1.0, 0.95, 0.9, 0.8)]
    assert (np.diff(errors) > 0).all() and errors[2] > 1.5 * errors[0]


def test_accepted_from_the_limit_on():
    assert Verdict(0.7, 0.01, GOOD).accepted and not Verdict(0.69, 0.01, GOOD).accepted
    assert Verdict(ACCEPT, 0.01, GOOD).accepted and not Verdict(ACCEPT - 1e-9, 0.01, GOOD).accepted


@pytest.mark.parametrize(
    ("um", "words"), [(0.04, "within 0.1 um."), (0.06, "within about 0.1 um."), (12, "about 12.0 um.")]
)
def test_no_error_is_told_to_be_none(um, words):
    assert Verdict(0.9, um / 1000, GOOD).sentence.endswith(words)


def test_a_sliver_of_common_bone_is_not_believed():
    sliver = with_similarity(share=0.1, larger_share=0.15)
    assert judge(sliver, 0.08)[0] == pytest.approx(0.25 * judge(with_similarity(share=0.1), 0.08)[0])
    assert reasons(sliver) == ["little in common"]


def test_a_piece_of_what_the_other_scan_shows_is_believed():
    assert judged(with_similarity(share=0.1, larger_share=0.6), 0.08).accepted


@pytest.mark.parametrize(
    ("before", "after", "factor"),
    [
        (0.1, 0.6, 1.0),
        (0.1, 0.2, 0.25),  # half of what is needed
        (0.1, 0.0, 0.0),
        (0.9, 0.9, 1.0),  # they lay on each other from the start
        (0.6, 0.6, 0.64),  # nothing gained: 0.75 is needed
        (0.6, 0.15, 0.04),
    ],
)
def test_cortices_that_do_not_overlap_or_no_better_than_before_are_not_believed(before, after, factor):
    evidence = replace(GOOD, dice_before=before, dice=after)
    assert judge(evidence, 0.08)[0] == pytest.approx(factor * judge(GOOD, 0.08)[0])
    assert reasons(evidence) == ([] if factor == 1 else ["cortices"])


def reasons(evidence: Evidence) -> list[str]:
    """The kinds of doubt of a pose with this evidence."""
    return [doubt.kind for doubt in judged(evidence, 0.08).doubts]


def test_the_likeliest_reason_comes_first():
    undetermined = Verdict(0.1, 1.0, GOOD, (Doubt("no agreement", REASONS["no agreement"]),))
    mirrored = undetermined.because("mirrored")
    assert [doubt.kind for doubt in mirrored.doubts] == ["mirrored", "no agreement"]
    assert mirrored.reason.startswith("one scan shows the mirror image")
    assert mirrored.sentence == f"Not accepted: {mirrored.reason}"
    limited = Verdict(0.9, 0.0034, GOOD, (Doubt("part", "Most lies outside."),))
    assert limited.reason == "the bones lie on each other, to within about 3.4 um. Most lies outside."
    assert limited.sentence == f"Accepted with reservations: {limited.reason}"


def test_a_sliver_that_fits_anywhere_does_not_end_the_search():
    doubts = (Doubt("undetermined", REASONS["undetermined"]),)
    assert Verdict(0.1, 1.0, with_similarity(share=0.8), doubts).undetermined
    assert not Verdict(0.1, 1.0, with_similarity(share=0.3), doubts).undetermined
    assert not Verdict(0.9, 1.0, GOOD).undetermined


def test_inner_surfaces_change_the_odds():
    weak = with_similarity(trabecular_correlation=0.75)

    def odds(misfit: Misfit | None) -> float:
        confidence = judge(replace(weak, misfit=misfit), 0.08)[0]
        return confidence / (1 - confidence) / (plain if misfit else 1)

    plain = odds(None)

    def expected(square: float, deviation: float) -> float:
        """The likelihood ratio by an explicit sum over how far apart relatives may lie."""
        error = math.sqrt((1.5 * deviation) ** 2 + 1e-4**2)
        apart = [0.02 * 5 ** (k / 63) for k in range(64)]
        other = sum(math.exp(-(((square - one**2) / error) ** 2) / 2) for one in apart) / 64
        return math.exp(-((square / error) ** 2) / 2) / other

    for square, deviation in ((0.0007, 0.0004), (0.0011, 0.0003), (0.0023, 0.0008), (0.0003, 0.0005)):
        assert odds(Misfit(square, deviation)) == pytest.approx(expected(square, deviation), rel=1e-6)
    # What noise hides tells nothing; no misfit speaks for a pose without limit.
    assert odds(Misfit(0.001, 1.0)) == pytest.approx(1, abs=0.01)
    for square in (0.00005, 0, -(0.05**2)):
        assert odds(Misfit(square, 0.0001)) == pytest.approx(math.exp(1.9))


@pytest.mark.parametrize(
    ("square", "deviation"), [(0.00226, 0.00081), (0.00108, 0.00048), (0.00089, 0.00024), (0.00111, 0.00068)]
)
def test_a_misfit_within_its_noise_refuses_no_pose(square, deviation):
    """Of right poses of a bone in a holder, in thick slices, of two slender ones: they were refused."""
    weak = with_similarity(trabecular_correlation=0.75)
    before, after = (judge(one, 0.08)[0] for one in (weak, replace(weak, misfit=Misfit(square, deviation))))
    assert after / (1 - after) > math.exp(-1.7) * before / (1 - before)


def test_the_pose_of_another_shape_is_the_one_that_is_told_of():
    """Its confidence was less than that of poses of which all else speaks against."""
    confidence = judge(GOOD, 0.08)[0]
    assert judge(replace(GOOD, misfit=Misfit(0.06**2, 0)), 0.08)[0] == pytest.approx(0.05 * confidence)
    shape = replace(with_similarity(trabecular_correlation=0.6), misfit=Misfit(0.05**2, 0))
    assert reasons(shape) == ["shape"]


@pytest.mark.parametrize(
    ("seed", "kind"),
    [pytest.param(*one, marks=pytest.mark.slow) for one in ((680_648, "slender"), (640_242, "holder"))],
)
def test_right_poses_with_noisy_inner_surfaces_are_accepted(seed, kind):
    """They were refused as those of another bone."""
    pair = make_adversarial(seed, kind)
    result = align(pair.fixed, pair.moving)
    assert result.accepted and pair.error_mm(result.matrix) < 0.08
