"""Applies the verdicts and strokes of a reader to the predicted labels of a case."""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int
from scipy import ndimage

from medssl.errors import BadInput
from medssl.finding import Finding, Verdict
from medssl.predictions_folder import Index
from medssl.review.event import Event
from medssl.review.mask_runs import Labels, Runs, apply_runs, crop_runs, is_inside, unpack_runs
from medssl.review.reading import Reading
from medssl.volume import NEIGHBOURS_26, Volume

Crop = tuple[slice, slice, slice]
MAX_LABEL = 255  # masks hold labels as bytes


@dataclass(frozen=True)
class Region:
    """A box of voxels of a RAS grid.

    Args:
        corner: The first voxel.
        size: The number of voxels along i, j, k.
        shape: The number of voxels of the grid.
    """

    corner: tuple[int, int, int]
    size: tuple[int, int, int]
    shape: tuple[int, int, int]

    def overlap(self, other: "Region") -> tuple[Crop, Crop]:
        """Returns where both overlap: in this region, and in the other one."""
        spans = [
            (max(a, b), max(a, b, min(a + n, b + m)))
            for a, n, b, m in zip(self.corner, self.size, other.corner, other.size, strict=True)
        ]
        return _cut_spans(spans, self.corner), _cut_spans(spans, other.corner)


@dataclass(frozen=True)
class FindingMap:
    """The finding that each voxel belongs to.

    A voxel that belongs to the n-th finding, from 1, holds `top + n`; a voxel that belongs to no finding holds its
    label, up to `top`. A stroke belongs to the finding that it was drawn for, so two findings never merge.

    Args:
        numbers: The values, on a RAS grid.
        findings: The predicted findings, then those that the reader added.
        top: The largest label.
        region: The part of the case that the values cover; None for all of it.
    """

    numbers: Volume
    findings: tuple[Finding, ...]
    top: int
    region: Region | None = None

    @classmethod
    def from_prediction(cls, labels: Volume, findings: Iterable[Finding], top: int) -> "FindingMap":
        """Returns the map of predicted labels and their findings, before any stroke."""
        findings = tuple(findings)
        ras = labels.reorient("RAS")
        numbers = ras.voxels.astype(np.int16)
        for number, finding in enumerate(findings, top + 1):
            crop, mask = locate_finding(ras, finding, lambda crop: ras.voxels[crop])
            numbers[crop][mask] = number
        return cls(replace(ras, voxels=numbers), findings, top)

    def draw(self, reading: Reading) -> "FindingMap":
        """Returns the map with the findings that the reader added and the strokes that the reader drew."""
        extended = replace(self, findings=(*self.findings, *reading.added))
        runs = extended.number_strokes(reading)
        if not any(map(len, runs.values())):
            return extended
        voxels = apply_runs(self.numbers.voxels, np.concatenate(list(runs.values())))
        return replace(extended, numbers=replace(self.numbers, voxels=voxels))

    def number_strokes(self, reading: Reading) -> dict[int, Runs]:
        """Returns the runs of each stroke by its event, with the number of its finding in place of its label.

        What is drawn with the label of an organ belongs to that organ, whichever finding was chosen. A stored stroke
        that does not fit the labels is left out; `find_stroke_fault` returns why.
        """
        return {stroke.id: self._number_runs(runs, stroke.finding) for stroke, runs in self.read_strokes(reading)}

    def read_strokes(self, reading: Reading) -> list[tuple[Event, Runs]]:
        """Returns each stroke that fits the labels, with its runs over the voxels of this map."""
        shape = self.region.shape if self.region else self.numbers.shape
        strokes = [
            (stroke, unpack_runs(stroke.mask))
            for stroke in reading.strokes
            if stroke.mask and not find_stroke_fault(stroke, math.prod(shape), self.top)
        ]
        if not self.region:
            return strokes
        return [(stroke, crop_runs(runs, shape, self.region.corner, self.region.size)) for stroke, runs in strokes]

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


