"""Converts volumes and NIfTI files to slab files, with a few slabs in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from medssl.arrays.disk_arrays import release_pages
from medssl.errors import BadInput
from medssl.io.slabs.nifti_slices import open_slices
from medssl.io.slabs.slab_file import SlabFile, SlabTable, count_slab_planes, write_slab_file
from medssl.io.slabs.stored_values import StoredValues, ValueRange
from medssl.io.voxels import check_affine
from medssl.volume import Unit, Volume

SUFFIX = ".slabs"
BYTE_SCALE = 255  # probabilities are written as 0 to 255


def name_slab_file(image: Path) -> Path:
    """Returns the path of the slab file next to a NIfTI file."""
    return image.with_name(image.name.removesuffix(".gz").removesuffix(".nii") + SUFFIX)


def identify(image: Path) -> str:
    """Returns what identifies the content of a gzipped file: its size, and the checksum at its end."""
    with image.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        return f"{size}-{file.read().hex()}"


def open_current(image: Path, path: Path) -> SlabFile | None:
    """Returns the slab file of an image; None if it is missing, damaged, or made from another content."""
    try:
        slabs = SlabFile(path)
    except BadInput:
        return None
    return slabs if slabs.table.source == identify(image) else None


def convert(image: Path, path: Path, unit: Unit) -> SlabFile:
    """Writes the slab file of a NIfTI file atomically, and returns it.

    Args:
        image: The NIfTI file.
        path: The slab file.
        unit: The unit of the voxels; probabilities are bytes from 0 to 255.

    Raises:
        BadInput: If the image is damaged or cannot be shown.
    """
    with open_slices(image) as slices:
        check_affine(image, slices.affine)
        volume = Volume(slices.store_on_disk(), slices.affine, unit)
    return write_slabs(volume, image, path)


def write_slabs(volume: Volume, image: Path, path: Path) -> SlabFile:
    """Writes the slab file of a volume atomically, and returns it.

    Args:
        volume: The voxels as the NIfTI file stores them; probabilities are bytes from 0 to 255.
        image: The NIfTI file.
        path: The slab file.

    Raises:
        BadInput: If the volume cannot be shown.
    """
    values = ValueRange.measure_slabs(volume.voxels)
    if volume.unit == "label" and not (values.is_whole and values.low >= 0):
        raise BadInput(f"{image}: labels are whole numbers from 0; write the label map again")
    stored, ras = StoredValues.choose(volume.unit, values), volume.reorient("RAS", copy=False)
    affine = tuple(tuple(row) for row in ras.affine.tolist())
    table = SlabTable(ras.shape, affine, stored, count_slab_planes(ras.shape, stored.dtype), identify(image))
    write_slab_file(path, table, _iterate_slabs(table, values, ras))
    return SlabFile(path)


def _iterate_slabs(table: SlabTable, values: ValueRange, ras: Volume) -> Iterator[Shaped[np.ndarray, "i j k"]]:
    """Yields the stored voxels of each slab."""
    for first, last in table.ranges:
        voxels = ras.voxels[..., first:last]
        yield table.values.encode(voxels / BYTE_SCALE if ras.unit == "probability" else voxels, values.low)
        release_pages(ras.voxels)
