"""Predictions measured against references: the command, its files and its refusals."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medssl.cli import run
from medssl.data.references import References
from medssl.io import nifti
from medssl.predict.evaluation import evaluate
from medssl.review.predictions import read_index
from medssl.volume import Volume


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

    monkeypatch.setattr("medssl.predict.report.charts.boxplot", full)
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
    partly = References(found.place, found.sources, {"missed": [1]})
    done = {e.case: e for e in evaluate(read_index(predictions), partly, 2.0)}
    assert [row.label for row in done["missed"].rows] == ["organ"]
    assert done["missed"].reliability is None
    assert len(done["perfect"].rows) == 2
