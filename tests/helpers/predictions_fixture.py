"""Fixtures: a predictions folder and a folder of reference labels."""

import pytest

from medssl.inference.prediction_writer import PredictionWriter
from medssl.io import nifti
from tests.helpers.prediction_scenes import NAMES, PREDICTED, REFERENCE, make_image, make_prediction


@pytest.fixture
def predictions(tmp_path):
    writer = PredictionWriter.create(tmp_path / "predictions", NAMES, {"run": "runs/a", "weights_sha256": "0" * 64})
    for case, labels in PREDICTED.items():
        writer = writer.add(case, make_image(labels), make_prediction(labels, case))
    return tmp_path / "predictions"


@pytest.fixture
def references(tmp_path):
    (tmp_path / "labels").mkdir()
    for case, labels in REFERENCE.items():
        nifti.write(labels, tmp_path / "labels" / f"{case}.nii.gz")
    return tmp_path / "labels"
