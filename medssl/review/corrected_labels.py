"""Applies the verdicts and strokes of a reader to the predicted labels of a case."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.predictions_folder import Index
from medssl.review.event import Event
from medssl.review.mask_runs import Runs, apply_runs, is_inside, unpack_runs
from medssl.review.reading import Reading
from medssl.volume import NEIGHBOURS_26, Volume

Crop = tuple[slice, slice, slice]
MAX_LABEL = 255  # masks hold labels as bytes


@dataclass(frozen=True)
class FindingMap:
    """The finding that each voxel belongs to.

    A voxel that belongs to the n-th finding, from 1, holds `top + n`; a voxel that belongs to no finding holds its
    label, up to `top`. A stroke belongs to the finding that it was drawn for, so two findings never merge.

    Args:
        numbers: The values, on a RAS grid.
        findings: The predicted findings, then those that the reader added.
        top: The largest label.
    """

    numbers: Volume
    findings: tuple[Finding, ...]
    top: int

    @classmethod
    def from_prediction(cls, labels: Volume, findings: Iterable[Finding], top: int) -> "FindingMap":
        """Returns the map of predicted labels and their findings, before any stroke."""
        findings = tuple(findings)
        ras = labels.reorient("RAS")
        numbers = ras.voxels.astype(np.int16)
        for number, finding in enumerate(findings, top + 1):
            crop, mask = _locate_finding(ras, finding)
            numbers[crop][mask] = number
        return cls(replace(ras, voxels=numbers), findings, top)

    def draw(self, reading: Reading) -> "FindingMap":
        """Returns the map with the findings that the reader added and the strokes that the reader drew."""
        extended = replace(self, findings=(*self.findings, *reading.added))
        runs = extended.number_strokes(reading)
        if not runs:
            return extended
        voxels = apply_runs(self.numbers.voxels, np.concatenate(list(runs.values())))
        return replace(extended, numbers=replace(self.numbers, voxels=voxels))

    def number_strokes(self, reading: Reading) -> dict[int, Runs]:
        """Returns the runs of each stroke by its event, with the number of its finding in place of its label.

        What is drawn with the label of an organ belongs to that organ, whichever finding was chosen. A stored stroke
        that does not fit the labels is left out; `find_stroke_fault` returns why.
        """
        return {
            stroke.id: self._number_runs(unpack_runs(stroke.mask), stroke.finding)
            for stroke in reading.strokes
            if stroke.mask and not find_stroke_fault(stroke, self.numbers, self.top)
        }

    def _number_runs(self, runs: Runs, id: str) -> Runs:
        numbered = list(enumerate(self.findings, self.top + 1))
        chosen = [(number, finding) for number, finding in numbered if finding.id == id]
        organs = [(number, finding) for number, finding in numbered if finding.kind == "organ"]
        for number, finding in (*chosen, *organs):
            runs[runs[:, 2] == finding.label, 2] = number
        return runs

    def to_labels(self, reading: Reading) -> Volume:
        """Returns the label of each voxel after the verdicts: rejected findings are removed, relabelled ones renamed.

        A verdict applies to a finding as it is drawn, with every stroke that was made for it.
        """
        table = np.arange(self.top + len(self.findings) + 1)
        table[self.top + 1 :] = [find_label(finding, reading.verdicts.get(finding.id)) for finding in self.findings]
        return replace(self.numbers, voxels=table.astype(np.int16)[self.numbers.voxels])


def find_top_label(index: Index) -> int:
    """Returns the largest label of predictions; the numbers of findings begin above it."""
    return max((label.value for label in index.labels), default=0)


def find_label(finding: Finding, verdict: Verdict | None) -> int:
    """Returns the label of a finding after a verdict; 0 if it was rejected. A label that no mask holds is left out."""
    if verdict and verdict.decision == "reject":
        return 0
    is_renamed = verdict and verdict.decision == "relabel" and 0 < (verdict.label or 0) <= MAX_LABEL
    return verdict.label if verdict and verdict.label and is_renamed else finding.label


def apply_reading(labels: Volume, findings: Sequence[Finding], reading: Reading) -> Volume:
    """Returns the predicted labels with the strokes, without rejected findings and with relabelled ones.

    The result has the grid and the type of the input.
    """
    strokes = [stroke for stroke in reading.strokes if stroke.mask and not find_stroke_fault(stroke, labels)]
    drawn_labels = [int(unpack_runs(stroke.mask or b"")[:, 2].max(initial=0)) for stroke in strokes]
    top = max(int(labels.voxels.max()), *drawn_labels, *(finding.label for finding in (*findings, *reading.added)), 0)
    after = FindingMap.from_prediction(labels, findings, top).draw(reading).to_labels(reading)
    after = replace(after, voxels=after.voxels.astype(labels.voxels.dtype)).reorient(labels.orientation())
    return replace(after, affine=labels.affine)


def find_stroke_fault(stroke: Event, labels: Volume, max_label: int = MAX_LABEL) -> str:
    """Returns why a stored stroke does not fit the labels, which go up to `max_label`; empty if it fits."""
    try:
        runs = unpack_runs(stroke.mask or b"")
    except (zlib.error, ValueError):
        return f"event {stroke.id} (stroke) cannot be read and was left out"
    values = runs[:, 2]
    fits = is_inside(runs, labels.voxels.size) and bool(((values >= 0) & (values <= max_label)).all())
    return "" if fits else f"event {stroke.id} (stroke) does not fit this image and was left out"


def extract_finding_mask(labels: Volume, finding: Finding) -> Bool[np.ndarray, "i j k"]:
    """Returns the voxels of a predicted finding; raises BadInput if the labels do not hold it."""
    mask = np.zeros(labels.shape, bool)
    crop, inside = _locate_finding(labels, finding)
    mask[crop] = inside
    return mask


def _locate_finding(labels: Volume, finding: Finding) -> tuple[Crop, Bool[np.ndarray, "i j k"]]:
    """Returns the bounding box of a finding and its voxels in there.

    They are the connected component of its label that fills its bounding box, or for an organ all components inside.
    """
    low, high = np.array(finding.low_mm), np.array(finding.high_mm)
    corners = np.array([[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
    index = labels.to_index(corners)
    first = np.maximum(np.floor(index.min(0)), 0).astype(int)
    i, j, k = (slice(a, b) for a, b in zip(first, np.ceil(index.max(0)).astype(int) + 1, strict=True))
    crop = (i, j, k)
    half_voxel = np.abs(labels.affine[:3, :3]).sum(1) / 2
    for mask in _iterate_candidates(labels.voxels[crop] == finding.label, finding):
        mm = labels.to_mm((np.argwhere(mask) + first).astype(float))
        if len(mm) and np.allclose([mm.min(0) - half_voxel, mm.max(0) + half_voxel], [low, high], atol=0.01):
            return crop, mask
    raise BadInput(f"{finding.id}: its voxels are not in the labels; findings and labels come from two predictions")


def _iterate_candidates(mask: Bool[np.ndarray, "i j k"], finding: Finding) -> Iterator[Bool[np.ndarray, "i j k"]]:
    """Yields the connected components of a mask, or for an organ the whole mask."""
    if finding.kind == "organ":
        yield mask
        return
    components, count = ndimage.label(mask, NEIGHBOURS_26)
    for n in range(1, count + 1):
        yield components == n
