"""Calibrate: how far probabilities are to be tempered and from which score lesions count, measured on held cases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from medssl.data.references import References
from medssl.errors import BadInput
from medssl.metrics.calibration import conformal, reliability, surprise, temperature
from medssl.metrics.detection import Detected
from medssl.metrics.lesions import Outcome
from medssl.predict.calibration import Calibration, Threshold
from medssl.predict.ensemble import Ensemble
from medssl.predict.evaluation import detect
from medssl.predict.predictor import LEAST, Prediction
from medssl.review.predictions import Label
from medssl.volume import Volume

NEAR_MM = 10.0
MOST = 50_000  # voxels of a case that are enough to fit one number on
Read = Callable[[], Volume]


@dataclass(frozen=True, eq=False)
class Samples:
    """Voxels, a row each: the logarithms of their class probabilities, and their true class."""

    logits: Float[np.ndarray, "m n"]
    target: Int[np.ndarray, "m"]


def tempered_by(samples: Sequence[Samples]) -> Calibration:
    """The temperature that fits the voxels of all cases best, and what it changed."""
    logits, target = (np.concatenate([getattr(s, name) for s in samples]) for name in ("logits", "target"))
    if not len(target):
        raise BadInput("nothing is drawn and nothing predicted in these cases; calibrate on others")
    found = temperature(logits, target)
    before, after = ((surprise(x, target), _ece(x, target)) for x in (logits, logits / found))
    return Calibration(temperature=found, nll=(before[0], after[0]), ece=(before[1], after[1]))


def sampled(pool: Ensemble, volume: Volume, reference: Volume, seed: int = 0) -> Samples:
    """Voxels of one case on the working grid: those near what is drawn or predicted, the sure ones with the others.

    Farther off, they would only tell how much air there is; and to leave out what was rightly called background, but
    not what was wrongly, would make any network look too sure. The same in Mehrtash et al., Confidence Calibration and
    Predictive Uncertainty Estimation for Deep Medical Image Segmentation, 2020, https://arxiv.org/abs/1911.13273.
    """
    ready = pool.members[0].prepare(volume)
    mean, _ = pool.pooled(ready.voxels)
    target = reference.onto(ready, order=0).voxels.astype(np.int64)
    inside = (target > 0) | (mean[0].numpy() < 0.5)
    reach = [1 + 2 * round(NEAR_MM / mm) for mm in ready.spacing_mm()]
    near = ndimage.maximum_filter(inside, reach, mode="constant")
    at = np.flatnonzero(near & (target >= 0) & (target < len(mean)))
    if len(at) > MOST:
        at = np.sort(np.random.default_rng(seed).choice(at, MOST, replace=False))
    return Samples(_rows(mean, at), target.ravel()[at])


def thresholds(
    predict: Callable[[Volume, str], Prediction],
    cases: Iterable[tuple[str, Read]],
    references: References,
    kinds: Sequence[Label],
    sensitivity: float,
) -> dict[str, Threshold]:
    """Of each kind of lesion, the strictest score that keeps the sensitivity, from the findings in these cases."""
    found = list(_compared(predict, cases, references, kinds))
    return {kind.name: _promised([c for c in found if c.kind == kind], sensitivity) for kind in kinds}


@dataclass(frozen=True, eq=False)
class _Compared:
    """What was found of one kind of lesion in one case."""

    kind: Label
    detected: Detected


def _compared(
    predict: Callable[[Volume, str], Prediction],
    cases: Iterable[tuple[str, Read]],
    references: References,
    kinds: Sequence[Label],
) -> Iterator[_Compared]:
    for case, read in cases:
        volume = read()
        said, patient = predict(volume, case), references.sources[case].patient
        drawn = references.label(case, volume)
        for kind in (kind for kind in kinds if kind.value in references.classes.present.get(case, [kind.value])):
            yield _Compared(kind, detect(case, patient, kind, said.labels, drawn, said.findings))


def _promised(found: Sequence[_Compared], sensitivity: float) -> Threshold:
    """Scans of one patient count as one: the promise is about patients."""
    of: dict[str, list[Outcome]] = {}
    for one in found:
        of.setdefault(one.detected.patient, []).append(one.detected.picai)
    told = conformal([_one(outcomes) for outcomes in of.values()], sensitivity)
    return Threshold(
        threshold=told.threshold, sensitivity=told.sensitivity, patients=told.patients, promise=told.guarantee
    )


def _one(outcomes: Sequence[Outcome]) -> Outcome:
    found, false, mm = (np.concatenate([getattr(o, n) for o in outcomes]) for n in ("found", "false", "diameters_mm"))
    return Outcome(found, false, mm, max(o.score for o in outcomes))


def _rows(mean: Float[Tensor, "n i j k"], at: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
    return mean.flatten(1)[:, at].T.clamp(min=LEAST).log().double().numpy()


def _ece(logits: Float[np.ndarray, "m n"], target: Int[np.ndarray, "m"]) -> float:
    """Of the probability of not being background, as `medssl evaluate` reports it."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    return reliability(1 - p[:, 0] / p.sum(1), target > 0).ece()
