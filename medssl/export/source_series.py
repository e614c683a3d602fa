"""Finds the DICOM series that a predicted image was read from, by its grid and its voxels."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medssl.data.ingest.dicom_studies import name_series
from medssl.errors import BadInput
from medssl.io import file_walk
from medssl.io.dicom import reader
from medssl.io.dicom.reader import Series
from medssl.io.dicom.seg_writer import is_irregular
from medssl.volume import Volume


def read_all_series(place: Path | Sequence[Path]) -> tuple[Series, ...]:
    """Returns every series of a folder, including irregular ones; files that cannot be read are skipped.

    Args:
        place: The folder, or a list of folders and files.
    """
    if isinstance(place, Path) and not place.is_dir():
        raise BadInput(f"{place}: no such folder; give the folder of the DICOM files that were predicted")
    parts = [place] if isinstance(place, Path) else place
    items = [item for part in parts for item in (file_walk.list_files(part) if part.is_dir() else [part])]
    files = [item for item in items if isinstance(item, Path)]
    return tuple(item for item in reader.read(files, allow_gaps=True) if isinstance(item, Series))


def find_source_series(case: str, image: Volume, series: Iterable[Series]) -> Series:
    """Returns the only series with the grid and the voxels of an image.

    Raises:
        BadInput: If there is no such series or more than one, or a series with the name of the case differs.
    """
    candidates = list(series)
    named = [s for s in candidates if case.endswith(name_series(s))]
    equal = [s for s in named or candidates if _is_equal(s, image)]
    if named and not equal:
        raise BadInput("the series that it is named after differs from the predicted image in grid or voxels")
    if not equal:
        raise BadInput("no DICOM series has the grid and the voxels of the predicted image")
    if len(equal) > 1:
        raise BadInput(
            f"{len(equal)} DICOM series have the grid and the voxels of the predicted image; remove the copies"
        )
    return equal[0]


def _is_equal(series: Series, image: Volume) -> bool:
    """Whether the series is this image; decodes the voxels only if the grids are equal."""
    try:
        if not is_irregular(series):
            layout = series.frames[0].encoding
            shape = (layout.columns, layout.rows, len(series.frames))
            Volume(np.broadcast_to(np.uint8(0), shape), series.grid.affine, image.unit).require_same_grid(image)
        volume = series.volume().require_same_grid(image)
    except ValueError:
        return False
    return np.array_equal(volume.voxels, image.voxels)
