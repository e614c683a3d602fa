"""Calibrate: how far probabilities are to be tempered and from which score lesions count, measured on held cases."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logit, softmax
from torch import Tensor

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.evaluate import detect
from medssl.inference.calibration import Calibration, Threshold
from medssl.inference.ensemble import Ensemble
from medssl.inference.predictor import LEAST, Prediction
from medssl.metrics.calibration import Reliability, conformal, near, platt, reliability, surprise, temperature
from medssl.metrics.detection_scores import Detected, judged
from medssl.metrics.lesions import Outcome
from medssl.predictions_folder import Label
from medssl.volume import Volume

MOST = 50_000  # voxels of a case that are enough to fit one number on
Read = Callable[[], Volume]


@dataclass(frozen=True, eq=False)
class Samples:
    """Voxels, a row each: the logarithms of their class probabilities, and their true class."""

    logits: Float[np.ndarray, "m n"]
    target: Int[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found of one kind of lesion in one case."""

    kind: Label
    detected: Detected


@dataclass(frozen=True, eq=False)
class Fitted:
    """A calibration, and how reliable confidences were before and after it."""

    calibration: Calibration
    before: Reliability
    after: Reliability


def tempered_by(samples: Sequence[Samples]) -> Fitted:
    """The temperature that fits the voxels of all cases best, and what it changed."""
    logits, target = (np.concatenate([getattr(s, name) for s in samples]) for name in ("logits", "target"))
    if not len(target):
        raise BadInput("nothing is drawn and nothing predicted in these cases; calibrate on others")
    found = temperature(logits, target)
    return _fitted(Calibration(temperature=found), logits, logits / found, target)


def scored_by(found: Sequence[Compared]) -> Fitted:
    """The temperature and offset with which the score of a finding is the chance that it is a lesion."""
    scores, hit = judged([one.detected for one in found])
    if not len(scores):
        raise BadInput("nothing is found in these cases; calibrate on others, or lower task.least and train again")
    said = logit(scores.clip(LEAST, 1 - LEAST))
    hotter, offset = platt(said, hit)
    before, after = (np.stack([0 * x, x], 1) for x in (said, said / hotter + offset))
    told = Calibration(measured="findings", temperature=hotter, offset=offset)
    return _fitted(told, before, after, hit.astype(np.int64))


def rescored(found: Sequence[Compared], score: Callable[[float], float]) -> list[Compared]:
    """The same findings under other scores."""
    return [replace(one, detected=_rescored(one.detected, score)) for one in found]


def sampled(pool: Ensemble, volume: Volume, reference: Volume, seed: int = 0) -> Samples:
    """Voxels of one case on the working grid: those near what is drawn or predicted, the sure ones with the others."""
    ready = pool.members[0].prepare(volume)
    mean, _ = pool.pooled(ready.voxels)
    target = reference.resample_to(ready, order=0).voxels.astype(np.int64)
    inside = (target > 0) | (mean[0].numpy() < 0.5)
    at = np.flatnonzero(near(inside, ready.spacing_mm()) & (target >= 0) & (target < len(mean)))
    if len(at) > MOST:
        at = np.sort(np.random.default_rng(seed).choice(at, MOST, replace=False))
    return Samples(_rows(mean, at), target.ravel()[at])


def thresholds(found: Sequence[Compared], kinds: Sequence[Label], sensitivity: float) -> dict[str, Threshold]:
    """Of each kind of lesion, the strictest score that keeps the sensitivity."""
    return {kind.name: _promised([c for c in found if c.kind == kind], sensitivity) for kind in kinds}


def compared(
    predict: Callable[[Volume, str], Prediction],
    cases: Iterable[tuple[str, Read]],
    references: References,
    kinds: Sequence[Label],
) -> Iterator[Compared]:
    """What is found of these kinds of lesion in each case where they were drawn."""
    for case, read in cases:
        volume = read()
        said, patient = predict(volume, case), references.sources[case].patient
        drawn = references.label(case, volume)
        for kind in (kind for kind in kinds if kind.value in references.classes.present.get(case, [kind.value])):
            yield Compared(kind, detect(case, patient, kind, said.labels, drawn, said.findings))


def _promised(found: Sequence[Compared], sensitivity: float) -> Threshold:
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


def _rescored(one: Detected, score: Callable[[float], float]) -> Detected:
    scores = np.array([score(raw) for raw in one.by_overlap.scores.tolist()], np.float32).astype(float)
    return replace(
        one, by_overlap=replace(one.by_overlap, scores=scores), by_centre=replace(one.by_centre, scores=scores)
    )


def _fitted(
    told: Calibration,
    before: Float[np.ndarray, "m n"],
    after: Float[np.ndarray, "m n"],
    target: Int[np.ndarray, "m"],
) -> Fitted:
    """With what it changed of the probability of not being background, as `medssl evaluate` reports it."""
    bins = [reliability(1 - softmax(x, 1)[:, 0], target > 0) for x in (before, after)]
    nll = surprise(before, target), surprise(after, target)
    return Fitted(told.model_copy(update={"nll": nll, "ece": (bins[0].ece(), bins[1].ece())}), *bins)
