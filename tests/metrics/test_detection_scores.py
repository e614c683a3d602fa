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


def make_detections(case, patient, scores, lesions):
    """A scan whose first candidates each meet one of its lesions in full."""
    overlap = np.eye(len(scores), lesions)
    scan = ScanMatches(np.array(scores, float), np.full(lesions, 8.0), overlap)
    return CaseDetections(case, patient, scan, scan)


def some(seed, count=12):
    """Scans of patients who have one to three of them, with coarse scores, so that there are ties."""
    rng = np.random.default_rng(seed)
    return [
        make_detections(
            f"c{n}", f"p{rng.integers(count // 2)}", rng.integers(0, 5, rng.integers(4)) / 4, int(rng.integers(2))
        )
        for n in range(count)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_auroc_is_that_of_patients_by_either_score(seed):
    cases = some(seed)
    patients, summary = summarize_patients("nodule", cases), summarize(cases, draws=2)
    ill = np.array([patient.lesions > 0 for patient in patients])
    assert (summary["patients"], summary["patients_with_lesions"]) == (len(patients), ill.sum())
    for name, key in (("max_score", "auroc"), ("noisy_or", "auroc_noisy_or")):
        score = np.array([getattr(patient, name) for patient in patients])
        if ill.all() or not ill.any():
            assert summary[key]["estimate"] is None
        else:
            pairs = [(a > b) + (a == b) / 2 for a in score[ill] for b in score[~ill]]
            monai = compute_roc_auc(torch.tensor(score), torch.tensor(ill.astype(int)))
            assert summary[key]["estimate"] == pytest.approx(np.mean(pairs)) == pytest.approx(monai)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_patients_scores_are_those_of_all_candidates_in_all_scans(seed):
    cases = some(seed)
    for patient in summarize_patients("nodule", cases):
        scans = [case for case in cases if case.patient == patient.patient]
        scores = [float(score) for case in scans for score in case.by_overlap.scores]
        assert (patient.kind, patient.scans) == ("nodule", len(scans))
        assert patient.lesions == sum(case.picai.hit_scores.size for case in scans)
        assert patient.max_score == max(scores, default=0)
        worlds = product(*[((True, p), (False, 1 - p)) for p in scores])
        any_real = sum(np.prod([p for _, p in world]) for world in worlds if any(real for real, _ in world))
        assert patient.noisy_or == pytest.approx(any_real)


def test_two_scans_of_a_patient_are_one_of_whom_one_scan_suffices():
    cases = [
        make_detections("a1", "a", [0.9], 1),
        make_detections("a2", "a", [0.5], 0),
        make_detections("b", "b", [0.3, 0.3], 0),
        make_detections("c", "c", [0.4], 1),
    ]
    assert summarize(cases, draws=2)["auroc"]["estimate"] == 1
    assert summarize(cases, draws=2)["auroc_noisy_or"]["estimate"] == 0.5
    wrong = summarize(
        [make_detections(c.case, c.case, c.by_overlap.scores, len(c.picai.hit_scores)) for c in cases], draws=2
    )
    assert wrong["auroc"]["estimate"] == 0.75  # a planted fault: every scan a patient of its own


def test_the_interval_of_an_auroc_draws_patients():
    auroc = summarize([make_detections(f"c{n}", f"p{n}", [n / 40], n % 2) for n in range(40)])["auroc"]
    assert auroc["low"] < auroc["estimate"] < auroc["high"] and auroc["high"] - auroc["low"] > 0.2
    auroc_of_four = summarize([make_detections(f"c{n}", f"p{n % 4}", [n / 40], n % 2) for n in range(40)])["auroc"]
    assert (auroc_of_four["estimate"], auroc_of_four["low"], auroc_of_four["high"]) == (
        0.75,
        0,
        1,
    )  # four patients, however many scans


def test_a_case_as_one_question_has_its_highest_score_and_hits_if_there_is_a_lesion():
    scan = ScanMatches(np.array([0.3, 0.9]), np.array([5.0, 8.0]), np.zeros((2, 2)))
    sick = CaseDetections("a", "P", scan, scan).reduce_to_case()
    assert sick.picai.hit_scores.tolist() == [0.9] and not sick.picai.false_positive_scores.size
    assert sick.picai.diameters_mm.tolist() == [8.0]
    healthy = ScanMatches(np.array([0.3, 0.9]), np.zeros(0), np.zeros((2, 0)))
    healthy = CaseDetections("b", "Q", healthy, healthy).reduce_to_case()
    assert healthy.picai.false_positive_scores.tolist() == [0.9] and not healthy.picai.has_lesion
    silent = ScanMatches(np.zeros(0), np.zeros(0), np.zeros((0, 0)))
    assert CaseDetections("c", "R", silent, silent).reduce_to_case().picai.score == 0
