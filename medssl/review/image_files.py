"""Reads the images of a case for the viewer: the predicted files, with the strokes of one reader drawn in."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from medssl.errors import BadInput
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, PROBABILITY, UNCERTAINTY, read_index
from medssl.review.access.signed_links import ImageKind, Link
from medssl.review.corrected_labels import apply_strokes
from medssl.review.event import Event
from medssl.review.event_store import EventStore
from medssl.review.reading import find_undone
from medssl.volume import Unit, Volume

FILES: dict[ImageKind, str] = {
    "image": IMAGE, "labels": LABELS, "probability": PROBABILITY, "uncertainty": UNCERTAINTY, "comparison": LABELS,
}  # fmt: skip
UNITS: dict[ImageKind, Unit] = {
    "labels": "label", "probability": "probability", "uncertainty": "probability", "comparison": "label",
}  # fmt: skip


@dataclass(frozen=True)
class CaseImage:
    """One image of one case.

    Args:
        path: The file of the image.
        modified_ns: The modification time of the file in ns, so that a changed file is another image.
        case: The identifier of the case.
        unit: The unit of the voxels.
        event: The event up to which the strokes of its author are drawn in; 0 draws none.
    """

    path: Path
    modified_ns: int
    case: str
    unit: Unit
    event: int


class ImageFiles:
    """Finds and reads the image that a signed link names.

    Args:
        predictions: The predictions folder that is reviewed.
        database: The file or URL of the event log.
        comparison: The predictions of the same cases by another model; empty if there are none.
    """

    def __init__(self, predictions: Path | str, database: Path | str, comparison: Path | str = "") -> None:
        self._folder, self._comparison = Path(predictions), Path(comparison)
        self._store = EventStore(database)

    def find(self, link: Link) -> CaseImage:
        """Returns the image that a link names; raises BadInput if there is none."""
        if link.kind == "export":
            raise BadInput("a link to an export names no image")
        index = read_index(self._folder)
        case = index.cases[link.number - 1] if 0 < link.number <= len(index.cases) else ""
        folder = (read_index(self._comparison) if link.kind == "comparison" else index).case_folder(case)
        path = folder / FILES[link.kind]
        unit = TypeAdapter(Unit).validate_python(UNITS.get(link.kind, index.units[case]))
        return CaseImage(path, path.stat().st_mtime_ns, case, unit, link.event if link.kind == "labels" else 0)

    def load(self, image: CaseImage) -> Volume:
        """Returns the voxels of an image; labels include the strokes up to `image.event`."""
        volume = replace(nifti.read(image.path, label=image.unit == "label"), unit=image.unit)
        if image.unit == "probability":  # stored as 0 to 255
            volume = replace(volume, voxels=volume.voxels.astype(np.float32) / 255)
        if not image.event:
            return volume
        return apply_strokes(volume, _select_strokes(self._store.read_events(image.case), image.event))


def _select_strokes(events: list[Event], last_id: int) -> list[Event]:
    """Returns the strokes of the author of event `last_id` that were in effect when it was stored."""
    earlier = [event for event in events if event.id <= last_id]
    author = earlier[-1].reviewer if earlier else ""
    undone = find_undone(earlier)
    return [e for e in earlier if e.action == "stroke" and e.reviewer == author and e.id not in undone]
