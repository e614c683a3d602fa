"""The images of a case as a reader sees them: what was predicted, with that reader's corrections drawn in."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from medssl.errors import BadInput
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, LABELS, PROBABILITY, UNCERTAINTY, read_index
from medssl.review.access.signed_links import Kind, Link
from medssl.review.corrected_labels import drawn
from medssl.review.event import Event
from medssl.review.event_store import Store
from medssl.review.reading import undone
from medssl.volume import Unit, Volume

FILES: dict[Kind, str] = {
    "image": IMAGE, "labels": LABELS, "probability": PROBABILITY, "uncertainty": UNCERTAINTY, "rival": LABELS,
}  # fmt: skip
UNITS: dict[Kind, Unit] = {
    "labels": "label", "probability": "probability", "uncertainty": "probability", "rival": "label",
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One image of one case: the file, the state of that file, and the event up to which strokes are drawn in."""

    path: Path
    changed_ns: int
    case: str
    unit: Unit
    event: int


class Pictures:
    """Reads images by link, so that neither a case's name nor a path ever stands in an address.

    `rival` is another model's predictions of the same cases.
    """

    def __init__(self, predictions: Path | str, store: Path | str, rival: Path | str = "") -> None:
        self._folder, self._rival = Path(predictions), Path(rival)
        self._store = Store(store)

    def find(self, link: Link) -> Picture:
        """The picture that a link means, or BadInput."""
        if link.kind == "delivery":
            raise BadInput("a delivery is no image")
        index = read_index(self._folder)
        case = index.cases[link.number - 1] if 0 < link.number <= len(index.cases) else ""
        folder = read_index(self._rival).case(case) if link.kind == "rival" else index.case(case)
        path = folder / FILES[link.kind]
        unit = TypeAdapter(Unit).validate_python(UNITS.get(link.kind, index.units[case]))
        return Picture(path, path.stat().st_mtime_ns, case, unit, link.event if link.kind == "labels" else 0)

    def load(self, picture: Picture) -> Volume:
        """Its voxels; labels carry the strokes of one reader up to the picture's event."""
        volume = replace(nifti.read(picture.path, label=picture.unit == "label"), unit=picture.unit)
        if picture.unit == "probability":  # stored as 0 to 255
            volume = replace(volume, voxels=volume.voxels.astype(np.float32) / 255)
        if not picture.event:
            return volume
        return drawn(volume, _strokes(self._store.events(picture.case), picture.event))


def _strokes(events: list[Event], until: int) -> list[Event]:
    """The strokes that counted for the author of event `until` when it was stored."""
    seen = [e for e in events if e.id <= until]
    author = seen[-1].reviewer if seen else ""
    gone = undone(seen)
    return [e for e in seen if e.action == "stroke" and e.reviewer == author and e.id not in gone]
