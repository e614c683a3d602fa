"""What signed cases teach about a label: the look of its voxels and its shape around its deepest point."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from medssl.review.assist.voxel_classifier import Evidence
from medssl.volume import Spacing

SHAPE_STEP_MM, SHAPE_HALF = 2.0, 20  # the grid of the mean shape: its spacing, and its steps to each side
MAX_CASES = 3  # signed cases weigh as much as this many together at most, so that clicks keep their say
SHAPE_WEIGHT, SHAPE_FLOOR = 1.5, 0.03  # how much the mean shape counts, and the lowest share it may have


@dataclass(frozen=True, eq=False)
class LabelContext:
    """Sums over the signed findings of a label.

    Args:
        count: The number of findings.
        evidence: The sum of what their voxels teach the classifier.
        shape: The sum of their masks, sampled every `SHAPE_STEP_MM` around their deepest points.
    """

    count: int
    evidence: Evidence
    shape: Float32[np.ndarray, "n n n"]

    def __add__(self, other: "LabelContext") -> "LabelContext":
        return LabelContext(self.count + other.count, self.evidence + other.evidence, self.shape + other.shape)

    def weigh_evidence(self) -> Evidence:
        """Returns the mean evidence of a finding times the number of findings, up to `MAX_CASES`."""
        return self.evidence * (min(self.count, MAX_CASES) / self.count)

    def measure_shape_logits(
        self, shape: tuple[int, int, int], centre: Float[np.ndarray, "3"], spacing_mm: Spacing
    ) -> Float32[np.ndarray, "i j k"]:
        """Returns the logits of the mean shape on a grid of voxels, placed at `centre`."""
        axes = [
            (np.arange(n) - c) * mm / SHAPE_STEP_MM + SHAPE_HALF
            for n, c, mm in zip(shape, centre, spacing_mm, strict=True)
        ]
        grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
        share = ndimage.map_coordinates(self.shape / np.float32(self.count), grid, order=1)
        return SHAPE_WEIGHT * np.log((share + SHAPE_FLOOR) / (1 - share + SHAPE_FLOOR))


def sample_shape(mask: Bool[np.ndarray, "i j k"], spacing_mm: Spacing) -> Float32[np.ndarray, "n n n"]:
    """Returns a mask on the grid of the mean shape, around its deepest point."""
    steps = np.arange(-SHAPE_HALF, SHAPE_HALF + 1) * SHAPE_STEP_MM
    centre = find_deepest_point(measure_depth(mask, spacing_mm))
    axes = [steps / mm + c for c, mm in zip(centre, spacing_mm, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    return ndimage.map_coordinates(mask.astype(np.float32), grid, order=1)


def measure_depth(mask: Bool[np.ndarray, "i j k"], spacing_mm: Spacing) -> Float32[np.ndarray, "i j k"]:
    """Returns how far each voxel of a mask is from the voxels outside, in mm; the edge of the grid does not count."""
    return ndimage.distance_transform_edt(mask, spacing_mm).astype(np.float32)


def find_deepest_point(depth_mm: Float32[np.ndarray, "i j k"]) -> Float32[np.ndarray, "3"]:
    """Returns the voxel of a mask that is furthest from its surface, where readers click first."""
    return np.array(np.unravel_index(int(depth_mm.argmax()), depth_mm.shape), np.float32)
