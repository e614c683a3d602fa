"""Reads RTSTRUCT contours and DICOM SEG masks as label maps on the voxels of their series."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from medssl.errors import Message
from medssl.io import archives
from medssl.io.dicom import rtstruct, seg_reader
from medssl.io.dicom.frames import LABEL_MAP_STORAGE
from medssl.io.dicom.header import Header, get_items, get_text, parse
from medssl.io.dicom.structures import Structure, draw_structures
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

READERS: dict[str, Callable[[Header], tuple[str, Sequence[Structure]]]] = {
    str(RTStructureSetStorage): rtstruct.read_structures,
    str(SegmentationStorage): seg_reader.read_structures,
    LABEL_MAP_STORAGE: seg_reader.read_structures,
}


@dataclass(frozen=True)
class Annotation:
    """The structures that were drawn on one series.

    Args:
        path: The file.
        series: The UID of the series; empty if the file names none, so that its frame of reference has to tell.
        frame_of_reference: The UID of the frame of reference; empty if there is none.
        structures: The structures; `structures[n]` has the label n + 1.
    """

    path: Path
    series: str
    frame_of_reference: str
    structures: tuple[Structure, ...] = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the structures."""
        return tuple(structure.name for structure in self.structures)

    def volume(self, image: Volume) -> Volume:
        """Returns the label map on the voxels of an image; see `draw_structures` for overlaps and warnings."""
        return draw_structures(list(enumerate(self.structures, 1)), image)


def read(path: Path) -> Annotation:
    """Reads the structures of an RTSTRUCT or a DICOM SEG; raises BadInput if the file is another one or damaged."""
    with archives.open_file(path) as file:
        header = parse(path, file)
    read_structures = READERS.get(get_text(header.data, "SOPClassUID"))
    if read_structures is None:
        raise ReadRejected(
            "not-an-image", Message("{path}: {kind}: neither an RTSTRUCT nor a DICOM SEG", path=path, kind=header.kind)
        )
    try:
        series, structures = read_structures(header)
    except ReadRejected as error:
        raise ReadRejected(error.code, Message("{path}: {reason}", path=path, reason=error.message)) from None
    items = get_items(header.data, "ReferencedFrameOfReferenceSequence")
    frames = {get_text(item, "FrameOfReferenceUID") for item in items}
    frame = get_text(header.data, "FrameOfReferenceUID") or (frames.pop() if len(frames) == 1 else "")
    return Annotation(path, series, frame, tuple(structures))
