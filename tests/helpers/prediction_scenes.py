"""Small predicted and reference label volumes."""

from dataclasses import replace

import numpy as np

from medssl.inference.connected_findings import extract_findings
from medssl.inference.streaming.case_stream import Prediction
from medssl.volume import Volume

NAMES = {1: "organ", 2: "lesion"}
AFFINE = np.array([[-0.8, 0, 0, 20], [0, 1.2, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def make_labels(*boxes):
    """Returns a label volume with cubes given as (label, corner, side), in voxels."""
    voxels = np.zeros((24, 20, 16), np.uint8)
    for label, corner, side in boxes:
        voxels[tuple(slice(c, c + side) for c in corner)] = label
    return Volume(voxels, AFFINE, "label")


def make_prediction(labels, case, confidence=0.8):
    """Returns a prediction of these labels with one confidence."""
    voxels = np.where(labels.voxels > 0, confidence, 0.1).astype(np.float32)
    findings = extract_findings(labels, voxels, np.zeros(labels.shape, np.float32), case, NAMES)
    return Prediction(labels, replace(labels, voxels=voxels, unit="probability"), findings)


def make_image(labels):
    """Returns a CT on which the labels are bright."""
    noise = np.random.default_rng(0).normal(0, 20, labels.shape)
    return replace(labels, voxels=(labels.voxels * 200 + noise).astype(np.int16), unit="HU")


ORGAN, LESION, OTHER = (1, (2, 2, 2), 8), (2, (14, 3, 3), 4), (2, (14, 12, 9), 3)
PREDICTED = {
    "perfect": make_labels(ORGAN, LESION),
    "missed": make_labels(ORGAN),
    "false-alarm": make_labels(ORGAN, OTHER),
}
REFERENCE = {
    "perfect": make_labels(ORGAN, LESION),
    "missed": make_labels(ORGAN, LESION),
    "false-alarm": make_labels(ORGAN),
}
