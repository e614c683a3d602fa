"""Phantom predictions: what a middling model might say of invented chests, to learn the review app with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medssl.data.phantoms.datasets import CHEST_LABELS, Phantom, chest
from medssl.inference.connected_findings import find
from medssl.inference.prediction_writer import Writer
from medssl.inference.predictor import Prediction
from medssl.predictions_folder import Study

NAMES = {1: "nodule"}
THRESHOLD = 0.35


GROWN = 1.25  # how much the nodules of a patient with two studies are larger in the later one


def write(folder: Path, cases: int, seed: int = 0) -> None:
    """A new predictions folder: nodules blurred as a model would, and one bright vessel taken for a nodule.

    The second patient was there before, half a year earlier.
    """
    writer = Writer.create(folder, NAMES, {"run": "phantom", "weights_sha256": "none: drawn, not predicted"})
    for n in range(cases):
        for day, grown in ((20240302, 1.0), (20240901, GROWN)) if n == 1 else ((20240901, 1.0),):
            scan = chest(seed + n, (128, 112, 112), (2.5, 2.5, 2.5), nodules=1 + n % 3, grown=grown)
            name = scan.name if day == 20240901 else f"{scan.name}-prior"
            told = _prediction(scan, np.random.default_rng([seed, n]))
            writer = writer.add(name, scan.image, told, Study(scan.patient, str(day)))


def _prediction(scan: Phantom, rng: np.random.Generator) -> Prediction:
    nodule = next(value for value, name in CHEST_LABELS.items() if name == "nodule")
    lung = next(value for value, name in CHEST_LABELS.items() if name == "lung")
    seen = scan.label.voxels == nodule
    fooled = _bright(scan, scan.label.voxels == lung, rng)
    sharp = ndimage.gaussian_filter(seen.astype(np.float32), 0.6) + 0.75 * ndimage.gaussian_filter(fooled, 0.8)
    probability = np.clip(sharp, 0.0, 0.99)
    labels = replace(scan.label, voxels=(probability > THRESHOLD).astype(np.uint8))
    confidence = replace(scan.label, voxels=probability, unit="probability")
    return Prediction(labels, confidence, find(labels, probability, _entropy(probability), scan.name, NAMES))


def _bright(scan: Phantom, lung: Bool[np.ndarray, "i j k"], rng: np.random.Generator) -> Float[np.ndarray, "i j k"]:
    """A ball about one of the brightest places in the lung."""
    at = np.argwhere(lung & (scan.image.voxels > np.percentile(scan.image.voxels[lung], 99.5)))
    centre = rng.choice(at)
    away = np.linalg.norm(np.indices(lung.shape).transpose(1, 2, 3, 0) - centre, axis=-1)
    return (away <= 1.6).astype(np.float32)


def _entropy(p: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
