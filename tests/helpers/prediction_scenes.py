"""Small predicted and drawn label volumes."""

from dataclasses import replace

import numpy as np

from medssl.inference.connected_findings import find
from medssl.inference.predictor import Prediction
from medssl.volume import Volume

NAMES = {1: "organ", 2: "lesion"}
AFFINE = np.array([[-0.8, 0, 0, 20], [0, 1.2, 0, -7], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def scene(*boxes):
    """A label volume with cuboids given as (label, corner, side)."""
    voxels = np.zeros((24, 20, 16), np.uint8)
    for label, corner, side in boxes:
        voxels[tuple(slice(c, c + side) for c in corner)] = label
    return Volume(voxels, AFFINE, "label")


def prediction(labels, case, sure=0.8):
    confidence = np.where(labels.voxels > 0, sure, 0.1).astype(np.float32)
    found = find(labels, confidence, np.zeros(labels.shape, np.float32), case, NAMES)
    return Prediction(labels, replace(labels, voxels=confidence, unit="probability"), found)


def image(labels):
    noise = np.random.default_rng(0).normal(0, 20, labels.shape)
    return replace(labels, voxels=(labels.voxels * 200 + noise).astype(np.int16), unit="HU")


ORGAN, LESION, OTHER = (1, (2, 2, 2), 8), (2, (14, 3, 3), 4), (2, (14, 12, 9), 3)
PREDICTED = {"perfect": scene(ORGAN, LESION), "missed": scene(ORGAN), "false-alarm": scene(ORGAN, OTHER)}
REFERENCE = {"perfect": scene(ORGAN, LESION), "missed": scene(ORGAN, LESION), "false-alarm": scene(ORGAN)}
