"""Labels drawn for a DICOM series: RTSTRUCT contours and DICOM SEG masks, brought onto the series' voxels."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from medssl.errors import Doubt
from medssl.io import archives as archive
from medssl.io.dicom import rtstruct as contours
from medssl.io.dicom import seg_reader as segments
from medssl.io.dicom.frames import LABEL_MAP
from medssl.io.dicom.header import parse, text
from medssl.io.rejected import Refusal
from medssl.volume import Volume

Draw = Callable[[Volume], Bool[np.ndarray, "i j k"]]
KINDS = {
    str(RTStructureSetStorage): contours,
    str(SegmentationStorage): segments,
    LABEL_MAP: segments,
}


@dataclass(frozen=True)
class Annotation:
    """The structures drawn on one series; the label n + 1 is called `names[n]`."""

    path: Path
    series: str
    names: tuple[str, ...]
    masks: tuple[Draw, ...] = field(repr=False)

    def volume(self, image: Volume) -> Volume:
        """The labels on the voxels of their image; where structures overlap the later one stands, and a doubt."""
        labels = np.zeros(image.shape, np.uint8 if len(self.names) < 256 else np.uint16)
        for value, (name, mask) in enumerate(zip(self.names, self.masks, strict=True), 1):
            inside = mask(image)
            if not inside.any():
                warnings.warn(f"{self.path.name}: {name!r} has no voxel", Doubt, stacklevel=2)
            if hidden := int(np.count_nonzero(labels[inside])):
                warnings.warn(f"{self.path.name}: {name!r} hides {hidden} voxels of others", Doubt, stacklevel=2)
            labels[inside] = value
        return Volume(labels, image.affine, "label")


def read(path: Path) -> Annotation:
    """The structures of an RTSTRUCT or a DICOM SEG; `BadInput` where it is none or cannot be trusted."""
    with archive.opened(path) as file:
        header = parse(path, file)
    kind = KINDS.get(text(header.data, "SOPClassUID"))
    if kind is None:
        raise Refusal("not-an-image", f"{path}: {header.kind}: neither an RTSTRUCT nor a DICOM SEG")
    try:
        series, drawn = kind.structures(header)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{path}: {refusal}") from None
    return Annotation(path, series, tuple(drawn), tuple(drawn.values()))
