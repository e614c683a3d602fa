"""Reads NRRD and MetaImage files: the text header is checked strictly, SimpleITK reads the voxels."""

import math
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float

from medssl.errors import BadInput, Message
from medssl.io.voxel_files import MAX_HEADER_BYTES
from medssl.io.voxels import validate_volume
from medssl.volume import Volume

MAX_VOXELS = 1 << 31
NRRD_REQUIRED = ("type", "sizes", "encoding", "space", "space directions", "space origin")
SPACES = ("left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "LAS")
META_REQUIRED = ("DimSize", "ElementSpacing", "ElementType", "ElementDataFile")
META_REQUIRED_SYNONYMS = (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"))
BYTES_PER_VOXEL = {
    **dict.fromkeys(("uchar", "uint8", "unsigned char", "MET_UCHAR", "char", "int8", "MET_CHAR"), 1),
    **dict.fromkeys(("short", "int16", "ushort", "uint16", "unsigned short", "MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("int", "int32", "uint", "uint32", "unsigned int", "MET_INT", "MET_UINT", "float", "MET_FLOAT"), 4),
    **dict.fromkeys(("double", "MET_DOUBLE", "int64", "uint64", "MET_LONG_LONG", "MET_ULONG_LONG"), 8),
}


def read(path: Path, label: bool) -> Volume:
    """Reads an image in arbitrary units, or a label map of whole numbers, with its affine in mm, RAS+."""
    if not path.is_file():
        raise BadInput(Message("{path}: no such file", path=path))
    with path.open("rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        _check_nrrd(path, start)
    else:
        _check_metaimage(path, start)
    image = _read_itk(path)
    if (image.GetDimension(), image.GetNumberOfComponentsPerPixel()) != (3, 1):
        raise BadInput(Message("{path}: not a single volume of plain numbers; write one file per channel", path=path))
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return validate_volume(path, voxels, _read_itk_affine(image), label)


def read_layers(path: Path) -> list[Volume]:
    """Reads the layers of a segmentation in an NRRD file, whose first axis counts them if there are several.

    Raises:
        BadInput: If the file is damaged or its geometry is incomplete.
    """
    with path.open("rb") as file:
        _check_nrrd(path, file.read(MAX_HEADER_BYTES), has_layers=True)
    image = _read_itk(path)
    if image.GetDimension() != 3:
        raise BadInput(Message("{path}: not a volume with layers; save the segmentation again", path=path))
    voxels = sitk.GetArrayFromImage(image)
    layers = voxels[..., None] if image.GetNumberOfComponentsPerPixel() == 1 else voxels
    affine = _read_itk_affine(image)
    return [validate_volume(path, layers[..., n].transpose(2, 1, 0), affine, True) for n in range(layers.shape[-1])]


def read_all_axes(path: Path) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Returns the lengths of all axes of a file, its components last, and its affine, from the header.

    Raises:
        RuntimeError, ValueError: If the header is damaged or not that of volumes.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = tuple(int(n) for n in reader.GetSize())
    if len(size) != 3:
        raise ValueError("not a volume")
    return (*size, reader.GetNumberOfComponents()), _read_itk_affine(reader)


def _read_itk(path: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1][:120]
        raise BadInput(
            Message("{path}: cannot be read ({cause}); copy or write the file again", path=path, cause=cause)
        ) from None


def _read_itk_affine(image: sitk.Image | sitk.ImageFileReader) -> Float[np.ndarray, "4 4"]:
    """Returns the affine in RAS+ of an image of SimpleITK, or of its header, which use LPS+."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_nrrd(path: Path, start: bytes, has_layers: bool = False) -> None:
    """Rejects an NRRD header without complete geometry, or with another number of bytes than the file holds."""
    is_detached = path.suffix.lower() == ".nhdr"
    end = re.search(rb"\r?\n\r?\n|\Z" if is_detached else rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD") or end is None:
        raise BadInput(
            Message("{path}: not an NRRD file; a download that failed often leaves a web page or a pointer", path=path)
        )
    fields = _parse_fields(start[: end.start()], ":")
    _check_required_fields(path, fields, NRRD_REQUIRED, ())
    if fields["space"] not in SPACES:
        raise BadInput(
            Message(
                "{path}: its space is {space!r}; one of {spaces} is needed",
                path=path,
                space=fields["space"],
                spaces=", ".join(SPACES),
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
    data_file = fields.get("data file", fields.get("datafile"))
    if {"byte skip", "line skip"} & fields.keys() or (data_file is None) == is_detached:
        raise BadInput(
            Message(
                "{path}: its voxels are in another file, as only those of an .nhdr file may be, or after a skip; write "
                "it as one plain NRRD file",
                path=path,
            )
        )
    num_layers, _, sizes = fields["sizes"].partition(" ") if has_layers else ("1", "", fields["sizes"])
    if len(fields["sizes"].split()) == 3:
        num_layers, sizes = "1", fields["sizes"]
    expected_bytes = _compute_voxel_bytes(path, sizes, fields["type"]) * int(_parse_numbers(path, num_layers)[0])
    own_bytes = path.stat().st_size - end.end()
    num_bytes = own_bytes if data_file is None else _find_data_file(path, data_file).stat().st_size
    _check_size(path, num_bytes, expected_bytes, fields["encoding"] == "raw")


def _check_metaimage(path: Path, start: bytes) -> None:
    """Rejects a MetaImage header without complete geometry, or with another number of bytes than the file holds."""
    head, _, tail = start.partition(b"ElementDataFile")
    last_line = b"ElementDataFile" + tail.partition(b"\n")[0]
    fields = _parse_fields(head + last_line, "=")
    _check_required_fields(path, fields, META_REQUIRED, META_REQUIRED_SYNONYMS)
    if min(_parse_numbers(path, fields["ElementSpacing"])) <= 0:
        raise BadInput(
            Message(
                "{path}: its spacing {spacing!s} must be positive; write the header again",
                path=path,
                spacing=fields["ElementSpacing"],
            )
        )
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise BadInput(
            Message(
                "{path}: {channels} channels; write one file per channel",
                path=path,
                channels=fields["ElementNumberOfChannels"],
            )
        )
    expected_bytes = _compute_voxel_bytes(path, fields["DimSize"], fields["ElementType"])
    name = fields["ElementDataFile"]
    header_bytes = len(head) + len(last_line) + 1
    num_bytes = path.stat().st_size - header_bytes if name == "LOCAL" else _find_data_file(path, name).stat().st_size
    _check_size(path, num_bytes, expected_bytes, fields.get("CompressedData", "False") != "True")


def _check_size(path: Path, num_bytes: int, expected_bytes: int, is_raw: bool) -> None:
    """Rejects uncompressed voxels of another size than the header declares."""
    if is_raw and num_bytes != expected_bytes:
        raise BadInput(
            Message(
                "{path}: {num_bytes} bytes of voxels, its header declares {expected_bytes}; "
                "copy or write the file again",
                path=path,
                num_bytes=num_bytes,
                expected_bytes=expected_bytes,
            )
        )


def _find_data_file(path: Path, name: str) -> Path:
    """Returns the file of voxels that a header names, which must lie in the same folder."""
    data_file = path.parent / name
    if Path(name).name != name or data_file.is_symlink() or not data_file.is_file():
        raise BadInput(
            Message(
                "{path}: its header names the voxel file {name!r}; it must be a file in the same folder",
                path=path,
                name=name,
            )
        )
    return data_file


def _parse_fields(head: bytes, separator: str) -> dict[str, str]:
    """Returns the keys and values of a text header, without comments."""
    lines = (line.partition(separator) for line in head.decode("latin-1").splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip() for key, middle, value in lines if middle}


def _check_required_fields(
    path: Path, fields: dict[str, str], required: tuple[str, ...], synonyms: tuple[tuple[str, ...], ...]
) -> None:
    """Rejects a header that lacks a required key, or all synonyms of one."""
    missing = [name for name in required if name not in fields]
    missing += [names[0] for names in synonyms if not {*names} & {*fields}]
    if missing:
        raise BadInput(
            Message(
                "{path}: its header has no {keys}; write the file with its geometry", path=path, keys=", ".join(missing)
            )
        )


def _compute_voxel_bytes(path: Path, sizes: str, voxel_type: str) -> int:
    """Returns the number of bytes of the voxels that a header declares."""
    shape = _parse_numbers(path, sizes)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
        raise BadInput(
            Message(
                "{path}: the sizes {sizes} are not those of one volume; three axes are needed", path=path, sizes=sizes
            )
        )
    if voxel_type not in BYTES_PER_VOXEL:
        raise BadInput(
            Message(
                "{path}: its voxels are of the type {voxel_type!r}; cast them to short or float",
                path=path,
                voxel_type=voxel_type,
            )
        )
    return int(math.prod(shape)) * BYTES_PER_VOXEL[voxel_type]


def _parse_numbers(path: Path, text: str) -> list[float]:
    """Returns the finite numbers of a header value."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise BadInput(
            Message(
                "{path}: its header holds {text!r} where finite numbers are needed; write the header again",
                path=path,
                text=text,
            )
        )
    return numbers
