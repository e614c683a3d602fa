"""Reads MetaImage files, whose voxels follow the header or lie in a second file.

The format: https://itk.org/Wiki/MetaIO/Documentation.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from medssl.errors import BadInput, Message
from medssl.io.text_headers.voxel_block import (
    VoxelBlock,
    check_required_fields,
    find_data_file,
    parse_dtype,
    parse_fields,
    parse_numbers,
    parse_shape,
    read_start,
)
from medssl.io.voxels import validate_volume
from medssl.volume import Volume

REQUIRED = ("DimSize", "ElementSpacing", "ElementType", "ElementDataFile")
DIRECTION, ORIGIN = ("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin")
BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
PLAIN = {  # what a key must say, if it is there
    "BinaryData": ("True",),
    "ElementNumberOfChannels": ("1",),
    "ElementToIntensityFunctionSlope": ("1",),
    "ElementToIntensityFunctionOffset": ("0",),
    "HeaderSize": ("0", "-1"),
}
DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read(path: Path, label: bool) -> Volume:
    """Reads an image in arbitrary units, or a label map of whole numbers, with its affine in mm, RAS+.

    Raises:
        BadInput: If the file is damaged, its geometry is incomplete, or it has several channels.
    """
    block = _parse_header(path)
    return validate_volume(path, block.read(label)[0], block.affine, label)


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of the axes of a file and its affine, from the header.

    Raises:
        BadInput: If the header is damaged or not that of one volume.
    """
    block = _parse_header(path)
    return block.shape, block.affine


def _parse_header(path: Path) -> VoxelBlock:
    """Rejects a header without complete geometry, or with another number of bytes than the file holds."""
    head, _, tail = read_start(path).partition(b"ElementDataFile")
    last_line = b"ElementDataFile" + tail.partition(b"\n")[0]
    fields = parse_fields(path, head + last_line, "=")
    check_required_fields(path, fields, REQUIRED, (DIRECTION, ORIGIN))
    _check_values(path, fields)
    is_local = fields["ElementDataFile"] == "LOCAL"
    block = VoxelBlock(
        path,
        path if is_local else find_data_file(path, fields["ElementDataFile"]),
        len(head) + len(last_line) + 1 if is_local else 0,
        "gzip" if fields.get("CompressedData") == "True" else "raw",
        parse_dtype(path, fields["ElementType"], DTYPES, any(fields.get(key) == "True" for key in BYTE_ORDER)),
        parse_shape(path, fields["DimSize"]),
        1,
        _parse_affine(path, fields),
    )
    block.check_size()
    return block


def _check_values(path: Path, fields: dict[str, str]) -> None:
    """Rejects several channels, text instead of numbers, values that must be scaled, and a spacing below zero."""
    for key, values in PLAIN.items():
        if fields.get(key, values[0]) not in values:
            raise BadInput(
                Message(
                    "{path}: {key} is {value}, which must be {values}; write one file per channel, binary and unscaled",
                    path=path,
                    key=key,
                    value=fields[key],
                    values=" or ".join(values),
                )
            )
    if min(parse_numbers(path, fields["ElementSpacing"], 3)) <= 0:
        raise BadInput(
            Message(
                "{path}: its spacing {spacing!s} must be positive; write the header again",
                path=path,
                spacing=fields["ElementSpacing"],
            )
        )


def _parse_affine(path: Path, fields: dict[str, str]) -> Float[np.ndarray, "4 4"]:
    """Returns the affine in RAS+; the header uses LPS+ and lists the direction of each axis."""
    direction = next(fields[key] for key in DIRECTION if key in fields)
    origin = next(fields[key] for key in ORIGIN if key in fields)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(parse_numbers(path, direction, 9), (3, 3)).T
    affine[:3, :3] *= parse_numbers(path, fields["ElementSpacing"], 3)
    affine[:3, 3] = parse_numbers(path, origin, 3)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
