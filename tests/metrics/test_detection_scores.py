"""Patients: scores of all scans together, and an AUROC of patients against independent reckonings."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_roc_auc

from medssl.metrics.detection_scores import CaseDetections, summarize, summarize_patients
from medssl.metrics.lesions import ScanMatches


def detected(case, patient, scores, lesions):
    """A scan whose first candidates each meet one of its lesions in full."""
    overlap = np.eye(len(scores), lesions)
    scan = ScanMatches(np.array(scores, float), np.full(lesions, 8.0), overlap)
    return CaseDetections(case, patient, scan, scan)


def some(seed, count=12):
    """Scans of patients who have one to three of them, with coarse scores, so that there are ties."""
    rng = np.random.default_rng(seed)
    return [
        detected(f"c{n}", f"p{rng.integers(count // 2)}", rng.integers(0, 5, rng.integers(4)) / 4, int(rng.integers(2)))
        for n in range(count)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_auroc_is_that_of_patients_by_either_score(seed):
    cases = some(seed)
    told, said = summarize_patients("nodule", cases), summarize(cases, draws=2)
    ill = np.array([one.lesions > 0 for one in told])
    assert (said["patients"], said["patients_with_lesions"]) == (len(told), ill.sum())
    for name, key in (("max_score", "auroc"), ("noisy_or", "auroc_noisy_or")):
        score = np.array([getattr(one, name) for one in told])
        if ill.all() or not ill.any():
            assert said[key]["estimate"] is None
        else:
            pairs = [(a > b) + (a == b) / 2 for a in score[ill] for b in score[~ill]]
            monai = compute_roc_auc(torch.tensor(score), torch.tensor(ill.astype(int)))
            assert said[key]["estimate"] == pytest.approx(np.mean(pairs)) == pytest.approx(monai)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_patients_scores_are_those_of_all_candidates_in_all_scans(seed):
    cases = some(seed)
    for one in summarize_patients("nodule", cases):
        mine = [case for case in cases if case.patient == one.patient]
        scores = [float(score) for case in mine for score in case.by_overlap.scores]
        assert (one.kind, one.scans) == ("nodule", len(mine))
        assert one.lesions == sum(case.picai.hit_scores.size for case in mine)
        assert one.max_score == max(scores, default=0)
        worlds = product(*[((True, p), (False, 1 - p)) for p in scores])
        any_real = sum(np.prod([p for _, p in world]) for world in worlds if any(real for real, _ in world))
        assert one.noisy_or == pytest.approx(any_real)


def test_two_scans_of_a_patient_are_one_of_whom_one_scan_suffices():
    cases = [
        detected("a1", "a", [0.9], 1),
        detected("a2", "a", [0.5], 0),
        detected("b", "b", [0.3, 0.3], 0),
        detected("c", "c", [0.4], 1),
    ]
    assert summarize(cases, draws=2)["auroc"]["estimate"] == 1
    assert summarize(cases, draws=2)["auroc_noisy_or"]["estimate"] == 0.5
    wrong = summarize([detected(c.case, c.case, c.by_overlap.scores, len(c.picai.hit_scores)) for c in cases], draws=2)
    assert wrong["auroc"]["estimate"] == 0.75  # a planted fault: every scan a patient of its own


def test_the_interval_of_an_auroc_draws_patients():
    told = summarize([detected(f"c{n}", f"p{n}", [n / 40], n % 2) for n in range(40)])["auroc"]
    assert told["low"] < told["estimate"] < told["high"] and told["high"] - told["low"] > 0.2
    few = summarize([detected(f"c{n}", f"p{n % 4}", [n / 40], n % 2) for n in range(40)])["auroc"]
    assert (few["estimate"], few["low"], few["high"]) == (0.75, 0, 1)  # four patients, however many scans
