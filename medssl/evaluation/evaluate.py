"""Evaluates a predictions folder against reference labels, case by case."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput, InputWarning
from medssl.finding import Finding, Point
from medssl.inference.connected_findings import extract_findings, label_components
from medssl.io import nifti
from medssl.io.voxels import list_label_values
from medssl.metrics import lesions
from medssl.metrics.calibration import Reliability, compute_reliability, near_surface
from medssl.metrics.case_scores import CaseScore, score_case
from medssl.metrics.detection_scores import CaseDetections
from medssl.metrics.overlap import component_iou
from medssl.predictions_folder import IMAGE, LABELS, PROBABILITY, Index, LabelDef, read_findings
from medssl.volume import Volume


@dataclass(frozen=True)
class CaseEvaluation:
    """The scores of one case.

    Args:
        case: The id of the case.
        rows: One row of scores per label and region.
        detections: The matched lesions by lesion label, for those annotated in this case.
        worst_mm: A point inside the thickest error, in mm RAS.
        reliability: The reliability of the foreground probability; None if not all labels are annotated.
    """

    case: str
    rows: tuple[CaseScore, ...]
    detections: dict[str, CaseDetections]
    worst_mm: Point
    reliability: Reliability | None


def parse_lesion_labels(labels: Sequence[LabelDef], names: str, source: Path) -> tuple[LabelDef, ...]:
    """Returns the labels to evaluate as lesions.

    Args:
        labels: The labels that the model predicts.
        names: The names of the lesion labels, separated by commas; empty for none.
        source: The run or predictions folder, for the error message.
    """
    label_of, requested = {label.name: label for label in labels}, [name for name in names.split(",") if name]
    unknown = [name for name in requested if name not in label_of]
    if unknown:
        raise BadInput(f"{', '.join(unknown)}: no label of {source}; its labels are {', '.join(label_of)}")
    return tuple(label_of[name] for name in requested)


def select_lesion_labels(index: Index, names: str | None, references: References) -> tuple[LabelDef, ...]:
    """Returns the named labels, or those of the kind lesion that are annotated in some case.

    Args:
        index: The predictions folder.
        names: The names, separated by commas; None chooses by kind.
        references: The reference labels.
    """
    if names is not None:
        return parse_lesion_labels(index.labels, names, index.folder)
    present, cases = references.classes.present, references.select_labelled(index.cases)
    lesions = (label for label in index.labels if label.kind == "lesion")
    return tuple(label for label in lesions if any(label.value in present.get(c, [label.value]) for c in cases))


def evaluate(
    index: Index, references: References, tolerance_mm: float, lesion_labels: Sequence[LabelDef] = ()
) -> Iterator[CaseEvaluation]:
    """Yields the scores of every predicted case that has a reference label.

    Nothing is resampled: a reference on another grid raises BadInput.

    Args:
        index: The predictions folder.
        references: The reference labels.
        tolerance_mm: The tolerance of the surface Dice (NSD).
        lesion_labels: The labels to evaluate as lesions, too.
    """
    if not index.cases:
        raise BadInput(f"{index.folder}: holds no case yet; run `medssl predict` first")
    cases = references.select_labelled(index.cases)
    if not cases:
        raise BadInput(f"{index.folder}: none of its cases has a label in {references.path}; predict labelled cases")
    present = references.classes.present
    missing = [
        label.name
        for label in lesion_labels
        if all(label.value not in present.get(case, [label.value]) for case in cases)
    ]
    if missing:
        raise BadInput(f"{references.path}: {', '.join(missing)} is annotated in none of these cases; leave it out")
    for case in cases:
        yield _evaluate_case(case, index, references, tolerance_mm, lesion_labels)


def _evaluate_case(
    case: str, index: Index, references: References, tolerance_mm: float, lesion_labels: Sequence[LabelDef]
) -> CaseEvaluation:
    """Scores one case on the labels and lesions that are annotated in it."""
    folder = index.case_folder(case)
    predicted = nifti.read(folder / LABELS, label=True)
    reference = references.read_label(case, predicted)
    names = {label.value: label.name for label in index.labels}
    present = references.classes.present.get(case, list(names))
    patient = references.sources[case].patient
    _warn_about_unknown_values(reference, index, references)
    rows = tuple(
        score_case(case, patient, name, values, predicted, reference, tolerance_mm)
        for name, values in select_evaluated_labels(present, names, references).items()
    )
    findings = read_findings(folder)
    detections = {
        label.name: match_lesions(case, patient, label, predicted, reference, findings)
        for label in lesion_labels
        if label.value in present
    }
    is_complete = names.keys() <= set(present)
    probability = nifti.read(folder / PROBABILITY, label=True) if is_complete else None
    bins = voxel_reliability(probability, reference) if probability else None
    return CaseEvaluation(case, rows, detections, _locate_worst_error(predicted, reference, present), bins)


def find_warnings(index: Index, references: References) -> Iterator[str]:
    """Yields reasons why the scores of a predictions folder may be misleading."""
    if index.missing_cases:
        yield f"{index.folder}: {len(index.missing_cases)} of {len(index.requested)} cases are missing there"
    for label in index.labels:
        name = references.classes.names.get(label.value, label.name)
        if name != label.name:
            yield (
                f"class {label.value} is {label.name} in {index.folder}, {name} in {references.path}; "
                "classes are compared by their number"
            )
    cases = references.select_labelled(index.cases)
    if overlap := set(index.calibrated_on) & set(cases):
        yield (
            f"{len(overlap)} of these {len(cases)} cases were used for calibration: "
            "calibrated scores look better on them than on new cases"
        )


def _warn_about_unknown_values(reference: Volume, index: Index, references: References) -> None:
    """Warns about values that neither the predictions nor the data set name; one may be nnU-Net's `ignore`."""
    named_values = {label.value for label in index.labels} | set(references.classes.names)
    values = [v for v in list_label_values(reference.voxels) if v > 0 and v not in named_values]
    if values:
        warnings.warn(
            f"{references.path}: holds values {values}, which no predicted label has: they count as background; "
            "give the data set with its dataset.json if they are to be ignored",
            InputWarning,
            stacklevel=4,
        )


