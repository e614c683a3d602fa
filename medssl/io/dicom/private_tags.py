"""Reads what vendors write into private elements: diffusion weighting, and volumes stored as one grid of slices."""

import math
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.multival import MultiValue

from medssl.errors import Message
from medssl.io.dicom.header import Header, get_floats
from medssl.io.dicom.pixel_data.encoding import PixelEncoding
from medssl.io.rejected import ReadRejected

NORMAL_TOLERANCE = 1e-3
GE_B_VALUE_OFFSET = 100_000  # GE adds a multiple of it to the b-values of some sequences
# Vendor element: group, private creator, element, value representation. Sources: the vendors' conformance statements.
B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C, "IS"),
    (0x0043, "GEMS_PARM_01", 0x39, "IS"),
    (0x2001, "Philips Imaging DD 001", 0x03, "FL"),
    (0x0065, "Image Private Header", 0x09, "FD"),
)
GRADIENTS = (
    ((0x0019, "SIEMENS MR HEADER", 0x0E, "FD"),),
    tuple((0x0019, "GEMS_ACQU_01", element, "DS") for element in (0xBB, 0xBC, 0xBD)),
    tuple((0x2005, "Philips MR Imaging DD 001", element, "FL") for element in (0xB0, 0xB1, 0xB2)),
    ((0x0065, "Image Private Header", 0x37, "FD"),),
)
SIEMENS_COUNT = (0x0019, "SIEMENS MR HEADER", 0x0A, "US")
UIH_COUNT, UIH_FRAMES = (0x0065, "Image Private Header", 0x50, "DS"), (0x0065, "Image Private Header", 0x51, "SQ")
NUMPY_TYPES = {"FL": "<f4", "FD": "<f8", "US": "<u2"}


@dataclass(frozen=True)
class Tile:
    """A rectangle of a stored frame that is one slice: the first row and column, and the number of each."""

    first_row: int
    first_column: int
    rows: int
    columns: int


@dataclass(frozen=True)
class SliceGrid:
    """A stored frame that holds the slices of a volume side by side, row by row.

    Args:
        tiles: The rectangle of each slice.
        positions: The centre of the first pixel of each slice in mm, LPS.
    """

    tiles: tuple[Tile, ...]
    positions: tuple[tuple[float, ...], ...]


def read_diffusion(data: Dataset) -> dict[str, str]:
    """Returns the b-value in s/mm2 and the direction of the gradient that a vendor wrote into private elements."""
    tags = {}
    for element in B_VALUES:
        if numbers := read_private_numbers(data, *element):
            is_ge = element[0] == 0x0043 and numbers[0] > GE_B_VALUE_OFFSET / 10
            tags["DiffusionBValue"] = f"{numbers[0] % GE_B_VALUE_OFFSET if is_ge else numbers[0]:g}"
            break
    for elements in GRADIENTS:
        direction = [number for element in elements for number in read_private_numbers(data, *element)]
        if len(direction) == 3:
            tags["DiffusionGradientOrientation"] = "\\".join(f"{number:.5g}" for number in direction)
            break
    return tags


def read_slice_grid(header: Header, encoding: PixelEncoding, kinds: set[str]) -> SliceGrid | None:
    """Returns the slices of a Siemens mosaic or a UIH grid; None for a file of one slice.

    Args:
        header: The header of the file.
        encoding: The encoding of its pixels.
        kinds: The values of its ImageType.

    Raises:
        ReadRejected: If the number, the order or the positions of the slices are unknown.
    """
    if "MOSAIC" in kinds:
        return _read_mosaic(header.data, encoding)
    return _read_vframe(header.data, encoding) if "VFRAME" in kinds else None


