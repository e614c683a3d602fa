"""Evaluation: a predictions folder against references, case by case."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from medssl.data.ingest.reference_labels import References
from medssl.errors import BadInput, Doubt
from medssl.finding import Finding, Point
from medssl.inference.connected_findings import find, parts
from medssl.io import nifti, voxels
from medssl.metrics import lesions
from medssl.metrics.calibration import Reliability, near, reliability
from medssl.metrics.case_scores import Row, score
from medssl.metrics.detection_scores import Detected
from medssl.metrics.overlap import part_iou
from medssl.predictions_folder import IMAGE, LABELS, PROBABILITY, Index, Label, read_findings
from medssl.volume import Volume


@dataclass(frozen=True)
class Evaluated:
    """One case: a row a label, what was detected of each kind of lesion drawn, and a point where it is most wrong.

    `reliability` is that of the probability of not being background, over voxels where it is above 0; None where not
    all labels were drawn.
    """

    case: str
    rows: tuple[Row, ...]
    detected: dict[str, Detected]
    worst_mm: Point
    reliability: Reliability | None


def lesion_labels(labels: Sequence[Label], names: str, where: Path) -> tuple[Label, ...]:
    """The labels that are lesions, by their names with commas between."""
    known, asked = {label.name: label for label in labels}, [name for name in names.split(",") if name]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise BadInput(f"{', '.join(unknown)}: no label of {where}; its labels are {', '.join(known)}")
    return tuple(known[name] for name in asked)


def evaluate(
    index: Index, references: References, tolerance_mm: float, kinds: Sequence[Label] = ()
) -> Iterator[Evaluated]:
    """Every labelled case of a predictions folder; a label on another grid is refused, and nothing is resampled."""
    if not index.cases:
        raise BadInput(f"{index.folder}: holds no case yet; predict some")
    measured = references.measured(index.cases)
    if not measured:
        raise BadInput(f"{index.folder}: none of its cases has a label in {references.place}; predict labelled cases")
    told = references.classes.present
    absent = [kind.name for kind in kinds if all(kind.value not in told.get(case, [kind.value]) for case in measured)]
    if absent:
        raise BadInput(f"{references.place}: {', '.join(absent)} was drawn in none of these cases; leave it out")
    for case in measured:
        predicted = nifti.read(index.case(case) / LABELS, label=True)
        reference = references.label(case, predicted)
        present = references.classes.present.get(case, [label.value for label in index.labels])
        named = measured_in(present, {label.value: label.name for label in index.labels}, references)
        patient = references.sources[case].patient
        _doubt_unnamed(reference, index, references)
        rows = tuple(score(case, patient, *name, predicted, reference, tolerance_mm) for name in named.items())
        found = read_findings(index.case(case))
        drawn = [kind for kind in kinds if kind.value in present]
        detected = {kind.name: detect(case, patient, kind, predicted, reference, found) for kind in drawn}
        whole = {label.value for label in index.labels} <= set(present)
        bins = of_voxels(nifti.read(index.case(case) / PROBABILITY, label=True), reference) if whole else None
        yield Evaluated(case, rows, detected, _worst(predicted, reference, present), bins)


def doubts(index: Index, references: References) -> Iterator[str]:
    """What may make the scores of a predictions folder mean less than they seem to, in words."""
    if index.missing:
        yield f"{index.folder}: {len(index.missing)} of {len(index.asked)} cases are missing there"
    for label in index.labels:
        known = references.classes.names.get(label.value, label.name)
        if known != label.name:
            said = f"class {label.value} is {label.name} in {index.folder}, {known} in {references.place}"
            yield f"{said}; classes are compared by their number"
    cases = references.measured(index.cases)
    if seen := set(index.calibrated_on) & set(cases):
        yield f"{len(seen)} of these {len(cases)} cases: what was calibrated on them looks better here"


def _doubt_unnamed(reference: Volume, index: Index, references: References) -> None:
    """Says which values of a reference no predicted label has: one of them may be nnU-Net's `ignore`."""
    known = {label.value for label in index.labels}
    beyond = [value for value in voxels.present(reference.voxels) if value > 0 and value not in known]
    if beyond:
        said = f"holds values {beyond}, which no predicted label has: they count as background"
        remedy = "give the data set with its dataset.json if they are to be ignored"
        warnings.warn(f"{references.place}: {said}; {remedy}", Doubt, stacklevel=3)


def measured_in(present: Sequence[int], names: Mapping[int, str], references: References) -> dict[str, tuple[int, ...]]:
    """What is measured, name -> values: the predicted labels that were drawn, and the data set's regions of these."""
    drawn = {name: (value,) for value, name in names.items() if value in present}
    known = {value for values in drawn.values() for value in values}
    regions = {name: tuple(values) for name, values in references.classes.regions.items() if known.issuperset(values)}
    return drawn | regions


def image(index: Index, case: str) -> Volume:
    """A case's image, in the unit it was predicted in."""
    return replace(nifti.read(index.case(case) / IMAGE), unit="HU" if index.units[case] == "HU" else "a.u.")


def detect(
    case: str, patient: str, kind: Label, predicted: Volume, reference: Volume, found: Sequence[Finding]
) -> Detected:
    """One kind of lesion in one case, compared with the reference.

    Candidates are known by their number among the parts of the predicted mask, which is the end of their id. One that
    lies by half or more where the reference is unknown is left out: nobody can say whether it is right.
    """
    ours, known = parts(predicted.voxels == kind.value), reference.voxels >= 0
    mine = {int(f.id.rpartition("-")[2]): f for f in found if f.label == kind.value}
    if max(mine, default=0) > ours.max(initial=0):
        raise BadInput(f"{case}: its findings are not those of its {LABELS}; predict again")
    shares = ndimage.mean(known, ours, list(mine))
    mine = {number: f for (number, f), share in zip(mine.items(), shares, strict=True) if share > 0.5}
    blank = np.ones(reference.shape, np.float32)
    real = find(reference, blank, blank, case, {kind.value: kind.name})
    iou = part_iou(np.where(known, ours, 0), parts(reference.voxels == kind.value))
    by_centre = lesions.by_centre(list(mine.values()), real)
    overlap = iou[np.array(list(mine), int) - 1, : len(real)]
    return Detected(case, patient, replace(by_centre, overlap=overlap), by_centre)


def of_voxels(probability: Volume, reference: Volume) -> Reliability:
    """Of a probability kept in bytes, 0 to 255, near what is drawn or predicted and where the reference is known."""
    known = reference.voxels >= 0
    some = known & near((known & (probability.voxels > 127)) | (reference.voxels > 0), reference.spacing_mm())
    return reliability(probability.voxels[some] / 255, reference.voxels[some] > 0)


def _worst(predicted: Volume, reference: Volume, present: Sequence[int]) -> Point:
    """The middle of the thickest error, or of the volume where there is none."""
    ours, theirs = (np.where(np.isin(v.voxels, present), v.voxels, 0) for v in (predicted, reference))
    ours = np.where(reference.voxels < 0, 0, ours)
    at = np.array(predicted.shape, float) / 2
    if (ours != theirs).any():
        depth = ndimage.distance_transform_edt(np.pad(ours != theirs, 1), sampling=predicted.spacing_mm())
        at = np.array(np.unravel_index(np.argmax(depth), depth.shape), float) - 1
    x, y, z = (float(v) for v in predicted.to_mm(at[None])[0])
    return x, y, z
