"""The predicted findings of a case, of which any box can be cut without the whole volume in memory."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from medssl.finding import Finding
from medssl.io.slabs.slab_file import SlabFile
from medssl.predictions_folder import read_findings
from medssl.review.corrected_labels import FindingMap, Region, find_box, locate_finding
from medssl.review.mask_runs import Labels, Runs
from medssl.review.reading import Reading
from medssl.volume import Volume

MARGIN_VOXELS = 8  # around what is drawn, for small components of a label that are no finding


class PredictedSlabs:
    """The predicted findings of a case.

    Args:
        labels: The predicted labels.
        findings: The predicted findings.
        top: The largest label.
    """

    def __init__(self, labels: SlabFile, findings: Sequence[Finding], top: int) -> None:
        self.labels, self.findings, self.top = labels, tuple(findings), top
        no_voxels = np.broadcast_to(np.uint8(0), labels.table.shape)
        self.grid = Volume(no_voxels, labels.affine, "label")

    @classmethod
    def read(cls, labels: SlabFile, case_folder: Path, top: int) -> "PredictedSlabs":
        """Returns the findings in the folder of a case, in these labels."""
        return cls(labels, read_findings(case_folder), top)

    def cut(self, region: Region) -> FindingMap:
        """Returns the findings in a region, before any stroke.

        Raises:
            BadInput: If labels and findings come from two predictions.
        """
        stored = self._read_box(region)
        numbers = stored.astype(np.int16)
        for number, finding in enumerate(self.findings, self.top + 1):
            if finding.kind == "organ":
                numbers[stored == finding.label] = number
            else:
                place, mask = self._masks[finding.id]
                inner, outer = region.overlap(place)
                numbers[inner][mask[outer]] = number
        corner_mm = self.grid.to_mm(np.array(region.corner, float))
        affine = np.column_stack([self.grid.affine[:, :3], [*corner_mm, 1.0]])
        return FindingMap(Volume(numbers, affine, "label"), self.findings, self.top, region)

    def cut_planes(self, start: int, stop: int) -> FindingMap:
        """Returns the findings in some axial planes, before any stroke."""
        i, j, _ = self.grid.shape
        return self.cut(Region((0, 0, start), (i, j, stop - start), self.grid.shape))

    def list_regions(self, reading: Reading) -> list[Region]:
        """Returns boxes that hold all strokes of a reading and all lesions that they touch; no two boxes overlap."""
        extended = FindingMap(self.grid, (*self.findings, *reading.added), self.top)
        strokes = [(stroke.finding, runs) for stroke, runs in extended.read_strokes(reading) if len(runs)]
        boxes = [_bound_runs(runs, self.grid.shape) for _, runs in strokes]
        owners = [owner for owner, _ in strokes]
        lesions = [finding for finding in self.findings if finding.kind == "lesion"] if strokes else []
        for finding in lesions:
            crop = find_box(self.grid, finding)
            boxes.append(np.array([[side.start for side in crop], [side.stop for side in crop]]))
            owners.append(finding.id)
        return [self._build_region(box) for box in _join_boxes(boxes, owners, len(strokes))]

    def _build_region(self, box: np.ndarray) -> Region:
        low = np.maximum(box[0], 0)
        i, j, k = (int(n) for n in low)
        a, b, c = (int(n) for n in np.minimum(box[1], self.grid.shape) - low)
        return Region((i, j, k), (a, b, c), self.grid.shape)

    @cached_property
    def _masks(self) -> dict[str, tuple[Region, np.ndarray]]:
        """The box and the voxels in there of each lesion."""
        masks = {}
        for finding in self.findings:
            if finding.kind == "lesion":
                crop, mask = locate_finding(self.grid, finding, lambda crop: self._read_box(self._to_region(crop)))
                masks[finding.id] = self._to_region(crop), mask
        return masks

    def _to_region(self, crop: tuple[slice, slice, slice]) -> Region:
        (i, a), (j, b), (k, c) = (side.indices(n)[:2] for side, n in zip(crop, self.grid.shape, strict=True))
        return Region((i, j, k), (a - i, b - j, c - k), self.grid.shape)

    def _read_box(self, region: Region) -> Labels:
        (i, j, k), (a, b, c) = region.corner, region.size
        return self.labels.read_planes(k, k + c)[i : i + a, j : j + b]


def _bound_runs(runs: Runs, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the first voxel of the box around some runs, and the one after its last."""
    ends = np.concatenate([runs[:, 0], runs[:, 0] + runs[:, 1] - 1])
    index = np.stack(np.unravel_index(ends, shape, order="F"))
    low, high = index.min(1), index.max(1)
    if (runs[:, 0] // shape[0] != (runs[:, 0] + runs[:, 1] - 1) // shape[0]).any():  # over the end of a line
        low[0], high[0] = 0, shape[0] - 1
        low[1], high[1] = (0, shape[1] - 1) if low[2] != high[2] else (low[1], high[1])
    return np.stack([low, high + 1])


def _join_boxes(boxes: Sequence[np.ndarray], owners: Sequence[str], num_drawn: int) -> list[np.ndarray]:
    """Returns boxes around those that come close or belong to one finding, if one of them is among the first ones."""
    groups: list[tuple[np.ndarray, set[str], bool]] = []
    for number, (box, owner) in enumerate(zip(boxes, owners, strict=True)):
        box = np.stack([box[0] - MARGIN_VOXELS, box[1] + MARGIN_VOXELS])
        names, is_drawn = {owner} - {""}, number < num_drawn
        while touching := [g for g in groups if names & g[1] or ((box[0] < g[0][1]) & (g[0][0] < box[1])).all()]:
            groups = [group for group in groups if not any(group is other for other in touching)]
            low, high = np.stack([box, *(group[0] for group in touching)]).transpose(1, 0, 2)
            box = np.stack([low.min(0), high.max(0)])
            names, is_drawn = names.union(*(g[1] for g in touching)), is_drawn or any(g[2] for g in touching)
        groups.append((box, names, is_drawn))
    return [box for box, _, is_drawn in groups if is_drawn]
