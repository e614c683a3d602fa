"""A calibration improves the scores, is stored in its run, and is refused for other weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from medssl.data.checks.integrity import verify
from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.calibration_fit import (
    CaseComparison,
    compare_cases,
    fit_platt,
    fit_temperature,
    fit_thresholds,
    recalibrate_scores,
    sample_voxels,
)
from medssl.inference.calibration import Calibration
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.io import nifti
from medssl.metrics.detection_scores import CaseDetections, compute_finding_reliability
from medssl.metrics.lesions import ScanMatches, average_precision
from medssl.predictions_folder import LabelDef
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

SHAPE = (14, 12, 10)


class RunSettings(Settings):
    run: Path


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", RunSettings(run=tmp_path / "run"), "finetune")
    (run.path / "weights.safetensors").write_bytes(b"weights")
    run.close()
    return run


def scaled_network(sharper):
    """Returns a network with `sharper` times the logits that the labels of `sample_case` were sampled from."""
    return lambda x: torch.cat([0 * x, x * sharper], 1).softmax(1)


def sample_case(seed):
    """Returns logits as an image, and labels sampled from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, SHAPE).astype(np.float32)
    label = (rng.random(SHAPE) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return Volume(logits, np.eye(4), "a.u."), Volume(label, np.eye(4), "label")


def member(network, **options):
    return Predictor(TorchNetwork(network), lambda volume: volume, (8, 8, 8), {1: "nodule"}, **options)


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_applied_temperature_is_recovered_and_improves_nll_and_ece(sharper):
    pool = Ensemble((member(scaled_network(sharper)),))
    result = fit_temperature([sample_voxels(pool, *sample_case(seed)) for seed in range(6)])
    calibration = result.calibration
    assert calibration.ece == (result.before.ece(), result.after.ece())
    assert calibration.temperature == pytest.approx(sharper, rel=0.1)
    assert calibration.nll[1] <= calibration.nll[0] and calibration.ece[1] < 0.03
    if sharper != 1:
        assert calibration.nll[1] < calibration.nll[0] - 0.02 and calibration.ece[1] < calibration.ece[0] / 2


def test_samples_are_near_the_foreground_and_of_known_classes():
    image, label = (Volume(np.zeros((60, 8, 8), kind), np.eye(4), "a.u.") for kind in (np.float32, np.uint8))
    image.voxels[:] = -30
    image.voxels[20], label.voxels[30], label.voxels[31] = 3, 1, 200
    samples = sample_voxels(Ensemble((member(scaled_network(1.0)),)), image, label)
    assert len(samples.target) == (42 - 10 - 1) * 8 * 8
    assert samples.target.sum() == 8 * 8


def test_cases_without_foreground_are_refused():
    blank = Volume(np.full(SHAPE, -30, np.float32), np.eye(4), "a.u.")
    none = Volume(np.zeros(SHAPE, np.uint8), np.eye(4), "label")
    with pytest.raises(BadInput, match="no annotated and no predicted voxels"):
        fit_temperature([sample_voxels(Ensemble((member(scaled_network(1.0)),)), blank, none)])


def test_calibration_reads_back_and_checksums_hold(run):
    assert Calibration.load([run]) == Calibration()
    calibration = Calibration(
        temperature=1.7, weights_sha256=(run.metadata["weights_sha256"],), cases=("a",), nll=(0.2, 0.1)
    )
    assert calibration.write([run]) == run.path / "calibration.json"
    assert Calibration.load([run]) == calibration
    calibration.model_copy(update={"temperature": 1.2}).write([run])
    assert Calibration.load([run]).temperature == 1.2
    assert {checked.path.name: checked.fault for checked in verify(run.path, 0, lambda *_: None)} == dict.fromkeys(
        ("config.yaml", "run.json", "weights.safetensors", "calibration.json"), ""
    )


def test_a_calibration_of_other_weights_is_refused(run, tmp_path):
    other = Calibration(temperature=2.0, weights_sha256=("0" * 64,))
    other.write([run], tmp_path / "other.json")
    with pytest.raises(BadInput, match="other weights"):
        Calibration.load([run], tmp_path / "other.json")
    with pytest.raises(BadInput, match="other weights"):
        Calibration.load([run, run], other.write([run]))


def test_pooled_runs_ignore_their_own_calibrations(run):
    Calibration(temperature=2.0, weights_sha256=(run.metadata["weights_sha256"],)).write([run])
    assert Calibration.load([run, run]) == Calibration()


@pytest.mark.parametrize("text", ["", "[1]", '{"temperature": -1}', '{"temperature": 2, "cold": 1}', "{"])
def test_invalid_calibration_fails_with_one_line(run, text):
    (run.path / "calibration.json").write_text(text)
    with pytest.raises(BadInput, match=r"calibration\.json"):
        Calibration.load([run])
    with pytest.raises(BadInput, match="no such file"):
        Calibration.load([run], run.path / "none.json")


def lesions(tmp_path, scores):
    """Writes references with one lesion per case; returns cases on which a network gives it a certain score."""
    (tmp_path / "labels").mkdir()
    cases = []
    for number, score in enumerate(scores):
        voxels = np.zeros(SHAPE, np.uint8)
        voxels[4:8, 4:8, 4:8] = 1
        label = Volume(voxels, np.eye(4), "label")
        nifti.write(label, tmp_path / "labels" / f"c{number}.nii.gz")
        cases.append((f"c{number}", lambda v=voxels, s=score: Volume(v * np.float32(s), np.eye(4), "a.u.")))
    return cases, References.read(tmp_path / "labels")


def test_threshold_keeps_the_sensitivity_and_states_its_basis(tmp_path):
    predict = member(lambda x: torch.cat([1 - x, x], 1))
    cases, references = lesions(tmp_path, [0.6 + 0.02 * n for n in range(19)])
    label = LabelDef(1, "nodule", "#fff")
    comparisons = list(compare_cases(predict, cases, references, [label]))
    threshold = fit_thresholds(comparisons, [label], 0.9)["nodule"]
    # 19 patients and 90 %: one of them may be missed.
    assert threshold.threshold == pytest.approx(0.62, abs=2e-3)
    assert threshold.patients == 19 and "19 calibration patients" in threshold.guarantee
    with pytest.raises(BadInput, match="needs 19 patients"):
        fit_thresholds(comparisons[:9], [label], 0.95)


def candidates(count, seed, temperature, offset):
    """Returns cases of ten candidates, with raw scores distorted by a temperature and an offset."""
    rng = np.random.default_rng(seed)
    label, comparisons = LabelDef(1, "nodule", "#fff"), []
    for case in range(count):
        logits = rng.normal(-1, 1.5, 10)
        is_hit = rng.random(10) < expit(logits)
        scan = ScanMatches(expit((logits - offset) * temperature), np.full(is_hit.sum(), 8.0), np.eye(10)[:, is_hit])
        comparisons.append(CaseComparison(label, CaseDetections(f"c{case}", f"p{case}", scan, scan)))
    return comparisons


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (2.0, -1.5), (0.5, 1.0)])
def test_platt_scaling_calibrates_scores_and_keeps_their_order(temperature, offset):
    comparisons = candidates(300, 0, temperature, offset)
    result = fit_platt(comparisons)
    calibration, others = result.calibration, candidates(300, 1, temperature, offset)
    assert (calibration.measured, calibration.temperature) == ("findings", pytest.approx(temperature, rel=0.15))
    assert calibration.offset == pytest.approx(offset, abs=0.2)
    before, after = (
        compute_finding_reliability([first.detections for first in group]).ece()
        for group in (others, recalibrate_scores(others, calibration.calibrate_score))
    )
    assert after < 0.03 and after <= max(before, 0.03)
    assert offset == 0 or before > max(0.06, 2 * after)
    raw = np.linspace(0, 1, 500)
    assert (np.diff([calibration.calibrate_score(float(v)) for v in raw]) > 0).all()
    first, second = (
        [comparison.detections.picai for comparison in group]
        for group in (others, recalibrate_scores(others, calibration.calibrate_score))
    )
    assert average_precision(first) == pytest.approx(average_precision(second), abs=1e-6)


