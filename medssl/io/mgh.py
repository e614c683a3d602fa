"""Reads MGH and MGZ files of FreeSurfer; an orientation that is not set is rejected, never guessed.

The format: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from nibabel.freesurfer.mghformat import MGHHeader

from medssl.errors import BadInput, Message
from medssl.io import archives
from medssl.io.nifti import FREE_LABEL_BYTES, MAX_FILE_BYTES
from medssl.io.voxels import validate_volume
from medssl.volume import Volume

HEADER_BYTES = 284
DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}


def read(path: Path, label: bool = False) -> Volume:
    """Reads an image in arbitrary units or a label map, with its affine in mm, RAS+.

    Args:
        path: An MGH file, gzipped or not.
        label: Whether the file is a label map of whole numbers from 0.

    Raises:
        BadInput: If the file is damaged, holds several volumes, or does not state its orientation.
    """
    with archives.open_stream(path) as file:
        header = _parse_header(path, file.read(HEADER_BYTES))
        axes, dtype = _read_axes(path, header), np.dtype(DTYPES[int(header["type"])])
        if axes[3] != 1:
            raise BadInput(Message(
                "{path}: holds {count} volumes; split the file into single volumes", path=path, count=axes[3]
            ))  # fmt: skip
        num_bytes = math.prod(axes) * dtype.itemsize
        archives.check_bomb(path, num_bytes, FREE_LABEL_BYTES if label else archives.BOMB_BYTES)
        content = file.read(num_bytes)
        while file.read(archives.READ_BYTES):  # tags of FreeSurfer follow; at the end, the checksum is verified
            pass
    if len(content) < num_bytes:
        raise BadInput(Message(
            "{path}: truncated: {shape} voxels need {expected} bytes, it holds {count}; copy the file again",
            path=path, shape=axes[:3], expected=num_bytes, count=len(content),
        ))  # fmt: skip
    voxels = np.frombuffer(content, dtype).reshape(axes[:3], order="F")
    return validate_volume(path, voxels, np.asarray(header.get_affine(), float), label)


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of all axes and the affine of a file from its header.

    Raises:
        BadInput: If the header is damaged or does not state its orientation.
    """
    with archives.open_stream(path) as file:
        header = _parse_header(path, file.read(HEADER_BYTES))
    return _read_axes(path, header), np.asarray(header.get_affine(), float)


def _parse_header(path: Path, content: bytes) -> MGHHeader:
    """Parses a header and rejects other formats, voxels that are not plain numbers and a missing orientation."""
    if len(content) < HEADER_BYTES or int.from_bytes(content[:4], "big") != 1:
        raise BadInput(Message("{path}: not an MGH file of version 1; copy or write the file again", path=path))
    header = MGHHeader(content, check=False)
    if int(header["type"]) not in DTYPES:
        raise BadInput(Message(
            "{path}: its voxels have the type {code}; convert the file to integers or floats (mri_convert)",
            path=path, code=int(header["type"]),
        ))  # fmt: skip
    if int.from_bytes(content[28:30], "big") != 1:  # MGHHeader replaces a missing orientation by a usual one
        raise BadInput(Message(
            "{path}: its orientation is not set, so left and right are unknown; set it with mri_convert "
            "--in_orientation", path=path,
        ))  # fmt: skip
    return header


def _read_axes(path: Path, header: MGHHeader) -> tuple[int, int, int, int]:
    """Returns the number of voxels along i, j, k, and of volumes."""
    i, j, k, count = (int(n) for n in header["dims"])
    if min(i, j, k, count) < 1 or i * j * k * count * 4 > MAX_FILE_BYTES:
        raise BadInput(Message(
            "{path}: the dimensions {axes} are not those of a volume; write the file again",
            path=path, axes=[i, j, k, count],
        ))  # fmt: skip
    return i, j, k, count
