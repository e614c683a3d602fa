"""Opens the images of a case for the viewer: the predicted files, with the strokes of one reader drawn in."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from medssl.errors import BadInput
from medssl.io.slabs.slab_file import SlabFile
from medssl.predictions_folder import (
    IMAGE,
    LABELS,
    PROBABILITY,
    SEQUENCE,
    UNCERTAINTY,
    Index,
    read_channel_facts,
    read_index,
)
from medssl.review.access.signed_links import ImageKind, Link
from medssl.review.corrected_labels import find_top_label
from medssl.review.event import Event
from medssl.review.event_store import EventStore
from medssl.review.reading import Reading, replay
from medssl.review.slabs.finding_slabs import FindingSlabs
from medssl.review.slabs.predicted_slabs import PredictedSlabs
from medssl.review.slabs.slab_files import SlabFiles
from medssl.volume import Unit, Volume

FILES: dict[ImageKind, str] = {
    "image": IMAGE, "labels": LABELS, "findings": LABELS, "probability": PROBABILITY, "uncertainty": UNCERTAINTY,
    "comparison": LABELS,
}  # fmt: skip
UNITS: dict[ImageKind, Unit] = {
    "labels": "label", "findings": "label", "probability": "probability", "uncertainty": "probability",
    "comparison": "label",
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
        top: The largest label, if each voxel shows its finding as in `FindingMap`; 0 if it shows its label.
    """

    path: Path
    modified_ns: int
    case: str
    unit: Unit
    event: int
    top: int = 0


class ImageFiles:
    """Finds and opens the image that a signed link names.

    Args:
        predictions: The predictions folder that is reviewed.
        database: The file or URL of the event log.
        comparison: The predictions of the same cases by another model; empty if there are none.
    """

    def __init__(self, predictions: Path | str, database: Path | str, comparison: Path | str = "") -> None:
        self._folder, self._comparison = Path(predictions), Path(comparison)
        self._store, self._slabs = EventStore(database), SlabFiles()
        self._predict = lru_cache(maxsize=2)(PredictedSlabs.read)

    def find(self, link: Link) -> CaseImage:
        """Returns the image that a link names; raises BadInput if there is none."""
        if link.kind == "export" or link.kind == "assist":
            raise BadInput(f"a link of the kind {link.kind!r} names no image")
        index = read_index(self._folder)
        case = index.cases[link.number - 1] if 0 < link.number <= len(index.cases) else ""
        folder = (read_index(self._comparison) if link.kind == "comparison" else index).case_folder(case)
        path = folder / (SEQUENCE.format(link.event) if link.kind == "sequence" else FILES[link.kind])
        unit = TypeAdapter(Unit).validate_python(UNITS.get(link.kind) or _find_unit(index, case, link))
        event, top = (link.event, find_top_label(index)) if link.kind == "findings" else (0, 0)
        return CaseImage(path, path.stat().st_mtime_ns, case, unit, event, top)

    def load(self, image: CaseImage) -> Volume:
        """Returns the values of a whole image on its RAS grid, without findings."""
        slabs = self._slabs.open(image.path, image.unit)
        voxels = slabs.table.values.decode(slabs.read_planes(0, slabs.table.shape[2]))
        return Volume(voxels, slabs.affine, image.unit)

    def open(self, image: CaseImage) -> SlabFile | FindingSlabs:
        """Returns the voxels of an image in slabs; findings include the strokes up to `image.event`."""
        slabs = self._slabs.open(image.path, image.unit)
        if not image.top:
            return slabs
        predicted = self._predict(slabs, image.path.parent, image.top)
        events = self._store.read_events(image.case) if image.event else []
        return FindingSlabs(predicted, _read_reading(events, image.event))


def _find_unit(index: Index, case: str, link: Link) -> str:
    """Returns the unit of the image, or of the sequence, that a link names."""
    channels = read_channel_facts(index.case_folder(case))
    number = link.event if link.kind == "sequence" else 0
    return channels[number].unit if number < len(channels) else index.units[case]


def _read_reading(events: list[Event], last_id: int) -> Reading:
    """Returns the reading of the author of event `last_id` when it was stored."""
    earlier = [event for event in events if event.id <= last_id]
    if not earlier:
        return Reading("", "")
    return replay(earlier)[earlier[-1].case, earlier[-1].reviewer]
