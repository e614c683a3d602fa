"""What signed cases teach about a label: the look of its voxels, and the shapes of its findings."""

from dataclasses import dataclass

from medssl.review.assist.signed_shape import SignedShape
from medssl.review.assist.voxel_classifier import Evidence

MAX_CASES = 3  # signed cases weigh as much as this many together at most, so that clicks keep their say
MAX_SHAPES = 10  # of the newest findings are kept


@dataclass(frozen=True, eq=False)
class LabelContext:
    """The signed findings of a label.

    Args:
        count: The number of findings.
        evidence: The sum of what their voxels teach the classifier.
        shapes: The shapes of the newest.
    """

    count: int
    evidence: Evidence
    shapes: tuple[SignedShape, ...]

    def __add__(self, other: "LabelContext") -> "LabelContext":
        shapes = (*self.shapes, *other.shapes)[-MAX_SHAPES:]
        return LabelContext(self.count + other.count, self.evidence + other.evidence, shapes)

    def weigh_evidence(self) -> Evidence:
        """Returns the mean evidence of a finding times the number of findings, up to `MAX_CASES`."""
        return self.evidence * (min(self.count, MAX_CASES) / self.count)
