"""Predictions measured against references: the command, its files and its refusals."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medssl.cli import run
from medssl.data.classes import Classes
from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput, Doubt
from medssl.evaluation.evaluate import detect, evaluate, of_voxels
from medssl.io import nifti
from medssl.metrics.case_scores import score
from medssl.predictions_folder import Label, read_index
from medssl.volume import Volume
from tests.helpers.prediction_scenes import LESION, NAMES, ORGAN, OTHER, PREDICTED, REFERENCE, prediction, scene


def command(*words):
    return run("evaluate", [str(w) for w in words])


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
    told = json.loads((out / "summary.json").read_text())
    assert told["labels"]["lesion"]["dice"]["mean"] == pytest.approx(1 / 3)
    assert told["labels"]["lesion"]["empty"] == {"both": 0, "predicted": 1, "reference": 1}
    assert told["labels"]["organ"]["dice"]["mean"] == 1
    assert told["lesions"]["lesion"]["average_precision"]["estimate"] == pytest.approx(0.25)
    assert told["notice"].startswith("Research use only")
    patients = list(csv.DictReader((out / "patients.csv").read_text().splitlines()))
    assert [(r["patient"], r["lesions"], float(r["surest"])) for r in patients] == [
        ("perfect", "1", pytest.approx(0.8)),
        ("missed", "1", 0.0),
        ("false-alarm", "0", pytest.approx(0.8)),
    ]
    assert told["lesions"]["lesion"]["auroc"]["estimate"] == 0.25
    assert [r["score"] != "" for r in csv.DictReader((out / "lesions.csv").read_text().splitlines())] == [True, False]
    pictures = sorted(p.name for p in (out / "figures").iterdir())
    assert pictures[:3] == ["boxplot.png", "froc.png", "reliability.png"]
    assert len(pictures) == 6
    for name in pictures:
        with Image.open(out / "figures" / name) as picture:
            assert picture.width > 300
    assert "organ" in capsys.readouterr().out


def test_a_promised_sensitivity_is_held_against_what_came_out(predictions, references, tmp_path):
    index = json.loads((predictions / "index.json").read_text())
    for threshold, kept in ((0.5, 0.5), (0.9, 0.0)):
        told = {"thresholds": {"lesion": threshold}, "promise": {"lesion": "of 9"}}
        (predictions / "index.json").write_text(json.dumps(index | told))
        out = tmp_path / str(threshold)
        assert command(predictions, "--labels", references, "--out", out, "--lesions", "lesion") == 0
        said = json.loads((out / "summary.json").read_text())["lesions"]["lesion"]["calibrated"]
        assert (said["threshold"], said["promise"], said["sensitivity"]) == (threshold, "of 9", kept)
        assert said["false_per_scan"] == pytest.approx(1 / 3 if kept else 0)


def test_a_report_takes_the_place_of_an_earlier_one_and_of_nothing_else(predictions, references, tmp_path, capsys):
    assert command(predictions, "--labels", references, "--lesions", "lesion") == 0
    assert command(predictions, "--labels", references) == 0
    assert not (predictions / "evaluation" / "lesions.csv").exists()
    assert not list(predictions.glob(".part-*"))
    (tmp_path / "thesis").mkdir()
    assert command(predictions, "--labels", references, "--out", tmp_path / "thesis") == 2
    assert "is no evaluation" in capsys.readouterr().err


def test_a_report_that_fails_leaves_the_earlier_one(predictions, references, monkeypatch):
    assert command(predictions, "--labels", references) == 0
    before = sorted(predictions.rglob("*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medssl.evaluation.report.charts.boxplot", full)
    assert command(predictions, "--labels", references, "--lesions", "lesion") == 2
    assert sorted(predictions.rglob("*")) == before


def test_the_worst_point_lies_in_the_thickest_error(predictions, references):
    index = read_index(predictions)
    done = {e.case: e for e in evaluate(index, References.read(references), 2.0)}
    label = nifti.read(references / "missed.nii.gz", label=True)
    at = tuple(np.rint(label.to_index(np.array(done["missed"].worst_mm))).astype(int))
    assert label.voxels[at] == 2


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
    said = capsys.readouterr().err
    assert "missed" in said
    assert "1.000 mm apart" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "nowhere"], "no such labels"),
        (["--labels", "{labels}", "--lesions", "tumour"], "no label of"),
    ],
)
def test_wrong_words_are_one_line(predictions, references, capsys, words, said):
    assert command(predictions, *[w.format(labels=references) for w in words]) == 2
    assert said in capsys.readouterr().err


def test_references_may_lie_as_predictions_do(predictions):
    found = References.read(predictions)
    done = list(evaluate(read_index(predictions), found, 2.0))
    assert {row.dice for e in done for row in e.rows} == {1.0}


def test_labels_that_were_not_drawn_are_not_measured(predictions, references):
    found = References.read(references)
    partly = References(found.place, found.sources, Classes({}, present={"missed": [1]}))
    done = {e.case: e for e in evaluate(read_index(predictions), partly, 2.0)}
    assert [row.label for row in done["missed"].rows] == ["organ"]
    assert done["missed"].reliability is None
    assert len(done["perfect"].rows) == 2


def test_lesions_that_were_not_drawn_are_no_false_alarms(predictions, references):
    read, lesion = References.read(references), Label(2, "lesion", "")
    partly = replace(read, classes=Classes({}, present={"false-alarm": [1]}))
    done = {e.case: e for e in evaluate(read_index(predictions), partly, 2.0, [lesion])}
    assert [case for case, one in done.items() if "lesion" in one.detected] == ["perfect", "missed"]
    nowhere = replace(read, classes=Classes({}, present={case: [1] for case in done}))
    with pytest.raises(BadInput, match="lesion was drawn in none of these cases"):
        list(evaluate(read_index(predictions), nowhere, 2.0, [lesion]))


def test_values_that_no_predicted_label_has_are_doubted(predictions, references):
    place = references / "missed.nii.gz"
    label = nifti.read(place, label=True)
    nifti.write(replace(label, voxels=np.where(label.voxels == 2, 7, label.voxels).astype(np.uint8)), place)
    with pytest.warns(Doubt, match=r"holds values \[7\], which no predicted label has"):
        list(evaluate(read_index(predictions), References.read(references), 2.0))
    whole = replace(References.read(references), classes=Classes({}, unlabelled=7))
    assert len(list(evaluate(read_index(predictions), whole, 2.0))) == 3


def scored(predicted, reference):
    """The rows of two label volumes of one case."""
    return [score("a", "p", name, (value,), predicted, reference, 2.0) for value, name in NAMES.items()]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_predicted_where_nobody_labelled_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    drawn, hidden = scene(ORGAN, LESION), rng.random((24, 20, 16)) < 0.3
    reference = replace(drawn, voxels=np.where(hidden, np.int16(-1), drawn.voxels))
    noise = replace(drawn, voxels=np.where(hidden, rng.integers(0, 3, hidden.shape), drawn.voxels).astype(np.uint8))
    assert scored(noise, reference) == scored(drawn, reference)
    assert [row.dice for row in scored(noise, reference)] == [1.0, 1.0]
    wrong = replace(noise, voxels=np.where(hidden, noise.voxels, 0))
    assert [row.dice for row in scored(wrong, reference)] == [0.0, 0.0]
    kinds = [Label(value, name, "") for value, name in NAMES.items()]
    shown, likely = (
        replace(drawn, voxels=v.astype(np.uint8)) for v in (drawn.voxels, np.where(hidden, 255 * (seed % 2), 200))
    )
    assert of_voxels(likely, reference).count.sum() == (~hidden).sum()
    assert [len(detect("a", "p", k, shown, drawn, found(shown)).picai.false) for k in kinds] == [0, 0]


def test_a_network_that_is_surer_far_off_is_trusted_over_the_same_voxels():
    drawn = np.zeros((40, 40, 40), np.uint8)
    drawn[18:22, 18:22, 18:22] = 1
    reference = Volume(drawn, np.diag([2.0, 2.0, 4.0, 1.0]), "label")
    said = [replace(reference, voxels=np.where(drawn, 230, far).astype(np.uint8)) for far in (0, 3)]
    told = [of_voxels(one, reference) for one in said]
    where = np.zeros(drawn.shape, bool)
    where[13:27, 13:27, 16:24] = True  # 10 mm on every side
    assert [one.count.sum() for one in told] == [where.sum()] * 2
    for mine, one in zip(told, said, strict=True):
        p, hit = one.voxels[where] / 255, drawn[where] > 0
        assert mine.ece() == pytest.approx(
            sum(abs((p[p == v] - hit[p == v]).mean()) * (p == v).mean() for v in np.unique(p))
        )


def found(labels):
    return prediction(labels, "a").findings


def test_a_candidate_is_judged_only_where_the_reference_is_known():
    predicted, lesion = scene(LESION, OTHER), Label(2, "lesion", "")
    drawn = scene(LESION).voxels.astype(np.int16)

    def outcome(hidden):
        reference = replace(predicted, voxels=np.where(hidden, -1, drawn).astype(np.int16))
        return detect("a", "p", lesion, predicted, reference, found(predicted)).picai

    at = np.indices(drawn.shape)[1]
    assert len(outcome(np.zeros_like(drawn, bool)).false) == 1
    assert len(outcome(at == 12).false) == 1  # a third of it is unknown
    beyond = outcome(at >= 10)
    assert len(beyond.false) == 0 and len(beyond.found) == 1
    half = outcome((at == 3) & (drawn > 0))  # a quarter of the lesion is unknown, the rest is met in full
    assert half.found[0] == pytest.approx(0.8)
    nothing = outcome(np.ones_like(drawn, bool))
    assert len(nothing.false) == len(nothing.found) == 0


def test_the_regions_of_a_data_set_are_measured_as_its_labels_are(predictions, references):
    read = References.read(references)
    both = replace(read, classes=Classes({}, regions={"body": [1, 2], "elsewhere": [1, 7]}))
    done = {e.case: e for e in evaluate(read_index(predictions), both, 2.0)}
    for case, one in done.items():
        ours, theirs = PREDICTED[case].voxels > 0, REFERENCE[case].voxels > 0
        assert [row.label for row in one.rows] == ["organ", "lesion", "body"]
        assert one.rows[2].dice == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