def select_evaluated_labels(
    present: Sequence[int], names: Mapping[int, str], references: References
) -> dict[str, tuple[int, ...]]:
    """Returns name -> label values of what is evaluated: the annotated labels, and the regions made of them.

    Args:
        present: The label values annotated in the case.
        names: The predicted labels by value.
        references: The reference labels, which define the regions.
    """
    labels = {name: (value,) for value, name in names.items() if value in present}
    annotated = {value for values in labels.values() for value in values}
    regions = {
        name: tuple(values) for name, values in references.classes.regions.items() if annotated.issuperset(values)
    }
    return labels | regions


def read_image(index: Index, case: str) -> Volume:
    """Reads the image of a predicted case, with its original unit."""
    return replace(nifti.read(index.case_folder(case) / IMAGE), unit="HU" if index.units[case] == "HU" else "a.u.")


def match_lesions(
    case: str, patient: str, label: LabelDef, predicted: Volume, reference: Volume, findings: Sequence[Finding]
) -> CaseDetections:
    """Matches the predicted lesions of one label with those of the reference.

    A finding is matched with its component of the predicted mask by the number at the end of its id. A finding is left
    out if the reference is unknown in at least half of its voxels.

    Args:
        case: The id of the case.
        patient: The id of the patient.
        label: The lesion label.
        predicted: The predicted label volume.
        reference: The reference label volume on the same grid, negative where it is unknown.
        findings: The findings of the prediction.
    """
    components, is_known = label_components(predicted.voxels == label.value), reference.voxels >= 0
    candidates = {int(f.id.rpartition("-")[2]): f for f in findings if f.label == label.value}
    if max(candidates, default=0) > components.max(initial=0):
        raise BadInput(f"{case}: its findings are not those of its {LABELS}; predict again")
    known_fractions = ndimage.mean(is_known, components, list(candidates))
    candidates = {
        number: finding
        for (number, finding), fraction in zip(candidates.items(), known_fractions, strict=True)
        if fraction > 0.5
    }
    ones = np.ones(reference.shape, np.float32)
    reference_lesions = extract_findings(reference, ones, ones, case, {label.value: label.name})
    iou = component_iou(np.where(is_known, components, 0), label_components(reference.voxels == label.value))
    by_centre = lesions.compare_by_centre(list(candidates.values()), reference_lesions)
    overlap = iou[np.array(list(candidates), int) - 1, : len(reference_lesions)]
    return CaseDetections(case, patient, replace(by_centre, overlap=overlap), by_centre)


def voxel_reliability(probability: Volume, reference: Volume) -> Reliability:
    """Measures the reliability of a foreground probability near the annotated or predicted foreground.

    Args:
        probability: The probability, stored as bytes from 0 to 255.
        reference: The reference label volume, negative where it is unknown; those voxels are left out.
    """
    is_known = reference.voxels >= 0
    foreground = (is_known & (probability.voxels > 127)) | (reference.voxels > 0)
    voxels = is_known & near_surface(foreground, reference.spacing_mm())
    return compute_reliability(probability.voxels[voxels] / 255, reference.voxels[voxels] > 0)


def _locate_worst_error(predicted: Volume, reference: Volume, present: Sequence[int]) -> Point:
    """Returns the middle of the thickest error in mm, or the middle of the volume if there is none."""
    predicted_labels, reference_labels = (
        np.where(np.isin(volume.voxels, present), volume.voxels, 0) for volume in (predicted, reference)
    )
    predicted_labels = np.where(reference.voxels < 0, 0, predicted_labels)
    is_wrong = predicted_labels != reference_labels
    voxel = np.array(predicted.shape, float) / 2
    if is_wrong.any():
        depth = ndimage.distance_transform_edt(np.pad(is_wrong, 1), sampling=predicted.spacing_mm())
        voxel = np.array(np.unravel_index(np.argmax(depth), depth.shape), float) - 1
    x, y, z = (float(v) for v in predicted.to_mm(voxel[None])[0])
    return x, y, z
