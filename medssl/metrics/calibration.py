"""Calibration: scores that mean what they say, and a threshold with a guarantee."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from medssl.errors import BadInput
from medssl.metrics.lesions import Outcome

NEAR_MM = 10.0


def temperature(logits: Float[np.ndarray, "m n"], target: Int[np.ndarray, "m"]) -> float:
    """The number to divide logits by so that they fit best; above 1 where the network is too sure, never a worse fit.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (https://arxiv.org/abs/1706.04599).
    """

    def told(log_t: float) -> float:
        return surprise(logits / np.exp(log_t), target)

    best = minimize_scalar(told, bounds=(np.log(0.01), np.log(100)), method="bounded").x
    return float(np.exp(best)) if told(best) < told(0.0) else 1.0


def platt(logits: Float[np.ndarray, "m"], hit: Bool[np.ndarray, "m"]) -> tuple[float, float]:
    """A temperature and an offset: sigmoid(logit / temperature + offset) is then how often such a logit is a hit.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999: a detector that learnt on mined voxels is not
    only too sure or too unsure but off, so that a temperature alone cannot mend it. His targets, short of 0 and 1, keep
    few samples from making it boundless. The order of scores stays.
    """
    hits, misses = int(hit.sum()), int((~hit).sum())
    target = np.where(hit, (hits + 1) / (hits + 2), 1 / (misses + 2))

    def told(at: Float[np.ndarray, "2"]) -> float:
        x = logits / np.exp(at[0]) + at[1]
        return float((np.logaddexp(0, x) - target * x).mean())

    log_t, offset = minimize(told, np.zeros(2), bounds=[(np.log(0.01), np.log(100)), (-20, 20)]).x
    return float(np.exp(log_t)), float(offset)


def surprise(logits: Float[np.ndarray, "m n"], target: Int[np.ndarray, "m"]) -> float:
    """The mean negative log-likelihood of the true classes, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(target)), target].mean())


def near(inside: Bool[np.ndarray, "x y z"], spacing_mm: Sequence[float]) -> Bool[np.ndarray, "x y z"]:
    """The voxels by which a network's trust in itself is measured: those near what is drawn or predicted, `inside`.

    Farther off, they would only tell how much air there is; and to leave out what was rightly called background, but
    not what was wrongly, would make any network look too sure. The same in Mehrtash et al., Confidence Calibration and
    Predictive Uncertainty Estimation for Deep Medical Image Segmentation, 2020, https://arxiv.org/abs/1911.13273.
    """
    reach = [1 + 2 * round(NEAR_MM / mm) for mm in spacing_mm]
    return ndimage.maximum_filter(inside, reach, mode="constant")


@dataclass(frozen=True, eq=False)
class Reliability:
    """Per bin of confidence, of equal width: how many fell in, and the sums of their confidences and of their hits."""

    count: Int[np.ndarray, "bins"]
    confidence: Float[np.ndarray, "bins"]
    hits: Float[np.ndarray, "bins"]

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.count + other.count, self.confidence + other.confidence, self.hits + other.hits)

    def ece(self) -> float:
        """Expected calibration error: the gap between confidence and accuracy of a bin, averaged over all samples."""
        return float(np.abs(self.confidence - self.hits).sum() / max(1, self.count.sum()))


def reliability(confidence: Float[np.ndarray, "m"], right: Bool[np.ndarray, "m"], bins: int = 15) -> Reliability:
    """The reliability diagram of some samples; a confidence of 1 belongs to the last bin."""
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(at, weights=v, minlength=bins).astype(float) for v in (confidence, right)]
    return Reliability(np.bincount(at, minlength=bins), sums[0], sums[1])


@dataclass(frozen=True)
class Conformal:
    """A threshold on lesion scores, the sensitivity it promises, and how many patients the promise rests on."""

    threshold: float
    sensitivity: float
    patients: int

    @property
    def guarantee(self) -> str:
        """The promise in words."""
        return (
            f"Of a new patient's lesions, at least {self.sensitivity:.0%} are expected to score {self.threshold:.3g} "
            f"or more: on average over draws of the {self.patients} calibration patients and of the new one, all from "
            "one population. It does not hold for a single patient, for another population, or per size of lesion."
        )


def conformal(outcomes: Sequence[Outcome], sensitivity: float) -> Conformal:
    """The strictest threshold that keeps the promised sensitivity, from patients who were not trained on.

    Angelopoulos et al., "Conformal Risk Control", ICLR 2024 (https://arxiv.org/abs/2208.02814): the risk is the share
    of a patient's lesions missed, which only falls as the threshold does; one unseen patient is reckoned as lost.
    Outcomes without lesions say nothing here; scans of one patient must come as one outcome.
    """
    ill = [o.found for o in outcomes if o.ill]
    allowed = (1 - sensitivity) * (len(ill) + 1) - 1
    if allowed < -1e-9:
        needed = int(np.ceil(sensitivity / (1 - sensitivity) - 1e-9)) if sensitivity < 1 else "infinitely many"
        raise BadInput(f"a sensitivity of {sensitivity:g} needs {needed} patients with lesions, {len(ill)} are here")
    scores = np.unique(np.concatenate(ill))
    missed = np.array([sum((found < t).mean() for found in ill) for t in scores])
    kept = scores[(missed <= allowed + 1e-9) & np.isfinite(scores)]
    if not kept.size:
        best = 1 - (min(missed[np.isfinite(scores)], default=len(ill)) + 1) / (len(ill) + 1)
        raise BadInput(f"a sensitivity of {sensitivity:g} is out of reach: at any threshold, no more than {best:.3g}")
    return Conformal(float(kept.max()), sensitivity, len(ill))
