"""What a model found and what a clinician said of it."""

from dataclasses import dataclass
from typing import Literal

Point = tuple[float, float, float]
Decision = Literal["accept", "reject", "edit", "relabel", "missed", "unsure"]
REASONS = ("vessel", "artefact", "normal anatomy", "wrong extent", "wrong label", "other")  # that a reader may choose


@dataclass(frozen=True)
class Finding:
    """One connected structure or lesion of a case, measured at prediction time, in mm RAS+."""

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


@dataclass(frozen=True)
class Verdict:
    """What one reviewer decided on one finding and why, when (UTC, ISO 8601), and the event that recorded it."""

    finding: str
    reviewer: str
    decision: Decision
    note: str
    at: str
    reason: str = ""
    label: int | None = None
    event: int | None = None
