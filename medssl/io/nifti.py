"""Reads and writes NIfTI files; missing or contradictory geometry is rejected, never guessed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import nibabel
import numpy as np
from jaxtyping import Float, Real
from nibabel.spatialimages import HeaderDataError

from medssl.arrays.disk_arrays import release_pages
from medssl.arrays.resampling import to_contiguous
from medssl.errors import BadInput, Message
from medssl.io import archives
from medssl.io.nifti_geometry import read_affine
from medssl.io.nifti_writer import DTYPES, NO_FIELDS, NiftiFields, open_writer
from medssl.io.voxel_files import find_pair_file
from medssl.io.voxels import validate_volume
from medssl.volume import Volume

HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 1 << 20
TIME_UNIT_BITS = 0x38
SLICES_PER_BLOCK = 16  # of a volume that is written
FREE_LABEL_BYTES = 1 << 30  # label maps of few voxels pack well
S = TypeVar("S", bound=tuple[int, ...] | list[int])


def read(path: Path, label: bool = False) -> Volume:
    """Reads an image in arbitrary units or a label map, with its affine in mm, RAS+.

    Args:
        path: A NIfTI-1 or NIfTI-2, gzipped or not, or the .hdr file of a pair.
        label: Whether the file is a label map of whole numbers from 0.

    Raises:
        BadInput: If the file is damaged or its geometry is missing or contradictory.
    """
    header, shape, content = _read_content(path, read_shape, FREE_LABEL_BYTES if label else archives.BOMB_BYTES)
    voxels = _decode_voxels(path, header, shape, content)
    return validate_volume(path, voxels, read_affine(path, header, shape), label)


def read_channels(path: Path) -> list[Volume]:
    """Reads every volume of a file with a fourth axis, in arbitrary units.

    Raises:
        BadInput: If the file is damaged or its geometry is missing or contradictory.
    """
    header, axes, content = _read_content(path, _read_axes, archives.BOMB_BYTES)
    shape = (*axes[:3], math.prod(axes[3:]))
    voxels = _decode_voxels(path, header, shape, content)
    affine = read_affine(path, header, (axes[0], axes[1], axes[2]))
    return [validate_volume(path, voxels[..., c], affine, label=False) for c in range(shape[3])]


def read_grid(path: Path) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    """Returns the shape and the affine of an image from its header, without reading the voxels.

    Raises:
        BadInput: If the header is damaged or its geometry is missing or contradictory.
    """
    header = _read_header(path)
    shape = read_shape(path, header)
    return shape, read_affine(path, header, shape)


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of all axes of a file, which may hold several volumes, and its affine, from the header.

    Raises:
        BadInput: If the header is damaged or its geometry is missing or contradictory.
    """
    header = _read_header(path)
    axes = _read_axes(path, header)
    return tuple(axes), read_affine(path, header, (axes[0], axes[1], axes[2]))


def _read_header(path: Path) -> nibabel.Nifti1Header:
    with archives.open_stream(path) as file:
        return parse_header(path, file.read(max(HEADERS)))


def read_fields(path: Path) -> NiftiFields:
    """Returns the fields of a header besides grid and data type; raises BadInput if the header is damaged."""
    header = _read_header(path)
    cal_min, cal_max = (float(header[name]) for name in ("cal_min", "cal_max"))
    window = (cal_min, cal_max) if math.isfinite(cal_min) and math.isfinite(cal_max) else (0.0, 0.0)
    codes = (int(header["sform_code"]), int(header["qform_code"]), int(header["xyzt_units"]) & TIME_UNIT_BITS)
    return NiftiFields(*codes, *window, header["descrip"].item())


def write(volume: Volume, path: Path, fields: NiftiFields = NO_FIELDS) -> None:
    """Writes a volume atomically, with its affine as sform and qform and its data type unchanged."""
    with open_writer(path, volume, volume.voxels.dtype, fields) as writer:
        for channel in volume.voxels.reshape(-1, *volume.shape):
            for first in range(0, volume.shape[2], SLICES_PER_BLOCK):
                writer.append(to_contiguous(channel[:, :, first : first + SLICES_PER_BLOCK].T))
                release_pages(channel)


def _read_content(
    path: Path, read_shape: Callable[[Path, nibabel.Nifti1Header], S], free_bytes: int
) -> tuple[nibabel.Nifti1Header, S, bytes]:
    """Returns the header, the shape and the uncompressed content of a file, with one byte more than it should have."""
    with archives.open_stream(path) as file:
        head = file.read(max(HEADERS))
        header = parse_header(path, head)
        shape = read_shape(path, header)
        num_bytes = compute_file_bytes(path, header, tuple(shape))
        if path.suffix.lower() != ".hdr":
            archives.check_bomb(path, num_bytes, free_bytes)
            return header, shape, head + file.read(num_bytes - len(head) + 1)
    voxel_file = find_pair_file(path)
    archives.check_bomb(voxel_file, num_bytes, free_bytes)
    with archives.open_stream(voxel_file) as file:
        return header, shape, file.read(num_bytes + 1)


