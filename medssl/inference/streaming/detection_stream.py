"""Lesion candidates, drawn on the grid of their scan as a stream of blocks of slices, with the findings at the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Float32, Int32

from medssl.arrays.disk_arrays import release_pages
from medssl.finding import Finding
from medssl.inference.connected_findings import build_findings
from medssl.inference.findings.collect import ComponentCollector
from medssl.inference.findings.runs import order_as_file
from medssl.inference.lesion_candidates import Candidate
from medssl.inference.streaming.case_stream import PredictionBlock
from medssl.inference.streaming.grid_map import GridMap
from medssl.volume import Volume


@dataclass(eq=False)
class DetectionStream:
    """The lesions of one case; maps are kept at the working spacing, large ones on disk, none on the grid of the scan.

    Args:
        scan: The scan.
        case: The id of the case.
        names: The class names by label value.
        candidates: The lesion candidates.
        scores: The score of each candidate.
        drawing: The numbers of the candidates from 1, drawn on the working grid.
        lesions: The probability of any lesion on the working grid.
        disagreement: The disagreement of several predictions on the working grid, if there were several.
        is_box: Whether the candidates are boxes alone.
    """

    scan: Volume
    case: str
    names: Mapping[int, str]
    candidates: Sequence[Candidate]
    scores: Sequence[float]
    drawing: Volume
    lesions: Volume
    disagreement: Volume | None = None
    is_box: bool = False
    findings: tuple[Finding, ...] = field(default=(), init=False)

    @property
    def has_uncertainty(self) -> bool:
        """Whether there is a disagreement of several predictions."""
        return self.disagreement is not None

    def iterate_blocks(self) -> Iterator[PredictionBlock]:
        """Yields the blocks from the first slice to the last, and then has the findings."""
        collector = ComponentCollector(())
        channel = self.scan.voxels.reshape(-1, *self.scan.shape)[0]
        label_of_number = np.array([0, *(candidate.label for candidate in self.candidates)], np.uint8)
        score_of_number = np.array([0.0, *self.scores], np.float32)
        grid_map = GridMap.between(self.drawing, self.scan)
        single_voxels = self._find_single_voxels(grid_map)
        for out, rows in grid_map.iterate_blocks():
            numbers = self._draw(grid_map, out, rows)
            for number, (i, j, k) in single_voxels.items():
                if out.start <= k < out.stop and numbers[k - out.start, j, i] == 0:
                    numbers[k - out.start, j, i] = number
            labels, grid = label_of_number[numbers], self._cut_slices(out)
            probability = _interpolate(grid_map.crop(self.lesions, rows), grid)
            disagreement = (
                None if self.disagreement is None else _interpolate(grid_map.crop(self.disagreement, rows), grid)
            )
            doubt = _binary_entropy(probability) if disagreement is None else disagreement
            collector.add(labels, out.start, score_of_number[numbers], doubt, order_as_file(channel, out))
            self._release_pages()
            yield PredictionBlock(labels, probability, disagreement)
        findings = build_findings(collector.merge(), self.scan, self.case, self.names)
        self.findings = tuple(replace(finding, source="box") for finding in findings) if self.is_box else findings

    def _find_single_voxels(self, grid_map: GridMap) -> dict[int, tuple[int, int, int]]:
        """Returns a voxel (i, j, k) of the scan for each candidate that would fall between the voxels of the scan."""
        remaining = set(range(1, len(self.candidates) + 1))
        for out, rows in grid_map.iterate_blocks():
            if remaining:
                remaining -= set(np.unique(self._draw(grid_map, out, rows)).tolist())
                self._release_pages()
        voxels = {}
        for number in sorted(remaining):
            centre_mm = self.drawing.to_mm(self.candidates[number - 1].voxels.mean(0)[None])
            voxel = np.rint(self.scan.to_index(centre_mm)[0]).astype(int).clip(0, np.array(self.scan.shape) - 1)
            voxels[number] = int(voxel[0]), int(voxel[1]), int(voxel[2])
        return voxels

    def _release_pages(self) -> None:
        """Frees the memory of what was read of the scan and of the maps on disk."""
        maps = self.drawing, self.lesions, self.disagreement or self.lesions
        release_pages(self.scan.voxels, *(volume.voxels for volume in maps))

    def _draw(self, grid_map: GridMap, out: slice, rows: slice) -> Int32[np.ndarray, "k j i"]:
        """Draws the numbers of the candidates on some slices of the scan, in the order of a file."""
        drawing, grid = grid_map.crop(self.drawing, rows), self._cut_slices(out)
        if not drawing.voxels.any():
            return np.zeros(grid.shape[::-1], np.int32)
        return np.ascontiguousarray(drawing.resample_to(grid, order=0).voxels.T)

    def _cut_slices(self, out: slice) -> Volume:
        """Returns some slices of the first channel of the scan at their place."""
        shift = np.eye(4)
        shift[2, 3] = out.start
        channel = self.scan.voxels.reshape(-1, *self.scan.shape)[0]
        return replace(self.scan, voxels=channel[:, :, out], affine=self.scan.affine @ shift)


def _interpolate(rows: Volume, grid: Volume) -> Float32[np.ndarray, "k j i"]:
    """Interpolates values in [0, 1] on another grid, in the order of a file."""
    sampled = rows.resample_to(grid, order=1, fill=None).voxels
    return np.ascontiguousarray(sampled.clip(0, 1).T)


def _binary_entropy(p: Float[np.ndarray, "k j i"]) -> Float[np.ndarray, "k j i"]:
    """Returns the entropy of a probability, in bits: 0 to 1."""
    p = p.clip(1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
