"""Reads RTSTRUCT contours and DICOM SEG masks as label maps on the voxels of their series."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from medssl.errors import InputWarning, Message
from medssl.io import archives
from medssl.io.dicom import rtstruct, seg_reader
from medssl.io.dicom.frames import LABEL_MAP_STORAGE
from medssl.io.dicom.header import get_text, parse
from medssl.io.rejected import ReadRejected
from medssl.volume import Volume

MaskBuilder = Callable[[Volume], Bool[np.ndarray, "i j k"]]
READERS = {
    str(RTStructureSetStorage): rtstruct.read_structures,
    str(SegmentationStorage): seg_reader.read_structures,
    LABEL_MAP_STORAGE: seg_reader.read_structures,
}


@dataclass(frozen=True)
class Annotation:
    """The structures that were drawn on one series.

    Args:
        path: The file.
        series: The UID of the series.
        names: The names of the structures; `names[n]` has the label n + 1.
        masks: Builds the mask of each structure on the voxels of an image.
    """

    path: Path
    series: str
    names: tuple[str, ...]
    masks: tuple[MaskBuilder, ...] = field(repr=False)

    def volume(self, image: Volume) -> Volume:
        """Returns the label map on the voxels of an image; later structures overwrite earlier ones with a warning."""
        labels = np.zeros(image.shape, np.uint8 if len(self.names) < 256 else np.uint16)
        for value, (name, build_mask) in enumerate(zip(self.names, self.masks, strict=True), 1):
            inside = build_mask(image)
            if not inside.any():
                warnings.warn(
                    Message("{file}: {name!r} has no voxel", file=self.path.name, name=name), InputWarning, stacklevel=2
                )
            if num_hidden := int(np.count_nonzero(labels[inside])):
                warnings.warn(
                    Message(
                        "{file}: {name!r} hides {hidden} voxels of others",
                        file=self.path.name,
                        name=name,
                        hidden=num_hidden,
                    ),
                    InputWarning,
                    stacklevel=2,
                )
            labels[inside] = value
        return Volume(labels, image.affine, "label")


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
        series, masks = read_structures(header)
    except ReadRejected as error:
        raise ReadRejected(error.code, Message("{path}: {reason}", path=path, reason=error.message)) from None
    return Annotation(path, series, tuple(masks), tuple(masks.values()))
