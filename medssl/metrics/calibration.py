"""Calibrates scores (temperature, Platt) and fits a lesion threshold with a conformal guarantee."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from medssl.errors import BadInput
from medssl.metrics.lesions import MatchResult

NEAR_MM = 10.0


def estimate_temperature(logits: Float[np.ndarray, "m n"], target: Int[np.ndarray, "m"]) -> float:
    """Returns the temperature that minimizes the negative log-likelihood of logits / temperature.

    It is above 1 for an overconfident network, and 1 if no temperature improves the fit.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (https://arxiv.org/abs/1706.04599).
    """

    def compute_loss(log_t: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_t), target)

    best = minimize_scalar(compute_loss, bounds=(np.log(0.01), np.log(100)), method="bounded").x
    return float(np.exp(best)) if compute_loss(best) < compute_loss(0.0) else 1.0


def estimate_platt(logits: Float[np.ndarray, "m"], hit: Bool[np.ndarray, "m"]) -> tuple[float, float]:
    """Returns a temperature and an offset, so that sigmoid(logit / temperature + offset) is the probability of a hit.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999. A detector that was trained on mined voxels is
    biased, which a temperature alone cannot correct. Platt's targets, which lie inside (0, 1), keep the parameters
    finite for few samples. The order of the scores does not change.
    """
    hits, misses = int(hit.sum()), int((~hit).sum())
    target = np.where(hit, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def compute_loss(parameters: Float[np.ndarray, "2"]) -> float:
        x = logits / np.exp(parameters[0]) + parameters[1]
        return float((np.logaddexp(0, x) - target * x).mean())

    log_t, offset = minimize(compute_loss, np.zeros(2), bounds=[(np.log(0.01), np.log(100)), (-20, 20)]).x
    return float(np.exp(log_t)), float(offset)


def negative_log_likelihood(logits: Float[np.ndarray, "m n"], target: Int[np.ndarray, "m"]) -> float:
    """Returns the mean negative log-likelihood of the true classes, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(target)), target].mean())


def near_surface(inside: Bool[np.ndarray, "x y z"], spacing_mm: Sequence[float]) -> Bool[np.ndarray, "x y z"]:
    """Returns the voxels within NEAR_MM of the annotated or predicted voxels `inside`; calibration is measured there.

    Voxels farther away are trivial background and would hide a miscalibration; leaving out only the correct background
    would make every network look overconfident. Mehrtash et al. do the same: "Confidence Calibration and Predictive
    Uncertainty Estimation for Deep Medical Image Segmentation", 2020, https://arxiv.org/abs/1911.13273.
    """
    reach = [1 + 2 * round(NEAR_MM / mm) for mm in spacing_mm]
    return ndimage.maximum_filter(inside, reach, mode="constant")


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram over bins of confidence of equal width in [0, 1].

    Args:
        count: The number of samples per bin.
        confidence: The sum of their confidences.
        hits: The number of correct samples among them.
    """

    count: Int[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    hits: Float[np.ndarray, "bins"]

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.hits + other.hits)

    def ece(self) -> float:
        """Returns the expected calibration error: |confidence - accuracy| of the bins, averaged over the samples."""
        return float(np.abs(self.confidence - self.hits).sum() / max(1, self.count.sum()))


def compute_reliability(
    confidence: Float[np.ndarray, "m"], is_correct: Bool[np.ndarray, "m"], bins: int = 15
) -> Reliability:
    """Returns the reliability diagram of samples; a confidence of 1 belongs to the last bin."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(index, weights=v, minlength=bins).astype(float) for v in (confidence, is_correct)]
    return Reliability(np.bincount(index, minlength=bins), sums[0], sums[1])


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold on lesion scores with the sensitivity it guarantees and the number of calibration patients."""

    threshold: float
    sensitivity: float
    patients: int

    @property
    def guarantee(self) -> str:
        """The guarantee as a sentence."""
        return (
            f"Of a new patient's lesions, at least {self.sensitivity:.0%} are expected to score {self.threshold:.3g} "
            f"or more: on average over draws of the {self.patients} calibration patients and of the new one, all from "
            "one population. It does not hold for a single patient, for another population, or per size of lesion."
        )


def fit_conformal_threshold(outcomes: Sequence[MatchResult], sensitivity: float) -> ConformalThreshold:
    """Returns the highest threshold that guarantees a sensitivity.

    Angelopoulos et al., "Conformal Risk Control", ICLR 2024 (https://arxiv.org/abs/2208.02814). The risk is the
    fraction of a patient's lesions that are missed, which does not grow as the threshold falls; all lesions of the new
    patient count as missed.

    Args:
        outcomes: One result per patient who was not used for training; results without lesions are ignored.
        sensitivity: The expected fraction of a new patient's lesions above the threshold.

    Raises:
        BadInput: If there are too few patients, or no threshold reaches the sensitivity.
    """
    patient_scores = [o.hit_scores for o in outcomes if o.has_lesion]
    allowed = (1 - sensitivity) * (len(patient_scores) + 1) - 1
    if allowed < -1e-9:
        needed = int(np.ceil(sensitivity / (1 - sensitivity) - 1e-9)) if sensitivity < 1 else "infinitely many"
        raise BadInput(
            f"a sensitivity of {sensitivity:g} needs {needed} patients with lesions, {len(patient_scores)} are here"
        )
    scores = np.unique(np.concatenate(patient_scores))
    missed = np.array([sum((hit_scores < t).mean() for hit_scores in patient_scores) for t in scores])
    valid = scores[(missed <= allowed + 1e-9) & np.isfinite(scores)]
    if not valid.size:
        best = 1 - (min(missed[np.isfinite(scores)], default=len(patient_scores)) + 1) / (len(patient_scores) + 1)
        raise BadInput(f"a sensitivity of {sensitivity:g} is out of reach: at any threshold, no more than {best:.3g}")
    return ConformalThreshold(float(valid.max()), sensitivity, len(patient_scores))
