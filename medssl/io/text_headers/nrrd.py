"""Reads NRRD files, whose voxels follow the header or lie in a second file.

The format: https://teem.sourceforge.net/nrrd/format.html.
"""

import re
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

REQUIRED = ("type", "sizes", "encoding", "space", "space directions", "space origin")
SPACES = {  # the axes of the space in RAS+
    **dict.fromkeys(("left-posterior-superior", "LPS"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "RAS"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "LAS"), (-1.0, 1.0, 1.0)),
}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
DTYPES = {
    **dict.fromkeys(("signed char", "char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}


def read(path: Path, label: bool) -> Volume:
    """Reads an image in arbitrary units, or a label map of whole numbers, with its affine in mm, RAS+.

    Raises:
        BadInput: If the file is damaged, its geometry is incomplete, or it holds several volumes.
    """
    block = _parse_header(path, has_layers=False)
    return validate_volume(path, block.read(label)[0], block.affine, label)


def read_layers(path: Path) -> list[Volume]:
    """Reads the layers of a segmentation, whose first axis counts them if there are several.

    Raises:
        BadInput: If the file is damaged or its geometry is incomplete.
    """
    block = _parse_header(path, has_layers=True)
    return [validate_volume(path, layer, block.affine, True) for layer in block.read(label=True)]


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of all axes of a file, its layers last, and its affine, from the header.

    Raises:
        BadInput: If the header is damaged or not that of volumes.
    """
    block = _parse_header(path, has_layers=True)
    return (*block.shape, block.num_layers), block.affine


def _parse_header(path: Path, has_layers: bool) -> VoxelBlock:
    """Rejects a header without complete geometry, or with another number of bytes than the file holds."""
    start = read_start(path)
    is_detached = path.suffix.lower() == ".nhdr"
    end = re.search(rb"\r?\n\r?\n|\Z" if is_detached else rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD") or end is None:
        raise BadInput(
            Message("{path}: not an NRRD file; a download that failed often leaves a web page or a pointer", path=path)
        )
    fields = parse_fields(path, start[: end.start()], ": ")  # a key of another program ends in :=
    check_required_fields(path, fields, REQUIRED)
    _check_values(path, fields)
    data_file = fields.get("data file", fields.get("datafile"))
    if {"byte skip", "byteskip", "line skip", "lineskip"} & fields.keys() or (data_file is None) == is_detached:
        raise BadInput(
            Message(
                "{path}: its voxels are in another file, as only those of an .nhdr file may be, or after a skip; write "
                "it as one plain NRRD file",
                path=path,
            )
        )
    sizes = fields["sizes"].split()
    num_layers = max(1, int(parse_numbers(path, sizes.pop(0))[0])) if has_layers and len(sizes) == 4 else 1
    block = VoxelBlock(
        path,
        path if data_file is None else find_data_file(path, data_file),
        end.end() if data_file is None else 0,
        ENCODINGS[fields["encoding"]],
        parse_dtype(path, fields["type"], DTYPES, fields.get("endian") == "big"),
        parse_shape(path, " ".join(sizes)),
        num_layers,
        _parse_affine(path, fields),
    )
    if block.dtype.itemsize > 1:
        check_required_fields(path, fields, ("endian",))
    block.check_size()
    return block


def _check_values(path: Path, fields: dict[str, str]) -> None:
    """Rejects an encoding, a space or a unit that is not supported."""
    for key, values in (("encoding", ENCODINGS), ("space", SPACES)):
        if fields[key] not in values:
            raise BadInput(
                Message(
                    "{path}: its {key} is {value!r}; one of {values} is needed",
                    path=path,
                    key=key,
                    value=fields[key],
                    values=", ".join(values),
                )
            )
    if fields.get("space units", '"mm" "mm" "mm"').split() != ['"mm"'] * 3:
        raise BadInput(
            Message(
                "{path}: its space units are {space_units}; write the geometry in mm",
                path=path,
                space_units=fields["space units"],
            )
        )


def _parse_affine(path: Path, fields: dict[str, str]) -> Float[np.ndarray, "4 4"]:
    """Returns the affine in RAS+; an axis of layers comes first and has no direction."""
    directions = fields["space directions"].removeprefix("none ")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(parse_numbers(path, directions, 9), (3, 3)).T
    affine[:3, 3] = parse_numbers(path, fields["space origin"], 3)
    return np.diag([*SPACES[fields["space"]], 1.0]) @ affine
