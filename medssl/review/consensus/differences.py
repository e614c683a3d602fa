"""Finds the findings on which several readings of a case differ, in verdict or in outline."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review.corrected_labels import FindingMap, find_top_label
from medssl.review.event import DECISION_TEXT
from medssl.review.reading import Reading

FREE_DRAWING = ""  # stands for what was drawn for no finding


@dataclass(frozen=True)
class Difference:
    """A finding on which readings differ.

    Args:
        finding: The identifier of the finding; `FREE_DRAWING` for what was drawn for no finding.
        name: What the finding is, in words.
        versions: The verdict of each reader, in words, by the login of the reader.
    """

    finding: str
    name: str
    versions: dict[str, str]

    @property
    def summary(self) -> str:
        """The finding and the verdicts in one line."""
        texts = ", ".join(f"{reader}: {text}" for reader, text in self.versions.items())
        return f"{self.finding or self.name} ({texts})"


def load_predicted_map(index: Index, case: str) -> FindingMap:
    """Returns the predicted findings of a case, before any stroke."""
    folder = index.case_folder(case)
    labels, findings = nifti.read(folder / LABELS, label=True), read_findings(folder)
    return FindingMap.from_prediction(labels, findings, max(find_top_label(index), int(labels.voxels.max())))


def find_differences(index: Index, case: str, readings: Sequence[Reading]) -> list[Difference]:
    """Returns the findings on which the readings differ, in the order of the findings.

    Readings agree on a finding if all have the same verdict and, unless it is rejected, the same label and the same
    voxels. A finding that only some readers added is one on which they differ.
    """
    predicted = read_findings(index.case_folder(case))
    names = {finding.id: finding.name for reading in readings for finding in (*predicted, *reading.added)}
    has_outlines = any(reading.strokes for reading in readings)
    outlines = {reading.reviewer: hash_outlines(index, case, reading) for reading in readings} if has_outlines else {}
    label_names = {label.value: label.name for label in index.labels}
    differences = []
    for finding in (*names, *([FREE_DRAWING] if has_outlines else [])):
        keys = {reading.reviewer: _describe_version(reading, finding, outlines) for reading in readings}
        if len(set(keys.values())) > 1:
            texts = {reading.reviewer: format_version(reading, finding, label_names) for reading in readings}
            if len(set(texts.values())) == 1 and finding:
                texts = {reader: f"{text}, another outline" for reader, text in texts.items()}
            name = names.get(finding, "drawn for no finding")
            differences.append(Difference(finding, name, texts))
    return differences


def format_version(reading: Reading, finding: str, label_names: dict[int, str]) -> str:
    """Returns what a reader decided on a finding, in words."""
    verdict = reading.verdicts.get(finding)
    if finding == FREE_DRAWING:
        count = sum(stroke.finding == FREE_DRAWING for stroke in reading.strokes)
        return f"{count} strokes" if count else "nothing"
    if verdict is None:
        return "no such finding"
    label = f" as {label_names.get(verdict.label or 0, verdict.label)}" if verdict.decision == "relabel" else ""
    return f"{DECISION_TEXT[verdict.decision]}{label}"


def _describe_version(reading: Reading, finding: str, outlines: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """Returns what must be equal in two readings that agree on a finding."""
    verdict = reading.verdicts.get(finding)
    if verdict and verdict.decision == "reject":
        return ("reject",)
    label = str(verdict.label) if verdict and verdict.decision == "relabel" else ""
    outline = outlines.get(reading.reviewer, {}).get(finding, "")
    return (verdict.decision if verdict else "", label, outline)


def hash_outlines(index: Index, case: str, reading: Reading) -> dict[str, str]:
    """Returns a hash of the voxels of each finding as a reader has drawn it, empty for a finding without voxels."""
    drawing = load_predicted_map(index, case).draw(reading)
    voxels = drawing.numbers.voxels
    hashes = {FREE_DRAWING: _hash_mask(np.where(voxels <= drawing.top, voxels, 0))}
    for number, finding in enumerate(drawing.findings, drawing.top + 1):
        hashes[finding.id] = _hash_mask(voxels == number)
    return hashes


def _hash_mask(mask: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest() if mask.any() else ""
