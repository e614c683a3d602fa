"""A calibration changes scores for the better, lies in the run it belongs to, and is used by nothing else."""

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
from medssl.evaluation.calibration_fit import Compared, compared, rescored, sampled, scored_by, tempered_by, thresholds
from medssl.inference.calibration import Calibration
from medssl.inference.ensemble import Ensemble
from medssl.inference.predictor import Predictor
from medssl.io import nifti
from medssl.metrics.detection_scores import Detected, trusted
from medssl.metrics.lesions import Scan, average_precision
from medssl.predictions_folder import Label
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

SHAPE = (14, 12, 10)


class Plain(Settings):
    run: Path


@pytest.fixture
def run(tmp_path):
    made = Run.create(tmp_path / "run", Plain(run=tmp_path / "run"), "finetune")
    (made.path / "weights.safetensors").write_bytes(b"weights")
    made.close()
    return made


def boastful(sharper):
    """A network whose logits are `sharper` times those that the labels of `drawn` were drawn with."""
    return lambda x: torch.cat([0 * x, x * sharper], 1).softmax(1)


def drawn(seed):
    """Logits as an image, and a label drawn with their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, SHAPE).astype(np.float32)
    label = (rng.random(SHAPE) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return Volume(logits, np.eye(4), "a.u."), Volume(label, np.eye(4), "label")


def member(network, **options):
    return Predictor(network, lambda volume: volume, (8, 8, 8), {1: "nodule"}, **options)


@pytest.mark.parametrize("sharper", [0.3, 1.0, 4.0])
def test_the_temperature_that_was_applied_is_found_and_mends_likelihood_and_ece(sharper):
    pool = Ensemble((member(boastful(sharper)),))
    fitted = tempered_by([sampled(pool, *drawn(seed)) for seed in range(6)])
    found = fitted.calibration
    assert found.ece == (fitted.before.ece(), fitted.after.ece())
    assert found.temperature == pytest.approx(sharper, rel=0.1)
    assert found.nll[1] <= found.nll[0] and found.ece[1] < 0.03
    if sharper != 1:
        assert found.nll[1] < found.nll[0] - 0.02 and found.ece[1] < found.ece[0] / 2


def test_only_voxels_near_what_is_drawn_or_predicted_speak_and_none_of_an_undeclared_class():
    image, label = (Volume(np.zeros((60, 8, 8), kind), np.eye(4), "a.u.") for kind in (np.float32, np.uint8))
    image.voxels[:] = -30
    image.voxels[20], label.voxels[30], label.voxels[31] = 3, 1, 200
    found = sampled(Ensemble((member(boastful(1.0)),)), image, label)
    assert len(found.target) == (42 - 10 - 1) * 8 * 8
    assert found.target.sum() == 8 * 8


def test_nothing_drawn_and_nothing_predicted_is_refused():
    blank = Volume(np.full(SHAPE, -30, np.float32), np.eye(4), "a.u.")
    none = Volume(np.zeros(SHAPE, np.uint8), np.eye(4), "label")
    with pytest.raises(BadInput, match="nothing is drawn"):
        tempered_by([sampled(Ensemble((member(boastful(1.0)),)), blank, none)])


def test_a_calibration_reads_back_from_its_run_whose_seal_holds(run):
    assert Calibration.of([run]) == Calibration()
    made = Calibration(temperature=1.7, weights_sha256=(run.card["weights_sha256"],), cases=("a",), nll=(0.2, 0.1))
    assert made.write([run]) == run.path / "calibration.json"
    assert Calibration.of([run]) == made
    made.model_copy(update={"temperature": 1.2}).write([run])
    assert Calibration.of([run]).temperature == 1.2
    assert {checked.path.name: checked.fault for checked in verify(run.path, 0, lambda *_: None)} == dict.fromkeys(
        ("config.yaml", "run.json", "weights.safetensors", "calibration.json"), ""
    )


def test_a_calibration_of_other_weights_is_refused(run, tmp_path):
    other = Calibration(temperature=2.0, weights_sha256=("0" * 64,))
    other.write([run], tmp_path / "other.json")
    with pytest.raises(BadInput, match="other weights"):
        Calibration.of([run], tmp_path / "other.json")
    with pytest.raises(BadInput, match="other weights"):
        Calibration.of([run, run], other.write([run]))


def test_several_runs_use_none_of_their_own(run):
    Calibration(temperature=2.0, weights_sha256=(run.card["weights_sha256"],)).write([run])
    assert Calibration.of([run, run]) == Calibration()


@pytest.mark.parametrize("text", ["", "[1]", '{"temperature": -1}', '{"temperature": 2, "cold": 1}', "{"])
def test_what_is_no_calibration_is_told_in_one_line(run, text):
    (run.path / "calibration.json").write_text(text)
    with pytest.raises(BadInput, match=r"calibration\.json"):
        Calibration.of([run])
    with pytest.raises(BadInput, match="no such file"):
        Calibration.of([run], run.path / "none.json")


def lesions(tmp_path, scores):
    """Cases with one lesion each, that a network finds with a given score; and a read function for each."""
    (tmp_path / "labels").mkdir()
    cases = []
    for number, score in enumerate(scores):
        voxels = np.zeros(SHAPE, np.uint8)
        voxels[4:8, 4:8, 4:8] = 1
        label = Volume(voxels, np.eye(4), "label")
        nifti.write(label, tmp_path / "labels" / f"c{number}.nii.gz")
        cases.append((f"c{number}", lambda v=voxels, s=score: Volume(v * np.float32(s), np.eye(4), "a.u.")))
    return cases, References.read(tmp_path / "labels")


def test_the_threshold_keeps_the_sensitivity_and_says_what_it_rests_on(tmp_path):
    predict = member(lambda x: torch.cat([1 - x, x], 1))
    cases, references = lesions(tmp_path, [0.6 + 0.02 * n for n in range(19)])
    kind = Label(1, "nodule", "#fff")
    found = list(compared(predict, cases, references, [kind]))
    told = thresholds(found, [kind], 0.9)["nodule"]
    # 19 patients and 90 %: one of them may be missed.
    assert told.threshold == pytest.approx(0.62, abs=2e-3)
    assert told.patients == 19 and "19 calibration patients" in told.promise
    with pytest.raises(BadInput, match="needs 19 patients"):
        thresholds(found[:9], [kind], 0.95)


def candidates(count, seed, temperature, offset):
    """Cases of ten candidates each, whose raw scores are off by a temperature and an offset."""
    rng = np.random.default_rng(seed)
    kind, made = Label(1, "nodule", "#fff"), []
    for case in range(count):
        logits = rng.normal(-1, 1.5, 10)
        hit = rng.random(10) < expit(logits)
        scan = Scan(expit((logits - offset) * temperature), np.full(hit.sum(), 8.0), np.eye(10)[:, hit])
        made.append(Compared(kind, Detected(f"c{case}", f"p{case}", scan, scan)))
    return made


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (2.0, -1.5), (0.5, 1.0)])
def test_the_scores_of_findings_come_to_mean_what_they_say_and_keep_their_order(temperature, offset):
    found = candidates(300, 0, temperature, offset)
    fitted = scored_by(found)
    made, others = fitted.calibration, candidates(300, 1, temperature, offset)
    assert (made.measured, made.temperature) == ("findings", pytest.approx(temperature, rel=0.15))
    assert made.offset == pytest.approx(offset, abs=0.2)
    before, after = (trusted([one.detected for one in of]).ece() for of in (others, rescored(others, made.score)))
    assert after < 0.03 and after <= max(before, 0.03)
    assert offset == 0 or before > max(0.06, 2 * after)
    raw = np.linspace(0, 1, 500)
    assert (np.diff([made.score(float(v)) for v in raw]) > 0).all()
    one, other = ([o.detected.picai for o in of] for of in (others, rescored(others, made.score)))
    assert average_precision(one) == pytest.approx(average_precision(other), abs=1e-6)


def test_few_findings_that_are_all_right_do_not_make_a_detector_sure_of_everything():
    few = [one for one in candidates(40, 3, 1.0, 0.0) if not len(one.detected.picai.false)]
    one = candidates(1, 3, 1.0, 0.0)[0]
    kept = np.flatnonzero(one.detected.by_overlap.overlap.any(1))
    scan = one.detected.by_overlap
    sure = replace(scan, scores=scan.scores[kept], overlap=scan.overlap[kept])
    made = scored_by([*few, replace(one, detected=replace(one.detected, by_overlap=sure, by_centre=sure))])
    assert made.calibration.score(0.5) < (len(kept) + 1.5) / (len(kept) + 2)


def test_findings_are_calibrated_only_where_there_are_any(tmp_path):
    cases, references = lesions(tmp_path, [0.2, 0.1])
    none = list(compared(member(lambda x: torch.cat([1 - x, x], 1)), cases, references, [Label(1, "nodule", "#fff")]))
    with pytest.raises(BadInput, match="nothing is found in these cases"):
        scored_by(none)


def test_the_index_tells_temperature_thresholds_and_promises():
    told = {"threshold": 0.3, "sensitivity": 0.9, "patients": 12, "promise": "of 12"}
    made = Calibration.model_validate({"temperature": 1.5, "thresholds": {"nodule": told}, "cases": ["a"]})
    assert json.loads(json.dumps(made.index())) == {
        "temperature": 1.5, "thresholds": {"nodule": 0.3}, "promise": {"nodule": "of 12"}, "calibrated_on": ["a"],
    }  # fmt: skip
    assert made.model_copy(update={"measured": "findings"}).index()["temperature"] == 1  # of the voxels
