"""NIfTI in and out: geometry from the header or a refusal, never a guess."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from jaxtyping import Float, Real
from nibabel.spatialimages import HeaderDataError

from medssl.errors import BadInput, Doubt
from medssl.files import atomic
from medssl.io.voxels import finished
from medssl.volume import Volume

NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
HEADERS = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
CONFLICT_MM = 0.05
FILE_BYTES = 4 << 30
HEADER_BYTES = 1 << 20


def read(path: Path, label: bool = False) -> Volume:
    """An image in arbitrary units, or a label of whole numbers, with its affine in mm, RAS+."""
    with _opened(path) as file:
        try:
            head = file.read(max(HEADERS))
            header = _header(path, head)
            shape = _shape(path, header)
            rest = file.read(_end(path, header, shape) - len(head) + 1)
        except (OSError, EOFError, IsalError) as error:  # type: ignore[misc]  # its stub calls it a variable
            raise BadInput(f"{path}: truncated or damaged ({error}); copy the file again") from None
    voxels = _voxels(path, header, shape, head + rest)
    return finished(path, voxels, _affine(path, header, shape), label)


def write(volume: Volume, path: Path) -> None:
    """Writes a volume atomically, its geometry as sform and qform, its numbers as they are."""
    dtype = volume.voxels.dtype
    if dtype.name not in NUMBERS:
        raise BadInput(f"{path}: NIfTI has no {dtype}; cast to int16, uint8 or float32 first")
    image = nibabel.Nifti1Image(np.moveaxis(volume.voxels, 0, -1) if volume.voxels.ndim == 4 else volume.voxels, None)
    image.header.set_xyzt_units("mm")
    image.header.set_data_dtype(dtype)
    image.set_sform(volume.affine, 1)
    image.set_qform(volume.affine, 1, strip_shears=True)
    with atomic(path) as part:
        nibabel.save(image, part)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    """The file as plain bytes; reading beyond the end of a gzip checks its checksum. isal takes half of gzip's time."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield igzip.GzipFile(fileobj=file) if zipped else file


def _header(path: Path, content: bytes) -> nibabel.Nifti1Header:
    for size, kind in HEADERS.items():
        for order in ("little", "big"):
            if int.from_bytes(content[:4], order) == size and len(content) >= size:
                header = kind(content[:size], endianness=order, check=False)
                return _checked(path, header)
    raise BadInput(f"{path}: not a NIfTI file; a download that failed often leaves a web page or a pointer")


def _checked(path: Path, header: nibabel.Nifti1Header) -> nibabel.Nifti1Header:
    magic = header["magic"].item()[:3]
    if magic not in (b"n+1", b"n+2"):
        raise BadInput(f"{path}: not a single-file NIfTI (its magic is {magic!r}); convert it to .nii.gz")
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype(object)
    if dtype.name not in NUMBERS:
        raise BadInput(
            f"{path}: its voxels are no plain numbers (data type {int(header['datatype'])}: colour or complex)"
        )
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise BadInput(f"{path}: {int(header['bitpix'])} bits a voxel do not fit {dtype}; the header is damaged")
    return header


def _shape(path: Path, header: nibabel.Nifti1Header) -> tuple[int, int, int]:
    dims = [int(d) for d in header["dim"]]
    axes = dims[1 : dims[0] + 1]
    if not 3 <= dims[0] <= 7 or min(axes) < 1:
        raise BadInput(f"{path}: dimensions {axes} are not those of a volume")
    if math.prod(axes[3:]) != 1:
        raise BadInput(f"{path}: holds {math.prod(axes[3:])} volumes ({axes}); split it into single ones")
    return axes[0], axes[1], axes[2]


def _end(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, int, int]) -> int:
    """The number of bytes that the header promises, within a budget."""
    offset = float(header["vox_offset"])
    first = 352 if len(header.binaryblock) == 348 else 544
    if not math.isfinite(offset) or offset != int(offset) or not first <= offset <= HEADER_BYTES:
        raise BadInput(f"{path}: its voxels cannot start at byte {offset}; the header is damaged")
    end = int(offset) + math.prod(shape) * int(header.get_data_dtype().itemsize)
    if end > FILE_BYTES:
        raise BadInput(f"{path}: {shape} voxels are more than {FILE_BYTES >> 30} GiB; crop or split it")
    return end


def _voxels(
    path: Path, header: nibabel.Nifti1Header, shape: tuple[int, int, int], content: bytes
) -> Real[np.ndarray, "i j k"]:
    end = _end(path, header, shape)
    if len(content) != end:
        what = "truncated" if len(content) < end else "longer than its header says"
        raise BadInput(f"{path}: {what}: {shape} voxels end at byte {end}; copy or write the file again")
    stored = np.frombuffer(content, header.get_data_dtype(), math.prod(shape), int(header["vox_offset"]))
    stored = stored.reshape(shape, order="F")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope) or (slope, intercept) == (1.0, 0.0):
        return stored
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise BadInput(f"{path}: its scale is {slope}, {intercept}; finite numbers must stand there")
    return stored * slope + intercept


def _affine(path: Path, header: nibabel.Nifti1Header, shape: tuple[int, int, int]) -> Float[np.ndarray, "4 4"]:
    """The affine in mm on which sform, qform and pixdim agree."""
    spacing = np.asarray(header["pixdim"][1:4], float)
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise BadInput(f"{path}: voxel sizes {spacing.tolist()} must be positive; write the header anew")
    found = _coded(path, header)
    if not found:
        raise BadInput(f"{path}: neither sform nor qform is set, so left and right are unknown; write its orientation")
    affine = found[0]
    scale = _to_mm(path, header)
    columns = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(columns - spacing).max() > 0.01 * spacing.min():
        raise BadInput(f"{path}: the affine's spacing {columns.round(4).tolist()} is not pixdim's {spacing.tolist()}")
    if len(found) == 2 and (apart := _apart(found[0], found[1], shape) * scale) > CONFLICT_MM:
        raise BadInput(f"{path}: sform and qform lie {apart:.2f} mm apart; keep the right one only")
    return np.diag([scale, scale, scale, 1.0]) @ affine


def _coded(path: Path, header: nibabel.Nifti1Header) -> list[Float[np.ndarray, "4 4"]]:
    found = []
    if int(header["sform_code"]) > 0:
        found.append(np.asarray(header.get_sform(), float))
    if int(header["qform_code"]) > 0:
        try:
            found.append(np.asarray(header.get_qform(), float))
        except (ValueError, HeaderDataError) as error:
            raise BadInput(f"{path}: its qform is no rotation ({error}); write the geometry anew") from None
    if not all(np.isfinite(a).all() for a in found):
        raise BadInput(f"{path}: its sform or qform is not finite; write the geometry anew")
    return found


def _to_mm(path: Path, header: nibabel.Nifti1Header) -> float:
    code = int(header["xyzt_units"]) & 7
    if code not in TO_MM:
        raise BadInput(f"{path}: unknown unit of length (code {code}); write it in mm")
    if code == 0:
        warnings.warn(f"{path.name}: its unit of length is not set; taken as mm", Doubt, stacklevel=4)
    return TO_MM[code]


def _apart(a: Float[np.ndarray, "4 4"], b: Float[np.ndarray, "4 4"], shape: tuple[int, int, int]) -> float:
    """The largest distance between two affines over the corners of the volume."""
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
    corners[:, :3] *= np.array(shape) - 1
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())