def parse_header(path: Path, content: bytes) -> nibabel.Nifti1Header:
    """Parses a NIfTI-1 or NIfTI-2 header of either byte order."""
    for size, header_class in HEADERS.items():
        for order in ("little", "big"):
            if int.from_bytes(content[:4], order) == size and len(content) >= size:
                return _check_header(path, header_class(content[:size], endianness=order, check=False))
    raise BadInput(
        Message("{path}: not a NIfTI file; a download that failed often leaves a web page or a pointer", path=path)
    )


def _check_header(path: Path, header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    """Rejects a header of another kind than its file, and voxels that are not plain numbers."""
    magic, is_pair = header["magic"].item()[:3], path.suffix.lower() == ".hdr"
    if is_pair and magic[:2] not in (b"ni", b"n+"):
        raise BadInput(
            Message(
                "{path}: an Analyze 7.5 image, which does not state which side is left; convert it to NIfTI with its "
                "true orientation",
                path=path,
            )
        )
    if magic not in ((b"ni1", b"ni2") if is_pair else (b"n+1", b"n+2")):
        kind = Message("the header of a NIfTI pair") if is_pair else Message("a single-file NIfTI")
        raise BadInput(
            Message(
                "{path}: not {kind} (its magic is {magic!r}); convert it to .nii.gz", path=path, kind=kind, magic=magic
            )
        )
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype(object)
    if dtype.name not in DTYPES:
        raise BadInput(
            Message(
                "{path}: its voxels are no plain numbers (data type {datatype}, colour or complex); "
                "convert the file to integers or floats",
                path=path,
                datatype=int(header["datatype"]),
            )
        )
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise BadInput(
            Message(
                "{path}: {bitpix} bits per voxel do not fit {dtype}; the header is damaged",
                path=path,
                bitpix=int(header["bitpix"]),
                dtype=dtype,
            )
        )
    return header


def _read_axes(path: Path, header: nibabel.Nifti1Header) -> list[int]:
    """Returns the lengths of the three to seven axes of a file."""
    dims = [int(d) for d in header["dim"]]
    axes = dims[1 : dims[0] + 1]
    if not 3 <= dims[0] <= 7 or min(axes) < 1:
        raise BadInput(
            Message(
                "{path}: the dimensions {axes} are not those of a volume; "
                "three axes with at least one voxel are needed",
                path=path,
                axes=axes,
            )
        )
    return axes


def read_shape(path: Path, header: nibabel.Nifti1Header) -> tuple[int, int, int]:
    """Returns the number of voxels along i, j, k; further axes must have the length 1."""
    axes = _read_axes(path, header)
    if math.prod(axes[3:]) != 1:
        raise BadInput(
            Message(
                "{path}: holds {num_volumes} volumes ({axes}); split the file into single volumes, or take "
                "them as channels of one case with --image",
                path=path,
                num_volumes=math.prod(axes[3:]),
                axes=axes,
            )
        )
    return axes[0], axes[1], axes[2]


def compute_file_bytes(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, ...]) -> int:
    """Returns the size of the uncompressed file according to its header; rejects sizes above the limit."""
    offset = float(header["vox_offset"])
    single = 352 if len(header.binaryblock) == 348 else 544
    first = 0 if path.suffix.lower() == ".hdr" else single
    if not math.isfinite(offset) or offset != int(offset) or not first <= offset <= MAX_HEADER_BYTES:
        raise BadInput(
            Message("{path}: its voxels cannot start at byte {offset}; the header is damaged", path=path, offset=offset)
        )
    end = int(offset) + math.prod(shape) * int(header.get_data_dtype().itemsize)
    if end > MAX_FILE_BYTES:
        raise BadInput(
            Message(
                "{path}: {shape} voxels need more than {limit} GiB; crop or split the volume",
                path=path,
                shape=shape,
                limit=MAX_FILE_BYTES >> 30,
            )
        )
    return end


def _decode_voxels(
    path: Path, header: nibabel.Nifti1Header, shape: tuple[int, ...], content: bytes
) -> Real[np.ndarray, "i j k *c"]:
    """Returns the voxels with the scale factor of the header applied."""
    end = compute_file_bytes(path, header, shape)
    if len(content) != end:
        fault = Message("truncated") if len(content) < end else Message("longer than its header says")
        raise BadInput(
            Message(
                "{path}: {fault}: {shape} voxels end at byte {end}; copy or write the file again",
                path=path,
                fault=fault,
                shape=shape,
                end=end,
            )
        )
    stored = np.frombuffer(content, header.get_data_dtype(), math.prod(shape), int(header["vox_offset"]))
    stored = stored.reshape(shape, order="F")
    scale = read_scale(path, header)
    return stored if scale is None else stored * scale[0] + scale[1]


def read_scale(path: Path, header: nibabel.Nifti1Header) -> tuple[float, float] | None:
    """Returns the factor and the offset that turn stored numbers into values; None if they are the values."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope) or (slope, intercept) == (1.0, 0.0):
        return None
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise BadInput(
            Message(
                "{path}: its scale factor and offset are {slope!s} and {intercept!s}; finite numbers are needed",
                path=path,
                slope=slope,
                intercept=intercept,
            )
        )
    return slope, intercept
