"""Origin: the one DICOM series that a predicted image was read from, told by its grid and by all of its voxels."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medssl.data.ingest.dicom_studies import series_name
from medssl.errors import BadInput
from medssl.io.dicom import reader as dicom
from medssl.io.dicom import seg_writer as seg
from medssl.io.dicom.reader import Series
from medssl.volume import Volume


def scanned(folder: Path) -> tuple[Series, ...]:
    """Every series of a folder, irregular ones too; a case of a file that cannot be read finds no series."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the scans that were predicted")
    return tuple(s for s in dicom.read(folder, allow_gaps=True) if isinstance(s, Series))


def origin(case: str, image: Volume, series: Iterable[Series]) -> Series:
    """The series with this image's grid and voxels; where a series gave the case its name, it must be that one."""
    told = list(series)
    named = [s for s in told if case.endswith(series_name(s))]
    equal = [s for s in named or told if _equal(s, image)]
    if named and not equal:
        raise BadInput("the series it is named after has another grid or other voxels than the predicted image")
    if not equal:
        raise BadInput("no series of the scans has its grid and its voxels")
    if len(equal) > 1:
        raise BadInput(f"{len(equal)} series have its grid and its voxels; leave only its own among the scans")
    return equal[0]


def _equal(series: Series, image: Volume) -> bool:
    """Whether the series is this image; its voxels are decoded only where its headers do not tell it apart already."""
    try:
        if not seg.irregular(series):
            layout = series.frames[0].layout
            shape = (layout.columns, layout.rows, len(series.frames))
            Volume(np.broadcast_to(np.uint8(0), shape), series.grid.affine, image.unit).require_same_grid(image)
        volume = series.volume().require_same_grid(image)
    except ValueError:
        return False
    return np.array_equal(volume.voxels, image.voxels)