def _cut_spans(spans: Sequence[tuple[int, int]], corner: tuple[int, int, int]) -> Crop:
    """Returns the place of the voxels from `start` to `stop` along each axis in a box with this corner."""
    i, j, k = (slice(start - first, stop - first) for (start, stop), first in zip(spans, corner, strict=True))
    return i, j, k


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
    strokes = [
        stroke for stroke in reading.strokes if stroke.mask and not find_stroke_fault(stroke, labels.voxels.size)
    ]
    drawn_labels = [int(unpack_runs(stroke.mask or b"")[:, 2].max(initial=0)) for stroke in strokes]
    top = max(int(labels.voxels.max()), *drawn_labels, *(finding.label for finding in (*findings, *reading.added)), 0)
    after = FindingMap.from_prediction(labels, findings, top).draw(reading).to_labels(reading)
    after = replace(after, voxels=after.voxels.astype(labels.voxels.dtype)).reorient(labels.orientation())
    return replace(after, affine=labels.affine)


def find_stroke_fault(stroke: Event, num_voxels: int, max_label: int = MAX_LABEL) -> str:
    """Returns why a stored stroke does not fit labels of `num_voxels` up to `max_label`; empty if it fits."""
    try:
        runs = unpack_runs(stroke.mask or b"")
    except (zlib.error, ValueError):
        return f"event {stroke.id} (stroke) cannot be read and was left out"
    values = runs[:, 2]
    fits = is_inside(runs, num_voxels) and bool(((values >= 0) & (values <= max_label)).all())
    return "" if fits else f"event {stroke.id} (stroke) does not fit this image and was left out"


def extract_finding_mask(labels: Volume, finding: Finding) -> Bool[np.ndarray, "i j k"]:
    """Returns the voxels of a predicted finding; raises BadInput if the labels do not hold it."""
    mask = np.zeros(labels.shape, bool)
    crop, inside = locate_finding(labels, finding, lambda crop: labels.voxels[crop])
    mask[crop] = inside
    return mask


def locate_finding(
    grid: Volume, finding: Finding, read_box: Callable[[Crop], Labels]
) -> tuple[Crop, Bool[np.ndarray, "i j k"]]:
    """Returns the bounding box of a finding and its voxels in there.

    They are the connected component of its label that fills its bounding box, or for an organ all components inside.

    Args:
        grid: A volume on the grid of the labels.
        finding: The finding.
        read_box: Returns the labels in a box.

    Raises:
        BadInput: If no component fits.
    """
    crop = find_box(grid, finding)
    first = np.array([side.start for side in crop])
    half_voxel = np.abs(grid.affine[:3, :3]).sum(1) / 2
    for mask in _iterate_candidates(read_box(crop) == finding.label, finding):
        mm = grid.to_mm((_list_line_ends(mask) + first).astype(float))
        extent = [mm.min(0) - half_voxel, mm.max(0) + half_voxel] if len(mm) else []
        if len(mm) and np.allclose(extent, [finding.low_mm, finding.high_mm], atol=0.01):
            return crop, mask
    raise BadInput(f"{finding.id}: its voxels are not in the labels; findings and labels come from two predictions")


def find_box(grid: Volume, finding: Finding) -> Crop:
    """Returns the voxels that the bounding box of a finding covers."""
    low, high = np.array(finding.low_mm), np.array(finding.high_mm)
    corners = np.array([[(low, high)[n >> axis & 1][axis] for axis in range(3)] for n in range(8)])
    index = grid.to_index(corners)
    first = np.maximum(np.floor(index.min(0)), 0).astype(int).tolist()
    last = np.minimum(np.ceil(index.max(0)).astype(int) + 1, grid.shape).tolist()
    i, j, k = (slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
    return i, j, k


def _list_line_ends(mask: Bool[np.ndarray, "i j k"]) -> Int[np.ndarray, "n 3"]:
    """Returns the first and the last voxel of each line along i, which the corners of any box around all are among."""
    j, k = np.nonzero(mask.any(0))
    first, last = mask.argmax(0)[j, k], len(mask) - 1 - mask[::-1].argmax(0)[j, k]
    return np.concatenate([np.column_stack([first, j, k]), np.column_stack([last, j, k])])


def _iterate_candidates(mask: Bool[np.ndarray, "i j k"], finding: Finding) -> Iterator[Bool[np.ndarray, "i j k"]]:
    """Yields the connected components of a mask, or for an organ the whole mask."""
    if finding.kind == "organ":
        yield from [mask] * bool(mask.any())
        return
    components, count = ndimage.label(mask, NEIGHBOURS_26)
    for n in range(1, count + 1):
        yield components == n
