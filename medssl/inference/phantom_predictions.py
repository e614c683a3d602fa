"""Simulates predictions of a mediocre model on phantom chest CTs, to try out the review app."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from medssl.data.phantoms.datasets import CHEST_LABELS, Phantom, simulate_chest_ct
from medssl.inference.connected_findings import extract_findings
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import Prediction
from medssl.predictions_folder import StudyRef

NAMES = {1: "nodule"}
THRESHOLD = 0.35
GROWTH_FACTOR = 1.25  # scale of the nodules in the later study of the patient with two studies
BALL_RADIUS = 1.6  # voxels; a false positive at a bright vessel
FIRST_DATE, LATER_DATE = 20240302, 20240901


def write_phantom_predictions(folder: Path, cases: int, seed: int = 0) -> None:
    """Writes a new predictions folder with blurred nodules and one false positive at a vessel per case.

    The second patient has an earlier study, half a year before.

    Args:
        folder: The folder to write.
        cases: The number of patients.
        seed: The seed of the phantoms.
    """
    model = {"run": "phantom", "weights_sha256": "none: simulated, not predicted"}
    writer = PredictionWriter.create(folder, NAMES, model)
    for n in range(cases):
        studies = ((FIRST_DATE, 1.0), (LATER_DATE, GROWTH_FACTOR)) if n == 1 else ((LATER_DATE, 1.0),)
        for date, scale in studies:
            scan = simulate_chest_ct(
                seed + n, (128, 112, 112), (2.5, 2.5, 2.5), num_nodules=1 + n % 3, nodule_scale=scale
            )
            case = scan.name if date == LATER_DATE else f"{scan.name}-prior"
            prediction = _simulate_prediction(scan, np.random.default_rng([seed, n]))
            writer = writer.add(case, scan.image, prediction, StudyRef(scan.patient, str(date)))


def _simulate_prediction(scan: Phantom, rng: np.random.Generator) -> Prediction:
    """Returns the nodules of a phantom, blurred, and a false positive at a bright voxel of the lung."""
    label_of = {name: value for value, name in CHEST_LABELS.items()}
    nodules = scan.label.voxels == label_of["nodule"]
    false_positive = _draw_bright_ball(scan, scan.label.voxels == label_of["lung"], rng)
    blurred_nodules = ndimage.gaussian_filter(nodules.astype(np.float32), 0.6)
    probability = np.clip(blurred_nodules + 0.75 * ndimage.gaussian_filter(false_positive, 0.8), 0.0, 0.99)
    labels = replace(scan.label, voxels=(probability > THRESHOLD).astype(np.uint8))
    confidence = replace(scan.label, voxels=probability, unit="probability")
    findings = extract_findings(labels, probability, _binary_entropy(probability), scan.name, NAMES)
    return Prediction(labels, confidence, findings)


def _draw_bright_ball(
    scan: Phantom, lung: Bool[np.ndarray, "i j k"], rng: np.random.Generator
) -> Float[np.ndarray, "i j k"]:
    """Returns a ball centred on one of the brightest voxels of the lung."""
    brightest = np.argwhere(lung & (scan.image.voxels > np.percentile(scan.image.voxels[lung], 99.5)))
    centre = rng.choice(brightest)
    distance = np.linalg.norm(np.indices(lung.shape).transpose(1, 2, 3, 0) - centre, axis=-1)
    return (distance <= BALL_RADIUS).astype(np.float32)


def _binary_entropy(p: Float[np.ndarray, "i j k"]) -> Float[np.ndarray, "i j k"]:
    """Returns the entropy of a probability, in bits: 0 to 1."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
