"""The overlay of findings with a reader's strokes, computed for those planes that the viewer requests."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Shaped

from medssl.io.slabs.slab_file import SlabTable, pack
from medssl.io.slabs.stored_values import StoredValues, ValueRange
from medssl.review.reading import Reading
from medssl.review.slabs.predicted_slabs import PredictedSlabs


@dataclass(frozen=True, eq=False)
class FindingSlabs:
    """The number of the finding of each voxel, as in `FindingMap`, with the interface of a `SlabFile`.

    Args:
        predicted: The predicted findings.
        reading: The reading with the strokes.
    """

    predicted: PredictedSlabs
    reading: Reading

    @cached_property
    def table(self) -> SlabTable:
        """The description of the volume; two are equal if labels, findings and strokes are."""
        labels = self.predicted.labels.table
        findings = [finding.id for finding in (*self.predicted.findings, *self.reading.added)]
        content = [labels.sha256, self.predicted.top, findings, [stroke.hash for stroke in self.reading.strokes]]
        identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        values = StoredValues.choose("label", ValueRange(0, self.predicted.top + len(findings)))
        return replace(labels, values=values, sha256=identity)

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Maps a voxel index to mm, RAS+."""
        return self.predicted.labels.affine

    def read_sample(self) -> Shaped[np.ndarray, "n"]:
        """Returns evenly spaced labels of the whole volume."""
        return self.predicted.labels.read_sample()

    def read_planes(self, start: int, stop: int) -> Shaped[np.ndarray, "i j k"]:
        """Returns the stored voxels of some planes."""
        numbers = self.predicted.cut_planes(start, stop).draw(self.reading).numbers.voxels
        return self.table.values.encode(numbers)

    def read_packed(self, start: int, stop: int) -> bytes:
        """Returns the gzipped stored voxels of the planes from `start` up to, but not including, `stop`."""
        return pack(self.read_planes(start, stop))
