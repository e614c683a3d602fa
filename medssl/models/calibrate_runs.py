"""Calibrates finished runs on labelled cases that they were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medssl.data.checks import leakage
from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput
from medssl.evaluation.calibration_fit import (
    CalibrationResult,
    ReadVolume,
    compare_cases,
    fit_platt,
    fit_temperature,
    fit_thresholds,
    recalibrate_scores,
    sample_voxels,
)
from medssl.evaluation.evaluate import parse_lesion_labels
from medssl.inference.calibration import Threshold, read_weight_digests
from medssl.inference.ensemble import Ensemble
from medssl.inference.prediction_writer import make_label_defs
from medssl.models.fold_assignment import FoldAssignment
from medssl.models.model_pool import load_predictor, pool_models, require_same_inputs
from medssl.models.trained_model import TrainedModel
from medssl.run import Run
from medssl.tasks.classify import Config as ClassifyConfig


@dataclass(frozen=True)
class HeldOutCases:
    """Labelled cases of a store with a function that reads each image, and the runs that predict them."""

    assignment: FoldAssignment
    references: References
    cases: tuple[tuple[str, ReadVolume], ...]

    @classmethod
    def from_manifest(cls, manifest: Path, split: str, runs: Sequence[Run], allow_overlap: bool) -> "HeldOutCases":
        """Selects the labelled cases of a split.

        Args:
            manifest: The manifest.csv of a store.
            split: The name of a split, or `held-out` for the cases that the runs of a cross-validation held out.
            runs: The finished runs to calibrate.
            allow_overlap: Accept the split `test` and cases that a run was trained on.

        Raises:
            BadInput: The split is `test` or has no labelled case, or a run was trained on one of its cases.
        """
        if split == "test" and not allow_overlap:
            raise BadInput(
                f"{manifest}: a model calibrated on split 'test' cannot be tested on it; choose another --split"
            )
        references, assignment = References.read(manifest), FoldAssignment.for_split(runs, manifest, split)
        readers = {scan.case: scan.read for scan in assignment.list_scans(manifest, split)}
        names = references.select_labelled(list(readers))
        if not names:
            raise BadInput(f"{manifest}: no labelled case in split {split!r}; choose another --split")
        for number, run in enumerate(() if allow_overlap else runs):
            leakage.require_unseen(run.path, manifest, assignment.cases_for_run(names, number))
        return cls(assignment, references, tuple((name, readers[name]) for name in names))


def calibrate_runs(
    held_out: HeldOutCases, lesion_names: str, sensitivity: float, tta: bool, device: str
) -> CalibrationResult:
    """Fits a temperature for the runs and a score threshold for each lesion label.

    For segmentations, the temperature applies to voxel probabilities; for detectors, to the scores of findings. That of
    a classification turns the highest score of a class in a case into the probability that the case has it.

    Args:
        held_out: The cases to calibrate on.
        lesion_names: Labels that get a threshold, separated by commas; empty for none.
        sensitivity: The fraction of lesions that must score at least the threshold.
        tta: Predict with test-time augmentation.
        device: The torch device that predicts.
    """
    assignment, references = held_out.assignment, held_out.references
    labels = make_label_defs(require_same_inputs(assignment.runs).labels)
    lesion_labels = parse_lesion_labels(labels, lesion_names, assignment.runs[0].path)
    pools = [pool_models(group, tta, device) for group in assignment.run_groups()]
    ensembles = [pool for pool in pools if isinstance(pool, Ensemble)]
    if ensembles:
        result = _fit_pool_temperature(ensembles, held_out)
        predictors = [load_predictor(group, tta, result.calibration, device) for group in assignment.run_groups()]
        predict = partial(assignment.predict, predictors=predictors)
        comparisons = list(compare_cases(predict, held_out.cases, references, lesion_labels)) if lesion_labels else []
    else:
        predict = partial(assignment.predict, predictors=pools)
        uncalibrated = list(compare_cases(predict, held_out.cases, references, labels))
        if isinstance(TrainedModel.from_run(assignment.runs[0]).task, ClassifyConfig):
            uncalibrated = [replace(c, detections=c.detections.reduce_to_case()) for c in uncalibrated]
        result = fit_platt(uncalibrated)
        comparisons = recalibrate_scores(uncalibrated, result.calibration.calibrate_score)
    thresholds = {
        name: _weaken_guarantee(threshold, assignment)
        for name, threshold in fit_thresholds(comparisons, lesion_labels, sensitivity).items()
    }
    fields = {
        "weights_sha256": read_weight_digests(assignment.runs),
        "tta": tta,
        "cases": tuple(name for name, _ in held_out.cases),
        "thresholds": thresholds,
    }
    return replace(result, calibration=result.calibration.model_copy(update=fields))


def _weaken_guarantee(threshold: Threshold, assignment: FoldAssignment) -> Threshold:
    """Replaces the guarantee by an estimate if each run was measured on other cases: none covers the pooled runs."""
    if len(assignment.run_groups()) == 1:
        return threshold
    estimate = (
        f"Of the {threshold.patients} patients with lesions, each predicted by the run that held them out, at least "
        f"{threshold.sensitivity:.0%} of their lesions scored {threshold.threshold:.3g} or more: "
        "an estimate, not a guarantee, for the pooled runs."
    )
    return threshold.model_copy(update={"guarantee": estimate})


def _fit_pool_temperature(pools: Sequence[Ensemble], held_out: HeldOutCases) -> CalibrationResult:
    """Fits the temperature on fully annotated cases: in the others, the background may hold an unlabelled class."""
    classes = set(pools[0].members[0].names)
    references = held_out.references
    samples = []
    for name, read in held_out.cases:
        if classes <= set(references.classes.present.get(name, classes)):
            volume = read()
            pool = held_out.assignment.group_for(pools, name)
            samples.append(sample_voxels(pool, volume, references.read_label(name, volume)))
    if not samples:
        raise BadInput(f"{references.path}: none of these cases has all classes annotated; calibrate on others")
    return fit_temperature(samples)
