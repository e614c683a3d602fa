"""A finding of a model and the verdict of a reviewer on it."""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float, float]
FindingKind = Literal["organ", "lesion"]
Decision = Literal["accept", "reject", "edit", "relabel", "missed", "unsure"]
REASONS = ("vessel", "artefact", "normal anatomy", "wrong extent", "wrong label", "other")  # the choices of a reviewer


@dataclass(frozen=True)
class Finding:
    """An organ or one lesion of a case, measured at prediction time.

    Args:
        id: The identifier of the finding within its case.
        case: The identifier of the case.
        label: The voxel value of the structure, from 1.
        name: The name of the structure.
        centre_mm: The centre of mass in mm, RAS+.
        low_mm: The lower corner of the bounding box in mm, RAS+.
        high_mm: The upper corner of the bounding box in mm, RAS+.
        volume_ml: The volume in ml.
        diameter_mm: The longest diameter in three dimensions, in mm.
        score: The largest probability inside the structure, or the score of its box, 0 to 1.
        uncertainty: The mean uncertainty inside the structure; None if it was not predicted.
        source: Whether the finding comes from a predicted mask, a predicted box or a reviewer.
        kind: Whether the finding is an organ, whose fragments are parts of one item, or one of several lesions.
        long_axis_mm: The longest diameter in an axial plane, in mm; None in predictions of earlier versions.
        short_axis_mm: The longest diameter perpendicular to it in this plane, in mm.
        sphericity: The surface of a ball of the same volume, divided by the surface; None for a few voxels.
        mean_intensity: The mean of the image inside the structure, in the unit of the image; None without an image.
        sd_intensity: The standard deviation of the image inside the structure.
        location: The labelled organ at a lesion or nearest to it, and its side; empty if unknown.
    """

    id: str
    case: str
    label: int
    name: str
    centre_mm: Point
    low_mm: Point
    high_mm: Point
    volume_ml: float
    diameter_mm: float
    score: float
    uncertainty: float | None = None
    source: Literal["mask", "box", "reader"] = "mask"
    kind: FindingKind = "lesion"
    long_axis_mm: float | None = None
    short_axis_mm: float | None = None
    sphericity: float | None = None
    mean_intensity: float | None = None
    sd_intensity: float | None = None
    location: str = ""


def format_volume(volume_ml: float) -> str:
    """Returns a volume in ml in plain digits, at least two of them significant from 0.001 ml on."""
    digits = 3 if volume_ml < 1 else 2 if volume_ml < 10 else 1 if volume_ml < 100 else 0
    return f"{volume_ml:.{digits}f} ml"


@dataclass(frozen=True)
class Verdict:
    """The decision of one reviewer on one finding.

    Args:
        finding: The identifier of the finding.
        reviewer: The login of the reviewer.
        decision: What the reviewer decided.
        note: Free text, may be empty.
        at: The time in UTC, ISO 8601.
        reason: One of `REASONS`, or empty.
        label: The new label of a finding that was relabelled.
        event: The number of the event that recorded the decision.
    """

    finding: str
    reviewer: str
    decision: Decision
    note: str
    at: str
    reason: str = ""
    label: int | None = None
    event: int | None = None
