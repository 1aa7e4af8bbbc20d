"""Calibration of the verdict: the fit finds known weights."""

import numpy as np
import pytest
from DNetRegistrationLib.experiments.calibrate import Sample, fit, fit_logistic, held_out
from scipy import special


def samples(count=4000):
    generator = np.random.default_rng(0)
    weights = np.array((0.5, 1.5, 1.0, 2.0, 0.2, -0.7))
    errors = np.array((-1.0, -0.5, 0.0, 0.1, 0.2, 0.8, 1.0))
    out = []
    for seed in range(count):
        features = np.append(1.0, generator.normal(size=5))
        ended = generator.uniform(-2, 0)
        right = generator.random() < special.expit(features @ weights)
        error = 0.08 * min(0.99, np.exp(np.append(features, ended) @ errors)) if right else 0.08 * 20
        out.append(Sample(seed, "same", "best", tuple(features), ended, 0.08, float(error)))
    return out, weights, errors


def test_the_fit_finds_the_weights_that_made_the_samples():
    made, weights, _ = samples()
    model = fit(made)
    np.testing.assert_allclose(model["confidence"], weights, rtol=0.05, atol=0.15)
    assert model["wrong_error_voxels"] == pytest.approx(20)
    assert model["samples"] == 4000 and model["right"] == sum(s.right for s in made)


def test_the_error_model_is_least_squares_of_what_is_right():
    made, _, errors = samples()
    unclipped = [s for s in made if not s.right or s.error < 0.98 * 0.08]
    np.testing.assert_allclose(fit(unclipped)["log_error"], errors, atol=1e-6)


def test_the_logistic_fit_agrees_with_newton_steps():
    made, _, _ = samples(600)
    features, right = np.array([s.features for s in made]), np.array([s.right for s in made])
    weights, ridge = np.zeros(6), 2e-4 * np.array((0, 1, 1, 1, 1, 1))
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
    pairs = probability[right][:, None] > probability[~right][None]
    assert told["roc_area"] == pytest.approx(pairs.mean(), abs=0.01)
