"""Writes NIfTI files slice by slice, so that a volume need not be in memory as a whole."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from jaxtyping import Real

from medssl.errors import BadInput, Message
from medssl.files import atomic_file
from medssl.volume import Volume

COMPRESSION = 1  # of 0 to 3
MILLIMETRE = 2  # the code of the unit of length
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")


@dataclass(frozen=True)
class NiftiFields:
    """The fields of a NIfTI header besides grid and data type, as a reader finds them.

    Args:
        sform_code: What the sform refers to; 0 if it is not set.
        qform_code: What the qform refers to; 0 if it is not set.
        time_unit: The code of the unit of time, a multiple of 8; 0 if it is not set.
        cal_min: The lowest value to display; 0 with `cal_max` 0 if it is not set.
        cal_max: The highest value to display.
        description: Free text of at most 79 bytes, which may name a person.
    """

    sform_code: int = 1
    qform_code: int = 1
    time_unit: int = 0
    cal_min: float = 0.0
    cal_max: float = 0.0
    description: bytes = b""

    def describe_map(self) -> "NiftiFields":
        """Returns the fields of a map that was computed from the image: those of its space and time."""
        return NiftiFields(self.sform_code, self.qform_code, self.time_unit)


NO_FIELDS = NiftiFields()


class SliceWriter:
    """Appends slices to a NIfTI file, which is complete when the shape of its grid is reached."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write

    def append(self, slices: Real[np.ndarray, "k j i"]) -> None:
        """Appends slices in the order of the file: k, then j, then i."""
        self._write(np.ascontiguousarray(slices).tobytes())


@contextmanager
def open_writer(path: Path, grid: Volume, dtype: np.dtype, fields: NiftiFields = NO_FIELDS) -> Iterator[SliceWriter]:
    """Gives a writer of slices; the file appears under its name when the block succeeds.

    Args:
        path: The file, gzipped if its name ends in .gz.
        grid: A volume with the shape and the affine of the file.
        dtype: The type of the voxels.
        fields: The other fields of the header.

    Raises:
        BadInput: NIfTI cannot store the type.
    """
    if dtype.name not in DTYPES:
        raise BadInput(
            Message("{path}: NIfTI cannot store {dtype}; cast to int16, uint8 or float32 first", path=path, dtype=dtype)
        )
    header = _build_header(grid, dtype, fields)
    with atomic_file(path) as part, part.open("wb") as raw:
        if path.suffix == ".gz":
            with igzip.IGzipFile("", "wb", COMPRESSION, raw, mtime=0) as packed:
                packed.write(header)
                yield SliceWriter(packed.write)
        else:
            raw.write(header)
            yield SliceWriter(raw.write)


def _build_header(grid: Volume, dtype: np.dtype, fields: NiftiFields) -> bytes:
    """Returns the header of a file with the affine of the grid as sform and qform, and an empty extension."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape if grid.voxels.ndim == 3 else (*grid.shape, len(grid.voxels)))
    header["xyzt_units"] = MILLIMETRE | fields.time_unit
    header.set_sform(grid.affine, fields.sform_code)
    header.set_qform(grid.affine, fields.qform_code, strip_shears=True)
    header["cal_min"], header["cal_max"], header["descrip"] = fields.cal_min, fields.cal_max, fields.description
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header["scl_slope"], header["scl_inter"] = 1, 0
    return bytes(header.binaryblock) + bytes(4)