def _read_mosaic(data: Dataset, encoding: PixelEncoding) -> SliceGrid:
    """Reads the slices of a Siemens mosaic, whose position is that of one slice as large as the whole mosaic."""
    csa = _read_csa(data)
    count = int((read_private_numbers(data, *SIEMENS_COUNT) or csa.get("NumberOfImagesInMosaic") or [0])[0])
    normal = csa.get("SliceNormalVector") or []
    spacing = get_floats(data, "SpacingBetweenSlices", 1)
    axes, pixel_mm = get_floats(data, "ImageOrientationPatient", 6), get_floats(data, "PixelSpacing", 2)
    corner = get_floats(data, "ImagePositionPatient", 3)
    if count < 1 or len(normal) != 3:
        raise ReadRejected("geometry", Message(
            "a Siemens mosaic of several slices without their number and direction (CSA header); export it again "
            "with its private elements, or as single slices",
        ))  # fmt: skip
    if spacing is None or axes is None or pixel_mm is None or corner is None:
        raise ReadRejected("geometry", Message(
            "a Siemens mosaic of {count} slices without SpacingBetweenSlices, ImageOrientationPatient, PixelSpacing or "
            "ImagePositionPatient; export it again with its whole header",
            count=count,
        ))  # fmt: skip
    across, down = np.split(np.array(axes), 2)
    if min(np.abs(np.cross(across, down) - sign * np.array(normal)).max() for sign in (1, -1)) > NORMAL_TOLERANCE:
        raise ReadRejected("geometry", Message(
            "a Siemens mosaic of {count} slices whose normal is not perpendicular to its rows and columns; export it "
            "again as single slices",
            count=count,
        ))  # fmt: skip
    tiles = _cut_tiles(encoding, count, math.ceil(math.sqrt(count)), math.ceil(math.sqrt(count)), "Siemens mosaic")
    to_tile = across * pixel_mm[1] * (encoding.columns - tiles[0].columns) / 2
    to_tile = to_tile + down * pixel_mm[0] * (encoding.rows - tiles[0].rows) / 2
    steps = np.arange(count)[:, None] * np.array(normal) * spacing[0]
    return SliceGrid(tiles, tuple(map(tuple, (np.array(corner) + to_tile + steps).tolist())))


def _read_vframe(data: Dataset, encoding: PixelEncoding) -> SliceGrid:
    """Reads the slices of a UIH grid, each of which has a position of its own."""
    count = int((read_private_numbers(data, *UIH_COUNT) or [0])[0])
    items = _read_private(data, *UIH_FRAMES[:3]) or []
    positions = [get_floats(item, "ImagePositionPatient", 3) for item in items]
    if count < 1 or len(positions) != count or None in positions:
        raise ReadRejected("geometry", Message(
            "a UIH grid of {count} slices with {num_positions} positions; export it again with its private elements, "
            "or as single slices",
            count=count, num_positions=len(positions) - positions.count(None),
        ))  # fmt: skip
    across = math.ceil(math.sqrt(count))
    tiles = _cut_tiles(encoding, count, math.ceil(count / across), across, "UIH grid")
    return SliceGrid(tiles, tuple(position for position in positions if position))


def _cut_tiles(encoding: PixelEncoding, count: int, down: int, across: int, kind: str) -> tuple[Tile, ...]:
    """Cuts a frame into slices of one size, row by row."""
    if encoding.rows % down or encoding.columns % across or encoding.frames != 1:
        raise ReadRejected("geometry", Message(
            "a {kind} of {count} slices, but {columns}x{rows}x{frames} pixels are no grid of {across}x{down} slices; "
            "export it again as single slices",
            kind=kind, count=count, columns=encoding.columns, rows=encoding.rows, frames=encoding.frames,
            across=across, down=down,
        ))  # fmt: skip
    rows, columns = encoding.rows // down, encoding.columns // across
    return tuple(Tile(n // across * rows, n % across * columns, rows, columns) for n in range(count))


def _read_csa(data: Dataset) -> dict[str, list[Any]]:
    """Returns the values of the Siemens CSA image header; empty if it is missing or damaged."""
    try:
        with warnings.catch_warnings(action="ignore"):  # nibabel calls the module experimental
            csa = import_module("nibabel.nicom.csareader").get_csa_header(data)
        return {name: list(tag["items"]) for name, tag in csa["tags"].items()} if csa else {}
    except Exception:  # a parser of damaged bytes can raise any exception
        return {}


def read_private_numbers(data: Dataset, group: int, creator: str, element: int, vr: str) -> list[float]:
    """Returns the numbers of a private element; empty if it is missing or holds none."""
    value = _read_private(data, group, creator, element)
    try:
        if isinstance(value, bytes) and vr in NUMPY_TYPES:
            return [float(number) for number in np.frombuffer(value, NUMPY_TYPES[vr])]
        if isinstance(value, bytes):
            value = value.decode("ascii").strip(" \0").split("\\")
        values = value if isinstance(value, MultiValue | list | tuple) else [value]
        return [float(number) for number in values if number is not None and math.isfinite(float(number))]
    except (ValueError, TypeError, OverflowError):
        return []


def read_private_text(data: Dataset, group: int, creator: str, element: int) -> str:
    """Returns a private element as text; empty if it is missing or damaged."""
    value = _read_private(data, group, creator, element)
    text = value.decode("ascii", "ignore") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0")


def _read_private(data: Dataset, group: int, creator: str, element: int) -> Any:
    """Returns the value of an element in the block of a private creator; None if it is missing or damaged."""
    try:
        return data.private_block(group, creator)[element].value
    except Exception:  # the element is missing, or its bytes are damaged
        return None
