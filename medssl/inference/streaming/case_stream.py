"""The prediction of one case as a stream of blocks of slices, with its findings at the end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Integer

from medssl.arrays.disk_arrays import release_pages
from medssl.finding import Finding
from medssl.inference.connected_findings import build_findings
from medssl.inference.findings.collect import ComponentCollector
from medssl.inference.findings.runs import iterate_blocks, order_as_file
from medssl.inference.streaming.grid_map import GridMap
from medssl.volume import Volume


@dataclass(frozen=True, eq=False)
class PredictionBlock:
    """The prediction of a block of slices, in the order of a NIfTI file.

    Args:
        labels: The predicted class of each voxel.
        probability: The probability of each voxel of not being background.
        uncertainty: The disagreement of several predictions of each voxel, if there were several.
    """

    labels: Integer[np.ndarray, "k j i"]
    probability: Float[np.ndarray, "k j i"]
    uncertainty: Float[np.ndarray, "k j i"] | None = None


@runtime_checkable
class PredictionSource(Protocol):
    """What can be written as a prediction: first all blocks, then the findings."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings; complete when all blocks were taken."""

    @property
    def has_uncertainty(self) -> bool:
        """Whether the blocks have an uncertainty."""

    def iterate_blocks(self) -> Iterator[PredictionBlock]:
        """Yields the blocks from the first slice to the last."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of one case on the grid of its image.

    Args:
        labels: The predicted class of each voxel.
        probability: The probability of each voxel of not being background.
        findings: The findings.
        uncertainty: The disagreement of several predictions of each voxel, if there were several.
    """

    labels: Volume
    probability: Volume
    findings: tuple[Finding, ...]
    uncertainty: Volume | None = None

    @property
    def has_uncertainty(self) -> bool:
        """Whether there is a disagreement of several predictions."""
        return self.uncertainty is not None

    def iterate_blocks(self) -> Iterator[PredictionBlock]:
        """Yields the blocks from the first slice to the last."""
        for slices in iterate_blocks(self.labels.shape):
            uncertainty = None if self.uncertainty is None else order_as_file(self.uncertainty.voxels, slices)
            labels, probability = (order_as_file(v.voxels, slices) for v in (self.labels, self.probability))
            yield PredictionBlock(labels, probability, uncertainty)


def collect_prediction(source: PredictionSource, scan: Volume) -> Prediction:
    """Returns a whole prediction in memory.

    Args:
        source: The prediction of a scan.
        scan: The scan.
    """
    shape = scan.shape[::-1]
    labels, probability = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    uncertainty = np.zeros(shape, np.float32) if source.has_uncertainty else None
    first = 0
    for block in source.iterate_blocks():
        slices = slice(first, first + len(block.labels))
        labels[slices], probability[slices] = block.labels, block.probability
        if uncertainty is not None and block.uncertainty is not None:
            uncertainty[slices] = block.uncertainty
        first = slices.stop
    foreground = replace(scan, voxels=probability.T, unit="probability")
    disagreement = None if uncertainty is None else replace(foreground, voxels=uncertainty.T)
    return Prediction(replace(scan, voxels=labels.T, unit="label"), foreground, source.findings, disagreement)


@dataclass(frozen=True, eq=False)
class Slab:
    """Rows of class probabilities on the working grid, in the order of a `GridMap`.

    Args:
        probability: The class probabilities, background first.
        doubt: The disagreement of several predictions or else the entropy, as a fraction of the largest possible one.
    """

    probability: Float32[np.ndarray, "n w u v"]
    doubt: Float32[np.ndarray, "w u v"]


@dataclass(eq=False)
class CaseStream:
    """The prediction of one case, computed while it is taken; memory is bounded by a few slabs, not by the volume.

    Args:
        scan: The scan.
        case: The id of the case.
        names: The class names by label value.
        grid_map: The map from the working grid to the grid of the scan.
        slabs: The class probabilities, from the first row of the map to the last.
        has_uncertainty: Whether the doubt is a disagreement, which is written for each voxel.
        min_volume_ml: Findings below this volume are left out.
        organs: The label values of organs.
    """

    scan: Volume
    case: str
    names: Mapping[int, str]
    grid_map: GridMap
    slabs: Iterator[Slab]
    has_uncertainty: bool = False
    min_volume_ml: float = 0.0
    organs: frozenset[int] = frozenset()
    findings: tuple[Finding, ...] = field(default=(), init=False)

    def iterate_blocks(self) -> Iterator[PredictionBlock]:
        """Yields the blocks from the first slice to the last, and then has the findings."""
        collector = ComponentCollector(self.organs)
        channel = self.scan.voxels[(0,) * (self.scan.voxels.ndim - 3)]
        rows = _RowBuffer(self.slabs)
        for out, source in self.grid_map.iterate_blocks():
            slab = rows.take(source)
            block = self.grid_map.decide(out, source, slab.probability, slab.doubt, self.has_uncertainty)
            image = order_as_file(channel, out)
            collector.add(block.labels, out.start, block.confidence, block.doubt, image)
            release_pages(channel)
            yield PredictionBlock(block.labels, block.foreground, block.doubt if self.has_uncertainty else None)
        self.findings = build_findings(
            collector.merge(), self.scan, self.case, self.names, self.min_volume_ml, self.organs
        )


class _RowBuffer:
    """Keeps the rows that the next blocks need, and drops those before."""

    def __init__(self, slabs: Iterator[Slab]) -> None:
        self.slabs = slabs
        self.first, self.stop = 0, 0
        self.parts: list[Slab] = []

    def take(self, rows: slice) -> Slab:
        """Returns some rows; no later call may need a row before them."""
        while self.stop < rows.stop:
            self.parts.append(next(self.slabs))
            self.stop += len(self.parts[-1].doubt)
        while self.first + len(self.parts[0].doubt) <= rows.start:
            self.first += len(self.parts.pop(0).doubt)
        if len(self.parts) > 1:
            cut, self.first = rows.start - self.first, rows.start
            first, *others = self.parts
            probability = [first.probability[:, cut:], *(part.probability for part in others)]
            doubt = [first.doubt[cut:], *(part.doubt for part in others)]
            self.parts = [Slab(np.concatenate(probability, axis=1), np.concatenate(doubt))]
        window = slice(rows.start - self.first, rows.stop - self.first)
        return Slab(self.parts[0].probability[:, window], self.parts[0].doubt[window])
