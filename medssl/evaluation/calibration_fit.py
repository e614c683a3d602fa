"""Fits the calibration of models on held-out cases: temperature, Platt scaling and lesion thresholds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logit, softmax

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.evaluate import match_lesions
from medssl.inference.calibration import Calibration, Threshold
from medssl.inference.ensemble import Ensemble
from medssl.inference.predictor import MIN_PROBABILITY
from medssl.inference.streaming.case_stream import Prediction
from medssl.metrics.calibration import (
    Reliability,
    compute_reliability,
    estimate_platt,
    estimate_temperature,
    fit_conformal_threshold,
    near_surface,
    negative_log_likelihood,
)
from medssl.metrics.detection_scores import CaseDetections, collect_scores_and_hits
from medssl.metrics.lesions import MatchResult
from medssl.predictions_folder import LabelDef
from medssl.volume import Volume

MAX_VOXELS_PER_CASE = 50_000  # enough to fit a single number
ReadVolume = Callable[[], Volume]


@dataclass(frozen=True, eq=False)
class Samples:
    """Sampled voxels: the logarithms of their class probabilities, and their true class."""

    logits: Float[np.ndarray, "m n"]
    target: Int[np.ndarray, "m"]


@dataclass(frozen=True, eq=False)
class CaseComparison:
    """The predicted lesions of one label in one case, matched with the reference."""

    label: LabelDef
    detections: CaseDetections


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """A calibration, and the reliability of the confidences before and after it."""

    calibration: Calibration
    before: Reliability
    after: Reliability


def fit_temperature(samples: Sequence[Samples]) -> CalibrationResult:
    """Fits the temperature that minimizes the negative log-likelihood of the sampled voxels."""
    logits = np.concatenate([sample.logits for sample in samples])
    target = np.concatenate([sample.target for sample in samples])
    if not len(target):
        raise BadInput("these cases have no annotated and no predicted voxels; calibrate on others")
    fitted = estimate_temperature(logits, target)
    return _make_result(Calibration(temperature=fitted), logits, logits / fitted, target)


def fit_platt(comparisons: Sequence[CaseComparison]) -> CalibrationResult:
    """Fits a temperature and an offset that turn the score of a finding into the probability of a true lesion."""
    scores, is_hit = collect_scores_and_hits([comparison.detections for comparison in comparisons])
    if not len(scores):
        raise BadInput("these cases have no findings; calibrate on others, or lower task.min_score and train again")
    logits = logit(scores.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    scale, offset = estimate_platt(logits, is_hit)
    before, after = (np.stack([0 * x, x], 1) for x in (logits, logits / scale + offset))
    calibration = Calibration(measured="findings", temperature=scale, offset=offset)
    return _make_result(calibration, before, after, is_hit.astype(np.int64))


def recalibrate_scores(comparisons: Sequence[CaseComparison], score: Callable[[float], float]) -> list[CaseComparison]:
    """Returns the comparisons with every score replaced by `score(raw)`."""
    return [replace(comparison, detections=_replace_scores(comparison.detections, score)) for comparison in comparisons]


def sample_voxels(pool: Ensemble, volume: Volume, reference: Volume, seed: int = 0) -> Samples:
    """Samples voxels of one case near the surface of the annotated or predicted foreground.

    Args:
        pool: The models that predict.
        volume: The image of the case.
        reference: Its reference labels, resampled to the working grid of the models.
        seed: Seed of the sample, at most `MAX_VOXELS_PER_CASE` voxels.
    """
    prepared = pool.members[0].prepare(volume)
    mean, _ = pool.predict_mean_and_disagreement(prepared.voxels)
    target = reference.resample_to(prepared, order=0).voxels.astype(np.int64)
    foreground = (target > 0) | (mean[0] < 0.5)
    is_known = (target >= 0) & (target < len(mean))
    voxels = np.flatnonzero(near_surface(foreground, prepared.spacing_mm()) & is_known)
    if len(voxels) > MAX_VOXELS_PER_CASE:
        voxels = np.sort(np.random.default_rng(seed).choice(voxels, MAX_VOXELS_PER_CASE, replace=False))
    return Samples(_log_probabilities(mean, voxels), target.ravel()[voxels])


def fit_thresholds(
    comparisons: Sequence[CaseComparison], lesion_labels: Sequence[LabelDef], sensitivity: float
) -> dict[str, Threshold]:
    """Returns the highest score threshold of each lesion label that guarantees the sensitivity."""
    return {
        label.name: _fit_threshold([c.detections for c in comparisons if c.label == label], sensitivity)
        for label in lesion_labels
    }


def compare_cases(
    predict: Callable[[Volume, str], Prediction],
    cases: Iterable[tuple[str, ReadVolume]],
    references: References,
    lesion_labels: Sequence[LabelDef],
) -> Iterator[CaseComparison]:
    """Predicts cases and matches the lesions of each label that is annotated in the case.

    Args:
        predict: Maps an image and a case id to a prediction.
        cases: The cases, each with a function that reads its image.
        references: The reference labels.
        lesion_labels: The labels to match as lesions.
    """
    for case, read in cases:
        volume = read()
        prediction, patient = predict(volume, case), references.sources[case].patient
        reference = references.read_label(case, volume)
        for label in lesion_labels:
            if label.value in references.classes.present.get(case, [label.value]):
                detections = match_lesions(case, patient, label, prediction.labels, reference, prediction.findings)
                yield CaseComparison(label, detections)


def _fit_threshold(cases: Sequence[CaseDetections], sensitivity: float) -> Threshold:
    """Fits the threshold over patients, since the guarantee is about patients: their scans are merged."""
    matches_of_patient: dict[str, list[MatchResult]] = {}
    for detections in cases:
        matches_of_patient.setdefault(detections.patient, []).append(detections.picai)
    bound = fit_conformal_threshold([_merge_matches(matches) for matches in matches_of_patient.values()], sensitivity)
    return Threshold(
        threshold=bound.threshold, sensitivity=bound.sensitivity, patients=bound.patients, guarantee=bound.guarantee
    )


def _merge_matches(matches: Sequence[MatchResult]) -> MatchResult:
    """Merges the matches of several scans of one patient."""
    return MatchResult(
        np.concatenate([match.hit_scores for match in matches]),
        np.concatenate([match.false_positive_scores for match in matches]),
        np.concatenate([match.diameters_mm for match in matches]),
        max(match.score for match in matches),
    )


def _log_probabilities(mean: Float[np.ndarray, "n i j k"], voxels: Int[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
    return np.log(np.maximum(mean.reshape(len(mean), -1)[:, voxels].T, np.float32(MIN_PROBABILITY))).astype(float)


def _replace_scores(detections: CaseDetections, score: Callable[[float], float]) -> CaseDetections:
    """Applies `score` to all candidates of a case, with the 32-bit precision of stored findings."""
    scores = np.array([score(raw) for raw in detections.by_overlap.scores.tolist()], np.float32).astype(float)
    return replace(
        detections,
        by_overlap=replace(detections.by_overlap, scores=scores),
        by_centre=replace(detections.by_centre, scores=scores),
    )


def _make_result(
    calibration: Calibration,
    before: Float[np.ndarray, "m n"],
    after: Float[np.ndarray, "m n"],
    target: Int[np.ndarray, "m"],
) -> CalibrationResult:
    """Adds the reliability of the foreground probability before and after, as `medssl evaluate` reports it."""
    bins = [compute_reliability(1 - softmax(logits, 1)[:, 0], target > 0) for logits in (before, after)]
    nll = negative_log_likelihood(before, target), negative_log_likelihood(after, target)
    return CalibrationResult(calibration.model_copy(update={"nll": nll, "ece": (bins[0].ece(), bins[1].ece())}), *bins)
