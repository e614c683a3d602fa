"""Reads a NIfTI file in blocks of slices, so that a volume need not be in memory as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Real

from medssl.arrays.disk_arrays import create_disk_array, release_pages
from medssl.errors import BadInput
from medssl.io import archives, nifti
from medssl.io.nifti_geometry import read_affine

BLOCK_BYTES = 4_000_000


@dataclass(frozen=True, eq=False)
class NiftiSlices:
    """The slices of an open file.

    Args:
        shape: The number of voxels along i, j, k.
        affine: Maps a voxel index to mm, RAS+.
        path: The file.
        header: Its header.
        stream: Its content from the first voxel on.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    path: Path
    header: nibabel.Nifti1Header
    stream: BufferedIOBase

    def iterate_blocks(self) -> Iterator[Real[np.ndarray, "k j i"]]:
        """Yields the values of all slices in order; raises BadInput if the file is too short or too long."""
        dtype, scale = self.header.get_data_dtype(), nifti.read_scale(self.path, self.header)
        slice_bytes = self.shape[0] * self.shape[1] * dtype.itemsize
        step = max(1, BLOCK_BYTES // slice_bytes)
        for first in range(0, self.shape[2], step):
            count = min(step, self.shape[2] - first)
            content = self.stream.read(count * slice_bytes)
            if len(content) != count * slice_bytes:
                raise BadInput(f"{self.path}: truncated; copy or write the file again")
            stored = np.frombuffer(content, dtype).reshape(count, self.shape[1], self.shape[0])
            yield stored.astype(dtype.newbyteorder("="), copy=False) if scale is None else stored * scale[0] + scale[1]
        if self.stream.read(1):
            raise BadInput(f"{self.path}: longer than its header describes; copy or write the file again")

    def store_on_disk(self) -> Real[np.ndarray, "i j k"]:
        """Returns the values of all slices as an array on disk."""
        stored, first = np.zeros((0, 0, 0)), 0
        for block in self.iterate_blocks():
            if not first:
                stored = create_disk_array(self.shape[::-1], block.dtype)
            stored[first : first + len(block)] = block
            first += len(block)
            release_pages(stored)
        return stored.T


@contextmanager
def open_slices(path: Path) -> Iterator[NiftiSlices]:
    """Opens a single-file NIfTI, gzipped or not.

    Raises:
        BadInput: If the file is damaged or its geometry is missing or contradictory.
    """
    with archives.open_stream(path) as stream:
        head = stream.read(max(nifti.HEADERS))
        header = nifti.parse_header(path, head)
        shape = nifti.read_shape(path, header)
        nifti.compute_file_bytes(path, header, shape)  # refuses sizes above the limit
        stream.seek(int(header["vox_offset"]))
        yield NiftiSlices(shape, read_affine(path, header, shape), path, header, stream)
