"""Converts NIfTI files to slab files in a single pass over the compressed file, with a few slabs in memory."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

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
    with tempfile.TemporaryFile(dir=path.parent) as unpacked:
        source, values = identify(image), ValueRange()
        with open_slices(image) as slices:
            check_affine(image, slices.affine)
            for block in slices.iterate_blocks():
                dtype = block.dtype
                values = values.join(ValueRange.measure(block))
                unpacked.write(block.tobytes())
        unpacked.flush()
        if unit == "label" and not (values.is_whole and values.low >= 0):
            raise BadInput(f"{image}: labels are whole numbers from 0; write the label map again")

        def open_ras() -> Volume:
            voxels = np.memmap(unpacked, dtype, "r", shape=slices.shape[::-1]).T
            return Volume(voxels, slices.affine, unit).reorient("RAS", copy=False)

        stored, ras = StoredValues.choose(unit, values), open_ras()
        shape, affine = ras.shape, tuple(tuple(row) for row in ras.affine.tolist())
        del ras
        table = SlabTable(shape, affine, stored, count_slab_planes(shape, stored.dtype), source)
        write_slab_file(path, table, _iterate_slabs(table, values, unit, open_ras))
    return SlabFile(path)


def _iterate_slabs(
    table: SlabTable, values: ValueRange, unit: Unit, open_ras: Callable[[], Volume]
) -> Iterator[Shaped[np.ndarray, "i j k"]]:
    """Yields the stored voxels of each slab; the mapped file is opened for each, so that its memory is free again."""
    for first, last in table.ranges:
        voxels = open_ras().voxels[..., first:last]
        yield table.values.encode(voxels / BYTE_SCALE if unit == "probability" else voxels, values.low)
