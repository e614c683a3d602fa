"""Predictions folders to read and to measure."""

import pytest

from medssl.inference.prediction_writer import Writer
from medssl.io import nifti
from tests.helpers.prediction_scenes import NAMES, PREDICTED, REFERENCE, image, prediction


@pytest.fixture
def predictions(tmp_path):
    writer = Writer.create(tmp_path / "predictions", NAMES, {"run": "runs/a", "weights_sha256": "0" * 64})
    for case, labels in PREDICTED.items():
        writer = writer.add(case, image(labels), prediction(labels, case))
    return tmp_path / "predictions"


@pytest.fixture
def references(tmp_path):
    (tmp_path / "labels").mkdir()
    for case, labels in REFERENCE.items():
        nifti.write(labels, tmp_path / "labels" / f"{case}.nii.gz")
    return tmp_path / "labels"
