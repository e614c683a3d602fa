"""Derives the findings of a case after its review: each with its voxels, its verdict and its measured axes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.inference.connected_findings import extract_findings
from medssl.io import nifti
from medssl.predictions_folder import LABELS, Index, read_findings
from medssl.review.corrected_labels import apply_reading, extract_finding_mask
from medssl.review.event import Event
from medssl.review.mask_runs import apply_runs, unpack_runs
from medssl.review.reading import Reading, has_other_model_events, replay
from medssl.review.recist import RecistAxes
from medssl.volume import Volume


@dataclass(frozen=True)
class ReviewedFinding:
    """A finding after the review.

    Args:
        finding: The finding with its current sizes.
        number: The number of its connected component; None if it has no voxels left or was merged into another.
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
        parts: The connected components of the labels, numbered from 1.
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

    A connected component keeps the identity of the finding that fills most of it with its voxels or strokes.

    Args:
        labels: The predicted labels.
        findings: The predicted findings.
        reading: The verdicts and strokes of one reader.
        names: The name of each label value.

    Raises:
        BadInput: If the components are too many or too intertwined to tell their findings apart.
    """
    before = labels.reorient("RAS")
    after = apply_reading(before, findings, reading)
    all_findings = (*findings, *reading.added)
    owner = _map_owners(before, findings, all_findings, reading)
    names = {int(value): names.get(int(value), f"label {value}") for value in np.unique(after.voxels[after.voxels > 0])}
    ones, zeros = np.ones(after.shape, np.float64), np.zeros(after.shape, np.float64)
    parts = np.zeros(after.shape, np.int32)
    items: list[ReviewedFinding] = []
    for component in extract_findings(after, ones, zeros, reading.case, names):
        voxels = extract_finding_mask(after, component)
        parts[voxels] = len(items) + 1
        used_ids = {item.finding.id for item in items}
        items.append(_identify_component(component, len(items) + 1, all_findings, owner[voxels], reading, used_ids))
    if np.count_nonzero(parts) != np.count_nonzero(after.voxels):
        raise BadInput(f"{reading.case}: too many or intertwined components; they cannot be told apart as findings")
    used_ids = {item.finding.id for item in items}
    missing = [ReviewedFinding(f, None, reading.verdicts.get(f.id)) for f in all_findings if f.id not in used_ids]
    with_axes = tuple(replace(item, axes=reading.axes.get(item.finding.id)) for item in (*items, *missing))
    return ReviewedCase(after, replace(after, voxels=parts), with_axes)


def select_reading_of_record(index: Index, case: str, events: Iterable[Event], include_unsigned: bool) -> Reading:
    """Returns the reading of a case that is exported: the latest signed one.

    With `include_unsigned`, a case without a signed reading gives the latest reading, or an empty one, which stands for
    the prediction of the model.

    Raises:
        BadInput: If there is no such reading, or it belongs to the prediction of another model.
    """
    case_events = [event for event in events if event.case == case]
    reading = _select_latest(case, list(replay(case_events).values()), include_unsigned)
    own_events = (event for event in case_events if event.reviewer == reading.reviewer)
    if has_other_model_events(own_events, index.weights_sha256):
        raise BadInput("its verdicts belong to the prediction of another model; review this prediction")
    return reading


def _map_owners(
    before: Volume, findings: Sequence[Finding], all_findings: Sequence[Finding], reading: Reading
) -> Int32[np.ndarray, "i j k"]:
    """Returns for each voxel the number of its predicted finding, or of the finding that a stroke was drawn for."""
    owner = np.zeros(before.shape, np.int32)
    for n, finding in enumerate(findings, 1):
        owner[extract_finding_mask(before, finding)] = n
    number = {finding.id: n for n, finding in enumerate(all_findings, 1)}
    for stroke in reading.strokes:
        if stroke.mask and stroke.finding in number:
            runs = unpack_runs(stroke.mask)
            runs[:, 2] = number[stroke.finding]
            owner = np.where(owner, owner, apply_runs(np.zeros_like(owner), runs))
    return owner.astype(np.int32, copy=False)


def _identify_component(
    component: Finding, number: int, findings: Sequence[Finding], owner: Int32[np.ndarray, "n"], reading: Reading,
    used_ids: set[str],
) -> ReviewedFinding:  # fmt: skip
    """Returns a component with the identity and verdict of its finding; a further part gets a new identifier."""
    counts = np.bincount(owner, minlength=len(findings) + 1)
    if not counts[1:].any():
        drawn_finding = replace(component, id=f"{component.id}-drawn", source="reader")
        return ReviewedFinding(drawn_finding, number, None, is_corrected=True)
    original = findings[int(counts[1:].argmax())]
    id_ = f"{original.id}-part-{number}" if original.id in used_ids else original.id
    has_same_size = np.isclose(component.volume_ml, original.volume_ml)
    is_unchanged = counts[0] == 0 and has_same_size and component.label == original.label
    finding = replace(component, id=id_, score=original.score, uncertainty=original.uncertainty, source=original.source)
    return ReviewedFinding(finding, number, reading.verdicts.get(original.id), is_corrected=not is_unchanged)


def _select_latest(case: str, readings: list[Reading], include_unsigned: bool) -> Reading:
    if signed := [reading for reading in readings if reading.signed_at]:
        return max(signed, key=lambda r: r.signed_at or "")
    if not include_unsigned:
        raise BadInput("not signed" if readings else "not read")
    return max(readings, key=lambda r: r.latest_event, default=Reading(case, ""))
