"""Temperature, reliability, and a conformal promise that is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medssl.errors import BadInput
from medssl.metrics.calibration import (
    compute_reliability,
    estimate_temperature,
    fit_conformal_threshold,
    negative_log_likelihood,
)
from medssl.metrics.lesions import MatchResult


def samples(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 3))
    target = (softmax(logits, 1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return logits, target


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_was_applied_is_found(true):
    logits, target = samples()
    assert estimate_temperature(logits * true, target) == pytest.approx(true, rel=0.05)


@given(st.integers(0, 999), st.floats(0.05, 20), st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_a_temperature_never_fits_worse_than_none(seed, sharper, count):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(0, sharper, (count, 3)), rng.integers(0, 3, count)
    temperature = estimate_temperature(logits, target)
    assert negative_log_likelihood(logits / temperature, target) <= negative_log_likelihood(logits, target)


def test_calibrated_scores_have_next_to_no_error_and_overconfident_ones_do():
    logits, target = samples()
    for sharper, low, high in ((1.0, 0.0, 0.02), (4.0, 0.1, 1.0)):
        p = softmax(logits * sharper, 1)
        ece = compute_reliability(p.max(1), p.argmax(1) == target).ece()
        assert low <= ece <= high


def test_ece_equals_its_definition():
    rng = np.random.default_rng(1)
    confidence, right = np.append(rng.random(300), [0.0, 1.0]), rng.random(302) < 0.5
    edges = np.arange(16) / 15
    expected = 0.0
    for n in range(15):
        inside = (confidence >= edges[n]) & ((confidence < edges[n + 1]) | (n == 14))
        if inside.any():
            expected += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert compute_reliability(confidence, right).ece() == pytest.approx(expected)
    halves = compute_reliability(confidence[:100], right[:100]) + compute_reliability(confidence[100:], right[100:])
    assert halves.ece() == pytest.approx(expected)


def test_reliability_of_nothing_is_empty():
    reliability = compute_reliability(np.zeros(0), np.zeros(0, bool))
    assert reliability.ece() == 0
    assert reliability.count.sum() == 0


def patients(rng, n):
    outcomes = []
    for _ in range(n):
        scores = rng.beta(4, 2, rng.integers(1, 4)) + 0.2 * rng.random()
        outcomes.append(
            MatchResult(np.where(rng.random(scores.shape) < 0.02, -np.inf, scores), np.zeros(0), 0 * scores, 1.0)
        )
    return outcomes


def test_the_conformal_promise_is_kept_on_new_patients():
    rng = np.random.default_rng(2)
    sensitivity = []
    for _ in range(120):
        conformal = fit_conformal_threshold(patients(rng, 25), 0.85)
        sensitivity += [(o.hit_scores >= conformal.threshold).mean() for o in patients(rng, 20)]
    assert 0.85 <= np.mean(sensitivity) < 0.90


SCORES = st.lists(st.floats(0.05, 0.95), min_size=1, max_size=3)


@given(st.lists(SCORES, min_size=11, max_size=24), st.sampled_from([0.6, 0.75, 0.9]))
@settings(max_examples=60, deadline=None)
def test_whichever_patient_is_the_new_one_the_promise_holds_on_average(scores, sensitivity):
    """Exchangeable patients: each is as likely as the next to be the one that comes after calibration."""
    outcomes = [MatchResult(np.array(s), np.zeros(0), np.ones(len(s)), max(s)) for s in scores]
    sensitivities = []
    for n, new in enumerate(outcomes):
        threshold = fit_conformal_threshold([*outcomes[:n], *outcomes[n + 1 :]], sensitivity).threshold
        sensitivities.append((new.hit_scores >= threshold).mean())
    assert np.mean(sensitivities) >= sensitivity - 1e-9


def test_the_conformal_threshold_is_the_strictest_that_may_be():
    outcomes = [MatchResult(np.array([s]), np.zeros(0), np.ones(1), s) for s in np.arange(1, 20) / 20]
    # 19 patients and 90 %: of 20 reckoned patients two may be missed, one of which is the new one.
    assert fit_conformal_threshold(outcomes, 0.9).threshold == pytest.approx(0.1)


def test_too_few_patients_or_too_many_misses_are_refused_in_words():
    patient = MatchResult(np.array([0.9]), np.zeros(0), np.ones(1), 0.9)
    blind = MatchResult(np.array([-np.inf]), np.zeros(0), np.ones(1), 0.0)
    with pytest.raises(BadInput, match="needs 9 patients with lesions, 8 are here"):
        fit_conformal_threshold([patient] * 8, 0.9)
    assert fit_conformal_threshold([patient] * 9, 0.9).threshold == 0.9
    with pytest.raises(BadInput, match="out of reach"):
        fit_conformal_threshold([patient] * 10 + [blind] * 10, 0.9)
    with pytest.raises(BadInput, match="infinitely many"):
        fit_conformal_threshold([patient], 1.0)


def test_the_guarantee_states_its_basis():
    patient = MatchResult(np.array([0.9]), np.zeros(0), np.ones(1), 0.9)
    assert "90%" in fit_conformal_threshold([patient] * 9, 0.9).guarantee
    assert "9 calibration patients" in fit_conformal_threshold([patient] * 9, 0.9).guarantee