def test_few_correct_findings_do_not_give_certainty():
    faultless = [
        comparison
        for comparison in candidates(40, 3, 1.0, 0.0)
        if not len(comparison.detections.picai.false_positive_scores)
    ]
    comparison = candidates(1, 3, 1.0, 0.0)[0]
    hits = np.flatnonzero(comparison.detections.by_overlap.overlap.any(1))
    scan = comparison.detections.by_overlap
    hits_only = replace(scan, scores=scan.scores[hits], overlap=scan.overlap[hits])
    result = fit_platt(
        [
            *faultless,
            replace(comparison, detections=replace(comparison.detections, by_overlap=hits_only, by_centre=hits_only)),
        ]
    )
    assert result.calibration.calibrate_score(0.5) < (len(hits) + 1.5) / (len(hits) + 2)


def test_calibration_without_findings_is_refused(tmp_path):
    cases, references = lesions(tmp_path, [0.2, 0.1])
    comparisons = list(
        compare_cases(member(lambda x: torch.cat([1 - x, x], 1)), cases, references, [LabelDef(1, "nodule", "#fff")])
    )
    with pytest.raises(BadInput, match="these cases have no findings"):
        fit_platt(comparisons)


def test_index_fields_hold_temperature_thresholds_and_guarantees():
    threshold = {"threshold": 0.3, "sensitivity": 0.9, "patients": 12, "guarantee": "of 12"}
    calibration = Calibration.model_validate({"temperature": 1.5, "thresholds": {"nodule": threshold}, "cases": ["a"]})
    assert json.loads(json.dumps(calibration.to_index_fields())) == {
        "temperature": 1.5, "thresholds": {"nodule": 0.3}, "guarantee": {"nodule": "of 12"}, "calibrated_on": ["a"],
    }  # fmt: skip
    assert (
        calibration.model_copy(update={"measured": "findings"}).to_index_fields()["temperature"] == 1
    )  # of the voxels
