"""Origin: the one DICOM series that a predicted image was read from, told by its grid and by all of its voxels."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medssl.data.studies import series_name
from medssl.errors import BadInput
from medssl.io import dicom
from medssl.io.dicom import Series
from medssl.io.refused import Refused
from medssl.volume import Volume


def scanned(folder: Path) -> tuple[tuple[Series, ...], tuple[Refused, ...]]:
    """Every series of a folder, irregular ones too, and what is refused."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; give the scans that were predicted")
    found = list(dicom.read(folder, allow_gaps=True))
    return tuple(s for s in found if isinstance(s, Series)), tuple(r for r in found if isinstance(r, Refused))


def origin(case: str, image: Volume, series: Iterable[Series]) -> Series:
    """The series with this image's grid and voxels; several, or another than the case is named after, are refused."""
    told = list(series)
    equal = [s for s in told if _equal(s, image)]
    named = [s for s in told if case.endswith(series_name(s))]
    if named and not set(map(id, named)) & set(map(id, equal)):
        raise BadInput("the series it is named after has another grid or other voxels than the predicted image")
    if not equal:
        raise BadInput("no series of the scans has its grid and its voxels")
    chosen = [s for s in equal if s in named] if named else equal
    if len(chosen) > 1:
        raise BadInput(f"{len(chosen)} series have its grid and its voxels; leave only its own under the scans")
    return chosen[0]


def _equal(series: Series, image: Volume) -> bool:
    """Voxels are read only where they can be equal; an irregular series has its grid only once it is read."""
    regular = not series.grid.tilted and series.grid.between is None
    layout = series.frames[0].layout
    if regular and (layout.columns, layout.rows, len(series.frames)) != image.shape:
        return False
    try:
        volume = series.volume()
        volume.like(image)
    except ValueError:
        return False
    return volume.voxels.shape == image.voxels.shape and bool(
        np.array_equal(volume.voxels.astype(image.voxels.dtype), image.voxels)
    )
