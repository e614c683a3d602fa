"""The evaluate command: its files, its scores and its error messages."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medssl.cli import run
from medssl.data.classes import Classes
from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput, InputWarning
from medssl.evaluation.evaluate import evaluate, match_lesions, voxel_reliability
from medssl.io import nifti
from medssl.metrics.case_scores import score_case
from medssl.predictions_folder import LabelDef, read_index
from medssl.volume import Volume
from tests.helpers.prediction_scenes import (
    LESION,
    NAMES,
    ORGAN,
    OTHER,
    PREDICTED,
    REFERENCE,
    make_labels,
    make_prediction,
)


def command(*args):
    return run("evaluate", [str(arg) for arg in args])


def test_the_command_writes_tables_figures_and_a_summary(predictions, references, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(predictions, "--labels", references, "--out", out, "--lesions", "lesion") == 0
    rows = {(r["case"], r["label"]): r for r in csv.DictReader((out / "cases.csv").read_text().splitlines())}
    assert len(rows) == 6
    assert [rows[case, "lesion"]["dice"] for case in ("perfect", "missed", "false-alarm")] == ["1.0", "0.0", "0.0"]
    assert [rows[case, "lesion"]["empty"] for case in ("perfect", "missed", "false-alarm")] == [
        "",
        "predicted",
        "reference",
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["labels"]["lesion"]["dice"]["mean"] == pytest.approx(1 / 3)
    assert summary["labels"]["lesion"]["empty"] == {"both": 0, "predicted": 1, "reference": 1}
    assert summary["labels"]["organ"]["dice"]["mean"] == 1
    assert summary["lesions"]["lesion"]["average_precision"]["estimate"] == pytest.approx(0.25)
    assert summary["notice"].startswith("Research use only")
    patients = list(csv.DictReader((out / "patients.csv").read_text().splitlines()))
    assert [(r["patient"], r["lesions"], float(r["max_score"])) for r in patients] == [
        ("perfect", "1", pytest.approx(0.8)),
        ("missed", "1", 0.0),
        ("false-alarm", "0", pytest.approx(0.8)),
    ]
    assert summary["lesions"]["lesion"]["auroc"]["estimate"] == 0.25
    assert [r["score"] != "" for r in csv.DictReader((out / "lesions.csv").read_text().splitlines())] == [True, False]
    pictures = sorted(p.name for p in (out / "figures").iterdir())
    assert pictures[:3] == ["boxplot.png", "froc.png", "reliability.png"]
    assert len(pictures) == 6
    for name in pictures:
        with Image.open(out / "figures" / name) as picture:
            assert picture.width > 300
    assert "organ" in capsys.readouterr().out


def test_report_states_the_sensitivity_at_the_calibrated_threshold(predictions, references, tmp_path):
    index = json.loads((predictions / "index.json").read_text())
    for threshold, sensitivity in ((0.5, 0.5), (0.9, 0.0)):
        fields = {"thresholds": {"lesion": threshold}, "guarantee": {"lesion": "of 9"}}
        (predictions / "index.json").write_text(json.dumps(index | fields))
        out = tmp_path / str(threshold)
        assert command(predictions, "--labels", references, "--out", out, "--lesions", "lesion") == 0
        calibrated = json.loads((out / "summary.json").read_text())["lesions"]["lesion"]["calibrated"]
        assert (calibrated["threshold"], calibrated["guarantee"], calibrated["sensitivity"]) == (
            threshold,
            "of 9",
            sensitivity,
        )
        assert calibrated["false_per_scan"] == pytest.approx(1 / 3 if sensitivity else 0)


def test_report_replaces_only_an_earlier_report(predictions, references, tmp_path, capsys):
    assert command(predictions, "--labels", references, "--lesions", "lesion") == 0
    assert (predictions / "evaluation" / "lesions.csv").exists()
    assert command(predictions, "--labels", references, "--lesions", "") == 0
    assert not (predictions / "evaluation" / "lesions.csv").exists()
    assert not list(predictions.glob(".part-*"))
    (tmp_path / "thesis").mkdir()
    assert command(predictions, "--labels", references, "--out", tmp_path / "thesis") == 2
    assert "is no evaluation" in capsys.readouterr().err


def test_failed_report_leaves_the_earlier_one(predictions, references, monkeypatch):
    assert command(predictions, "--labels", references) == 0
    before = sorted(predictions.rglob("*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medssl.evaluation.report.charts.plot_scores", full)
    assert command(predictions, "--labels", references, "--lesions", "lesion") == 2
    assert sorted(predictions.rglob("*")) == before


def test_worst_point_lies_in_the_thickest_error(predictions, references):
    index = read_index(predictions)
    evaluations = {evaluation.case: evaluation for evaluation in evaluate(index, References.read(references), 2.0)}
    label = nifti.read(references / "missed.nii.gz", label=True)
    voxel = tuple(np.rint(label.to_index(np.array(evaluations["missed"].worst_mm))).astype(int))
    assert label.voxels[voxel] == 2


def test_a_missing_reference_is_refused_by_name(predictions, references, capsys):
    (references / "missed.nii.gz").unlink()
    assert command(predictions, "--labels", references) == 2
    assert "no label for missed" in capsys.readouterr().err
    assert not (predictions / "evaluation").exists()


def test_another_grid_is_refused(predictions, references, capsys):
    label = nifti.read(references / "missed.nii.gz", label=True)
    moved = label.affine + np.array([[0, 0, 0, 1.0]] + [[0] * 4] * 3)
    nifti.write(Volume(label.voxels, moved, "label"), references / "missed.nii.gz")
    assert command(predictions, "--labels", references) == 2
    message = capsys.readouterr().err
    assert "missed" in message
    assert "1.000 mm apart" in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--labels", "nowhere"], "no such labels"),
        (["--labels", "{labels}", "--lesions", "tumour"], "no label of"),
    ],
)
def test_invalid_arguments_fail_with_one_line(predictions, references, capsys, args, message):
    assert command(predictions, *[arg.format(labels=references) for arg in args]) == 2
    assert message in capsys.readouterr().err


def test_references_may_be_a_predictions_folder(predictions):
    complete = References.read(predictions)
    evaluations = list(evaluate(read_index(predictions), complete, 2.0))
    assert {row.dice for evaluation in evaluations for row in evaluation.rows} == {1.0}


def test_unannotated_labels_are_not_evaluated(predictions, references):
    complete = References.read(references)
    partial = References(complete.path, complete.sources, Classes({}, present={"missed": [1]}))
    evaluations = {evaluation.case: evaluation for evaluation in evaluate(read_index(predictions), partial, 2.0)}
    assert [row.label for row in evaluations["missed"].rows] == ["organ"]
    assert evaluations["missed"].reliability is None
    assert len(evaluations["perfect"].rows) == 2


def test_unannotated_lesions_are_no_false_positives(predictions, references):
    complete, lesion = References.read(references), LabelDef(2, "lesion", "")
    partial = replace(complete, classes=Classes({}, present={"false-alarm": [1]}))
    evaluations = {
        evaluation.case: evaluation for evaluation in evaluate(read_index(predictions), partial, 2.0, [lesion])
    }
    assert [case for case, evaluation in evaluations.items() if "lesion" in evaluation.detections] == [
        "perfect",
        "missed",
    ]
    nowhere = replace(complete, classes=Classes({}, present={case: [1] for case in evaluations}))
    with pytest.raises(BadInput, match="lesion is annotated in none of these cases"):
        list(evaluate(read_index(predictions), nowhere, 2.0, [lesion]))


def test_unknown_reference_values_are_warned_about(predictions, references):
    path = references / "missed.nii.gz"
    label = nifti.read(path, label=True)
    nifti.write(replace(label, voxels=np.where(label.voxels == 2, 7, label.voxels).astype(np.uint8)), path)
    with pytest.warns(InputWarning, match=r"holds values \[7\], which no predicted label has"):
        list(evaluate(read_index(predictions), References.read(references), 2.0))
    for known in (Classes({}, ignore_label=7), Classes({7: "heart"})):
        named = replace(References.read(references), classes=known)
        assert len(list(evaluate(read_index(predictions), named, 2.0))) == 3


def score_labels(predicted, reference):
    """Returns the scores of one case."""
    return [score_case("a", "p", name, (value,), predicted, reference, 2.0) for value, name in NAMES.items()]


@pytest.mark.parametrize("seed", range(5))
def test_unknown_voxels_do_not_change_the_scores(seed):
    rng = np.random.default_rng(seed)
    labels, hidden = make_labels(ORGAN, LESION), rng.random((24, 20, 16)) < 0.3
    reference = replace(labels, voxels=np.where(hidden, np.int16(-1), labels.voxels))
    noise = replace(labels, voxels=np.where(hidden, rng.integers(0, 3, hidden.shape), labels.voxels).astype(np.uint8))
    assert score_labels(noise, reference) == score_labels(labels, reference)
    assert [row.dice for row in score_labels(noise, reference)] == [1.0, 1.0]
    wrong = replace(noise, voxels=np.where(hidden, noise.voxels, 0))
    assert [row.dice for row in score_labels(wrong, reference)] == [0.0, 0.0]
    label_defs = [LabelDef(value, name, "") for value, name in NAMES.items()]
    prediction, likely = (
        replace(labels, voxels=v.astype(np.uint8)) for v in (labels.voxels, np.where(hidden, 255 * (seed % 2), 200))
    )
    assert voxel_reliability(likely, reference).count.sum() == (~hidden).sum()
    assert [
        len(match_lesions("a", "p", label, prediction, labels, find(prediction)).picai.false_positive_scores)
        for label in label_defs
    ] == [
        0,
        0,
    ]


def test_reliability_is_measured_on_the_same_voxels_for_all_networks():
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[18:22, 18:22, 18:22] = 1
    reference = Volume(voxels, np.diag([2.0, 2.0, 4.0, 1.0]), "label")
    probabilities = [replace(reference, voxels=np.where(voxels, 230, far).astype(np.uint8)) for far in (0, 3)]
    results = [voxel_reliability(probability, reference) for probability in probabilities]
    region = np.zeros(voxels.shape, bool)
    region[13:27, 13:27, 16:24] = True  # 10 mm on every side
    assert [probability.count.sum() for probability in results] == [region.sum()] * 2
    for result, probability in zip(results, probabilities, strict=True):
        p, hit = probability.voxels[region] / 255, voxels[region] > 0
        assert result.ece() == pytest.approx(
            sum(abs((p[p == v] - hit[p == v]).mean()) * (p == v).mean() for v in np.unique(p))
        )


def find(labels):
    return make_prediction(labels, "a").findings


def test_candidates_count_only_where_the_reference_is_known():
    predicted, lesion = make_labels(LESION, OTHER), LabelDef(2, "lesion", "")
    voxels = make_labels(LESION).voxels.astype(np.int16)

    def outcome(hidden):
        reference = replace(predicted, voxels=np.where(hidden, -1, voxels).astype(np.int16))
        return match_lesions("a", "p", lesion, predicted, reference, find(predicted)).picai

    rows = np.indices(voxels.shape)[1]
    assert len(outcome(np.zeros_like(voxels, bool)).false_positive_scores) == 1
    assert len(outcome(rows == 12).false_positive_scores) == 1  # one third of it is unknown
    mostly_unknown = outcome(rows >= 10)
    assert len(mostly_unknown.false_positive_scores) == 0 and len(mostly_unknown.hit_scores) == 1
    partly_known = outcome((rows == 3) & (voxels > 0))  # one quarter of the lesion is unknown, the other voxels match
    assert partly_known.hit_scores[0] == pytest.approx(0.8)
    nothing = outcome(np.ones_like(voxels, bool))
    assert len(nothing.false_positive_scores) == len(nothing.hit_scores) == 0


def test_regions_are_evaluated_like_labels(predictions, references):
    complete = References.read(references)
    with_regions = replace(complete, classes=Classes({}, regions={"body": [1, 2], "elsewhere": [1, 7]}))
    evaluations = {evaluation.case: evaluation for evaluation in evaluate(read_index(predictions), with_regions, 2.0)}
    for case, evaluation in evaluations.items():
        predicted, reference = PREDICTED[case].voxels > 0, REFERENCE[case].voxels > 0
        assert [row.label for row in evaluation.rows] == ["organ", "lesion", "body"]
        assert evaluation.rows[2].dice == pytest.approx(
            2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())
        )
