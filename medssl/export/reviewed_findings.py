"""Derives the findings of a case after its review: each with its voxels, its verdict and its measured axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medssl.export.drawn_findings import DrawnCase, measure_drawn_findings
from medssl.finding import Finding, Verdict
from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review.corrected_labels import FindingMap, find_label
from medssl.review.reading import Reading
from medssl.review.recist import RecistAxes
from medssl.volume import Volume


@dataclass(frozen=True)
class ReviewedFinding:
    """A finding after the review.

    Args:
        finding: The finding with its current sizes, which are 0 if it has no voxels left.
        number: The number of its segment; None if it was rejected or has no voxels left.
        verdict: The verdict of the reader; None if there is none.
        is_corrected: Whether the reader changed its voxels.
        axes: The diameters that the reader measured; None if there are none.
    """

    finding: Finding
    number: int | None
    verdict: Verdict | None
    is_corrected: bool = False
    axes: RecistAxes | None = None


@dataclass(frozen=True)
class ReviewedCase:
    """A case after the review, on the RAS grid of its labels.

    Args:
        labels: The labels after verdicts and strokes.
        parts: The segments of the findings, numbered from 1.
        items: All findings, including those without voxels.
    """

    labels: Volume
    parts: Volume
    items: tuple[ReviewedFinding, ...]


def load_reviewed_case(index: Index, case: str, reading: Reading) -> ReviewedCase:
    """Reads a predicted case and applies a reading to it."""
    folder = index.case_folder(case)
    names = {label.value: label.name for label in index.labels}
    return review_case(nifti.read(folder / LABELS, label=True), read_findings(folder), reading, names)


def review_case(
    labels: Volume, findings: Sequence[Finding], reading: Reading, names: Mapping[int, str]
) -> ReviewedCase:
    """Applies a reading to predicted labels and returns the resulting findings.

    Args:
        labels: The predicted labels.
        findings: The predicted findings.
        reading: The verdicts and strokes of one reader.
        names: The name of each label value.
    """
    top = max([int(labels.voxels.max()), *names, *(finding.label for finding in findings)])
    case = measure_drawn_findings(FindingMap.from_prediction(labels, findings, top), reading, names)
    items = tuple(_judge_findings(case, reading, names))
    segments = np.zeros(top + len(items) + 1, np.int32)
    segments[top + 1 :] = [item.number or 0 for item in items]
    after = replace(
        labels.reorient("RAS"), voxels=case.finding_map.to_labels(reading).voxels.astype(labels.voxels.dtype)
    )
    return ReviewedCase(after, replace(after, voxels=segments[case.values]), items)


def _judge_findings(case: DrawnCase, reading: Reading, names: Mapping[int, str]) -> Iterator[ReviewedFinding]:
    """Yields each finding with its verdict and its new label; a detached part has the verdict of its finding."""
    number = 0
    for item in case.findings:
        finding, verdict = item.finding, reading.verdicts.get(item.part_of or item.finding.id)
        label = find_label(finding, verdict)
        if label not in (0, finding.label):
            finding = replace(finding, label=label, name=names.get(label, f"label {label}"))
        is_segmented = label > 0 and finding.volume_ml > 0
        number += is_segmented
        is_corrected = is_segmented and (item.is_changed or label != item.finding.label)
        axes = reading.axes.get(finding.id)
        yield ReviewedFinding(finding, number if is_segmented else None, verdict, is_corrected, axes)
