"""A predictions folder is complete at every moment and reads back as written."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.files import PART_PREFIX, exclusive_lock
from medssl.inference.prediction_writer import PredictionWriter
from medssl.io import nifti
from medssl.predictions_folder import NOTICE, read_findings, read_index
from tests.helpers.prediction_scenes import NAMES, PREDICTED, make_image, make_prediction


def test_folder_reads_back_as_written(predictions):
    index = read_index(predictions)
    assert index.cases == tuple(PREDICTED)
    assert index.notice == NOTICE
    assert index.units["missed"] == "HU"
    assert index.model["run"] == "runs/a"
    assert {label.value: label.name for label in index.labels} == NAMES
    assert all(label.colour.startswith("#") and len(label.colour) == 7 for label in index.labels)
    for case, labels in PREDICTED.items():
        folder = index.case_folder(case)
        assert np.array_equal(nifti.read(folder / "labels.nii.gz", label=True).voxels, labels.voxels)
        assert np.array_equal(nifti.read(folder / "image.nii.gz").voxels, make_image(labels).voxels)
        assert nifti.read(folder / "probability.nii.gz").voxels.max() == round(0.8 * 255)
        assert np.allclose(nifti.read(folder / "labels.nii.gz", label=True).affine, labels.affine)
        assert read_findings(folder) == make_prediction(labels, case).findings


def test_failed_case_leaves_the_folder_unchanged(predictions, tmp_path):
    writer = PredictionWriter(read_index(predictions))
    labels = PREDICTED["perfect"]
    bad = make_image(labels)
    bad = type(bad)(bad.voxels.astype(np.complex64), bad.affine, bad.unit)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput):
        writer.add("another", bad, make_prediction(labels, "another"))
    assert sorted(tmp_path.rglob("*")) == before
    fresh = PredictionWriter.create(tmp_path / "fresh", NAMES, {})
    with pytest.raises(BadInput):
        fresh.add("another", bad, make_prediction(labels, "another"))
    assert not (tmp_path / "fresh").exists()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(predictions, tmp_path):
    """Killed processes cannot clean up; what they were writing holds images of patients."""
    left, foreign, other = (tmp_path / f"{PART_PREFIX}{name}" for name in ("out-a", "out-b", "elsewhere-c"))
    for folder in (left, foreign, other):
        (folder / "case").mkdir(parents=True)
    case, labels = next(iter(PREDICTED.items()))
    index = replace(read_index(predictions), folder=tmp_path / "out", cases=(), units={}, studies={})
    with exclusive_lock(foreign, "another process works there"):
        PredictionWriter(index).add(case, make_image(labels), make_prediction(labels, case))
    assert read_index(tmp_path / "out").cases == (case,)
    assert {path.name for path in tmp_path.glob(f"{PART_PREFIX}*")} == {foreign.name, other.name}


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "index.json", "perfect"])
def test_unsafe_or_repeated_names_are_refused(predictions, name):
    labels = PREDICTED["perfect"]
    with pytest.raises(BadInput, match="cannot name"):
        PredictionWriter(read_index(predictions)).add(name, make_image(labels), make_prediction(labels, name))


def test_a_folder_that_exists_is_refused(predictions):
    with pytest.raises(BadInput, match="exists already"):
        PredictionWriter.create(predictions, NAMES, {})


def test_invalid_folders_fail_with_one_line(tmp_path, predictions):
    with pytest.raises(BadInput, match="no predictions here"):
        read_index(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        read_findings(tmp_path)
    fields = json.loads((predictions / "index.json").read_text())
    (predictions / "index.json").write_text(json.dumps({k: fields[k] for k in fields if k != "labels"}))
    with pytest.raises(BadInput, match="labels"):
        read_index(predictions)
    (predictions / "missed" / "findings.json").write_text('[{"id": 1}]')
    with pytest.raises(BadInput, match="not a list of findings"):
        read_findings(predictions / "missed")


def test_an_unknown_case_is_refused(predictions):
    with pytest.raises(BadInput, match="is no case"):
        read_index(predictions).case_folder("../perfect")


def test_reading_needs_no_torch():
    code = "import sys, medssl.predictions_folder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
