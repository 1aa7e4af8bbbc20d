"""Calibration of the verdict: the fit finds known weights."""

import numpy as np
import pytest
from DNetRegistrationLib.experiments.calibrate import COVERED, Sample, fit, fit_logistic, fit_quantile, held_out
from scipy import special


def samples(count=4000):
    generator = np.random.default_rng(0)
    weights = np.array((0.5, 1.5, 1.0, 2.0, -0.4, 0.3, 0.2, -0.7, 0.5))
    errors = np.array((-2.5, -0.5, 0.0, -0.1, 0.2, 0.0, -0.2, 0.4, 0.1, 0.2, 0.5, 0.6, 0.3))
    out = []
    for seed in range(count):
        features = np.append(1.0, generator.normal(size=8))
        told = np.append(features, generator.uniform(-2, 0, 4))
        right = generator.random() < special.expit(features @ weights)
        error = 0.08 * np.exp(told @ errors + generator.normal(0, 0.5)) if right else 0.08 * 20
        if error < 0.08 or not right:
            out.append(Sample(seed, "same", "best", tuple(features), tuple(told), 0.08, float(error)))
    return out, weights, errors


def test_the_fit_finds_the_weights_that_made_the_samples():
    made, weights, _ = samples()
    model = fit(made)
    np.testing.assert_allclose(model["confidence"], weights, rtol=0.05, atol=0.15)
    assert model["wrong_error_voxels"] == pytest.approx(20)
    assert model["samples"] == len(made) and model["right"] == sum(s.right for s in made)


def test_the_quantile_fit_agrees_with_statsmodels():
    generator = np.random.default_rng(1)
    features = np.column_stack((np.ones(500), -np.abs(generator.normal(size=(500, 2)))))
    values = features @ (-1.0, -0.5, -2.0) + generator.normal(0, 0.3, 500)
    expected = pytest.importorskip("statsmodels.api").QuantReg(values, features).fit(q=0.9, max_iter=5000).params
    np.testing.assert_allclose(fit_quantile(features, values, 0.9, np.ones(500)), expected, atol=0.02)


def test_worse_evidence_never_means_a_smaller_error():
    generator = np.random.default_rng(2)
    features = np.column_stack((np.ones(300), generator.normal(size=(300, 7))))
    wanted = np.r_[0.0, np.ones(3), 0.0, np.ones(2), -1.0]
    weights = fit_quantile(features, features @ wanted, 0.5, np.ones(300))
    # All but the fifth want the sign that they must not have.
    np.testing.assert_allclose(np.delete(weights, (0, 4)), 0, atol=1e-9)


def test_errors_stay_below_twice_what_is_expected():
    made, _, _ = samples()
    right = [s for s in made if s.right]
    expected = np.exp(np.array([s.error_features for s in right]) @ fit(made)["log_error"])
    below = np.array([s.error / s.working for s in right]) < 2 * expected
    assert below.mean() == pytest.approx(COVERED, abs=0.005)


def test_the_logistic_fit_agrees_with_newton_steps():
    made, _, _ = samples(600)
    features, right = np.array([s.features for s in made]), np.array([s.right for s in made])
    weights, ridge = np.zeros(9), 2e-4 * np.array((0, *[1] * 8))
    for _ in range(20):
        p = special.expit(features @ weights)
        gradient = features.T @ (p - right) / len(p) + ridge * weights
        hessian = (features * (p * (1 - p))[:, None]).T @ features / len(p) + np.diag(ridge)
        weights = weights - np.linalg.solve(hessian, gradient)
    np.testing.assert_allclose(fit_logistic(features, right), weights, atol=1e-3)


def test_held_out_figures():
    made, weights, _ = samples()
    told = held_out(made)
    features, right = np.array([s.features for s in made]), np.array([s.right for s in made])
    probability = special.expit(features @ weights)
    assert told["brier"] == pytest.approx(((probability - right) ** 2).mean(), abs=0.01)
    assert told["covered"] == pytest.approx(COVERED, abs=0.02)
    pairs = probability[right][:, None] > probability[~right][None]
    assert told["roc_area"] == pytest.approx(pairs.mean(), abs=0.01)
