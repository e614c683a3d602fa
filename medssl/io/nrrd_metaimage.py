"""NRRD and MetaImage: a strict look at the text header, then SimpleITK for the voxels."""

import math
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medssl.errors import BadInput
from medssl.io.voxels import finished
from medssl.volume import Volume

HEADER_BYTES = 1 << 16
VOXELS = 1 << 31
NRRD_NEEDS = ("type", "sizes", "encoding", "space", "space directions", "space origin")
SPACES = ("left-posterior-superior", "LPS", "right-anterior-superior", "RAS", "left-anterior-superior", "LAS")
META_NEEDS = ("DimSize", "ElementSpacing", "ElementType", "ElementDataFile")
META_EITHER = (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"))
WIDTH = {
    **dict.fromkeys(("uchar", "uint8", "unsigned char", "MET_UCHAR", "char", "int8", "MET_CHAR"), 1),
    **dict.fromkeys(("short", "int16", "ushort", "uint16", "unsigned short", "MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("int", "int32", "uint", "uint32", "unsigned int", "MET_INT", "MET_UINT", "float", "MET_FLOAT"), 4),
    **dict.fromkeys(("double", "MET_DOUBLE", "int64", "uint64", "MET_LONG_LONG", "MET_ULONG_LONG"), 8),
}


def read(path: Path, label: bool) -> Volume:
    """An image in arbitrary units, or a label of whole numbers, with its affine in mm, RAS+."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if path.suffix.lower() == ".nrrd":
        _check_nrrd(path, start)
    else:
        _check_meta(path, start)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1][:120]
        raise BadInput(f"{path}: cannot be read ({cause}); copy or write the file again") from None
    if (image.GetDimension(), image.GetNumberOfComponentsPerPixel()) != (3, 1):
        raise BadInput(f"{path}: not one volume of plain numbers; split its channels")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    return finished(path, voxels, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, label)


def _check_nrrd(path: Path, start: bytes) -> None:
    end = re.search(rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD") or end is None:
        raise BadInput(f"{path}: not an NRRD file; a download that failed often leaves a web page or a pointer")
    fields = _fields(start[: end.start()], ":")
    _check_needs(path, fields, NRRD_NEEDS, ())
    if fields["space"] not in SPACES:
        raise BadInput(f"{path}: its space is {fields['space']!r}; one of {', '.join(SPACES)} must stand there")
    if fields.get("space units", '"mm" "mm" "mm"').split() != ['"mm"'] * 3:
        raise BadInput(f"{path}: its space units are {fields['space units']}; write it in mm")
    if {"data file", "datafile", "byte skip", "line skip"} & fields.keys():
        raise BadInput(f"{path}: its voxels stand in another file or place; write it as one plain NRRD")
    need = _need(path, fields["sizes"], fields["type"])
    there = path.stat().st_size - end.end()
    if fields["encoding"] == "raw" and there != need:
        raise BadInput(f"{path}: {there} bytes of voxels, its header needs {need}; copy or write the file again")


def _check_meta(path: Path, start: bytes) -> None:
    head, _, rest = start.partition(b"ElementDataFile")
    fields = _fields(head + b"ElementDataFile" + rest.partition(b"\n")[0], "=")
    _check_needs(path, fields, META_NEEDS, META_EITHER)
    if min(_numbers(path, fields["ElementSpacing"])) <= 0:
        raise BadInput(f"{path}: its spacing {fields['ElementSpacing']} must be positive; write the header anew")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise BadInput(f"{path}: {fields['ElementNumberOfChannels']} channels; split them")
    need, name = _need(path, fields["DimSize"], fields["ElementType"]), fields["ElementDataFile"]
    inside = start.index(b"ElementDataFile") + len(rest.partition(b"\n")[0]) + len("ElementDataFile\n")
    there = path.stat().st_size - inside if name == "LOCAL" else _beside(path, name).stat().st_size
    if fields.get("CompressedData", "False") != "True" and there != need:
        raise BadInput(f"{path}: {there} bytes of voxels, its header needs {need}; copy or write the file again")


def _beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names, which must lie next to it."""
    found = path.parent / name
    if Path(name).name != name or found.is_symlink() or not found.is_file():
        raise BadInput(f"{path}: its voxels are said to be in {name!r}; they must be in a file beside it")
    return found


def _fields(head: bytes, sign: str) -> dict[str, str]:
    lines = (line.partition(sign) for line in head.decode("latin-1").splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip() for key, found, value in lines if found}


def _check_needs(
    path: Path, fields: dict[str, str], needs: tuple[str, ...], either: tuple[tuple[str, ...], ...]
) -> None:
    lacking = [name for name in needs if name not in fields] + [
        names[0] for names in either if not {*names} & {*fields}
    ]
    if lacking:
        raise BadInput(f"{path}: its header says nothing of {', '.join(lacking)}; write its geometry")


def _need(path: Path, sizes: str, kind: str) -> int:
    """The bytes of the voxels a header promises."""
    shape = _numbers(path, sizes)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > VOXELS:
        raise BadInput(f"{path}: {sizes} voxels are not those of one volume")
    if kind not in WIDTH:
        raise BadInput(f"{path}: its voxels are of the type {kind!r}; cast them to short or float")
    return int(math.prod(shape)) * WIDTH[kind]


def _numbers(path: Path, told: str) -> list[float]:
    try:
        found = [float(word) for word in told.split()]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise BadInput(f"{path}: {told!r} in its header; numbers must stand there")
    return found
